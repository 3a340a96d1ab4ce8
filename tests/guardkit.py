"""What the guard's tests share: servers, drivers, and children that are bounded and report back."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import pathlib
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from poolfork import guard
from poolfork.actors import slowness

POSTGRES = ("psycopg2", "psycopg", "pg8000")
MARIADB = ("pymysql", "mysqldb", "mysqlconnector", "mariadbconnector")
ASYNC_POSTGRES = ("psycopg_async", "asyncpg")
ASYNC_MARIADB = ("asyncmy", "aiomysql")
SYNC = POSTGRES + MARIADB
ASYNC = ASYNC_POSTGRES + ASYNC_MARIADB
BOUND = round(12 * slowness())  # seconds that a child may live


def address(driver: str, server: str) -> tuple[sa.URL, dict[str, Any]]:
    """The URL and connect_args with which ``driver`` reaches a server's URL."""
    url = sa.make_url(server)
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername=f"postgresql+{driver}")
        if driver == "pg8000" and "host" in url.query:
            arguments["unix_sock"] = f"{url.query['host']}/.s.PGSQL.{url.query.get('port', 5432)}"
            url = url.set(query={})
    else:
        url = url.set(drivername=("mariadb+" if driver == "mariadbconnector" else "mysql+") + driver)
        if driver == "mysqlconnector":
            arguments.update(use_pure=True, ssl_disabled=True)
    return url, arguments


def engine_for(driver: str, server: str, **options: Any) -> Any:
    """An unguarded Engine, or AsyncEngine, for ``driver``."""
    url, arguments = address(driver, server)
    options.setdefault("connect_args", {}).update(arguments)
    try:
        return (create_async_engine if driver in ASYNC else sa.create_engine)(url, **options)
    except ImportError as error:
        pytest.skip(f"{driver}: {error}")


def backend(connection: Any) -> Any:
    """The server's name for this connection's session."""
    name = connection.dialect.name
    return connection.scalar(
        sa.text("SELECT pg_backend_pid()" if name == "postgresql" else "SELECT CONNECTION_ID()")
    )


def failures() -> set[str]:
    """What the guard of this process, a child, says that it could not make safe."""
    module = importlib.import_module("poolfork.guard")  # the package's `guard` is the function
    engines = [engine for ref, _ in list(module._engines.values()) if (engine := ref()) is not None]
    states = [vars(engine.pool).get("_poolfork") for engine in engines]
    return {text for state in states if state is not None for text in state.failures}


@contextlib.contextmanager
def others_idle() -> Iterator[None]:
    """Begin when no other thread of this process is at work; fails the test if that takes too long.

    A child that C forked beside a thread that waits for the GIL may inherit the GIL's lock taken, or be asked for
    the GIL by a thread that it does not have, and hang: CPython sets that right in its own forks only. Who waits for
    the GIL wakes every 5 ms, and the kernel counts that. Once nobody does, whoever comes has to wait for longer
    than the fork takes before he asks for the GIL, in a child that is forked here as well.
    """
    tasks, c = pathlib.Path("/proc/self/task"), ctypes.PyDLL(None)  # whose calls keep the GIL

    def switches(files: list[bytes]) -> list[bytes]:
        found, told = [], ctypes.create_string_buffer(4096)
        for name in files:
            if (file := c.open(name, os.O_RDONLY | os.O_CLOEXEC)) >= 0:  # else it has ended
                found.append(told.raw[: max(0, c.read(file, told, len(told)))].partition(b"ctxt_switches")[2])
                c.close(file)
        return found

    me, usual, end = threading.get_native_id(), sys.getswitchinterval(), time.monotonic() + BOUND
    try:
        while True:
            files = [bytes(task / "status") for task in tasks.iterdir() if int(task.name) != me]
            before = switches(files)
            c.usleep(15000)
            if switches(files) == before:
                sys.setswitchinterval(BOUND)
                c.usleep(2 * round(usual * 1e6))  # who had just begun to wait asks now
                if switches(files) == before:
                    break
                sys.setswitchinterval(usual)
            assert time.monotonic() < end, "another thread is at work: no fork from C here"
        yield
    finally:
        sys.setswitchinterval(usual)


class Child:
    """A forked child; `result` is what its function returned, within `BOUND` seconds.

    It fails where the guard could not make it safe, unless `safe` says that this is what is tested.
    """

    def __init__(
        self, function: Callable[[], Any], leave: str = "_exit", how: str = "python", safe: bool = True
    ) -> None:
        self.reader, writer = os.pipe()
        if how == "c":
            fork = ctypes.PyDLL(None).fork
            with others_idle():
                self.pid = fork()
        else:
            self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        try:
            with contextlib.suppress(ValueError):  # forked by C in a thread: the parent's bound has to do
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, file=2, chain=True)  # where it hung, and then its end
            signal.alarm(BOUND)
            try:
                answer = (True, function())
                assert not (safe and failures()), failures()
            except BaseException:  # noqa: BLE001
                answer = (False, traceback.format_exc())
            os.write(writer, pickle.dumps(answer))
            if leave == "exit":
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # pytest's capture has nothing to say here
                os.dup2(1, 2)
                gc.collect()
                if how == "c":  # the exit would wait for other threads of the test run, which are not here
                    threading._after_fork()  # type: ignore[attr-defined]
                ctypes.pythonapi.Py_Exit(0)  # the whole of a normal interpreter exit
        finally:
            os._exit(0)

    def result(self) -> Any:
        """What the child's function returned; fails the test if it raised, died or stayed too long."""
        data, end = b"", time.monotonic() + BOUND + 3
        while select.select([self.reader], [], [], max(0, end - time.monotonic()))[0]:
            piece = os.read(self.reader, 65536)
            if not piece:
                break
            data += piece
        os.close(self.reader)
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                pytest.fail("the child stayed too long")
            time.sleep(0.002)
        assert data, "the child hung or died without a word"
        fine, answer = pickle.loads(data)
        assert fine, answer
        return answer


def forked(function: Callable[[], Any], leave: str = "_exit", how: str = "python", safe: bool = True) -> Any:
    """Run ``function`` in a child and return what it returned, when the child has left."""
    return Child(function, leave, how, safe).result()


@contextlib.contextmanager
def loop_running() -> Iterator[Callable[[Any], Any]]:
    """A function that runs coroutines to their end in one event loop, with a bound."""
    with asyncio.Runner() as runner:
        yield lambda coroutine: runner.run(asyncio.wait_for(coroutine, BOUND))


def in_wal_mode(file: pathlib.Path, **options: Any) -> sa.Engine:
    """A guarded engine on an SQLite database in WAL mode, with an empty table ``t`` and one idle connection."""
    engine = guard(sa.create_engine(f"sqlite:///{file}", **options))
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (who TEXT)")
    return engine
