"""The truth table: its shape, its size, its memory."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from processes import alive, below, in_folder

from poolfork import servers
from poolfork import table as tables
from poolfork.actors import Spec, repeat
from poolfork.drivers import DRIVERS, address
from poolfork.hazards import all_hazards
from poolfork.nursery import _rehearse, drop_table, in_a_process, make_table
from poolfork.recipes import RECIPES
from poolfork.write_table import main

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_plan_has_a_cell_for_each_hazard_recipe_and_driver() -> None:
    """No combination is left out silently, and at least a thousand have a meaning."""
    jobs = tables.plan(DRIVERS.values(), RECIPES, all_hazards().values())
    there = {(job.cell["hazard"], job.cell["recipe"], job.cell["driver"]) for job in jobs}
    assert there == {(h, r, d) for h in all_hazards() for r in RECIPES for d in DRIVERS}
    meant = [
        job
        for job in jobs
        if not tables.meaningless(
            DRIVERS[job.cell["driver"]], RECIPES[job.cell["recipe"]], all_hazards()[job.cell["hazard"]]
        )
    ]
    assert len(meant) >= 1000


def test_what_another_cell_tells_is_measured_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out says why; ``--every-cell`` leaves nothing out, nor does who names a hazard."""
    asked: list[set[tuple[str, ...]]] = []

    def measure(groups: dict[str, list[tables.Job]], measurement: tables.Measurement) -> None:
        names = ("hazard", "variant", "recipe")
        asked.append({tuple(job.cell[name] for name in names) for job in groups["psycopg"]})

    monkeypatch.setattr(tables, "_measure", measure)
    for every_cell in False, True:
        told = tables.table(drivers=["psycopg"], cache=False, every_cell=every_cell)
        assert all(cell["detail"] for cell in told["cells"] if cell.get("outcome") == "not-run")
        assert bool(told["told_elsewhere"]) is not every_cell
    tables.table(drivers=["psycopg"], hazards=["temp-table"], cache=False)
    fewer, all_of_them, named = asked
    left_out = all_of_them - fewer
    assert fewer < all_of_them and not any(recipe == "guard" for *_, recipe in left_out)
    assert {("locked", "", "at-fork"), ("copy", "in", "forkserver"), ("crossed", "", "spawn")} <= left_out
    assert {("tls", "goodbye-exit", "dispose"), ("temp-table", "", "nothing")} <= left_out
    assert {("c-fork", "", "at-fork"), ("tls", "crossed", "dispose"), ("crossed", "", "forkserver")} <= fewer
    assert named == {cell for cell in all_of_them if cell[0] == "temp-table"}


def test_what_another_cell_tells_it_tells_rightly() -> None:
    """The published table has every cell: those that ``table`` leaves out pass where the cell does that tells them.

    Where the order of events is not forced (truth-table.rst says where), two cells that are the same may differ.
    """
    cells = json.loads((ROOT / "doc" / "measured" / "table.json").read_text())["cells"]
    passed = {
        (cell["recipe"], cell["hazard"], cell["variant"], cell["driver"]): cell["outcome"] == "ok"
        for cell in cells
        if cell["outcome"] != "not-run"
    }
    told = [
        (recipe, hazard, variant, driver)
        for recipe, hazard, variant, driver in passed
        if tables.told_elsewhere(RECIPES[recipe], all_hazards()[hazard], variant)
        and hazard != "locked"
        and not (hazard == "cursor" and driver in ("asyncmy", "aiomysql"))
    ]
    assert len(told) > 450 and {"temp-table", "tls"} < {hazard for _, hazard, *_ in told}
    for recipe, hazard, variant, driver in told:
        if (hazard, variant) in {("temp-table", ""), ("tls", "goodbye-exit")}:
            expected = passed[recipe, "goodbye-exit", "", driver]
        elif recipe == "at-fork":
            expected = passed["dispose(close=False)", hazard, variant, driver]
        else:
            expected = passed["forkserver", "crossed", "", driver]
        assert passed[recipe, hazard, variant, driver] is expected, (recipe, hazard, variant, driver)


def test_table_measured_twice_is_read_the_second_time(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time is instant, and the cells say when they were measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = [
        "--driver",
        "psycopg",
        "--hazard",
        "goodbye-close",
        "--hazard",
        "starved",
        "--hazard",
        "event-loop",
    ]
    assert main([*words, "--output", str(tmp_path / "first.json")]) == 0
    start = time.monotonic()
    assert main([*words, "--output", str(tmp_path / "second.json")]) == 0
    assert time.monotonic() - start < 3
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("first", "second"))
    assert first["cells"] == second["cells"]
    assert {"python", "sqlalchemy", "servers", "drivers"} <= set(first["versions"])
    for cell in first["cells"]:
        assert {"hazard", "recipe", "driver", "outcome", "runs", "detail"} <= set(cell)
        assert cell["outcome"] == "not-run" or (cell["runs"] > 0 and cell["measured"])
        assert cell["outcome"] != "not-run" or cell["detail"]
    assert {cell["outcome"] for cell in first["cells"] if cell["recipe"] == "guard"} == {"ok", "not-run"}


def test_cell_measured_often_is_called_by_its_worst_outcome() -> None:
    """One failure in many rounds is the outcome; how many were ok stands beside it; half a repetition is none."""
    jobs = [tables.Job({"hazard": name}) for name in ("crossed", "starved")]
    rounds = tables.again_and_again(jobs, 3)
    for number, word in enumerate(["ok", "ok", "hang", "ok", "ok"]):
        rounds[number].cell |= {"outcome": word, "runs": 1, "detail": word}
    tables.take_the_worst(jobs, rounds, 3)
    assert jobs[0].cell == {
        "hazard": "crossed", "outcome": "hang", "detail": "hang", "runs": 3, "passed": 2, "repeat": 3,
    }  # fmt: skip
    assert "outcome" not in jobs[1].cell


def test_memory_of_another_code_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell's key changes with the code, and the guard's with the guard's file."""
    monkeypatch.setattr(tables, "_digest", lambda file: "one")
    first = tables._code()
    monkeypatch.setattr(tables, "_digest", lambda file: "two")
    assert tables._code() != first


def test_missing_driver_is_listed_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not run is said, with the reason and the command."""
    monkeypatch.setattr(
        type(DRIVERS["pymysql"]), "missing", lambda self: "ModuleNotFoundError: no such thing"
    )
    assert tables.table(drivers=["pymysql"], cache=False)["not_run"] == [
        {
            "driver": "pymysql",
            "reason": "ModuleNotFoundError: no such thing",
            "command": "pip install pymysql",
        }
    ]


@pytest.mark.skipif(not pathlib.Path("/proc/loadavg").exists(), reason="only Linux tells what wants to run")
def test_a_cell_is_slow_rather_than_waiting_while_the_processors_are_taken() -> None:
    """Else ever more cells would begin on a machine that has no time for those that it has."""
    busy = "import time; end = time.monotonic() + 10\nwhile time.monotonic() < end: pass"
    hungry = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(3 * (os.cpu_count() or 1) + 2)]
    try:
        end, taken = time.monotonic() + 10, False
        while not taken and time.monotonic() < end:
            taken = tables._processors_are_taken()
            time.sleep(0.01)
        assert taken
    finally:
        for process in hungry:
            process.kill()
            process.wait()


def test_a_word_is_repeated_in_the_dialects_own_words() -> None:
    """It goes to the driver as it stands, so Oracle has to find its FROM in it; and it is compiled once."""
    oracle = sa.make_url("oracle+oracledb://").get_dialect()()
    assert "FROM DUAL" in repeat(oracle, "child")
    assert repeat(oracle, "child") is repeat(oracle, "child")


def test_rehearsal_leaves_nothing_to_inherit() -> None:
    """A nursery has spoken with the server before it forks: no connection, thread or loop may be left of that."""
    drivers = [driver for driver in DRIVERS.values() if not driver.missing()]
    drivers = [driver for driver in drivers if driver.server != "mysql" or servers.mariadb_home()]
    with tables.throw_away_servers({driver.server for driver in drivers}) as running:
        for driver in drivers:
            server = running[driver.server]
            there = f"sqlite:///{server.folder}/{driver.name}.db" if driver.server == "sqlite" else server.url
            url, arguments = address(driver, there)
            spec = Spec("", "", "nothing", driver.name, url, arguments, f"poolfork_{secrets.token_hex(6)}")

            def left_over(spec: Spec = spec) -> dict[str, Any]:
                make_table(spec, [0])
                gc.collect()
                before = set(pathlib.Path("/proc/self/fd").iterdir())
                _rehearse(spec)
                gc.unfreeze()
                engines = [thing for thing in gc.get_objects() if isinstance(thing, sa.Engine)]
                descriptors = set(pathlib.Path("/proc/self/fd").iterdir()) - before
                return {
                    "threads": threading.active_count(),
                    "descriptors": len(descriptors),
                    "engines": len(engines),
                }

            assert in_a_process(left_over, 20) == {"threads": 1, "descriptors": 0, "engines": 0}, driver.name
            in_a_process(functools.partial(drop_table, spec), 20)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_user_who_stops_a_table_leaves_nothing(
    how: signal.Signals, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ctrl-C, kill and kill -9 while it measures: no server, no nursery and no folder stays, nor a child that was stopped."""
    folder = tmp_path_factory.mktemp("t")
    for above in (folder, *folder.parents[:3]):  # as root, PostgreSQL runs as nobody
        with contextlib.suppress(PermissionError):
            above.chmod(above.stat().st_mode | 0o011)
    table = subprocess.Popen(
        [
            sys.executable, "-m", "poolfork", "table", "--no-cache", "--repeat", "60", "--driver", "psycopg",
            "--hazard", "crossed", "--recipe", "guard", "--recipe", "forkserver",
        ],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    ours: set[psutil.Process] = set()
    try:
        deadline = time.monotonic() + 60
        while not _stops_a_child(table.pid, ours):
            assert table.poll() is None and time.monotonic() < deadline, "it does not measure"
            ours |= below(table.pid)
        ours |= in_folder(folder) | below(table.pid)
        assert any("postgres" in process.name() for process in ours if alive(process))
        os.kill(table.pid, how)
        assert table.wait(40) == (130 if how == signal.SIGINT else -how)
    finally:
        table.kill()
        table.wait(10)
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and (
        any(map(alive, ours)) or in_folder(folder) or any(folder.iterdir())
    ):
        time.sleep(0.1)
    assert [process for process in ours | in_folder(folder) if alive(process)] == []
    assert list(folder.iterdir()) == []


def _stops_a_child(table: int, processes: set[psutil.Process]) -> bool:
    """Stop a forkserver's child, as a probe may at any moment, and first the cells, which would let it go on.

    It is in no session of a cell, hence not ended with one, and while it is stopped its alarm does not end it either.
    """
    cells, children = [], []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            above = process.parents()
            if "multiprocessing.forkserver" not in " ".join(process.cmdline()):
                cells += [process] * (table in [parent.pid for parent in above[2:]])
            elif "multiprocessing.forkserver" in " ".join(above[0].cmdline()):
                children.append(process)
    for process in cells + children if children else []:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    time.sleep(0.02)
    return any(alive(child) and child.status() == psutil.STATUS_STOPPED for child in children)
