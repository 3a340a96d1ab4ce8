"""The guard where applications really are: other transports, other loops, and children that do odd things first."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import importlib
import mmap
import multiprocessing
import os
import pathlib
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from guardkit import BOUND, Child, backend, engine_for, forked, in_wal_mode, loop_running
from sqlalchemy import pool as pools
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import scoped_session, sessionmaker

from poolfork import GuardError, GuardWarning, InheritedConnectionError, guard
from poolfork.actors import connect_args
from poolfork.drivers import DRIVERS, address
from poolfork.servers import Server, ServerError, mariadb, postgres

pytestmark = pytest.mark.usefixtures("garbage_free")
HOW = pytest.mark.parametrize("how", ["python", "c"])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres(tcp=True) as running:
        yield running


def session_of(engine: sa.Engine) -> Any:
    with engine.connect() as connection:
        return backend(connection)


def keeps_its_session(engine: sa.Engine, how: str = "python", leave: str = "exit") -> None:
    """An idle and a held connection survive a child that refuses the one, has its own, and leaves."""
    idle = engine.connect()
    held = engine.connect()
    mine = backend(idle), backend(held)
    idle.close()

    def child() -> Any:
        with pytest.raises(InheritedConnectionError):
            backend(held)
        held.close()
        return session_of(engine)

    assert forked(child, leave, how) not in mine
    assert (session_of(engine), backend(held)) == mine
    held.close()
    engine.dispose()


# Transports and addresses


@pytest.fixture(scope="module")
def mysql() -> Iterator[Server]:
    try:
        with mariadb() as running:
            yield running
    except ServerError as error:
        pytest.skip(str(error))


def over_tls(request: pytest.FixtureRequest, driver: str) -> tuple[str, dict[str, Any]]:
    """The URL and connect_args for an encrypted connection to that driver's server."""
    kind = {"postgresql": "server", "mysql": "mysql"}[DRIVERS[driver].server]
    there: Server = request.getfixturevalue(kind)
    if not there.tls:
        pytest.skip(str(there.no_tls))
    if reason := DRIVERS[driver].missing():
        pytest.skip(reason)
    url, arguments = address(DRIVERS[driver], there.tls, str(there.ca))
    return url, connect_args(DRIVERS[driver], arguments)


def is_encrypted(connection: Any) -> bool:
    """What the server says of it; the PostgreSQL that stands behind a front only the front can encrypt."""
    if connection.dialect.name == "postgresql":
        return True
    return bool(connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1])


SERVERS = [name for name, driver in DRIVERS.items() if driver.server != "sqlite"]


@HOW
@pytest.mark.parametrize("driver", [name for name in SERVERS if not DRIVERS[name].is_async])
def test_over_tls(request: pytest.FixtureRequest, driver: str, how: str) -> None:
    """Both copies of the encryption's state go their own way, and only the parent's is used."""
    url, arguments = over_tls(request, driver)
    engine = guard(sa.create_engine(url, connect_args=arguments))
    with engine.connect() as connection:
        assert is_encrypted(connection)
    keeps_its_session(engine, how)


@pytest.mark.parametrize("driver", [name for name in SERVERS if DRIVERS[name].is_async])
def test_over_tls_in_an_event_loop(request: pytest.FixtureRequest, driver: str) -> None:
    """The same for the async drivers, whose parent goes on in its loop."""
    url, arguments = over_tls(request, driver)
    engine = guard(create_async_engine(url, connect_args=arguments))

    async def session() -> Any:
        async with engine.connect() as connection:
            assert await connection.run_sync(is_encrypted)
            return await connection.run_sync(backend)

    with loop_running() as run:
        mine = run(session())
        assert forked(lambda: asyncio.run(session()), "exit") != mine
        assert run(session()) == mine
        run(engine.dispose())


def test_over_ipv6(server: Server) -> None:
    """A server at ::1 (here a relay to it) is as any other."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    there = sa.make_url(server.tcp)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def relay() -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                other = socket.create_connection((there.host, there.port))
                for pair in (one, other), (other, one):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=relay, daemon=True).start()
    url = there.set(drivername="postgresql+psycopg2", host="::1", port=listener.getsockname()[1])
    keeps_its_session(guard(sa.create_engine(url)))
    listener.close()


def test_url_with_several_hosts(server: Server) -> None:
    """Which of the hosts it became does not matter."""
    url = sa.make_url(server.tcp)
    url = url.set(drivername="postgresql+psycopg", host=None, port=None).update_query_dict(
        {"host": ["127.0.0.1:1", f"{url.host}:{url.port}"]}
    )
    keeps_its_session(guard(sa.create_engine(url)))


# What a child that C code forked may do first


@pytest.mark.parametrize("leave", ["_exit", "exit"])
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_child_forked_from_c_drops_its_engine_first(server: Server, driver: str, leave: str) -> None:
    """Engines are collected, together, before anybody asked the guard; the parent's idle sessions stay."""
    engine: Any = guard(engine_for(driver, server.url))
    other: Any = guard(engine_for(driver, server.url))
    kept = [engine, other]
    mine = session_of(engine), session_of(other)

    def child() -> None:
        nonlocal engine, other
        kept.clear()
        engine = other = None
        gc.collect()

    forked(child, leave, "c")
    assert (session_of(engine), session_of(other)) == mine
    engine.dispose()
    other.dispose()


def test_child_forked_from_c_drops_its_async_engine_first(server: Server) -> None:
    """asyncpg's connections have last words of their own: nobody hears them, of however many."""
    engine: Any = guard(engine_for("asyncpg", server.url))

    async def session() -> Any:
        async with engine.connect() as one, engine.connect() as other:
            return {await one.run_sync(backend), await other.run_sync(backend)}

    with loop_running() as run:
        mine = run(session())

        def child() -> None:
            nonlocal engine
            engine = None
            gc.collect()

        forked(child, "exit", "c")
        assert run(session()) == mine
        run(engine.dispose())


@pytest.mark.parametrize("first", ["dispose", "recreate", "close", "drop", "rollback", "invalidate"])
def test_child_forked_from_c_may_begin_with_anything(server: Server, first: str) -> None:
    """Whatever is the first that it does, the parent's sessions notice nothing, listeners included."""
    engine = guard(engine_for("psycopg2", server.url, pool_reset_on_return=None))

    @sa.event.listens_for(engine, "reset")
    def reset(dbapi: Any, record: Any, state: Any) -> None:
        if dbapi is not None:
            dbapi.cursor().execute("ROLLBACK")

    held: Any = engine.connect()
    held.execute(sa.text("CREATE TEMPORARY TABLE kept (a int)"))
    mine = backend(held)

    def child() -> Any:
        nonlocal held
        if first == "dispose":
            engine.dispose()
        elif first == "recreate":
            engine.pool.recreate()
        elif first == "drop":
            held = None
            gc.collect()
        else:
            getattr(held, first)()
        return session_of(engine)

    assert forked(child, "exit", "c") != mine
    held.execute(sa.text("INSERT INTO kept VALUES (1)"))
    held.commit()
    assert backend(held) == mine
    held.close()
    engine.dispose()


# Sessions, events, engines with a past


@HOW
def test_scoped_session_of_the_parent(server: Server, how: str) -> None:
    """In the child it refuses until it is removed; then it is the child's."""
    Registry = scoped_session(sessionmaker(guard(engine_for("psycopg2", server.url))))
    mine = backend(Registry.connection())

    def child() -> Any:
        with pytest.raises(InheritedConnectionError):
            Registry.execute(sa.text("SELECT 1"))
        Registry.remove()
        return backend(Registry.connection())

    assert forked(child, "exit", how) != mine
    assert backend(Registry.connection()) == mine
    Registry.remove()


def test_async_scoped_session_and_a_cancelled_task(server: Server) -> None:
    """The child, in a loop of its own, is refused, closes, and cancels a task in the middle of a statement."""
    engine = guard(engine_for("asyncpg", server.url))
    Registry = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: None)

    async def ask() -> Any:
        return (await Registry.execute(sa.text("SELECT pg_backend_pid()"))).scalar()

    async def childs() -> Any:
        with pytest.raises(InheritedConnectionError):
            await ask()
        await Registry.remove()

        async def sleep() -> None:
            async with AsyncSession(engine) as session:
                await session.execute(sa.text("SELECT pg_sleep(20)"))

        task = asyncio.ensure_future(sleep())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await ask()

    with loop_running() as run:
        mine = run(ask())
        assert forked(lambda: asyncio.run(childs()), "exit") != mine
        assert run(ask()) == mine
        run(Registry.remove())
        run(engine.dispose())


UVLOOP = """
import asyncio, os, sys, sqlalchemy as sa, uvloop
from guardkit import BOUND, forked
from sqlalchemy.ext.asyncio import create_async_engine
from poolfork import guard

engine = guard(create_async_engine(sys.argv[1]))

async def session():
    async with engine.connect() as connection:
        return await connection.scalar(sa.text("SELECT pg_backend_pid()"))

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    mine = runner.run(session())
    for leave in "_exit", "exit":
        assert forked(lambda: asyncio.run(session()), leave) != mine
    assert runner.run(session()) == mine
    assert runner.run(asyncio.wait_for(asyncio.to_thread(lambda: 5), BOUND)) == 5
    runner.run(engine.dispose())
"""


def test_async_engine_under_uvloop(server: Server) -> None:
    """uvloop's loop is no selector loop; the parent's answers after the child closed its copy."""
    pytest.importorskip("uvloop")
    # A program of its own: once imported, uvloop ends each child of a process that has no descriptor left.
    done = run_script(UVLOOP, address(DRIVERS["asyncpg"], server.url)[0])
    assert done.returncode == 0, done.stderr


def run_script(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the tests' folder on its path, and a URL as its (first) argument."""
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=4 * BOUND, check=False, env=environment
    )


HELD_BEFORE = """
import gc, sys, sqlalchemy as sa
from guardkit import backend, forked
from poolfork import guard

engine = sa.create_engine(sys.argv[1], pool_reset_on_return=None)

@sa.event.listens_for(engine, "reset")
def reset(dbapi, record, state):
    if dbapi is not None:
        dbapi.cursor().execute("ROLLBACK")

held = engine.connect()
held.execute(sa.text("CREATE TEMPORARY TABLE kept (a int) ON COMMIT DROP"))
mine = backend(held)
guard(engine)  # the first in this process

def child():
    global held
    if sys.argv[2] == "close":
        held.close()
    held = None
    gc.collect()
    with engine.connect() as connection:
        return backend(connection)

assert forked(child, "exit", "c") != mine
held.execute(sa.text("INSERT INTO kept VALUES (1)"))
print(backend(held) == mine)
"""


@pytest.mark.parametrize("first", ["close", "drop"])
def test_what_was_held_before_the_guard_is_given_back_through_it(server: Server, first: str) -> None:
    """A checkout that is older than the guard; C forks, and the child's first act is to give it back."""
    done = run_script(HELD_BEFORE, server.url.replace("postgresql:", "postgresql+psycopg2:"), first)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


GREENLETS = """
import gevent.monkey; gevent.monkey.patch_all()
import os, sys, gevent, gevent.event, sqlalchemy as sa
from poolfork import InheritedConnectionError, guard

engine = guard(sa.create_engine(sys.argv[1], pool_size=2, max_overflow=0, pool_timeout=5))
backend = lambda connection: connection.scalar(sa.text("SELECT pg_backend_pid()"))
parent, ready, forked = os.getpid(), gevent.event.Event(), gevent.event.Event()
outcome = []

def hold():
    with engine.connect() as connection:
        before = backend(connection)
        ready.set()
        forked.wait(10)  # the parent's greenlet, and the child's copy of it, go on here
        try:
            outcome.append(backend(connection) == before)
        except InheritedConnectionError:
            outcome.append("refused")

greenlet = gevent.spawn(hold)
ready.wait(10)
with engine.connect() as connection:
    mine = backend(connection)
pid = os.fork()
forked.set()
greenlet.join(10)
with engine.connect() as connection:
    same = backend(connection) == mine
if pid == 0:
    os._exit(0 if (outcome, same) == (["refused"], False) else 9)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child"
with engine.connect() as one, engine.connect() as other:
    assert mine in (backend(one), backend(other))
print(outcome, same)
"""


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_greenlets_that_go_on_in_the_child(server: Server, driver: str) -> None:
    """Under gevent a child inherits running greenlets; one with a connection is refused there, the parent's goes on."""
    pytest.importorskip("gevent")
    url, _ = address(DRIVERS[driver], str(server.tcp))
    done = run_script(GREENLETS, url)
    assert (done.returncode, done.stdout) == (0, "[True] True\n"), done.stderr


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_isolation_level_is_not_asked_on_the_parents_wire(server: Server, driver: str) -> None:
    """SQLAlchemy asks the driver itself for it; refused in a child that C forked as well."""
    engine = guard(engine_for(driver, server.url))

    def asks() -> str:
        with pytest.raises(InheritedConnectionError):
            held.get_isolation_level()
        with pytest.raises(InheritedConnectionError):
            held.execution_options(isolation_level="SERIALIZABLE")
        return "refused"

    with engine.connect() as held:
        mine = backend(held)
        held.rollback()
        assert forked(asks, how="c") == "refused"
        assert (held.get_isolation_level(), backend(held)) == ("READ COMMITTED", mine)
    engine.dispose()


@pytest.mark.parametrize("use", [list, lambda result: result.fetchmany(50), lambda result: result.close()])
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_streamed_result_is_the_parents(server: Server, driver: str, use: Any) -> None:
    """Read on or closed in a child that C forked, it takes no row from the parent."""
    engine = guard(engine_for(driver, server.url))
    with engine.connect().execution_options(stream_results=True, max_row_buffer=10) as held:
        result = held.execute(sa.text("SELECT * FROM generate_series(1, 5000)"))
        first = [result.fetchone()[0] for _ in range(3)]

        def child() -> None:
            with contextlib.suppress(Exception):
                use(result)

        forked(child, how="c")
        assert first + [row[0] for row in result] == list(range(1, 5001))
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_streamed_result_is_refused_after_its_connection_was_closed(server: Server, driver: str) -> None:
    """Closing is silent; the result does not become the child's by that."""
    engine = guard(engine_for(driver, server.url))
    held = engine.connect().execution_options(stream_results=True, max_row_buffer=1)
    result = held.execute(sa.text("SELECT generate_series(1, 500)"))
    result.fetchone()

    def child() -> None:
        held.close()
        with pytest.raises(InheritedConnectionError):
            result.fetchall()
        result.close()

    forked(child)
    assert len(result.fetchall()) == 499
    held.close()
    engine.dispose()


@pytest.mark.parametrize("driver", ["pymysql", "mysqldb"])
def test_unbuffered_cursors_by_default(mysql: Server, driver: str) -> None:
    """A cursor class in connect_args leaves rows on the wire too; another thread's is not read by the child."""
    module = pytest.importorskip({"pymysql": "pymysql.cursors", "mysqldb": "MySQLdb.cursors"}[driver])
    arguments = {"cursorclass": module.SSCursor}
    engine = guard(engine_for(driver, mysql.url, connect_args=arguments))
    local, reads, goes_on, rows = threading.local(), threading.Event(), threading.Event(), []

    def work() -> None:
        local.connection = engine.connect()
        local.result = local.connection.execute(
            sa.text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)"
                " SELECT i, REPEAT('x', 2000) FROM n"
            )
        )
        local.result.fetchone()
        reads.set()
        goes_on.wait(BOUND)
        rows.extend(local.result.fetchall())
        local.connection.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert reads.wait(BOUND)
    forked(lambda: session_of(engine))
    goes_on.set()
    thread.join(BOUND)
    assert len(rows) == 899
    engine.dispose()


def test_guard_in_a_child_that_has_connected(server: Server) -> None:
    """Imported before the fork, called after it: the child's own connections are its own."""
    answer = run_script(
        """
import os, sys, sqlalchemy as sa
from poolfork import guard

if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
engine = sa.create_engine(sys.argv[1])
with engine.connect() as held:
    held.execute(sa.text("CREATE TEMPORARY TABLE t (a INT)"))
    guard(engine)
    assert held.scalar(sa.text("SELECT count(*) FROM t")) == 0
""",
        server.url.replace("postgresql:", "postgresql+psycopg2:"),
    )
    assert answer.returncode == 0, answer.stderr


def test_guard_after_gc_freeze(server: Server) -> None:
    """What gc.freeze() has put aside, as before a preload's forks, is found."""
    answer = run_script(
        """
import gc, os, sys, sqlalchemy as sa
from poolfork import InheritedConnectionError, guard

engine = sa.create_engine(sys.argv[1])
held, backend = engine.connect(), sa.text("SELECT pg_backend_pid()")
with engine.connect() as idle:
    mine = held.scalar(backend), idle.scalar(backend)
gc.freeze()
guard(engine)
if not os.fork():
    try:
        held.scalar(backend)
    except InheritedConnectionError:
        os._exit(engine.connect().scalar(backend) in mine)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert held.scalar(backend) == mine[0] and gc.get_freeze_count()
""",
        server.url.replace("postgresql:", "postgresql+psycopg2:"),
    )
    assert answer.returncode == 0, answer.stderr


def test_assertion_pool_in_memory() -> None:
    """Its one connection is the child's own copy; that another thread had it out is not the child's affair."""
    engine = guard(
        sa.create_engine(
            "sqlite://", poolclass=pools.AssertionPool, connect_args={"check_same_thread": False}
        )
    )
    held = engine.connect()
    held.exec_driver_sql("SELECT 1")
    assert forked(lambda: engine.connect().scalar(sa.text("SELECT 2"))) == 2
    held.close()
    engine.dispose()


@pytest.mark.parametrize("leave", ["close", "rollback"])
def test_file_attached_to_a_memory_database(tmp_path: pathlib.Path, leave: str) -> None:
    """A listener attaches it; the child's copy of the connection leaves its journal alone."""
    file = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.executescript("CREATE TABLE t (a); INSERT INTO t VALUES ('before')")
    engine = guard(sa.create_engine("sqlite://"))
    sa.event.listen(engine, "connect", lambda dbapi, record: dbapi.execute(f"ATTACH '{file}' AS other"))
    with engine.connect() as held:
        held.execute(sa.text("UPDATE other.t SET a = 'after'"))
        forked(getattr(held, leave), "exit", safe=False)  # in a transaction, on SQLite
        assert file.with_name("other.db-journal").exists()
        held.commit()
    assert sqlite3.connect(file).execute("SELECT a FROM t").fetchall() == [("after",)]


def test_fork_waits_for_another_threads_loop(server: Server) -> None:
    """An async engine's first connect, begun in a loop of another thread, is over when the child is born."""
    engine = guard(engine_for("asyncpg", server.url))
    begun, go_on = threading.Event(), threading.Event()

    @sa.event.listens_for(engine.sync_engine, "do_connect")
    def slowly(*_: Any) -> None:
        begun.set()
        go_on.wait(BOUND)

    async def connect() -> None:
        async with engine.connect():
            pass
        await engine.dispose()

    thread = threading.Thread(target=lambda: asyncio.run(connect()))
    thread.start()
    assert begun.wait(BOUND)
    threading.Timer(0.2, go_on.set).start()
    assert forked(lambda: engine.dialect.server_version_info is not None)
    thread.join(BOUND)


def test_switch_interval_survives_forks_of_several_threads(tmp_path: pathlib.Path) -> None:
    """Each waits for SQLite's locks with another interval; parent and children have their own back."""
    engine = guard(sa.create_engine(f"sqlite:///{tmp_path}/a.db"))
    engine.connect().close()
    before, answers = sys.getswitchinterval(), []

    def forks() -> None:
        for _ in range(5):
            answers.append(forked(sys.getswitchinterval))  # noqa: PERF401

    threads = [threading.Thread(target=forks) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10 * BOUND)
    assert set(answers) == {before} and len(answers) == 20 and sys.getswitchinterval() == before


def writes(engine: sa.Engine, who: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (:who)"), {"who": who})


@pytest.mark.parametrize("options", [{}, {"pool_use_lifo": True}], ids=["fifo", "lifo"])
def test_idle_connections_to_a_wal_database_are_opened_anew(tmp_path: pathlib.Path, options: Any) -> None:
    """All three are, and no other engine's; the pool counts what it counted."""
    engine, other = (
        in_wal_mode(tmp_path / "a.db", **options),
        guard(sa.create_engine(f"sqlite:///{tmp_path}/b.db")),
    )
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(engine.connect())
        of_another = stack.enter_context(other.connect()).connection.dbapi_connection
    opened: list[Any] = []
    sa.event.listen(engine, "connect", lambda dbapi, record: opened.append(dbapi))
    assert forked(lambda: writes(engine, "child")) is None
    assert engine.pool.status() == engine.pool.recreate().status().replace(
        "in pool: 0", "in pool: 3"
    ).replace("Overflow: -5", "Overflow: -2")
    with contextlib.ExitStack() as stack:
        for number in range(3):
            stack.enter_context(engine.connect())
            assert len(opened) == number + 1
        assert stack.enter_context(other.connect()).connection.dbapi_connection is of_another
    writes(engine, "parent")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT who FROM t").scalars().all() == ["child", "parent"]
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize("on_failure", ["warn", "raise"])
def test_wal_database_in_use_at_the_fork_is_told(tmp_path: pathlib.Path, on_failure: Any) -> None:
    """What is checked out cannot be closed, not even between two transactions of it."""
    engine = guard(in_wal_mode(tmp_path / "a.db"), on_failure=on_failure)
    held = engine.connect()
    held.exec_driver_sql("SELECT 1")
    held.rollback()

    def child() -> str:
        try:
            writes(engine, "child")
        except GuardError as error:
            return str(error)
        return ""

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            told = child() if on_failure == "raise" else str(caught[-1].message)
            os.write(writer, told.encode())
            os._exit(0)
        os.waitpid(pid, 0)
    assert "WAL mode" in os.read(reader, 1000).decode()
    os.close(reader)
    os.close(writer)
    held.close()
    engine.dispose()


@pytest.mark.parametrize("inside", [True, False], ids=["in-the-loop", "between"])
def test_wal_database_of_aiosqlite(tmp_path: pathlib.Path, inside: bool) -> None:
    """Its idle connection is closed by the thread that owns it, which then ends."""
    engine = guard(create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db"))

    async def rows(*statements: str) -> list[str]:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)
                await connection.commit()
            return list((await connection.exec_driver_sql("SELECT who FROM t")).scalars())

    begun, closed = os.pipe(), os.pipe()

    def child() -> list[str]:
        async def last() -> list[str]:
            await rows()
            os.write(begun[1], b".")
            os.read(closed[0], 1)
            return await rows("INSERT INTO t VALUES ('child')")

        loop = asyncio.new_event_loop()
        asyncio.events._set_running_loop(None)  # the inherited one, in whose frames we are
        return loop.run_until_complete(last())

    async def closes(born: Child) -> Any:
        os.read(begun[0], 1)
        await engine.dispose()
        os.write(closed[1], b".")
        return born.result()

    async def parent() -> Any:
        await rows("PRAGMA journal_mode = WAL", "CREATE TABLE t (who TEXT)")
        return await closes(Child(child)) if inside else None

    with asyncio.Runner() as runner:
        seen = runner.run(parent())
        if not inside:
            born = Child(child)
            seen = runner.run(closes(born))
    assert seen == ["child"]
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as other:
        assert other.execute("SELECT who FROM t").fetchall() == [("child",)]
    for end in (*begun, *closed):
        os.close(end)


@pytest.mark.parametrize("connected", ["never", "disposed", "null-pool"])
def test_loop_without_a_connection(server: Server, connected: str) -> None:
    """A loop crosses the fork as well where no connection of its engine is open; the parent's stays awake."""
    options = {"poolclass": pools.NullPool} if connected == "null-pool" else {}
    engine = guard(engine_for("asyncpg", server.url, **options))

    async def parent() -> float:
        if connected != "never":
            async with engine.connect() as connection:
                await connection.exec_driver_sql("SELECT 1")
        if connected == "disposed":
            await engine.dispose()
        forked(asyncio.get_running_loop()._close_self_pipe)  # as asyncio.run() does, when the child leaves it
        started = time.monotonic()
        await asyncio.wait_for(asyncio.to_thread(lambda: None), BOUND)
        return time.monotonic() - started

    assert asyncio.run(parent()) < BOUND / 2


@pytest.fixture
def engine_on_sqlite(tmp_path: pathlib.Path) -> sa.Engine:
    """A guarded engine on an SQLite file: forks of this process wait for SQLite's own locks."""
    return guard(sa.create_engine(f"sqlite:///{tmp_path}/a.db"))


@contextlib.contextmanager
def in_c_code(rounds: int) -> Iterator[tuple[threading.Thread, list[float]]]:
    """A thread that computes without the GIL, as SQLite does; yields it and, once it is over, what it took."""
    begun, took = threading.Event(), list[float]()

    def compute() -> None:
        begun.set()
        start = time.thread_time()
        hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
        took.append(time.thread_time() - start)

    thread = threading.Thread(target=compute)
    thread.start()
    assert begun.wait(BOUND)
    try:
        yield thread, took
    finally:
        thread.join(BOUND)


def rounds_in(seconds: float) -> int:
    """How many rounds of that computation take so long, at least, on an idle processor."""
    fastest = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2000)
        fastest = min(fastest, time.perf_counter() - start)
    return int(2000 * seconds / fastest)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whether a thread runs")
def test_fork_waits_for_threads_in_c_code(engine_on_sqlite: sa.Engine) -> None:
    """SQLite's locks are held by such threads, for as long as they do not get a processor."""
    with in_c_code(rounds_in(0.06)) as (thread, took):
        start = time.monotonic()
        forked(int)
        waited = time.monotonic() - start
        thread.join(BOUND)
        assert waited > min(took[0], 0.1) - 0.01, "it did not wait"


def test_fork_does_not_wait_long_for_c_code(engine_on_sqlite: sa.Engine) -> None:
    """What takes longer is more than a lock's instant."""
    with in_c_code(rounds_in(1.5)) as (_, took):
        forked(int)
        assert not took, "it waited for the end of the computation"


def test_nobody_gets_the_gil_after_the_wait(engine_on_sqlite: sa.Engine) -> None:
    """Else a thread could go into SQLite between the wait and the fork, which another's hook can delay."""
    turns, over = [0], threading.Event()

    def count() -> None:
        while not over.is_set():
            turns[0] += 1

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    module = importlib.import_module("poolfork.guard")
    stolen = []
    for _ in range(5):
        module._drain()
        before, end = turns[0], time.perf_counter() + 0.15
        while time.perf_counter() < end:
            pass
        stolen.append(turns[0] - before)
    over.set()
    for thread in threads:
        thread.join(BOUND)
    assert sorted(stolen)[2] == 0, stolen  # the middle one: this process may lose the processor for long


def test_second_copy_of_the_guard_is_told(server: Server) -> None:
    """The file may be copied, but not beside itself."""
    code = (
        "import importlib.util, sys, sqlalchemy as sa, poolfork;"
        "where = importlib.util.find_spec('poolfork.guard').origin;"
        "spec = importlib.util.spec_from_file_location('copied', where);"
        "copied = importlib.util.module_from_spec(spec); spec.loader.exec_module(copied);"
        "[guard(sa.create_engine(sys.argv[1])) for guard in (poolfork.guard, copied.guard)]"
    )
    done = run_script(code, address(DRIVERS["psycopg2"], server.url)[0])
    assert done.returncode == 0 and done.stderr.count("another copy of guard.py") == 1, done.stderr


@pytest.mark.parametrize("action", ["ignore", "error"])
def test_engine_that_is_to_refuse_does(server: Server, action: Any) -> None:
    """In the child and in its child, whatever another engine's warning is made into."""
    warning, raising = (
        guard(engine_for("psycopg2", server.url), on_failure=how) for how in ("warn", "raise")
    )
    for engine in warning, raising:
        session_of(engine)
    for ref in list(importlib.import_module("poolfork.guard")._tracks.values()):
        ref().sockets = ()  # as of a driver whose socket was not found

    def refused() -> bool:
        try:
            raising.connect().close()
        except GuardError:
            return True
        return False

    with warnings.catch_warnings():
        warnings.simplefilter(action, GuardWarning)
        child = Child(lambda: (refused(), Child(refused, safe=False).result()), safe=False)
    assert child.result() == (True, True)
    for engine in warning, raising:
        engine.dispose()


def test_socket_that_the_driver_does_not_tell(server: Server) -> None:
    """It is found among those that appear meanwhile, even under a number that a lost connection had."""
    import psycopg2.extensions

    class Silent(psycopg2.extensions.connection):
        def fileno(self) -> int:
            raise AttributeError("fileno")

    pipe: list[socket.socket] = []

    def connect() -> Any:
        connection = psycopg2.connect(server.url, connection_factory=Silent)
        if reused:
            ours, theirs = socket.socketpair()
            theirs.close()
            pipe.append(ours)
        return connection

    reused: list[int] = []
    engine = guard(sa.create_engine("postgresql+psycopg2://", creator=connect))
    with engine.connect() as first, engine.connect() as second:
        number = psycopg2.extensions.connection.fileno(first.connection.driver_connection)
        first.connection.driver_connection.close()  # the pool does not know
        reused.append(number)
        with engine.connect() as third:
            mine = backend(third)
            assert psycopg2.extensions.connection.fileno(third.connection.driver_connection) == number

            def what_is_left() -> tuple[bool, bool]:
                return stat.S_ISSOCK(os.fstat(number).st_mode), stat.S_ISSOCK(
                    os.fstat(pipe[0].fileno()).st_mode
                )

            assert forked(what_is_left, "exit") == (False, True)
            assert backend(third) == mine
        assert backend(second)
        first.invalidate()
    engine.dispose()
    pipe[0].close()


def test_engine_with_a_past(server: Server) -> None:
    """Made in a thread, used, disposed of, guarded late, listened to: then forked."""
    made: list[sa.Engine] = []
    thread = threading.Thread(target=lambda: made.append(engine_for("psycopg2", server.url)))
    thread.start()
    thread.join(10)
    engine, heard = made[0], []
    sa.event.listen(engine, "checkout", lambda *_: heard.append(os.getpid()))
    early = engine.connect()
    backend(early)
    guard(engine)
    session_of(engine)
    engine.dispose()
    early.close()
    keeps_its_session(engine)
    assert set(heard) == {os.getpid()}
    assert forked(lambda: [session_of(engine) and heard[-1] == os.getpid()]) == [True]


def test_connection_opened_before_the_guard(server: Server) -> None:
    """What the guard has not seen opened is not handed to the child."""
    engine = engine_for("psycopg2", server.url)
    mine = session_of(engine)
    guard(engine)
    assert forked(lambda: session_of(engine), "exit") != mine


def test_two_phase_transaction_of_the_parent(server: Server) -> None:
    """A child's rollback of a two-phase transaction is its own affair."""
    engine = guard(engine_for("psycopg2", server.url))
    with engine.connect() as connection:
        transaction = connection.begin_twophase()
        mine = backend(connection)
        forked(transaction.rollback, "exit")
        assert backend(connection) == mine
        transaction.rollback()
    engine.dispose()


def test_new_programs_are_left_alone(server: Server) -> None:
    """subprocess, with and without preexec_fn, and multiprocessing's spawn: nothing to do, nothing done."""
    engine = guard(engine_for("psycopg2", server.url))
    mine = session_of(engine)
    for function in None, os.setsid:
        done = subprocess.run(
            [sys.executable, "-c", "print(6 * 7)"],
            preexec_fn=function,
            capture_output=True,
            timeout=BOUND,
        )
        assert done.stdout == b"42\n"
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    process.join(BOUND)
    assert process.exitcode == 0
    assert session_of(engine) == mine
    engine.dispose()


def test_unguarded_engines_behave_as_ever(server: Server) -> None:
    """An engine beside a guarded one is neither protected nor disturbed."""
    guard(engine_for("psycopg2", server.url))
    plain = engine_for("psycopg2", server.url, poolclass=pools.StaticPool)
    with plain.connect() as held:
        mine = backend(held)
        assert forked(lambda: backend(held), how="c") == mine
        assert backend(held) == mine
    plain.dispose()


def test_canary_does_not_trust_an_advice_that_is_only_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system takes any advice and follows none, as qemu's user mode did, pids are compared."""

    class Obedient(mmap.mmap):
        def madvise(self, *_: int) -> None:
            return None

    module = importlib.import_module("poolfork.guard")
    monkeypatch.setattr(module.mmap, "mmap", Obedient)
    canary = module._make_canary()
    assert type(canary).__name__ == "_PidCanary" and canary[0]
    assert not forked(lambda: canary[0], how="c")


def test_drivers_own_object_in_a_child_forked_from_c_is_shared(server: Server) -> None:
    """The gap that is left: nobody asks the guard, so the child speaks on its parent's session (doc/peers.rst)."""
    engine = guard(engine_for("psycopg2", server.url))
    with engine.connect() as connection:
        mine, driver = backend(connection), connection.connection.driver_connection

    def child() -> Any:
        cursor = driver.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]

    assert forked(child, how="c") == mine
    engine.dispose()
