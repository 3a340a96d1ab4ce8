"""The guard's other promises: every kind of pool, nothing leaks, failures are told, each mechanism is needed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import multiprocessing
import os
import pathlib
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import psycopg2.extensions
import pytest
import sqlalchemy as sa
from guardkit import Child, backend, engine_for, failures, forked, in_wal_mode, loop_running
from sqlalchemy import pool as pools
from sqlalchemy.ext.asyncio import create_async_engine

import poolfork
from poolfork import MECHANISMS, GuardError, GuardWarning, InheritedConnectionError, guard, unguard
from poolfork.ablation import switch_off
from poolfork.servers import ServerError, mariadb, postgres

pytestmark = pytest.mark.usefixtures("garbage_free")
HOW = pytest.mark.parametrize("how", ["python", "c"])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as running:
        yield running.url


@pytest.fixture(scope="module")
def mysql() -> Iterator[str]:
    try:
        with mariadb() as running:
            yield running.url
    except ServerError as error:
        pytest.skip(str(error))


def session_of(engine: sa.Engine) -> Any:
    with engine.connect() as connection:
        return backend(connection)


# Every kind of pool, and engines that are made in other ways


@HOW
@pytest.mark.parametrize(
    "kind", ["QueuePool", "NullPool", "StaticPool", "SingletonThreadPool", "AssertionPool"]
)
def test_child_of_any_pool_gets_its_own_session(server: str, kind: str, how: str) -> None:
    """A held connection refuses, a new one works, and the parent's transaction is kept."""
    engine = guard(engine_for("psycopg2", server, poolclass=getattr(pools, kind)))
    assert isinstance(engine.pool, getattr(pools, kind)) and type(engine.pool).__name__ == kind
    connection = engine.connect()
    mine = backend(connection)

    def child() -> Any:
        with pytest.raises(InheritedConnectionError):
            backend(connection)
        connection.close()
        return session_of(engine)

    assert forked(child, "exit", how) != mine
    assert backend(connection) == mine
    connection.close()
    engine.dispose()


def test_all_holders_of_one_static_connection_refuse(server: str) -> None:
    """A StaticPool hands the same connection to several holders; in the child each refuses."""
    engine = guard(engine_for("psycopg2", server, poolclass=pools.StaticPool))
    with engine.connect() as one, engine.connect() as other:
        mine = backend(one)

        def child() -> None:
            for connection in one, other:
                with pytest.raises(InheritedConnectionError):
                    backend(connection)

        forked(child)
        assert backend(other) == mine
    engine.dispose()


@HOW
def test_raw_and_detached_connections_refuse(server: str, how: str) -> None:
    """raw_connection() and a detached Connection refuse in the child and close silently."""
    engine = guard(engine_for("psycopg2", server))
    raw, detached = engine.raw_connection(), engine.connect()
    detached.detach()
    mine = backend(detached)

    def child() -> None:
        with pytest.raises(InheritedConnectionError):
            raw.cursor()
        with pytest.raises(InheritedConnectionError):
            backend(detached)
        raw.close()
        detached.close()

    forked(child, "exit", how)
    assert backend(detached) == mine
    raw.cursor().execute("SELECT 1")
    raw.close()
    detached.close()
    engine.dispose()


def test_savepoint_unwinds_silently_in_the_child(server: str) -> None:
    """An exception through begin_nested() in the child leaves the parent's savepoint alone."""
    engine = guard(engine_for("psycopg2", server))
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE TEMPORARY TABLE nested (a int)"))
        with connection.begin_nested() as savepoint:
            connection.execute(sa.text("INSERT INTO nested VALUES (1)"))
            forked(lambda: savepoint.__exit__(ValueError, ValueError("from the child"), None), "exit")
        assert connection.scalar(sa.text("SELECT count(*) FROM nested")) == 1
    engine.dispose()


@pytest.mark.parametrize("tells", [True, False])
def test_creator_and_a_driver_that_does_not_tell_its_socket(server: str, tells: bool) -> None:
    """With `creator=`, and when the socket has to be found by what a connect opened."""
    url = sa.make_url(server)

    class Mute(psycopg2.extensions.connection):
        fileno = None  # type: ignore[assignment]

    factory = psycopg2.extensions.connection if tells else Mute
    engine = guard(
        sa.create_engine(
            "postgresql+psycopg2://",
            creator=lambda: psycopg2.connect(
                host=url.query["host"], user="postgres", dbname="postgres", connection_factory=factory
            ),
        )
    )
    mine = session_of(engine)
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        number = psycopg2.extensions.connection.fileno(driver)

        def child() -> Any:
            return os.fstat(number).st_rdev == pathlib.Path(os.devnull).stat().st_rdev, session_of(engine)

        silenced, theirs = forked(child)
        assert silenced and theirs != mine
    engine.dispose()


def test_view_of_an_engine_and_many_engines(server: str) -> None:
    """execution_options() shares the pool; each of several engines has its own."""
    first, second = (guard(engine_for("psycopg2", server)) for _ in range(2))
    view = first.execution_options(isolation_level="AUTOCOMMIT")
    assert guard(view) is view
    mine = [session_of(engine) for engine in (first, second)]

    def child() -> Any:
        assert view.pool is first.pool
        return [session_of(engine) for engine in (first, second, view)]

    theirs = forked(child)
    assert len({*mine, *theirs}) == 4 and theirs[0] == theirs[2]
    assert [session_of(engine) for engine in (first, second)] == mine
    for engine in first, second:
        engine.dispose()


def test_multiprocessing_and_forks_from_threads(server: str) -> None:
    """A worker of multiprocessing, started in a thread, gets its own session."""
    engine = guard(engine_for("psycopg2", server))
    mine, context, answers = session_of(engine), multiprocessing.get_context("fork"), []
    reader, writer = context.Pipe(duplex=False)

    def work() -> None:
        process = context.Process(target=lambda: writer.send(session_of(engine)))
        process.start()
        answers.append(reader.recv() if reader.poll(10) else None)
        process.join(10)
        answers.append(process.exitcode)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(25)
    assert answers[0] not in (None, mine) and answers[1] == 0
    assert session_of(engine) == mine
    engine.dispose()


def test_sqlite_file_and_memory(tmp_path: Any) -> None:
    """A file is opened anew in the child; a database in memory is the child's own copy already."""
    file = guard(sa.create_engine(f"sqlite:///{tmp_path}/file.db"))
    memory = guard(sa.create_engine("sqlite://", poolclass=pools.StaticPool))
    for engine in file, memory:
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE t (a int)"))
            connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    held = file.connect()
    assert held.scalar(sa.text("SELECT a FROM t")) == 1
    held.rollback()

    def child() -> list[Any]:
        with pytest.raises(InheritedConnectionError):
            held.scalar(sa.text("SELECT a FROM t"))
        found = []
        for engine in file, memory:
            with engine.begin() as connection:
                connection.execute(sa.text("INSERT INTO t VALUES (2)"))
                found.append(connection.scalar(sa.text("SELECT count(*) FROM t")))
        return found

    assert forked(child, "exit") == [2, 2]
    assert held.scalar(sa.text("SELECT count(*) FROM t")) == 2
    held.close()
    with memory.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM t")) == 1


def test_aiosqlite_child_opens_its_own(tmp_path: Any) -> None:
    """aiosqlite's thread does not exist in the child; a new connection brings its own."""
    engine = guard(create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/file.db"))

    async def one() -> Any:
        async with engine.connect() as connection:
            return await connection.scalar(sa.text("SELECT 1"))

    async def parent() -> None:
        assert await one() == 1

        def child() -> Any:
            asyncio.events._set_running_loop(None)
            return asyncio.run(one())

        assert forked(child) == 1
        assert await one() == 1
        async with engine.connect() as connection:
            rows = await connection.stream(sa.text("SELECT 1 UNION SELECT 2"))

            def close_cursor() -> None:
                asyncio.events._set_running_loop(None)
                asyncio.run(rows.close())  # must not wait for the parent's thread

            forked(close_cursor)
            assert len(await rows.all()) == 2
        await engine.dispose()

    with loop_running() as run:
        run(parent())


# What the parent notices: nothing


def test_engines_and_connections_die_as_without_the_guard(server: str) -> None:
    """Dropped, closed, invalidated and detached connections, pools and engines are all collected."""
    guard_module = __import__("sys").modules["poolfork.guard"]
    gc.collect()
    before = len(guard_module._tracks), len(guard_module._engines)

    def live(guarded: bool) -> list[weakref.ref[Any]]:
        engine = engine_for("psycopg2", server)
        if guarded:
            guard(engine)
        kept = [weakref.ref(engine), weakref.ref(engine.pool)]
        with engine.connect() as closed, engine.connect() as invalidated, engine.connect() as detached:
            kept += [weakref.ref(c.connection.dbapi_connection) for c in (closed, invalidated, detached)]
            invalidated.invalidate()
            detached.detach()
        forked(lambda: None)
        kept_early = kept[3:]
        assert not [ref for ref in kept_early if ref() is not None] or not guarded
        old = weakref.ref(engine.pool)
        engine.dispose()
        kept.append(old)
        return kept

    for guarded in False, True:
        refs = live(guarded)
        gc.collect()
        assert [ref() for ref in refs] == [None] * len(refs), f"guarded: {guarded}"
    assert (len(guard_module._tracks), len(guard_module._engines)) == before
    assert (
        not guard_module._pins
        and not importlib.import_module("poolfork.guard")._in_flight
        and not guard_module._forking
    )


def test_detached_connection_dies_with_its_holder(server: str) -> None:
    """The pool's record does not keep it alive; no garbage collector is needed."""
    alive = []
    for guarded in False, True:
        engine = engine_for("psycopg2", server)
        if guarded:
            guard(engine)
        raw = engine.raw_connection()
        raw.detach()
        dies = weakref.ref(raw.dbapi_connection)
        del raw
        alive.append(dies() is not None)
        engine.dispose()
    assert alive == [False, False]


def test_guard_is_idempotent_and_can_be_undone(server: str) -> None:
    """A second call changes nothing; after unguard() the pool's class is SQLAlchemy's."""
    engine = engine_for("psycopg2", server)
    assert guard(engine) is engine
    once = type(engine.pool)
    assert guard(engine) is engine and type(engine.pool) is once
    mine = session_of(engine)
    engine.dispose()
    assert type(engine.pool) is once, "dispose() makes a guarded pool"
    assert session_of(engine) != mine
    assert unguard(engine) is engine and type(engine.pool) is pools.QueuePool
    assert session_of(engine)
    unguard(engine)
    engine.dispose()
    assert poolfork.guard is guard


def test_package_imports_sqlalchemy_when_the_guard_is_asked_for() -> None:
    """``scan`` needs none of it; and ``poolfork.guard`` stays the function, whoever imports the module first."""
    told = (
        "import sys, types, poolfork; assert 'sqlalchemy' not in sys.modules, 'early';"
        "import poolfork.guard; from poolfork.guard import guard as function, GuardWarning as warning;"
        "assert type(function) is types.FunctionType and poolfork.guard is function;"
        "from poolfork import *; assert guard is function and GuardWarning is warning;"
        "assert {*poolfork.__all__} <= {*dir(poolfork)} & {*globals()} and not hasattr(poolfork, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", told], check=True, timeout=60)


@pytest.mark.parametrize("thing", ["postgresql://", None, object()])
def test_guard_of_no_engine_is_a_type_error(thing: Any) -> None:
    """The message says what was given."""
    with pytest.raises(TypeError, match=type(thing).__name__):
        guard(thing)
    with pytest.raises(TypeError):
        unguard(thing)


def test_bad_options_are_value_errors(server: str) -> None:
    """An unknown on_failure or mechanism is refused, and nothing is guarded."""
    engine = engine_for("psycopg2", server)
    with pytest.raises(ValueError, match="on_failure"):
        guard(engine, on_failure="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such mechanism"):
        switch_off("magic")
    assert type(engine.pool) is pools.QueuePool


# Failures are told


@pytest.mark.parametrize("on_failure", ["warn", "raise"])
def test_child_that_cannot_be_made_safe_says_so(server: str, on_failure: Any) -> None:
    """No descriptor is left for the null device: a warning, or an error at each checkout."""
    engine = guard(engine_for("psycopg2", server), on_failure=on_failure)
    mine = session_of(engine)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def child() -> Any:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        texts = [str(warning.message) for warning in caught if warning.category is GuardWarning]
        try:
            return texts, session_of(engine)
        except GuardError as error:
            return texts, str(error)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reader, writer = os.pipe()
        highest = max(int(entry.name) for entry in pathlib.Path("/proc/self/fd").iterdir())
        fill = [os.dup(reader) for _ in range(highest)]
        try:
            import guardkit

            original = os.fork

            def starved_fork() -> int:
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                return original()

            guardkit.os.fork = starved_fork  # type: ignore[assignment]
            try:
                started = guardkit.Child(child, safe=False)
            finally:
                guardkit.os.fork = original  # type: ignore[assignment]
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        finally:
            for number in [*fill, reader, writer]:
                os.close(number)
        texts, second = started.result()
    if on_failure == "warn":
        assert len(texts) == 1 and "Too many open files" in texts[0]
        assert second != mine
    else:
        assert texts == [] and "Too many open files" in second
    assert session_of(engine) == mine
    engine.dispose()


# Each mechanism is needed: what goes wrong without it, and does not with it


@pytest.fixture(autouse=True)
def switched_off(request: pytest.FixtureRequest) -> Iterator[None]:
    """For the tests of this section: the guard without what ``off`` names."""
    on_again = switch_off(*(request.getfixturevalue("off") if "off" in request.fixturenames else ()))
    yield
    on_again()


def without(mechanism: str) -> Any:
    """Both builds of a guard: whole, and without one mechanism."""
    return pytest.mark.parametrize(
        "off", [frozenset(), frozenset({mechanism})], ids=["whole", f"no-{mechanism}"]
    )


def alive(engine: sa.Engine, mine: Any) -> bool:
    try:
        return bool(session_of(engine) == mine)
    except sa.exc.DBAPIError:
        return False


@without("canary")
def test_canary_sees_a_fork_from_c(server: str, off: frozenset[str]) -> None:
    """Else parent and child are handed the same session."""
    engine = guard(engine_for("psycopg2", server))
    mine = session_of(engine)
    assert (forked(lambda: session_of(engine), how="c") == mine) is bool(off)


@without("pin")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyMySQL's, without the pin
def test_pin_keeps_a_thread_local_alive(mysql: str, off: frozenset[str]) -> None:
    """Else the cursor in another thread's threading.local reads, in the child, the parent's rows when it dies."""
    cursors = pytest.importorskip("pymysql.cursors")
    engine = guard(engine_for("pymysql", mysql, connect_args={"read_timeout": 1}))
    local, holds, done, answers = threading.local(), threading.Event(), threading.Event(), []

    def work() -> None:
        raw = engine.raw_connection()
        local.cursor = raw.cursor(cursors.SSCursor)
        local.cursor.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
            " SELECT i, REPEAT('x', 1000) FROM n"
        )
        local.cursor.fetchone()
        holds.set()
        assert done.wait(20)
        try:
            answers.append(len(local.cursor.fetchall()) == 99)
            raw.close()
        except Exception:  # noqa: BLE001
            answers.append(False)
            raw.invalidate()

    thread = threading.Thread(target=work)
    thread.start()
    assert holds.wait(20)
    forked(lambda: None)
    done.set()
    thread.join(20)
    assert answers == [not off]
    engine.dispose()


@without("gate")
def test_gate_lets_a_connect_finish_before_the_fork(server: str, off: frozenset[str]) -> None:
    """Else a child is born while another thread sets the dialect up, and has half a dialect for ever."""
    engine = guard(engine_for("psycopg2", server))
    inside, go = threading.Event(), threading.Event()

    def first_question(*_: Any) -> None:
        if not inside.is_set():
            inside.set()
            go.wait(0.3)

    sa.event.listen(engine, "do_execute", first_question)
    thread = threading.Thread(target=lambda: session_of(engine))
    thread.start()
    assert inside.wait(10)

    def child() -> Any:
        session_of(engine)
        return engine.dialect.default_schema_name

    theirs = forked(child)
    go.set()
    thread.join(20)
    assert (theirs == "public") is not bool(off)
    engine.dispose()


@without("log")
def test_log_is_closed_before_the_fork(tmp_path: pathlib.Path, off: frozenset[str]) -> None:
    """Else the parent's last close deletes the write-ahead log that the child's COMMIT went to."""
    engine = in_wal_mode(tmp_path / "a.db")
    begun, closed = os.pipe(), os.pipe()

    def child() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM t").all()
        os.write(begun[1], b".")
        os.read(closed[0], 1)
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES ('child')")

    born = Child(child)
    os.read(begun[0], 1)
    engine.dispose()
    os.write(closed[1], b".")
    born.result()
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as other:
        assert other.execute("SELECT who FROM t").fetchall() == ([] if off else [("child",)])
    for end in (*begun, *closed):
        os.close(end)


@without("null")
def test_null_device_silences_the_drivers_own_handle(mysql: str, off: frozenset[str]) -> None:
    """Else the driver's connection, kept by the application, ends the parent's session."""
    engine = guard(engine_for("mysqldb", mysql))
    mine = session_of(engine)
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
    forked(driver.close)
    assert alive(engine, mine) is not bool(off)


@without("identity")
def test_identity_spares_a_file_that_took_the_number(server: str, off: frozenset[str]) -> None:
    """Else the child loses a socket of the application's that got a closed connection's number."""
    engine = guard(engine_for("psycopg2", server))
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
    number = driver.fileno()
    driver.close()  # behind the pool's back
    ours, theirs = socket.socketpair()
    if theirs.fileno() == number:
        ours, theirs = theirs, ours
    elif ours.fileno() != number:
        os.dup2(ours.fileno(), number)
        ours.close()
        ours = socket.socket(fileno=number)
    theirs.send(b"still here")
    ours.settimeout(5)

    def child() -> bytes:
        try:
            return os.read(number, 10)
        except OSError:
            return b""

    assert forked(child) == (b"" if off else b"still here")
    ours.close()
    theirs.close()


@without("loop")
def test_loop_of_the_parent_stays_awake(server: str, off: frozenset[str]) -> None:
    """Else the parent's loop is deaf to its own wake-ups once the child has closed its copy of the loop.

    (What the child unregisters of a *silenced* socket does not reach the shared epoll object.)
    """
    engine = guard(engine_for("asyncpg", server))

    async def parent() -> bool:
        async with engine.connect() as connection:
            await connection.run_sync(backend)
            loop: Any = asyncio.get_running_loop()
            forked(loop._close_self_pipe)
            for _ in range(5):  # a busy machine may let the thread end before the loop waits for it
                began = loop.time()
                try:
                    async with asyncio.timeout(2):
                        await asyncio.to_thread(time.sleep, 0.1)
                except TimeoutError:
                    return False
                if loop.time() - began > 1.9:  # the timeout woke the loop, not the thread
                    return False
            return True

    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(parent()) is not bool(off)
    finally:
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()


@without("replace")
def test_replaced_pool_starves_nobody(server: str, off: frozenset[str]) -> None:
    """Else the parent's checkouts count against the child, and the old pool has what is not the child's."""
    engine = guard(engine_for("psycopg2", server, pool_size=1, max_overflow=0, pool_timeout=0.5))
    with engine.connect():
        pool = engine.pool

        def child() -> bool:
            return engine.pool is not pool

        assert forked(child) is not bool(off)
    engine.dispose()


@without("held")
def test_held_connection_refuses_clearly(server: str, off: frozenset[str]) -> None:
    """Else the error is the driver's, about a socket."""
    engine = guard(engine_for("psycopg2", server))
    with engine.connect() as connection:
        backend(connection)

        def child() -> str:
            try:
                backend(connection)
            except Exception as error:  # noqa: BLE001
                return type(error).__name__
            return "no error"

        assert (forked(child) == "InheritedConnectionError") is not bool(off)
    engine.dispose()


@without("forever")
def test_forever_keeps_a_destructor_from_running(tmp_path: Any, off: frozenset[str]) -> None:
    """Else the child destroys the parent's SQLite connection, and with it the parent's journal."""
    engine = guard(sa.create_engine(f"sqlite:///{tmp_path}/file.db", poolclass=pools.NullPool))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a int)"))
    connection = engine.connect()
    connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    journal = tmp_path / "file.db-journal"
    assert journal.exists()

    def child() -> None:
        nonlocal connection
        connection.close()
        del connection
        gc.collect()

    forked(child, "exit", safe=False)  # in a transaction, on SQLite
    assert journal.exists() is not bool(off)
    connection.close()


# Engines that change after the guard


@HOW
def test_pool_that_is_put_into_the_engine_later(mysql: str, how: str) -> None:
    """It is taken over at the fork, with what it holds."""
    engine = guard(engine_for("mysqldb", mysql))
    engine.pool = pools.QueuePool(engine.pool._creator, dialect=engine.dialect)
    mine = session_of(engine)

    def child() -> Any:
        theirs = session_of(engine)
        gc.collect()
        return theirs

    assert forked(child, "exit", how) != mine
    assert session_of(engine) == mine
    engine.dispose()


def test_search_for_what_is_open_asks_no_proxy(server: str) -> None:
    """`guard` goes through every object of the program; some raise when they are asked for their class."""

    class Gone:
        pass

    class Lazy:
        __class__ = property(lambda self: pytest.fail("a lazy object was woken"))  # type: ignore[assignment]

    proxy, lazy = weakref.proxy(Gone()), Lazy()
    engine = engine_for("psycopg2", server)
    mine = session_of(engine)
    guard(engine)
    assert forked(lambda: session_of(engine), "exit") != mine
    assert session_of(engine) == mine
    assert type(proxy) is weakref.ProxyType and type(lazy) is Lazy
    engine.dispose()


def test_view_of_a_view_is_the_engine(server: str) -> None:
    """The view in between may die."""
    engine = engine_for("psycopg2", server)
    guard(engine.execution_options(a=1).execution_options(b=2))
    gc.collect()
    mine = session_of(engine)
    assert forked(lambda: session_of(engine), "exit") != mine
    assert session_of(engine) == mine
    engine.dispose()


def test_memory_pool_gives_connections_though_all_were_out() -> None:
    """A memory database is the child's own; the lock of its pool, and what other threads hold, is not."""
    engine = guard(
        sa.create_engine(
            f"sqlite:///file:{uuid.uuid4().hex}?mode=memory&cache=shared&uri=true",
            poolclass=pools.QueuePool,
            pool_size=2,
            max_overflow=0,
            pool_timeout=2,
        )
    )
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a int)"))
    idle = engine.connect()
    held = engine.connect()
    idle.close()
    locked, go_on = threading.Event(), threading.Event()

    def lock() -> None:
        with engine.pool._pool.mutex:  # type: ignore[attr-defined]
            locked.set()
            go_on.wait(10)

    thread = threading.Thread(target=lock)
    thread.start()
    assert locked.wait(10)

    def child() -> int:
        with engine.connect() as one, engine.connect() as other:
            return len([c.scalar(sa.text("SELECT count(*) FROM t")) for c in (one, other)])

    try:
        assert forked(child, "exit") == 2
    finally:
        go_on.set()
        thread.join(10)
    held.close()
    engine.dispose()


def test_fork_beside_async_connects_is_no_false_alarm(server: str) -> None:
    """Only an engine's first connect leaves a child half a dialect: forks beside later ones do not warn."""
    engine = guard(engine_for("asyncpg", server, poolclass=pools.NullPool))
    begun: list[Any] = []
    sa.event.listen(engine.sync_engine, "do_connect", lambda *_: begun.append(1))

    async def ask() -> Any:
        async with engine.connect() as connection:
            return await connection.run_sync(backend)

    async def forks_beside_connects() -> None:
        await ask()
        asked = [asyncio.ensure_future(ask()) for _ in range(5)]
        while len(begun) < 6:
            await asyncio.sleep(0)  # until each is in its connect
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", GuardWarning)
            child = os.fork()
            if child == 0:
                os._exit(0)
        os.waitpid(child, 0)
        assert [str(one.message) for one in told if issubclass(one.category, GuardWarning)] == []
        assert len(set(await asyncio.gather(*asked))) == 5

    with loop_running() as run:
        run(forks_beside_connects())
        run(engine.dispose())


def test_sqlite_transaction_at_the_fork_is_told(tmp_path: Any) -> None:
    """SQLite's table of locks is in the process's memory: the child inherits the belief that they are held."""
    engine = guard(sa.create_engine(f"sqlite:///{tmp_path}/file.db"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a int)"))
    assert forked(failures) == set()
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
        (told,) = forked(failures, safe=False)
        assert told.startswith("the parent was in a transaction on an SQLite database")
    guard(engine, on_failure="raise")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (2)"))

        def child() -> None:
            with pytest.raises(GuardError, match="SQLite"):
                engine.connect()

        forked(child, safe=False)
    assert forked(lambda: engine.connect().scalar(sa.text("SELECT sum(a) FROM t"))) == 3
    engine.dispose()


def test_signal_handler_that_raises_while_a_fork_waits(mysql: str) -> None:
    """What was tracked is pinned all the same."""
    engine = guard(engine_for("mysqldb", mysql))
    kept = threading.local()
    mine, begun, go_on = [], threading.Event(), threading.Event()

    def hold() -> None:
        kept.connection = engine.connect()
        mine.append(backend(kept.connection))
        begun.set()
        assert go_on.wait(20)
        assert backend(kept.connection) == mine[0]
        kept.connection.close()
        mine.append("still mine")

    def connect() -> None:
        sa.event.listen(engine, "do_connect", lambda *_: time.sleep(0.5))
        engine.connect().close()

    def handler(*_: Any) -> None:
        raise InterruptedError("the handler's own")

    before = signal.signal(signal.SIGALRM, handler)
    holds, connects = threading.Thread(target=hold), threading.Thread(target=connect)
    try:
        holds.start()
        assert begun.wait(10)
        connects.start()
        while not importlib.import_module("poolfork.guard")._in_flight:
            time.sleep(0.001)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pytest.PytestUnraisableExceptionWarning)
            child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        go_on.set()
        holds.join(20)
        connects.join(20)
    assert mine[1:] == ["still mine"]
    engine.dispose()


def test_every_mechanism_has_its_test() -> None:
    """The list that the site's ablation table uses is the list tested here."""
    tested = {
        next(iter(mark.args[1][1]))
        for name, function in globals().items()
        if name.startswith("test_")
        for mark in getattr(function, "pytestmark", [])
        if mark.args and mark.args[0] == "off"
    }
    assert tested == set(MECHANISMS)
