"""Probes measure what they say: known failures are seen, known remedies pass, nothing is left behind."""

from __future__ import annotations

import asyncio
import pathlib
import re
import tempfile
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from poolfork import servers
from poolfork.actors import Line
from poolfork.check import check
from poolfork.drivers import DRIVERS, address
from poolfork.hazards import all_hazards
from poolfork.table import Door, Measurement, nurseries, plan


@pytest.fixture(scope="module")
def postgres() -> Iterator[servers.Server]:
    """A PostgreSQL for this module, with a loopback port and TLS."""
    with servers.postgres(tcp=True) as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[servers.Server]:
    """A MariaDB for this module, where the machine has one."""
    if servers.mariadb_home() is None:
        pytest.skip("no mariadbd on this machine")
    with servers.mariadb() as server:
        yield server


def outcomes(server: servers.Server, driver: str, recipe: str, *hazards: str) -> dict[str, str]:
    """What one driver and recipe come to, by hazard and variant."""
    if reason := DRIVERS[driver].missing():
        pytest.skip(reason)
    url, _ = address(DRIVERS[driver], server.url)
    measured = check(sa.make_url(url), DRIVERS[driver], [recipe], list(hazards))
    return {f"{cell['hazard']} {cell['variant']}".strip(): cell["outcome"] for cell in measured["cells"]}


def test_child_without_recipe_and_parent_get_each_others_rows(postgres: servers.Server) -> None:
    """Crossed is forced: psycopg2's parent reads the row that its child asked for."""
    assert outcomes(postgres, "psycopg2", "nothing", "crossed", "c-fork") == {
        "crossed": "wrong-row",
        "c-fork": "wrong-row",
    }


def test_child_that_disposes_ends_the_parents_session(postgres: servers.Server) -> None:
    """The advice of 2015 loses the parent; ``close=False`` does not, with psycopg2."""
    assert outcomes(postgres, "psycopg2", "dispose", "goodbye-close") == {"goodbye-close": "parent-lost"}
    assert outcomes(
        postgres, "psycopg2", "dispose(close=False)", "goodbye-close", "goodbye-gc", "goodbye-exit"
    ) == {
        "goodbye-close": "ok",
        "goodbye-gc": "ok",
        "goodbye-exit": "ok",
    }


def test_child_that_closes_its_copy_makes_the_parents_commit_a_lie(postgres: servers.Server) -> None:
    """No published recipe helps a held connection; the guard does."""
    for recipe in "nothing", "dispose(close=False)", "pid-event", "at-fork":
        assert outcomes(postgres, "psycopg2", recipe, "held-finish")["held-finish close"] == "write-lost"
    assert set(outcomes(postgres, "psycopg2", "guard", "held-finish", "held-use").values()) == {"ok"}


def test_child_starves_and_hangs_with_the_pid_event(postgres: servers.Server) -> None:
    """The PID event leaves the parent's counters and locks in the child."""
    seen = outcomes(postgres, "psycopg2", "pid-event", "starved", "locked")
    assert (seen["starved"], seen["locked"]) == ("starved", "hang")


def test_child_that_speaks_first_hears_what_the_parent_listens_for(postgres: servers.Server) -> None:
    """A notification goes to whoever reads the wire next; a recipe for the pool keeps it for the parent."""
    assert outcomes(postgres, "psycopg2", "nothing", "notify") == {
        "notify idle": "wrong-row",
        "notify held": "ok",
    }
    assert outcomes(postgres, "psycopg2", "null-pool", "notify")["notify held"] == "parent-lost"
    assert set(outcomes(postgres, "psycopg2", "guard", "notify").values()) == {"ok"}


def test_child_that_unwinds_a_copy_ends_the_parents(postgres: servers.Server) -> None:
    """The child's way out through the parent's frames says CopyFail on the parent's wire, whatever the recipe."""
    for recipe in "dispose(close=False)", "at-fork":
        assert outcomes(postgres, "psycopg2", recipe, "copy")["copy in"] != "ok"
    assert outcomes(postgres, "psycopg2", "guard", "copy")["copy in"] == "ok"


def test_child_is_told_that_it_holds_the_parents_lock(postgres: servers.Server) -> None:
    """A session's lock that lies in the pool excludes nobody who inherits the session."""
    assert outcomes(postgres, "psycopg", "nothing", "advisory-lock")["advisory-lock idle"] == "wrong-row"
    assert set(outcomes(postgres, "psycopg", "guard", "advisory-lock").values()) == {"ok"}


def test_parent_reads_a_cursor_that_exceeds_every_buffer(mariadb: servers.Server) -> None:
    """What the child drains is missing in the parent: rows that fitted into its buffer would hide that."""
    assert outcomes(mariadb, "pymysql", "dispose(close=False)", "cursor")["cursor close"] == "hang"
    assert set(outcomes(mariadb, "pymysql", "guard", "cursor").values()) == {"ok"}


def test_child_forked_from_c_runs_no_hook(postgres: servers.Server) -> None:
    """``os.register_at_fork`` does nothing for a fork of C's own; the guard still does."""
    assert outcomes(postgres, "psycopg2", "at-fork", "c-fork") == {"c-fork": "wrong-row"}
    assert outcomes(postgres, "psycopg2", "guard", "c-fork") == {"c-fork": "ok"}


def test_child_on_forkserver_inherits_nothing(postgres: servers.Server) -> None:
    """A fork server that was started empty hands nothing on."""
    assert set(outcomes(postgres, "psycopg", "forkserver", "crossed", "state", "held-use").values()) == {"ok"}


def test_child_that_lets_an_asyncio_loop_go_silences_the_parents(postgres: servers.Server) -> None:
    """The epoll object is shared: a collected loop takes the parent's wake-up pipe out of it."""
    assert outcomes(postgres, "asyncpg", "null-pool", "event-loop")["event-loop wakes"] == "hang"
    assert set(outcomes(postgres, "asyncpg", "guard", "event-loop").values()) == {"ok"}


def test_child_of_mysqlclient_loses_the_parent_by_exit_alone(mariadb: servers.Server) -> None:
    """Today's recommended recipe fails on mysqlclient once the child collects or exits."""
    assert outcomes(
        mariadb, "mysqldb", "dispose(close=False)", "goodbye-close", "goodbye-gc", "goodbye-exit"
    ) == {
        "goodbye-close": "ok",
        "goodbye-gc": "parent-lost",
        "goodbye-exit": "parent-lost",
    }
    assert set(outcomes(mariadb, "mysqldb", "guard", "goodbye-gc", "goodbye-exit").values()) == {"ok"}


def test_child_of_sqlite_breaks_the_parents_transaction(tmp_path: pathlib.Path) -> None:
    """SQLite's locks are not inherited: a copy's ROLLBACK undoes half of the parent's transaction."""
    file = tmp_path / "some.db"
    file.write_bytes(b"")
    for recipe, wanted in ("dispose(close=False)", "write-lost"), ("guard", "ok"):
        url = sa.make_url(f"sqlite:///{file}")
        cells = check(url, DRIVERS["sqlite"], [recipe], ["file-lock"])["cells"]
        assert cells[0]["outcome"] == wanted, cells
    assert file.read_bytes() == b"", "the user's own file is left alone"


def test_parent_over_tls_sees_the_reported_error(postgres: servers.Server) -> None:
    """Over TLS (a front's, when the server has none) the shared wire gives the text that users report."""
    if postgres.tls is None:
        pytest.skip(str(postgres.no_tls))
    jobs = [
        job
        for job in plan([DRIVERS["psycopg2"]], ["nothing", "guard"], [all_hazards()["tls"]])
        if job.cell["variant"] in ("crossed", "goodbye-gc")
    ]
    door = Door(*address(DRIVERS["psycopg2"], postgres.tls, str(postgres.ca)))
    with nurseries({"psycopg2": jobs}) as lines:
        asyncio.run(Measurement().run({"psycopg2": jobs}, lambda name, transport: door, lines))
    seen = {(job.cell["recipe"], job.cell["variant"]): job.cell for job in jobs}
    assert re.search("bad record mac|EOF detected", seen["nothing", "goodbye-gc"]["detail"])
    assert seen["guard", "crossed"]["outcome"] == seen["guard", "goodbye-gc"]["outcome"] == "ok"


def test_mariadb_that_starts_removes_nothing_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server's temporary tables may lie in TMPDIR; MariaDB deletes what it takes for its own there."""
    if servers.mariadb_home() is None:
        pytest.skip("no mariadbd on this machine")
    with tempfile.TemporaryDirectory() as folder:
        others = pathlib.Path(folder, "#sql-temptable-1-1-0.MAI")
        others.touch()
        for path in others.parent, others:
            path.chmod(0o777)  # as root it runs as nobody
        monkeypatch.setenv("TMPDIR", folder)
        with servers.mariadb():
            assert others.exists()


def test_check_leaves_no_table(postgres: servers.Server) -> None:
    """The one table that was made is gone when the check is over."""
    outcomes(postgres, "psycopg", "nothing", "crossed", "held-finish")
    engine = sa.create_engine(address(DRIVERS["psycopg"], postgres.url)[0])
    try:
        assert [name for name in sa.inspect(engine).get_table_names() if name.startswith("poolfork_")] == []
    finally:
        engine.dispose()


def test_a_line_carries_facts_whole_and_tells_its_end() -> None:
    """More than a socket's buffer arrives in one piece; who is gone is an end, and not a wait."""
    ours, theirs = Line.pair()
    assert not ours.poll(0)
    facts = {"sessions": [1, "two"], "text": "x" * 1_000_000}
    writer = threading.Thread(target=theirs.send, args=[facts])
    writer.start()
    assert ours.recv() == facts
    writer.join(5)
    theirs.send({"left": "exit"})
    theirs.close()
    assert ours.poll(5)
    assert ours.recv() == {"left": "exit"}
    assert ours.poll(5)
    with pytest.raises(EOFError):
        ours.recv()
    with pytest.raises(OSError):
        ours.send({"anyone": "there"})


def test_every_hazard_can_be_read() -> None:
    """Each has a criterion, a sentence, and a place to read it; design's words are all there."""
    words = {
        "crossed",
        "goodbye-close",
        "goodbye-gc",
        "goodbye-exit",
        "held-finish",
        "held-use",
        "starved",
        "locked",
        "thread-local",
        "grandchild",
        "state",
        "c-fork",
        "event-loop",
        "tls",
        "notify",
        "copy",
    }
    assert words <= set(all_hazards())
    for hazard in all_hazards().values():
        module, first, last = hazard.source
        assert (
            hazard.passes_when
            and hazard.probe.__doc__
            and module.startswith("poolfork.hazards.")
            and last > first
        )
        assert hazard.listing.startswith("@hazard(") and "def child" in hazard.listing, (
            "the child's steps too"
        )
