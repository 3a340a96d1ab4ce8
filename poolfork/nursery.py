"""Where cells are born: a fresh process, without a single connection, that forks a parent for each cell.

`main` is all that its process does. It inherits a *line*, a socket, for each driver, and forks a
nursery for each, which hence need not import everything again. A nursery reads jobs from its line,
one JSON object each, and writes there what came of them. Each cell's parent leads a session of its
own, so that it is killed with all its children; when the line ends, however that comes, everything
ends, and the nursery drops the table that it made.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver, resource_tracker
from typing import Any

import sqlalchemy as sa

from poolfork.actors import SEVERITY, START, STEP, NotRun, Parent, Spec, repeat, tell
from poolfork.hazards import all_hazards
from poolfork.recipes import recipe


@dataclass
class Cell:
    """A cell while it is measured."""

    number: int
    pid: int
    pipe: int
    seconds: float
    patience: float
    started: float = field(default_factory=time.monotonic)
    step_started: float = field(default_factory=time.monotonic)
    step: str = "start"
    findings: list[tuple[str, str]] = field(default_factory=list)
    rest: bytes = b""
    runs: int = 1
    not_run: str | None = None
    done: bool = False

    def heard(self, data: bytes) -> None:
        """Take in what the cell's parent reports."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            fact = json.loads(line)
            self.step_started = time.monotonic()
            if "step" in fact:
                self.step = fact["step"]
            elif "outcome" in fact:
                self.findings.append((fact["outcome"], fact["detail"]))
            elif "not_run" in fact:
                self.not_run, self.done = fact["not_run"], True
            else:
                self.runs, self.done = fact["runs"], True

    def left(self) -> float:
        """The seconds until it may have to be ended."""
        now = time.monotonic()
        ends = self.step_started + self.patience, self.started + self.seconds
        return max(0.0, min(ends) - now) + 0.01

    def overstays(self) -> str | None:
        """Why it has to be ended now, or None."""
        now = time.monotonic()
        if now - self.step_started > self.patience:
            return f"{self.step}: no end after {self.patience:.1f} s"
        if now - self.started > self.seconds:
            return f"{self.step}: the cell took more than {self.seconds:g} s"
        return None

    def result(self) -> dict[str, Any]:
        """The cell's outcome: the worst of what was found; its detail first."""
        took = {"number": self.number, "seconds": round(time.monotonic() - self.started, 3)}
        if self.not_run:
            return took | {"outcome": "not-run", "detail": self.not_run, "runs": 0}
        findings = sorted(self.findings, key=lambda finding: SEVERITY.index(finding[0]))
        outcome = findings[0][0] if findings else "ok"
        details = dict.fromkeys(f"{word}: {text}" if word != outcome else text for word, text in findings)
        return took | {"outcome": outcome, "detail": "; ".join(details)[:1200], "runs": self.runs}


class Nursery:
    """Runs cells, some at a time, until its line ends."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.cells: dict[int, Cell] = {}
        self.tables: list[Spec] = []

    def run(self) -> Callable[[], None] | None:
        """Serve; returns None at the end, and in each cell's parent the function that it is to call."""
        rest, open_ = b"", True
        while open_:
            ready, _, _ = select.select([self.line, *self.cells], [], [], self._patience())
            if self.line in ready:
                data = self._hears()
                open_ = bool(data)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    life = self._born(json.loads(line))
                    if life is not None:
                        return life
            for pipe in [pipe for pipe in ready if pipe != self.line]:
                data = os.read(pipe, 65536)
                self.cells[pipe].heard(data)
                if not data:
                    self.cells[pipe].findings.append(("error", f"{self.cells[pipe].step}: the parent died"))
                    self.cells[pipe].done = True
            for cell in list(self.cells.values()):
                late = cell.overstays()
                if late and not cell.done:
                    cell.findings.append(("hang", late))
                if cell.done or late:
                    self._ends(cell)
        for cell in list(self.cells.values()):
            self._ends(cell, say=False)
        for table in self.tables:
            in_a_process(functools.partial(drop_table, table))
        return None

    def _patience(self) -> float | None:
        """How long nothing can happen but what is read."""
        return min((cell.left() for cell in self.cells.values()), default=None)

    def _born(self, job: dict[str, Any]) -> Callable[[], None] | None:
        """Fork a cell's parent, or do an errand; in the cell's parent, its life is returned."""
        spec = Spec(**job["spec"])
        if job["do"] == "cell" and (file := _file(spec)) != (first := _file(self.tables[0])):
            shutil.copyfile(first, file)  # of SQLite each cell has a database to itself
        if job["do"] == "table":
            answer = in_a_process(lambda: make_table(spec, job["rows"]), START)
            if "error" not in answer:
                self.tables.append(spec)
                _rehearse(spec)
            self._says(answer)
            return None
        forks = recipe(spec.recipe).start == "fork"
        seconds, patience = (
            all_hazards()[spec.hazard].seconds * (1 if forks else 3),
            STEP if forks else 3 * START,
        )
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid:
            os.close(theirs)
            self.cells[ours] = Cell(job["number"], pid, ours, seconds, patience)
            return None
        os.setsid()
        signal.setitimer(signal.ITIMER_REAL, seconds + 5)  # should the nursery be killed
        for descriptor in [self.line, ours, *self.cells]:
            os.close(descriptor)
        self.cells = {}
        return lambda: _live(spec, theirs)

    def _ends(self, cell: Cell, say: bool = True) -> None:
        """End a cell's session, whoever is left in it, and say what came of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(cell.pid, signal.SIGKILL)
        os.waitpid(cell.pid, 0)
        os.close(cell.pipe)
        del self.cells[cell.pipe]
        if say:
            self._says(cell.result())

    def _hears(self) -> bytes:
        try:
            return os.read(self.line, 65536)
        except ConnectionError:
            return b""

    def _says(self, answer: dict[str, Any]) -> None:
        told = json.dumps(answer).encode() + b"\n"
        with contextlib.suppress(OSError):
            while told:
                told = told[os.write(self.line, told) :]


def _live(spec: Spec, pipe: int) -> None:
    """A cell's parent: take the hazard's steps and report. A child of it may leave through here."""

    own = os.getpid()

    def report(fact: dict[str, Any]) -> None:
        if os.getpid() != own:  # a driver made an error of its own of a child's SystemExit
            sys.exit(0)
        os.write(pipe, json.dumps(fact).encode() + b"\n")

    gc.disable()  # garbage is collected where a hazard says so; else chance would say when
    parent = Parent(spec, report)
    try:
        all_hazards()[spec.hazard].probe(parent, spec.variant)
    except NotRun as reason:
        report({"not_run": str(reason)})
        os._exit(0)
    except TimeoutError as error:
        parent.found("hang", f"the parent got no answer: {tell(error)}")
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is a finding
        parent.found("error", f"parent: {tell(error)}")
    report({"runs": parent.runs})
    os._exit(0)


def in_a_process(errand: Callable[[], dict[str, Any]], seconds: float = STEP) -> dict[str, Any]:
    """Do an errand in a process of its own, so that no connection of it is inherited; bounded."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            answer = errand()
        except BaseException as error:  # noqa: BLE001 - told to the asker
            answer = {"error": tell(error)}
        os.write(theirs, json.dumps(answer).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return dict(json.loads(told)) if told else {"error": f"no answer within {seconds:.1f} s"}


def _connected(spec: Spec, work: Callable[[Parent, sa.Connection], dict[str, Any]]) -> dict[str, Any]:
    """Do some work in one transaction of a plain engine."""
    parent = Parent(replace(spec, recipe="null-pool"), lambda fact: None)
    parent.make_engine()

    def begin() -> dict[str, Any]:
        with parent.engine.begin() as connection:
            return work(parent, connection)

    return dict(parent.do(begin))


def make_table(spec: Spec, rows: list[int]) -> dict[str, Any]:
    """Make the one table, with a row for each cell; answers with the server's version."""

    def make(parent: Parent, connection: sa.Connection) -> dict[str, Any]:
        table = sa.Table(
            spec.table,
            sa.MetaData(),
            sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("who", sa.String(60)),
        )
        if sa.inspect(connection).has_table(spec.table):
            return {}  # two doors of one server
        table.create(connection)
        connection.execute(table.insert(), [{"id": row, "who": "locked"} for row in rows])
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
        kind = "MariaDB" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name
        return {"server": f"{kind} {version}"}

    return _connected(spec, make)


def drop_table(spec: Spec) -> dict[str, Any]:
    """Drop the table; what still holds it has been killed, so the server lets go within moments."""

    def drop(parent: Parent, connection: sa.Connection) -> dict[str, Any]:
        sa.Table(spec.table, sa.MetaData()).drop(connection, checkfirst=True)
        return {}

    for attempt in range(20):
        try:
            return _connected(spec, drop)
        except sa.exc.DBAPIError:
            time.sleep(0.1 * (attempt + 1) ** 0.5)
    return {}


def _file(spec: Spec) -> str:
    """The file of an SQLite database; nothing for another."""
    url = sa.make_url(spec.url)
    return str(url.database) if url.get_backend_name() == "sqlite" else ""


def _warm(dialect: str) -> None:
    """Import and compile, once for all cells of a driver, what each would otherwise for itself."""
    url = sa.make_url(f"{dialect}://")
    kind = url.get_dialect()
    if kind.is_async:
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(url).sync_engine
    else:
        engine = sa.create_engine(url)
    table = sa.table("poolfork", sa.column("id"))
    for word in "parent", "child":
        repeat(engine.dialect, word)
    str(sa.select(table.c.id).with_for_update().compile(dialect=engine.dialect))
    for module in (
        "psycopg_binary",
        "asyncio.base_events",
        "multiprocessing.spawn",
        "multiprocessing.popen_fork",
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def _keep_functions() -> None:
    """Let no normal exit take the imported functions apart, each in a page that it has to copy for that.

    They are the modules' own, older than every cell: nothing of a cell hangs on one. A quarter of an exit's time.
    """
    keep = ctypes.pythonapi.Py_IncRef
    for thing in gc.get_objects():
        if type(thing) is types.FunctionType:
            keep(ctypes.py_object(thing))


def _rehearse(spec: Spec) -> None:
    """Speak with the server once, and leave no connection: what a first time costs, no cell need pay."""
    signal.setitimer(signal.ITIMER_REAL, START)  # should a server answer who made the table, and nobody else
    parent = Parent(replace(spec, recipe="nothing"), lambda fact: None)
    with contextlib.suppress(sa.exc.SQLAlchemyError):  # what does not work here, the cells will say
        parent.holds_a_session()
        parent.do(parent.held.rollback)
        parent.do(parent.held.close)
        parent.asks_backend()
        parent.asks("parent")
        parent.do(parent.engine.dispose)
    if parent.loop is not None:
        parent.loop.run_until_complete(parent.loop.shutdown_default_executor())
        parent.loop.close()
        asyncio.set_event_loop(None)
    del parent
    gc.collect()
    end = time.monotonic() + STEP
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(0.001)  # aiosqlite's thread ends a moment after its connection
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.freeze()


def main() -> None:
    """Fork a nursery for each line that we were given, and wait until they have ended.

    Standard input tells them as JSON: ``lines``, each line's descriptor with the driver's dialect; ``methods``, the
    start methods that cells will need beside fork; ``preload``, the modules that a forkserver is to import.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = json.load(sys.stdin)
    lines = {int(line): dialect for line, dialect in job["lines"].items()}
    for line in lines:
        os.set_inheritable(line, False)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2) if "POOLFORK_DEBUG" not in os.environ else (0,):
        os.dup2(nothing, descriptor)  # nobody who is born here shall speak
    os.close(nothing)
    if "forkserver" in job["methods"]:  # one for all cells: what it forks is as empty as it is itself
        forkserver.set_forkserver_preload(job["preload"])
        forkserver.ensure_running()
        forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]  # ours, whoever asks
    elif "spawn" in job["methods"]:
        resource_tracker.ensure_running()
    all_hazards()
    for module in "sqlalchemy.orm", "poolfork.guard":
        importlib.import_module(module)
    nurseries = []
    while lines:
        line, dialect = lines.popitem()
        nursery = os.fork()
        if not nursery:
            for other in lines:
                os.close(other)
            _serve(line, dialect)
            return
        os.close(line)
        nurseries.append(nursery)
    for nursery in nurseries:
        os.waitpid(nursery, 0)
    # A forkserver's child is in no cell's session: one that was stopped ends when it goes on, its line being closed.
    os.killpg(0, signal.SIGCONT)


def _serve(line: int, dialect: str) -> None:
    """A nursery's life, and that of each cell's parent, which begins here too."""
    os.setsid()
    _warm(dialect)
    gc.collect()
    _keep_functions()
    gc.freeze()  # what is here is every cell's, and nobody's garbage
    life = Nursery(line).run()
    if life is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        life()
