"""Whatever two processes do, in whatever order: a session is only ever spoken to by who opened it."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import pickle
import select
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from guardkit import BOUND, engine_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolfork import InheritedConnectionError, guard
from poolfork.actors import slowness
from poolfork.servers import postgres

# The server is the witness: each session gets, when it is opened, a function that knows the pid of
# the process that opened it, and every later statement carries the pid of the process that wrote it.
# A goodbye or a ROLLBACK by a stranger shows when the opener speaks next.
_SPEAK = sa.text("SELECT pg_backend_pid(), pg_temp.speak(:pid)")
_OPENED = """
CREATE FUNCTION pg_temp.speak(writer int) RETURNS boolean LANGUAGE sql AS 'SELECT writer = {pid}'
"""

ACTORS, ENGINES = ("parent", "child", "grandchild"), (0, 1)
STEP = st.tuples(
    st.sampled_from(["speak", "hold", "hold", "close", "drop", "use", "use", "detach", "collect", "dispose"]),
    st.sampled_from(ENGINES),
)
FORK = st.tuples(st.just(0), st.tuples(st.just("fork"), st.sampled_from(["python", "c"])))
STEPS = st.lists(st.tuples(st.integers(0, 2), STEP), min_size=1, max_size=5)
STORY = st.tuples(STEPS, FORK, STEPS, FORK, STEPS).map(
    lambda parts: [*parts[0], parts[1], *parts[2], parts[3], *parts[4]]
)
LEAVES = st.lists(st.sampled_from(["_exit", "exit"]), min_size=2, max_size=2)


class Actor:
    """One process: its engines, what it holds, and the sessions that it knows to be its own."""

    def __init__(self, url: str, driver: str) -> None:
        self.engines = [
            guard(engine_for(driver, url, pool_size=2, max_overflow=1, pool_timeout=BOUND / 6))
            for _ in ENGINES
        ]
        for engine in self.engines:
            sa.event.listen(engine, "connect", self.opened)
        self.held: list[tuple[Any, int, int]] = []  # connection, who opened it, its session

    @staticmethod
    def opened(dbapi: Any, record: Any) -> None:
        cursor = dbapi.cursor()
        cursor.execute(_OPENED.format(pid=os.getpid()))
        cursor.close()
        dbapi.commit()

    def speak(self, connection: Any) -> int:
        session, own = connection.execute(_SPEAK, {"pid": os.getpid()}).one()
        assert own, f"process {os.getpid()} spoke on session {session}, which it did not open"
        return int(session)

    def act(self, what: str, which: int) -> None:
        engine, me = self.engines[which], os.getpid()
        if what == "speak":
            with engine.connect() as connection:
                self.speak(connection)
        elif what == "hold" and len([h for h in self.held if h[1] == me and h[0].engine is engine]) < 2:
            connection = engine.connect()
            self.held.append((connection, me, self.speak(connection)))
        elif what == "collect":
            gc.collect()
        elif what == "dispose":
            engine.dispose()
        elif self.held and what in ("close", "drop", "use", "detach"):
            index = which % len(self.held)
            connection, opener, session = self.held[index]
            if what == "use" or what == "detach":
                try:
                    if what == "detach":
                        connection.detach()
                    assert self.speak(connection) == session
                    assert opener == me, "no error in a child that used an inherited connection"
                except InheritedConnectionError:
                    assert opener != me, "the opener was refused"
            else:
                del self.held[index]
                if what == "close":
                    connection.close()
                del connection

    def final(self) -> None:
        """Everything that this process opened and still holds answers, in its own session."""
        for connection, opener, session in self.held:
            if opener == os.getpid():
                assert self.speak(connection) == session
                connection.close()
        self.held.clear()
        for which in ENGINES:
            self.act("speak", which)


class Process:
    """An actor as the test sees it: orders go in, and come back as "" or as what went wrong."""

    def __init__(self) -> None:
        self.orders, self.answers = os.pipe(), os.pipe()

    def send(self, order: Any, answered: bool = True) -> None:
        os.write(self.orders[1], pickle.dumps(order))  # a pipe keeps so small a write in one piece
        if answered:
            assert select.select([self.answers[0]], [], [], BOUND)[0], f"hung at {order}"
            answer = pickle.loads(os.read(self.answers[0], 4000))
            assert not answer, f"at {order}: {answer}"

    def close(self) -> None:
        for end in (*self.orders, *self.answers):
            os.close(end)


def _live(actor: Actor, processes: list[Process], generation: int) -> None:
    """A process's life: one order at a time, until it is told to leave."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(3 * BOUND)
    me, child = processes[generation], 0
    while True:
        what, how = pickle.loads(os.read(me.orders[0], 4000))
        answer = ""
        try:
            if what == "leave":
                return _leave(how)
            if what == "fork":
                child = ctypes.PyDLL(None).fork() if how == "c" else os.fork()
                if child == 0:
                    return _live(actor, processes, generation + 1)
            elif what == "reap":
                answer = "" if os.waitpid(child, 0)[1] == 0 else "the child died"
            elif what == "final":
                actor.final()
            else:
                actor.act(what, how)
        except BaseException as error:  # noqa: BLE001
            answer = f"{type(error).__name__}: {error}"[:3000]
        os.write(me.answers[1], pickle.dumps(answer))


def _leave(how: str) -> None:
    if how == "exit":
        faulthandler.dump_traceback_later(BOUND / 2, file=os.dup(2))  # where it hung
        gc.collect()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        ctypes.pythonapi.Py_Exit(0)
    os._exit(0)


def _tell(url: str, driver: str, story: list[Any], leaves: list[str]) -> None:
    """Play a story of up to three generations; each step is checked by who takes it."""
    processes, alive = [Process() for _ in ACTORS], 1
    pid = os.fork()
    if pid == 0:
        try:
            _live(Actor(url, driver), processes, 0)
        finally:
            os._exit(3)
    try:
        for who, order in story:
            if order[0] != "fork":
                processes[who % alive].send(order)
            elif alive < len(ACTORS):
                processes[alive - 1].send(order)
                alive += 1
        for generation in reversed(range(alive)):
            processes[generation].send(("final", 0))
            if generation:
                processes[generation].send(("leave", leaves[generation - 1]), answered=False)
                processes[generation - 1].send(("reap", 0))
        processes[0].send(("leave", "_exit"), answered=False)
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # its descendants' alarms end them
        raise
    finally:
        os.waitpid(pid, 0)
        for process in processes:
            process.close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as running:
        yield running.url


@pytest.mark.usefixtures("garbage_free")
@pytest.mark.parametrize("driver", ["psycopg2", "pg8000"])
def test_a_session_is_only_spoken_to_by_who_opened_it(server: str, driver: str) -> None:
    """Random stories of up to three generations over two engines keep the invariant."""
    end, told = time.monotonic() + 90, []

    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(story=STORY, leaves=LEAVES)
    def stories(story: list[Any], leaves: list[str]) -> None:
        if time.monotonic() < end:
            _tell(server, driver, story, leaves)
            told.append(story)

    stories()
    assert len(told) >= 10 / slowness(), "not even a few stories were told"
