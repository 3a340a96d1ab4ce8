"""Each stack does what its entry says, in a run of its app as a reader downloads it; what is missing is skipped visibly."""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from sphinx.directives.code import LiteralIncludeReader

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from stacks import all_stacks  # noqa: E402
from stacks.kit import (  # noqa: E402
    APPS,
    RECIPES,
    SERVICES,
    WORDS,
    Seen,
    Stack,
    answers,
    counts_in,
    end,
    free_port,
    hook_runs,
    mark,
    measure_stack,
    unexpected,
    workplace,
)  # fmt: skip

from poolfork.servers import postgres  # noqa: E402

STACKS = all_stacks()
DJANGO = next(stack for stack in STACKS if stack.id == "django-gunicorn-preload")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of a throw-away PostgreSQL with room for many pools."""
    with postgres(tcp=True) as server:
        yield server.url.replace("postgresql://", "postgresql+psycopg://")


def of_run(ours: set[pathlib.Path]) -> list[int]:
    """The processes on this machine that belong to the runs in these folders."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if pathlib.Path(process.environ().get("STACK_EVENTS", "")).parent in ours:
                found.append(process.pid)
    return found


def folders(of: int) -> set[pathlib.Path]:
    """The folders of the runs of a process."""
    return set(pathlib.Path("/tmp").glob(f"stack-{of}-*"))


def to_run(stack: Stack) -> tuple[str, ...]:
    """The recipes to run here: all for one setting of each stack, elsewhere the first that is to work."""
    if not stack.harmful:
        return ("nothing",)
    first = next(one for one in STACKS if one.name == stack.name and one.harmful)
    works = [recipe for recipe in stack.runs if recipe in (stack.clean or stack.runs[1:])]
    return stack.runs if stack is first else ("nothing", *works[:1])


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.id)
def test_a_stack_does_what_its_entry_expects(stack: Stack, database: str) -> None:
    """Its app runs: who inherits, which recipes leave every answer right; nothing is left behind."""
    if missing := stack.missing():
        pytest.skip(f"{missing}: {stack.install or 'pip install -r requirements/stacks.txt'}")
    measured = measure_stack(stack, database, to_run(stack))
    assert measured["unexpected"] == []
    assert measured["reaches"] == stack.reaches
    assert set(measured["load"]) == set(to_run(stack))
    assert not folders(os.getpid())


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.id)
def test_a_stack_has_an_app_to_download_and_a_page(stack: Stack) -> None:
    """Its files exist, an app's head says what it needs, and a page shows its evidence."""
    files = [file for file in (APPS / stack.app).iterdir() if file.is_file()]
    assert any("# dependencies = [" in file.read_text() for file in files)
    assert not {file.name for file in files} & {"guard.py", "load.py", "database.py"}
    assert set(stack.runs) <= {*RECIPES, *stack.recipes} and set(stack.services) <= set(SERVICES)
    page = re.sub(r"[^a-z0-9]+", "-", stack.name.lower()).strip("-")
    assert f".. stack:: {stack.name}\n" in (ROOT / "doc" / "stacks" / f"{page}.rst").read_text()


OBJECTS = {
    "engine",
    "app",
    "db",
    "broker",
    "client",
    "huey",
}  # the reader's own, by the names that everybody uses
BLOCK = re.compile(r"^\.\. literalinclude:: (\S+\.py)\n((?: +\S.*\n)*)", re.MULTILINE)


class Reading:
    """What Sphinx's reader of included files asks of a configuration."""

    source_encoding, tab_width = "utf-8", 4


def shown(page: pathlib.Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The Python blocks of a page as it shows them, each with its options."""
    for file, told in BLOCK.findall(page.read_text()):
        options: dict[str, Any] = {}
        for line in told.splitlines():
            if option := re.match(r" +:([\w-]+): ?(.*)", line):
                name, options[name] = option[1], option[2] or None
            else:
                options[name] += "\n" + line.strip()
        yield options, LiteralIncludeReader(str(page.parent / file), options, Reading()).read(None)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("page", sorted((ROOT / "doc" / "stacks").glob("*.rst")), ids=lambda page: page.stem)
def test_lines_to_paste_bring_their_imports(page: pathlib.Path) -> None:
    """What a page shows to be pasted uses nothing but the reader's own objects and what the page brings along."""
    bound, used = OBJECTS | set(dir(builtins)) | {"__name__"}, set()
    for options, block in shown(page):
        if "end-before" in options:
            continue  # shown to be read
        for node in ast.walk(ast.parse(block)):
            match node:
                case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                    bound.add(name)
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                    bound.add(name)
                case ast.alias(name=name, asname=other):
                    bound.add(other or name.partition(".")[0])
                case ast.Name(id=name):
                    used.add(name)
    assert used <= bound


def test_a_killed_measurement_leaves_no_process_and_no_folder(database: str) -> None:
    """kill -9 of the measuring process, while a stack runs, ends the stack's processes and removes its folder."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from stacks.kit import Stack, run;"
        "sleeper = [sys.executable, '-c', 'import os, time; os.fork() or os.setsid(); time.sleep(60)'];"
        "run(Stack(name='sleeper', setting='', app='gunicorn', command=lambda port: sleeper), 'nothing', sys.argv[3])"
    )
    command = [sys.executable, "-c", code, str(ROOT / "tools"), str(ROOT), database]
    measuring = subprocess.Popen(command, start_new_session=True)
    try:
        until = time.monotonic() + 30
        ours: set[pathlib.Path] = set()
        while not (ours and len(of_run(ours)) == 2):
            assert time.monotonic() < until and measuring.poll() is None
            ours = folders(measuring.pid)
            time.sleep(0.05)
    finally:
        measuring.kill()
        measuring.wait()
    until = time.monotonic() + 20
    while of_run(ours) or folders(measuring.pid):
        assert time.monotonic() < until, "the run outlived the process that measured"
        time.sleep(0.05)


def test_a_load_counts_what_comes_back() -> None:
    """Right answers, others' answers, errors: each is counted as what it is."""

    class App(http.server.BaseHTTPRequestHandler):
        """Errs for one number, answers another's for the next."""

        def do_GET(self) -> None:
            """Answer ``/?n=NUMBER``."""
            number = int(self.path.rpartition("=")[2])
            self.send_response(500 if number == 1 else 200)
            self.end_headers()
            self.wfile.write(b"7" if number == 2 else str(number).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), App) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, str(APPS / "load.py"), f"http://127.0.0.1:{server.server_port}", "20"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        server.shutdown()
    assert counts_in(done.stdout) == {"right": 18, "wrong-row": 1, "error": 1, "hang": 0}, done


def test_a_reader_gets_a_database_that_ends_with_the_program() -> None:
    """database.py gives its command a PostgreSQL, passes its exit code on, and leaves no folder."""
    before = set(pathlib.Path("/tmp").glob("database-*"))
    code = (
        "import os, sqlalchemy as sa; engine = sa.create_engine(os.environ['DATABASE_URL']);"
        "c = engine.connect(); raise SystemExit(40 + c.scalar(sa.text('SELECT 2')))"
    )
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, str(APPS / "database.py"), sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 42, done
    until = time.monotonic() + 20
    while set(pathlib.Path("/tmp").glob("database-*")) - before:
        assert time.monotonic() < until, "its folder is still there"
        time.sleep(0.05)


def event(pid: int, what: str, at: float, **more: object) -> dict[str, object]:
    """An event as the witness writes it."""
    return {"pid": pid, "ppid": 1 if pid == 10 else 10, "event": what, "at": at, "opened_by": pid} | more


def test_workers_are_those_who_used_a_pool_and_did_not_start_others_that_did() -> None:
    """A parent that used its pool is no worker; who took its connection inherited it."""
    seen = Seen(
        {}, [event(10, "checkout", 1), event(11, "checkout", 2, opened_by=10), event(12, "checkout", 3)]
    )
    assert seen.workers == [11, 12] and seen.inherited == 1
    assert Seen({}, [event(10, "checkout", 1)]).workers == [10]


def test_a_hook_is_told_by_where_it_ran_and_when() -> None:
    """In all, some or no workers; before or after their first use; in the one that came for a killed one."""
    one, two = event(11, "checkout", 2), event(12, "checkout", 5)
    assert hook_runs(Seen({}, [one, two])) == "in no worker"
    some = hook_runs(Seen({}, [event(11, "disposed", 1), one, two]))
    assert some == "in 1 of 2 workers, before their first use of the pool"
    late = hook_runs(Seen({}, [one, event(11, "disposed", 3), two, event(12, "disposed", 6)]))
    assert late == "in all 2 workers, after their first use of the pool"
    killed = [event(11, "disposed", 1), one, event(11, "killed", 3), event(12, "disposed", 4), two]
    assert hook_runs(Seen({}, killed)).endswith("; 1 of them replaced one that was killed")


def test_what_an_entry_did_not_expect_is_said() -> None:
    """Each way in which a measurement can differ from the entry is a sentence."""
    clean, dirty = dict.fromkeys(WORDS, 0) | {"right": 9}, dict.fromkeys(WORDS, 0) | {"right": 8, "error": 1}
    stack = Stack(name="it", setting="", app="gunicorn", command=lambda port: [])
    assert unexpected(stack, {"reaches": True, "load": {"nothing": dirty, "at-fork": clean}}) == []
    assert len(unexpected(stack, {"reaches": False, "load": {"nothing": clean, "guard": dirty}})) == 3
    c_fork = dataclasses.replace(stack, clean=("guard",))
    assert len(unexpected(c_fork, {"reaches": True, "load": {"nothing": dirty, "at-fork": clean}})) == 1


@pytest.mark.skipif(
    bool(DJANGO.missing()), reason=f"{DJANGO.missing()}: pip install -r requirements/stacks.txt"
)
def test_djangos_first_request_ends_the_session_of_its_master(database: str) -> None:
    """Under --preload with CONN_MAX_AGE = 0 a worker closes what it inherited, and with it the master's session."""
    import psycopg

    of_master = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'master' AND backend_type = 'client backend'"
    port = free_port()
    with workplace() as folder, psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as server:

        def sessions() -> int:
            row = server.execute(of_master).fetchone()
            return int(row[0]) if row else 0

        shutil.copytree(APPS / DJANGO.app, folder / "app")
        env = (
            os.environ | mark(folder) | {"DATABASE_URL": database, "HOME": str(folder), "PGAPPNAME": "master"}
        )
        command = DJANGO.command(port)
        program = subprocess.Popen(
            command, cwd=folder / "app", env=env, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until = time.monotonic() + 60
            while sessions() != 1 or not answers(port):
                assert time.monotonic() < until and program.poll() is None
                time.sleep(0.05)
            urllib.request.urlopen(f"http://127.0.0.1:{port}/?n=1", timeout=60).close()
            until = time.monotonic() + 10
            while sessions():
                assert time.monotonic() < until, "the master's session is still there"
                time.sleep(0.05)
        finally:
            end(program)
