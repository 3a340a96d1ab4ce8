"""The actors that hazards are told with: a parent, its children, and a referee at the server.

A hazard is a function of a `Parent`. What the child does is another function, of a `Child`, named
in `Parent.fork`. They speak over a pipe, so the order of events is what the two functions say it
is. Every wait is bounded: the parent waits for a child `PATIENCE` seconds, and the process that
started the parent allows each of its steps `STEP` seconds (see ``poolfork.nursery``).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import multiprocessing
import os
import pathlib
import pickle
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.util import greenlet_spawn

from poolfork.drivers import DRIVERS, Driver, Speech, connect_args, of_url, speech
from poolfork.recipes import Recipe, recipe


def slowness() -> float:
    """1 on a machine with time for us, more (up to 4) where others use its processors too."""
    return min(4.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 3))


PATIENCE = 2.0 * slowness()
STEP = 2 * PATIENCE
START = 12.0  # a spawned child has to import everything first

# Worst first: a cell that shows several is called by the worst. Silent damage is worse than noise.
SEVERITY = ["write-lost", "wrong-row", "parent-lost", "hang", "error", "starved", "ok"]


@dataclass(frozen=True)
class Spec:
    """One cell to measure: what, on which driver, against which server.

    ``key`` numbers the cell: it owns row ``key`` of ``table``, and may insert rows
    ``1_000_000 + key`` (the parent's) and ``2_000_000 + key`` (the child's).
    """

    hazard: str
    variant: str
    recipe: str
    driver: str
    url: str
    connect_args: dict[str, Any] = field(default_factory=dict)
    table: str = ""
    key: int = 0


class NotRun(Exception):
    """This cell has no meaning here; the message says why."""


class Missed(Exception):
    """A child did not answer as it should; ``outcome`` is the word for it."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


def tell(error: BaseException) -> str:
    """An error as one line, without SQLAlchemy's link and statement."""
    text = str(error).split("\n[SQL")[0].split("\n(Background")[0].strip()
    return f"{type(error).__name__}: {' '.join(text.split())}"[:400]


_MARK = sa.Table("poolfork_mark", sa.MetaData(), sa.Column("mark", sa.String(40)), prefixes=["TEMPORARY"])


_REPEAT: dict[tuple[str, str], str] = {}


def repeat(dialect: sa.Dialect, word: str) -> str:
    """SQL that has a server repeat a word, compiled once: one cell may ask for it two hundred times."""
    if (dialect.name, word) not in _REPEAT:
        statement = sa.select(sa.literal(word)).compile(
            dialect=dialect, compile_kwargs={"literal_binds": True}
        )
        _REPEAT[dialect.name, word] = str(statement)
    return _REPEAT[dialect.name, word]


class Line:
    """One end of what a parent and the child that it forks speak over: a `Pipe` with less to it.

    The pipes of `multiprocessing` are Python code, which thousands of children would have to copy from their
    parent's memory, page by page, before it runs.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    @classmethod
    def pair(cls) -> tuple[Line, Line]:
        """Both ends."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def send(self, facts: dict[str, Any]) -> None:
        """Send facts, their length before them; raises `OSError` if nobody is there."""
        told = pickle.dumps(facts)
        self.end.sendall(len(told).to_bytes(4) + told)

    def poll(self, seconds: float) -> bool:
        """Wait so long for facts, or for the end."""
        return bool(select.select([self.end], [], [], seconds)[0])

    def recv(self) -> dict[str, Any]:
        """The next facts; raises `EOFError` if the other end is closed."""
        return dict(pickle.loads(self._takes(int.from_bytes(self._takes(4)))))

    def _takes(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            data = self.end.recv(count - len(taken))
            if not data:
                raise EOFError
            taken += data
        return taken

    def close(self) -> None:
        """Close this end."""
        self.end.close()


class Actor:
    """What parent and child have in common: an engine, and questions to put through it."""

    engine: sa.Engine
    held: Any = None
    connection: Any = None

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.driver: Driver = DRIVERS.get(spec.driver) or of_url(sa.make_url(spec.url))
        self.recipe: Recipe = recipe(spec.recipe)
        self.loop = asyncio.new_event_loop() if self.driver.is_async else None

    def make_engine(self, **pool: Any) -> None:
        """Make the application's engine, with the recipe's part of it."""
        url = sa.make_url(self.spec.url)
        arguments = connect_args(self.driver, self.spec.connect_args)
        chosen = dict(self.recipe.engine_arguments) or pool
        made: Any
        if self.driver.is_async:
            from sqlalchemy.ext.asyncio import (
                create_async_engine,  # not at the top: a spawned child pays for it
            )

            made = create_async_engine(url, connect_args=arguments, **chosen)
            self.engine = made.sync_engine
        else:
            made = self.engine = sa.create_engine(url, connect_args=arguments, **chosen)
        self.application_engine = made
        self.recipe.prepare(made)

    def do(self, step: Callable[..., Any], *args: Any, patience: float = PATIENCE) -> Any:
        """Run a step that uses the database; for an async driver inside this actor's event loop."""
        if self.loop is None:
            return step(*args)
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            return step(*args)  # we are inside it already
        return self.loop.run_until_complete(asyncio.wait_for(greenlet_spawn(step, *args), patience))

    @property
    def speech(self) -> Speech:
        """What this engine's server understands."""
        return speech(self.engine.dialect.name)

    def needs(self, word: str) -> tuple[str, ...]:
        """The server's SQL for something, a field of `Speech`; raises `NotRun` where there is none."""
        statements: tuple[str, ...] | None = getattr(
            speech(sa.make_url(self.spec.url).get_dialect().name), word
        )
        if statements is None:
            raise NotRun(f"{self.driver.server} has no such thing, or its SQL for it is not known here")
        return statements

    def backend(self, connection: sa.Connection) -> Any:
        """The server's id of this connection's session, or our own mark in it where there is none."""
        if self.speech.backend is not None:
            return connection.exec_driver_sql(self.speech.backend).scalar()
        try:
            return connection.scalar(sa.select(_MARK.c.mark))
        except sa.exc.DBAPIError:
            connection.rollback()
        _MARK.create(connection, checkfirst=False)
        connection.execute(_MARK.insert(), {"mark": uuid.uuid4().hex})
        connection.commit()
        return connection.scalar(sa.select(_MARK.c.mark))

    def asks_backend(self) -> Any:
        """Check a connection out, ask which session it is, and give it back."""

        def ask() -> Any:
            with self.engine.connect() as connection:
                return self.backend(connection)

        return self.do(ask)

    def asks(self, word: str) -> str:
        """Check a connection out and have the server repeat a word."""

        def ask() -> Any:
            with self.engine.connect() as connection:
                return self.repeats(connection, word)

        return str(self.do(ask))

    def repeats(self, connection: sa.Connection, word: str) -> Any:
        """What the server says when it is to repeat a word."""
        return connection.exec_driver_sql(repeat(self.engine.dialect, word)).scalar()

    def insert(self, connection: Any, row: int, who: str) -> None:
        """Insert one row through a Connection or Session, without committing it."""
        statement = sa.text(f"INSERT INTO {self.spec.table} (id, who) VALUES (:id, :who)")
        connection.execute(statement, {"id": row, "who": who})

    @property
    def parents_row(self) -> int:
        """The id of the row that this cell's parent inserts."""
        return 1_000_000 + self.spec.key

    @property
    def childs_row(self) -> int:
        """The id of the row that this cell's child inserts."""
        return 2_000_000 + self.spec.key


class Child(Actor):
    """The child's side. Under fork its engine, and what the parent held, are the inherited ones."""

    def __init__(self, spec: Spec, pipe: Pipe | Line, inherited: Actor | None) -> None:
        if inherited is None:  # spawn, forkserver: the application makes its engine anew
            super().__init__(spec)
            self.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)
        else:
            self.__dict__.update(inherited.__dict__)
            self.inherited = inherited
            if inherited.loop is not None:
                self.loop = asyncio.new_event_loop()  # the parent's loop is not ours to run
        self.pipe = pipe

    def applies_recipe(self) -> None:
        """Do what the recipe asks of a child."""
        if self.recipe.dispose_in_child is not None:
            self.do(lambda: self.engine.dispose(**self.recipe.dispose_in_child or {}))

    def tries(self, step: Callable[..., Any], *args: Any) -> str:
        """Do a step; returns the error that it met, as one line. A hang remains one."""
        try:
            self.do(step, *args)
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001 - the text is kept
            return tell(error)
        return ""

    def drops_everything(self) -> None:
        """Forget what was held at the fork, so that only the garbage collector knows it."""
        self.held = self.connection = None
        if hasattr(self, "inherited"):
            self.inherited.held = self.inherited.connection = None

    def reads_locked_row(self, word: str) -> str:
        """Check out, say which session this is, and have the server repeat a word once the row is free."""

        def ask() -> Any:
            with self.engine.connect() as connection:
                self.says(asks_in=self.backend(connection))
                table = sa.table(self.spec.table, sa.column("id"))
                row = sa.select(sa.literal(word)).select_from(table).where(table.c.id == self.spec.key)
                return connection.scalar(row.with_for_update())

        return str(self.do(ask))

    def says(self, **facts: Any) -> None:
        """Send facts to the parent."""
        self.pipe.send(facts)

    def hears(self) -> None:
        """Wait for the parent's word to go on."""
        if not self.pipe.poll(3 * STEP):
            os._exit(3)
        self.pipe.recv()

    def fork(self, step: Callable[[Child], None]) -> Born:
        """Fork a child of our own: the parent's grandchild."""
        return _fork(self, step, "_exit")


class Born:
    """A child as its parent sees it."""

    def __init__(self, pid: int, pipe: Pipe | Line, process: Any = None) -> None:
        self.pid, self.pipe, self.process = pid, pipe, process
        self.patience = PATIENCE if process is None else START

    def hears(self, patience: float | None = None) -> dict[str, Any]:
        """The child's next facts; raises `Missed` if it errs, dies or says nothing in time."""
        patience = self.patience if patience is None else max(patience, 0 if self.process is None else START)
        if not self.pipe.poll(patience):
            raise Missed("hang", f"the child said nothing for {patience:.1f} s")
        try:
            facts: dict[str, Any] = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise Missed("error", "the child died") from None
        if "error" in facts:
            raise Missed(facts.get("outcome", "error"), f"child: {facts['error']}")
        return facts

    def told(self) -> None:
        """Give the child the word to go on."""
        with contextlib.suppress(OSError):
            self.pipe.send({})

    def stops(self) -> None:
        """Stop the child where it is, and wait until it is stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        end = time.monotonic() + PATIENCE
        while _state(self.pid) not in "TZ" and time.monotonic() < end:
            time.sleep(0.001)

    def goes_on(self) -> None:
        """Let a stopped child go on."""
        os.kill(self.pid, signal.SIGCONT)

    def leaves(self, patience: float | None = None) -> None:
        """Wait until the child is gone; raises `Missed` after killing one that overstays or erred."""
        missed: Missed | None = None
        patience = patience or self.patience
        try:
            while "left" not in self.hears(patience):
                pass
        except Missed as error:
            missed = error
        gone = self._gone(patience)
        if missed or not gone:
            raise missed or Missed("hang", f"the child did not leave within {patience:.1f} s")

    def _gone(self, patience: float) -> bool:
        if self.process is not None:
            self.process.join(patience)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()
                return False
            return True
        end = time.monotonic() + patience
        with contextlib.suppress(OSError):
            self.pipe.poll(patience)  # its end closes when it is gone
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                self.kill()
                return False
            time.sleep(0.001)
        return True

    def kill(self) -> None:
        """End the child now."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


class Parent(Actor):
    """The parent's side of a cell: it forks, asks, and says what it found."""

    def __init__(self, spec: Spec, report: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(spec)
        if self.loop is not None:
            asyncio.set_event_loop(self.loop)  # as asyncio.run() does: it lives as long as the process
        self.report = report
        self.runs = 1
        self.sound = True
        self.aged = False

    def step(self, what: str) -> None:
        """Say what comes next; if it never ends, this is the detail of the hang."""
        self.report({"step": what})

    def found(self, outcome: str, detail: str) -> None:
        """Note something that happened; the worst note becomes the cell's outcome."""
        self.sound = False
        self.report({"outcome": outcome, "detail": detail})

    def remark(self, detail: str) -> None:
        """Note an error text that was seen, without counting it against the recipe."""
        self.report({"outcome": "ok", "detail": detail})

    @contextlib.contextmanager
    def judged(self, otherwise: str = "error") -> Iterator[None]:
        """Turn what goes wrong inside into a finding: a `Missed` by its own word, else ``otherwise``."""
        try:
            yield
        except Missed as missed:
            self.found(missed.outcome, missed.detail)
        except TimeoutError as error:
            self.found("hang", f"the parent got no answer: {tell(error)}")
        except sa.exc.TimeoutError as error:
            self.found("starved", tell(error))
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is a finding
            self.found(otherwise, tell(error))

    def has_idle(self, count: int = 1) -> list[Any]:
        """Open connections that then lie idle in the pool; returns their sessions' ids."""
        self.make_engine(pool_size=max(2, count), max_overflow=0, pool_timeout=0.5)

        def open_them() -> list[Any]:
            with contextlib.ExitStack() as stack:
                return [self.backend(stack.enter_context(self.engine.connect())) for _ in range(count)]

        self.step("the parent opens its connections")
        return list(self.do(open_them))

    def holds_a_session(self) -> None:
        """Begin in a Session and insert a row; it stays in ``held``, and its Connection in ``connection``."""
        self.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)

        from sqlalchemy.orm import Session

        def begin() -> None:
            self.held = Session(self.engine)
            self.connection = self.held.connection()
            self.insert(self.held, self.parents_row, "parent")

        self.step("the parent begins")
        self.do(begin)

    def fork(self, step: Callable[[Child], None], leave: str = "_exit", how: str = "python") -> Born:
        """Start a child the recipe's way and let it take ``step``.

        ``leave`` says how it goes: ``_exit``, or ``exit`` for the interpreter's normal end with
        finalizers. ``how="c"`` forks as a C program does, past Python's hooks.
        """
        self.step("the child is started")
        self._is_about_to_fork()
        return _fork(self, step, leave, how)

    def forks(self, step: Callable[[Child], None], count: int) -> list[Born]:
        """Start so many children the recipe's way, one right after the other; they leave by ``_exit``."""
        if self.recipe.start != "fork" or self.recipe.dispose_before_fork:
            # One by one: after a dispose() the threads shall use the pool again.
            return [self.fork(step) for _ in range(count)]
        self.step("the children are started")
        lines = [Line.pair() for _ in range(count)]
        born = []
        for ours, theirs in lines:
            self._is_about_to_fork()
            pid = os.fork()
            if not pid:
                for end in {*sum(lines, ())} - {theirs}:
                    end.close()
                _is_born(self, step, theirs, "_exit")
            born.append(Born(pid, ours))
        for _, theirs in lines:
            theirs.close()
        return born

    def _is_about_to_fork(self) -> None:
        if self.recipe.dispose_before_fork:
            self.do(self.engine.dispose)
        if not self.aged:
            gc.collect()  # it has lived for a while: in which order a child's collector finalizes is no chance now
            self.aged = True

    def still_has(self, backend: Any) -> None:
        """Ask through the pool: the parent's session answers, and is the one it was before the fork."""
        self.step("the parent asks again")
        with self.judged("parent-lost"):
            now = self.asks_backend()
            if self.recipe.keeps_idle and self.recipe.start == "fork" and now != backend:
                self.found("parent-lost", f"the parent has session {now} instead of {backend}")

    def commits(self) -> None:
        """COMMIT what is held, and look for the row with other eyes."""
        self.step("the parent commits")

        silent = False

        def commit() -> None:
            nonlocal silent
            self.held.commit()
            silent = True
            self.held.close()

        with self.judged("parent-lost"):
            self.do(commit)
        if not silent:
            return  # it failed loudly: the parent knows
        self.step("the referee looks for the parent's row")
        with Referee(self) as referee:
            if not referee.rows(f"SELECT who FROM {self.spec.table} WHERE id = {self.parents_row}"):
                self.found("write-lost", "the parent's COMMIT raised no error and left no row")

    def until_waiting(self, backend: Any, child: Born, referee: Referee) -> None:
        """Wait until the server says that a session waits (or, if it can't, until its process sleeps)."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not child.pipe.poll(0):
            if self.speech.waiting:
                if referee.rows(self.speech.waiting.replace(":id", str(backend))):
                    return
            elif _state(child.pid) == "S":
                return
            time.sleep(0.002)

    def until_answered(self, backend: Any, referee: Referee) -> None:
        """Wait until the server says that it has answered a session, where it can say so."""
        end = time.monotonic() + PATIENCE
        while self.speech.answered and time.monotonic() < end:
            if referee.rows(self.speech.answered.replace(":id", str(backend))):
                return
            time.sleep(0.002)


class Referee:
    """A plain connection of the parent's, opened after the fork, outside of every pool."""

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        dialect = parent.engine.dialect
        words, named = dialect.create_connect_args(parent.engine.url)
        named = {**named, **connect_args(parent.driver, parent.spec.connect_args)}
        self.connection: Any = parent.do(lambda: dialect.connect(*words, **named))

    def rows(self, statement: str) -> list[Any]:
        """Execute a statement without parameters and return its rows, if it has any."""

        def run() -> list[Any]:
            cursor = self.connection.cursor()
            try:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
            finally:
                cursor.close()

        return list(self.parent.do(run))

    def locks_row(self) -> None:
        """Lock this cell's row; it is free again at `lets_go`."""
        spec = self.parent.spec
        row = f"SELECT who FROM {spec.table} WHERE id = {spec.key}"
        if self.parent.engine.dialect.name == "sqlite":
            row = "BEGIN IMMEDIATE"
        elif self.parent.engine.dialect.name == "mssql":
            row = f"UPDATE {spec.table} SET who = who WHERE id = {spec.key}"
        else:
            row += " FOR UPDATE"
        self.rows(row)

    def commits(self) -> None:
        """COMMIT what the statements so far did."""
        self.parent.do(self.connection.commit)

    def lets_go(self) -> None:
        """End the transaction, and with it the lock."""
        self.parent.do(self.connection.rollback)

    def __enter__(self) -> Referee:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(Exception):
            self.parent.do(self.connection.close)


def _fork(actor: Parent | Child, step: Callable[[Child], None], leave: str, how: str = "python") -> Born:
    start = actor.recipe.start
    if start != "fork":
        if how == "c":
            raise NotRun(f"{start} starts a new program: nothing of it is a bare fork from C")
        context: Any = multiprocessing.get_context(start)
        ours, theirs = context.Pipe()
        process = context.Process(target=_started, args=(asdict(actor.spec), step, theirs, leave))
        process.start()
        theirs.close()
        return Born(process.pid, ours, process)
    ours, theirs = Line.pair()
    if how == "c":  # who ends, ends first: CPython gives such a child no GIL that another waited for
        for thread in set(threading.enumerate()) - {threading.current_thread()}:
            thread.join(0.2)
    pid = ctypes.PyDLL(None).fork() if how == "c" else os.fork()
    if pid:
        theirs.close()
        return Born(pid, ours)
    ours.close()
    return _is_born(actor, step, theirs, leave)


def _is_born(parent: Actor, step: Callable[[Child], None], line: Line, leave: str) -> NoReturn:
    """A forked child's first function."""
    signal.setitimer(signal.ITIMER_REAL, 15)  # nobody survives a cell, whatever happens to its parent
    _lives(parent.spec, step, line, leave, parent)


def _started(spec: dict[str, Any], step: Callable[[Child], None], pipe: Pipe | Line, leave: str) -> None:
    """A spawned child's first function."""
    signal.setitimer(signal.ITIMER_REAL, 15)
    _lives(Spec(**spec), step, pipe, leave, None)


def _lives(
    spec: Spec, step: Callable[[Child], None], pipe: Pipe | Line, leave: str, inherited: Actor | None
) -> NoReturn:
    """A child's life: take the step, say how it went, leave. Never returns."""
    try:
        gc.disable()  # garbage is collected where a hazard says so; else chance would say when
        child = Child(spec, pipe, inherited)
        step(child)
        pipe.send({"left": leave})
    except sa.exc.TimeoutError as error:
        pipe.send({"error": tell(error), "outcome": "starved"})
    except TimeoutError as error:
        pipe.send({"error": f"no answer: {tell(error)}", "outcome": "hang"})
    except BaseException as error:  # noqa: BLE001 - the parent is to hear of everything
        with contextlib.suppress(OSError):
            pipe.send({"error": tell(error)})
    if leave == "_exit":
        os._exit(0)
    gc.enable()  # as it is when an application exits
    sys.exit(0)


def _state(pid: int) -> str:
    """A process's state as one letter (S asleep, T stopped, Z gone), from /proc or from ps."""
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        told = subprocess.run(
            ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, timeout=PATIENCE
        )
        return (told.stdout.strip() or "Z")[0]
    return re.split(r"\) ", status)[-1][0]
