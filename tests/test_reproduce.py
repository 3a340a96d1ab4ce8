"""Every error text that the symptoms' page claims to have been produced is produced: real drivers, real servers."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from poolfork.explain import explain, symptoms
from poolfork.reproduce import all_reproductions
from poolfork.reproduce.places import Places
from poolfork.reproduce.play import text
from poolfork.reproduce.stage import NotShown, Place, Stage, Wire, Worker, text_of
from poolfork.servers import ServerError

ROOT = pathlib.Path(__file__).parent.parent
EVERY = all_reproductions().values()
pytestmark = pytest.mark.xdist_group("reproduce")  # one set of servers


@pytest.fixture(scope="module")
def places():
    """The servers, each started when it is first needed."""
    with Places() as places:
        yield places


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_text_is_produced_and_finds_its_entry_first(one, places):
    """The steps of one reproduction, and what explain says to the text that came."""
    if why := one.missing():
        pytest.skip(why)
    try:
        place = places(one.server, one.tls)
    except ServerError as error:
        pytest.skip(str(error))
    said = text(one, place)
    assert [match.symptom["id"] for match in explain(said).matches][:1] == [one.symptom], said


def test_every_reproduction_belongs_to_an_entry_and_says_what_happens():
    """Its symptom exists, its docstring is more than a title where it stands for others."""
    known = {one["id"] for one in symptoms()["symptom"]}
    for one in EVERY:
        assert one.symptom in known and one.source.startswith("def ") and '"""' in one.source, one.name


def test_wire_hands_over_what_it_kept_in_the_parts_it_is_told(tmp_path):
    """The relay changes nothing: every byte arrives, in order, when it is given."""
    import socket

    server = socket.create_server(("127.0.0.1", 0))
    wire = Wire(server.getsockname()[:2])
    with socket.create_connection(("127.0.0.1", wire.port), timeout=5) as client, server.accept()[0] as far:
        client.sendall(b"question")
        assert far.recv(100) == b"question"
        wire.keeps()
        far.sendall(b"answer")
        assert wire.hears(lambda said: len(said) == 6) == b"answer"
        wire.gives(2)
        assert client.recv(100) == b"an"
        wire.until_read()
        far.sendall(b", late")
        assert wire.control.poll(5)  # it keeps that too, and nobody has asked for it
        wire.passes()
        far.sendall(b"!")
        client.settimeout(5)
        assert b"".join(iter(lambda: client.recv(1), b"!")) == b"swer, late"
    server.close()
    os.kill(wire.pid, 9)
    os.waitpid(wire.pid, 0)


def test_worker_tells_its_error_as_a_log_would():
    """With the module of the error, and with the line in the driver for Python's own errors."""
    worker = Worker(lambda: 1 / 0)
    assert worker.says() == "ZeroDivisionError: division by zero"
    worker.leaves()
    with pytest.raises(NotShown):
        worker.says()
    assert text_of(lambda: "row") == "'row'"


def test_a_server_that_is_not_there_is_a_reason_and_not_a_failure(places, monkeypatch):
    """It is said whenever it is asked for."""
    monkeypatch.setattr("poolfork.reproduce.places._START", {"redis": _refuses})
    with Places() as others:
        for _ in range(2):
            with pytest.raises(ServerError, match="not here"):
                others("redis")
    stage = Stage(Place(str(ROOT), "nothing"), driver="psycopg2")
    assert stage.logged == 0


def _refuses():
    raise ServerError("not here")


def test_command_says_when_nothing_is_called_so():
    """One sentence, exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "poolfork.reproduce", "nonsense"],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "poolfork.reproduce: no reproduction is called like nonsense\n"
