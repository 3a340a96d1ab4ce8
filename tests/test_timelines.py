"""Time lines are recorded: what they tell is what was said on the wires, by whom."""

from __future__ import annotations

import json
import pathlib
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from poolfork.hazards import all_hazards
from poolfork.servers import Server, postgres

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "doc" / "_ext")]

import hazard_pages  # noqa: E402 - found by the line above
import measure_timelines  # noqa: E402
from timelines import live, wire  # noqa: E402


def message(kind: str, body: bytes) -> bytes:
    """A message of PostgreSQL's protocol."""
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


def test_messages_of_postgresql_are_told_apart() -> None:
    """Statements by their text, also when only their name is sent; in whatever pieces they come."""
    startup = struct.pack("!ii", 8, 80877103) + struct.pack("!ii", 8 + 12, 196608) + b"user\0root\0\0\0"
    said = startup + message("Q", b"BEGIN\0") + message("P", b"s1\0SELECT 1\0\0\0")
    said += message("B", b"\0s1\0\0\0\0\0\0\0") + message("X", b"")
    for size in (1, 7, len(said)):
        messages = wire.postgresql_messages()
        next(messages)
        pieces = (said[at : at + size] for at in range(0, len(said), size))
        assert [text for piece in pieces for text in messages.send(piece)] == [
            "BEGIN",
            "SELECT 1",
            "Terminate",
        ]


def test_messages_of_mysql_are_told_apart() -> None:
    """Commands begin at number 0; the handshake's packets do not."""
    said = b"\x02\0\0\x01\x03x" + b"\x09\0\0\0\x03SELECT 1" + b"\x01\0\0\0\x01"
    for size in (1, 5, len(said)):
        messages = wire.mysql_messages()
        next(messages)
        pieces = (said[at : at + size] for at in range(0, len(said), size))
        assert [text for piece in pieces for text in messages.send(piece)] == ["SELECT 1", "Quit"]


def test_a_statement_is_spelled_with_its_values() -> None:
    """Whatever the driver's placeholders are."""
    assert live.spelled("SELECT %(a)s::VARCHAR AS anon_1", {"a": "x"}, False) == "SELECT 'x'"
    assert live.spelled("SELECT $1::VARCHAR AS anon_1", ("x",), False) == "SELECT 'x'"
    assert (
        live.spelled("INSERT INTO t VALUES (?, ?)", [(1, 2), (3, 4)], True)
        == "INSERT INTO t VALUES (?, ?) (2 rows)"
    )


def test_every_hazard_has_its_time_line() -> None:
    """A hazard that is new has a scene, a heading, and pictures: one where it strikes, one where the guard is."""
    hazards = set(all_hazards())
    assert {scene.hazard for scene in measure_timelines.SCENES} == hazards == set(hazard_pages.CLAIMS)
    published = json.loads((ROOT / "doc" / "measured" / "timelines.json").read_text())["timelines"]
    assert set(published) == hazards
    for name, (without, guarded) in published.items():
        assert without["outcome"] != "ok" and guarded["outcome"] == "ok", name
        assert guarded["recipe"] == "guard"
        for take in without, guarded:
            drawn = hazard_pages.steps_of(take)
            assert len(drawn) == len(take["steps"]) > 4, name
            assert take["outcome"] in {step.outcome for step in drawn}, f"{name}: no step shows the outcome"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL on the loopback."""
    with postgres(tcp=True) as running:
        yield running


def rows(hazard: str, server: Server, recipe: str) -> list[tuple[str, str, str]]:
    """The steps of a hazard's scene, recorded now."""
    scene = next(scene for scene in measure_timelines.SCENES if scene.hazard == hazard)
    with measure_timelines.recorded(scene, {"postgresql": server}) as run:
        take: dict[str, Any] = run(recipe)
    return [(row["who"], row["does"], row["sees"]) for row in take["steps"]]


@pytest.mark.slow
def test_a_goodbye_on_an_inherited_wire_is_seen_there(server: Server) -> None:
    """No statement explains it; the front before the server has it, and knows whose session that is."""
    told = rows("goodbye-close", server, "dispose")
    goodbye = next(row for row in told if "Terminate" in row[1])
    assert goodbye[0] in ("child", "server") and goodbye[2] == "on session 1, the parent's"
    assert told.index(goodbye) > told.index(("child", "engine.dispose()", ""))
    assert told[-1][0] == "parent" and told[-1][2].startswith("parent-lost: ")


@pytest.mark.slow
def test_guarded_child_says_nothing_on_its_parents_wire(server: Server) -> None:
    """Its rollback of what it holds is called, and reaches no server."""
    told = rows("held-finish", server, "guard")
    assert ("child", "begins", "has no socket of the parent's") in told
    assert ("child", "ROLLBACK", "reaches no server") in told
    assert not [row for row in told if row[0] == "child" and "the parent's" in row[2] and "session" in row[2]]
    assert told[-1] == ("parent", "finds", "ok")


@pytest.mark.slow
def test_unguarded_childs_rollback_is_on_its_parents_wire(server: Server) -> None:
    """The same steps with dispose(close=False): the picture of a lost COMMIT."""
    told = rows("held-finish", server, "dispose(close=False)")
    order = [
        ("parent", "INSERT INTO t (id, who) VALUES (1, 'parent')", "on session 1"),
        ("child", "ROLLBACK", "on session 1, the parent's"),
        ("parent", "COMMIT", "on session 1"),
    ]
    assert [row for row in told if row in order] == order
    assert told[-1][2].startswith("write-lost: ")
