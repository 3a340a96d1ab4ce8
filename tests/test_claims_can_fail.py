"""A claim that cannot fail proves nothing: each fix is replaced by nothing, and its demo must say so."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import uuid
from typing import NamedTuple

import pytest
from test_demos import survivors

from poolfork.servers import Server, mariadb_home

DEMOS = pathlib.Path(__file__).parent.parent / "demos"
STRANGER = 'if connection_record.info["pid"] != os.getpid():'
LET_GO = "connection_record.dbapi_connection = connection_proxy.dbapi_connection = None"
IMPATIENT = ("else 20)", "else 1)")  # a broken storm hangs, and nothing is gained by waiting for it


class Break(NamedTuple):
    """One way to take a fix away: texts to replace, each found exactly once, and what the demo then says."""

    name: str
    demo: str
    replace: tuple[tuple[str, str], ...]
    says: str


BREAKS = [
    Break(
        "dispose in the child",
        "plot_dispose_in_child.py",
        (("outcomes(lambda engine: engine.dispose(close=False))", "outcomes(lambda engine: None)"),),
        r"close=False gives each process a session of its own",
    ),
    Break(
        "dispose in the child, in the form of 2015",
        "plot_dispose_in_child.py",
        (
            (
                "outcomes(lambda engine: engine.dispose(close=False))",
                "outcomes(lambda engine: engine.dispose())",
            ),
        ),
        r"close=False gives each process a session of its own",
    ),
    Break(
        "PID event",
        "plot_pid_event.py",
        ((STRANGER, "if False:"),),
        r"the PID event gives each process a session of its own",
    ),
    Break(
        "PID event, its line that lets go",
        "plot_pid_event.py",
        ((LET_GO, "pass"),),
        r"the child was answered: OperationalError",
    ),
    Break(
        "storm, dispose in the child",
        "plot_fixes_under_storm.py",
        (("            engine.dispose(close=False)\n", "            pass\n"), IMPATIENT),
        r"dispose\(close=False\): (no wrong row, no error, no hang|each process has a backend of its own)",
    ),
    Break(
        "storm, PID event",
        "plot_fixes_under_storm.py",
        ((STRANGER, "if False:"), IMPATIENT),
        r"pid-event: (no wrong row, no error, no hang|each process has a backend of its own)",
    ),
    Break(
        "NullPool",
        "plot_null_pool.py",
        (("inherit(sa.NullPool)", "inherit(sa.QueuePool)"),),
        r"with NullPool every connection that the child inherits is already closed",
    ),
    Break(
        "dispose before the fork",
        "plot_dispose_before_fork.py",
        (("    engine.dispose()\n    tell(", "    tell("),),
        r"dispose\(\) leaves nothing idle",
    ),
    Break(
        "at-fork hook",
        "plot_at_fork_hook.py",
        (("os.register_at_fork(after_in_child=forget_inherited)", ""),),
        r"the hook gives every child a session of its own",
    ),
    Break(
        "spawn and forkserver",
        "plot_spawn_forkserver.py",
        (('run("spawn", "forkserver", "forkserver",', 'run("fork", "fork", "fork",'),),
        r"spawned and forkserver children inherit no connection",
    ),
    Break(
        "garbage collector, the null device",
        "plot_garbage_collector.py",
        (("        os.dup2(os.open(os.devnull, os.O_RDWR), socket)\n", "        pass\n"),),
        r"a goodbye to the null device leaves the parent's session alone",
    ),
    Break(
        "normal exit, the null device",
        "plot_normal_exit.py",
        (("[os.dup2(os.open(os.devnull, os.O_RDWR), socket) for socket in sockets]; ", ""),),
        r"a goodbye to the null device leaves the parent's session alone",
    ),
    Break(
        "thread-local, the hook before the fork",
        "plot_thread_local.py",
        (("before=lambda: pins.extend(held)", "before=pins.clear"),),
        r"what is pinned before the fork keeps the row",
    ),
    Break(
        "fork in C, the PID event",
        "plot_c_fork.py",
        (('if record.info["pid"] != os.getpid():', "if False:"),),
        r"the PID event needs no hook",
    ),
]
needs_mariadb = pytest.mark.skipif(mariadb_home() is None, reason="no mariadbd: the demo is not run")
BROKEN = [
    pytest.param(b, id=b.name.replace(" ", "-"), marks=[needs_mariadb] if "normal_exit" in b.demo else [])
    for b in BREAKS
]


def source_of(demo: str) -> str:
    """The text of the demo of that file name."""
    (file,) = DEMOS.glob(f"*/{demo}")
    return file.read_text()


def run(source: str, name: str, folder: pathlib.Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a source as a plain script in an otherwise empty folder."""
    (folder / name).write_text(source)
    return subprocess.run(
        [sys.executable, name], cwd=folder, env={**os.environ, **changes}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_demo_whose_fix_is_taken_away_fails_with_its_claim(
    broken: Break, tmp_path: pathlib.Path, postgres_server: Server
) -> None:
    """Without its fix a demo exits non-zero, its AssertionError is the claim's sentence, and no child survives."""
    source = source_of(broken.demo)
    for old, new in broken.replace:
        assert source.count(old) == 1, f"{broken.demo} no longer has, once, the text that is the fix: {old!r}"
        source = source.replace(old, new)
    marker = uuid.uuid4().hex
    done = run(source, broken.demo, tmp_path, DATABASE_URL=postgres_server.url, POOLFORK_TEST=marker)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"^AssertionError: {broken.says}", done.stderr, re.MULTILINE), done.stderr[-2000:]
    assert survivors(marker) == []


@pytest.mark.parametrize("demo", sorted({broken.demo for broken in BREAKS}))
def test_demo_with_its_fix_in_place_holds(demo: str, tmp_path: pathlib.Path, postgres_server: Server) -> None:
    """The original passes on the same server, so that what fails above fails for want of the fix."""
    marker = uuid.uuid4().hex
    source = source_of(demo)
    done = run(source, demo, tmp_path, DATABASE_URL=postgres_server.url, POOLFORK_TEST=marker)
    assert done.returncode == 0, done.stderr[-2000:]
    assert survivors(marker) == []


def test_every_fix_has_a_way_to_break() -> None:
    """A new demo of a fix comes with the proof that its claim can fail."""
    assert {broken.demo for broken in BREAKS} >= {demo.name for demo in (DEMOS / "2_fixes").glob("plot_*.py")}
