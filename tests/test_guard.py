"""The guard on every driver: what a child may do to the parent (nothing), and what it gets."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from guardkit import ASYNC, ASYNC_POSTGRES, BOUND, POSTGRES, SYNC, backend, engine_for, forked, loop_running
from sqlalchemy.orm import Session

from poolfork import InheritedConnectionError, guard, unguard
from poolfork.servers import ServerError, mariadb, postgres

pytestmark = pytest.mark.usefixtures("garbage_free")
HOW = pytest.mark.parametrize("how", ["python", "c"])
LEAVE = pytest.mark.parametrize("leave", ["_exit", "exit"])


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres() as server:
        yield server.url


@pytest.fixture(scope="module")
def mariadb_url() -> Iterator[str]:
    try:
        with mariadb() as server:
            yield server.url
    except ServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def server(request: pytest.FixtureRequest, driver: str) -> str:
    kind = "postgres_url" if driver in POSTGRES + ASYNC_POSTGRES else "mariadb_url"
    return request.getfixturevalue(kind)


@pytest.fixture
def engine(driver: str, server: str) -> Iterator[sa.Engine]:
    """A guarded engine with one table and one idle connection."""
    engine = guard(engine_for(driver, server, pool_size=2, max_overflow=0, pool_timeout=1))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS told"))
        connection.execute(sa.text("CREATE TABLE told (what VARCHAR(20))"))
    yield engine
    engine.dispose()


def tell(connection: Any, what: str) -> None:
    connection.execute(sa.text("INSERT INTO told VALUES (:what)"), {"what": what})


def told(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.scalars(sa.text("SELECT what FROM told")))


def session_of(engine: sa.Engine) -> Any:
    with engine.connect() as connection:
        return backend(connection)


@HOW
@LEAVE
@pytest.mark.parametrize("driver", SYNC)
def test_child_gets_its_own_session_and_parent_keeps_its(engine: sa.Engine, how: str, leave: str) -> None:
    """Two pooled connections of the child are two new sessions; the parent's outlives the child's exit."""
    mine = session_of(engine)

    def child() -> Any:
        with engine.connect() as one, engine.connect() as other:
            found = {backend(one), backend(other)}
        gc.collect()
        return found

    assert len(forked(child, leave, how) - {mine}) == 2
    assert session_of(engine) == mine


@HOW
@pytest.mark.parametrize("driver", SYNC)
def test_child_that_never_uses_the_engine_exits_silently(engine: sa.Engine, how: str) -> None:
    """Collection and normal exit of a child that did nothing leave the parent's session alive."""
    mine = session_of(engine)
    forked(lambda: None, "exit", how)
    assert session_of(engine) == mine


@HOW
@pytest.mark.parametrize("finish", ["close", "drop", "unwind", "rollback", "invalidate"])
@pytest.mark.parametrize("driver", SYNC)
def test_child_finishes_a_held_connection_silently(engine: sa.Engine, finish: str, how: str) -> None:
    """Whatever way the child ends its copy, and then itself, the parent's COMMIT keeps its row."""
    connection = engine.connect()
    context = connection.begin()
    tell(connection, "parent")
    mine = backend(connection)

    def child() -> None:
        nonlocal connection, context
        if finish == "close":
            connection.close()
        elif finish == "drop":
            del connection, context
        elif finish == "unwind":
            context.__exit__(ValueError, ValueError("from the child"), None)
        elif finish == "rollback":
            connection.rollback()
        else:
            connection.invalidate()
        gc.collect()

    forked(child, "exit", how)
    assert backend(connection) == mine
    context.commit()
    connection.close()
    assert told(engine) == ["parent"]


@HOW
@pytest.mark.parametrize("driver", SYNC)
def test_child_that_uses_a_held_connection_gets_a_clear_error(engine: sa.Engine, how: str) -> None:
    """Each way to execute says that the connection was inherited; a new one works at once."""
    with engine.begin() as connection:
        tell(connection, "parent")

        def child() -> str:
            with pytest.raises(InheritedConnectionError) as caught:
                tell(connection, "child")
            for use in (
                lambda: connection.exec_driver_sql("SELECT 1"),
                lambda: connection.connection.cursor(),
                lambda: connection.connection.dbapi_connection.cursor(),
            ):
                with pytest.raises(InheritedConnectionError):
                    use()
            connection.close()
            with engine.connect() as other:
                assert other.scalar(sa.text("SELECT 1")) == 1
            return str(caught.value)

        message = forked(child, how=how)
    assert "fork" in message and "engine.connect()" in message
    assert told(engine) == ["parent"]


@HOW
@pytest.mark.parametrize("driver", SYNC)
def test_child_that_uses_a_held_session_gets_a_clear_error(engine: sa.Engine, how: str) -> None:
    """A Session in a transaction refuses; after close() the same Session works, on its own connection."""
    with Session(engine) as session:
        tell(session, "parent")

        def child() -> Any:
            with pytest.raises(InheritedConnectionError):
                tell(session, "child")
            session.close()
            return session.scalar(sa.text("SELECT 40 + 2"))

        assert forked(child, how=how) == 42
        session.commit()
    assert told(engine) == ["parent"]


@pytest.mark.parametrize("driver", SYNC)
def test_child_is_not_starved_by_what_its_parent_holds(engine: sa.Engine) -> None:
    """pool_size connections are to be had while the parent holds its own pool_size."""
    with engine.connect() as one, engine.connect() as other:
        mine = {backend(one), backend(other)}

        def child() -> Any:
            with engine.connect() as first, engine.connect() as second:
                return {backend(first), backend(second)}

        assert not forked(child) & mine


@HOW
@pytest.mark.parametrize("driver", SYNC)
def test_three_generations_have_three_sessions(engine: sa.Engine, how: str) -> None:
    """Child and grandchild fork with an idle connection each; all three sessions stay alive."""
    mine = session_of(engine)

    def child() -> Any:
        own = session_of(engine)
        below = forked(lambda: session_of(engine), "exit", how)
        assert session_of(engine) == own
        return own, below

    assert len({mine, *forked(child, "exit", how)}) == 3
    assert session_of(engine) == mine


@pytest.mark.parametrize("driver", SYNC)
def test_what_another_thread_keeps_in_a_thread_local_survives(engine: sa.Engine) -> None:
    """Python destroys it in the child before any hook; the parent's transaction notices nothing."""
    local, holds, forked_now, rows = threading.local(), threading.Event(), threading.Event(), []

    def work() -> None:
        local.connection = engine.connect()
        tell(local.connection, "thread")
        mine = backend(local.connection)
        holds.set()
        assert forked_now.wait(20)
        rows.append(backend(local.connection) == mine)
        local.connection.commit()
        local.connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert holds.wait(20)
    for leave in "_exit", "exit", "_exit":
        forked(gc.collect, leave)
    forked_now.set()
    thread.join(20)
    assert rows == [True]
    assert told(engine) == ["thread"]


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "mysqldb", "pymysql"])
def test_forks_while_threads_hammer_the_pool(driver: str, server: str) -> None:
    """In each of 40 forks, with connects under way in three threads, the child checks out and the parent lives."""
    engine = guard(engine_for(driver, server, pool_size=1, max_overflow=1))
    stop, errors = threading.Event(), []

    def hammer() -> None:
        while not stop.is_set():
            try:
                session_of(engine)
            except Exception as error:  # noqa: BLE001
                errors.append(error)
                return

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            forked(lambda: session_of(engine))
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
        engine.dispose()
    assert not errors


@LEAVE
@pytest.mark.parametrize("driver", ASYNC)
def test_parent_loop_hears_all_its_connections_after_the_child(driver: str, server: str, leave: str) -> None:
    """The child runs a loop of its own, closes and collects what it inherited; the parent's loop goes on."""
    engine = guard(engine_for(driver, server, pool_size=3, max_overflow=0))

    async def sessions() -> set[Any]:
        async with engine.connect() as one, engine.connect() as two:
            return {await one.run_sync(backend), await two.run_sync(backend)}

    async def parent() -> None:
        mine = await sessions()
        loop = asyncio.get_running_loop()
        async with engine.connect() as held:
            of_held = await held.run_sync(backend)

            def child() -> Any:
                asyncio.events._set_running_loop(None)
                with pytest.raises(InheritedConnectionError):
                    asyncio.run(held.scalar(sa.text("SELECT 1")))
                theirs = asyncio.run(sessions())
                asyncio.run(held.close())
                for transport in list(getattr(loop, "_transports", {}).values()):
                    transport.abort()
                for key in list(loop._selector.get_map().values()):
                    loop._selector.unregister(key.fileobj)
                gc.collect()
                return theirs

            assert not forked(child, leave) & (mine | {of_held})
            assert await held.run_sync(backend) == of_held
        assert await sessions() == mine
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)  # the self-pipe hears, too
        await engine.dispose()

    with loop_running() as run:
        run(parent())


@pytest.mark.parametrize("driver", ASYNC)
def test_child_forked_in_a_coroutine_may_leave_through_its_loop(driver: str, server: str) -> None:
    """SystemExit through the inherited loop, executor included, ends the child and not the parent's session."""
    engine = guard(engine_for(driver, server))

    async def fork_inside(report: list[Any]) -> None:
        async with engine.connect() as connection:
            mine = await connection.run_sync(backend)
            await asyncio.to_thread(lambda: None)
            pid = os.fork()
            if pid == 0:
                signal.alarm(BOUND)
                raise SystemExit(7)
            report.append(await asyncio.to_thread(os.waitpid, pid, 0))
            assert await connection.run_sync(backend) == mine
        await engine.dispose()

    parent_pid, report = os.getpid(), []
    try:
        asyncio.run(fork_inside(report))
    finally:
        if os.getpid() != parent_pid:
            os._exit(7)
    assert os.waitstatus_to_exitcode(report[0][1]) == 7


@HOW
@pytest.mark.parametrize("driver", ASYNC)
def test_fork_in_a_thread_of_a_running_loop(driver: str, server: str, how: str) -> None:
    """As `run_in_executor` does: the child has a loop of its own, and the parent's goes on meanwhile."""
    engine = guard(engine_for(driver, server))

    async def session() -> Any:
        async with engine.connect() as connection:
            return await connection.run_sync(backend)

    async def parent() -> None:
        mine = await session()
        async with engine.connect() as held:
            assert await held.run_sync(backend) == mine
            theirs = await asyncio.to_thread(forked, lambda: asyncio.run(session()), "exit", how)
            assert theirs != mine
            assert await held.run_sync(backend) == mine
        assert await session() == mine
        await engine.dispose()

    with loop_running() as run:
        run(parent())


# What was there before the guard


@HOW
@pytest.mark.parametrize("state", ["idle", "held", "guarded again"])
@pytest.mark.parametrize("driver", SYNC)
def test_engine_that_was_used_before_it_was_guarded(driver: str, server: str, state: str, how: str) -> None:
    """Its connections are the parent's as well: none speaks in the child, whatever the driver's last words are."""
    engine = engine_for(driver, server)
    connection = engine.connect()
    mine = backend(connection)
    if state == "guarded again":
        guard(engine)
        connection.close()
        unguard(engine)
    elif state == "idle":
        connection.close()
    guard(engine)

    def child() -> Any:
        if state == "held":
            with pytest.raises(InheritedConnectionError):
                backend(connection)
            connection.close()
        theirs = session_of(engine)
        gc.collect()
        return theirs

    assert forked(child, "exit", how) != mine
    assert (backend(connection) if state == "held" else session_of(engine)) == mine
    connection.close()
    engine.dispose()


@pytest.mark.parametrize("driver", ASYNC)
def test_async_engine_that_was_used_before_it_was_guarded(driver: str, server: str) -> None:
    """Its loop is found as well: by the driver, or since it is running."""
    engine = engine_for(driver, server)

    async def session() -> Any:
        async with engine.connect() as connection:
            return await connection.run_sync(backend)

    with loop_running() as run:
        mine = run(session())
        if driver == "psycopg":  # it does not tell its loop
            run(guarded(engine))
        guard(engine)
        assert forked(lambda: asyncio.run(session()), "exit") != mine
        assert run(session()) == mine
        run(engine.dispose())


async def guarded(engine: Any) -> None:
    guard(engine)


# A COMMIT is no way to let go


@HOW
@pytest.mark.parametrize("driver", SYNC)
def test_commit_of_a_held_connection_is_refused(engine: sa.Engine, how: str) -> None:
    """A child that believes its COMMIT would believe a lie; its rollback, close and unwinding stay silent."""
    with engine.connect() as connection, Session(engine) as session:
        tell(connection, "parent")
        session.execute(sa.text("SELECT 1"))

        def child() -> None:
            with pytest.raises(InheritedConnectionError):
                connection.commit()
            with pytest.raises(InheritedConnectionError):
                session.commit()
            connection.rollback()
            connection.close()
            session.close()

        forked(child, "exit", how)
        connection.commit()
    assert told(engine) == ["parent"]


@HOW
def test_unwinding_a_begin_block_is_silent_and_its_end_is_not(postgres_url: str, how: str) -> None:
    """`engine.begin()` commits at its end, and that is refused; an exception rolls back, and goes its way."""
    engine = guard(engine_for("psycopg2", postgres_url))

    with engine.connect() as connection:
        transaction = connection.begin()

        def leaves(error: BaseException | None) -> str:
            try:
                with transaction:
                    if error is not None:
                        raise error
            except BaseException as seen:  # noqa: BLE001
                return type(seen).__name__
            return "committed"

        assert forked(lambda: leaves(None), "exit", how) == "InheritedConnectionError"
        assert forked(lambda: leaves(SystemExit(3)), "exit", how) == "SystemExit"
        transaction.rollback()
    engine.dispose()


@HOW
@pytest.mark.parametrize("driver", [d for d in SYNC if d != "mysqlconnector"])  # it reads all rows at once
def test_streamed_result_of_the_parent_is_refused(engine: sa.Engine, how: str, capfd: Any) -> None:
    """In the guard's words, not the driver's, and nothing is printed when the child's copy is dropped."""
    with engine.begin() as connection:
        for _ in range(40):
            tell(connection, "row")
    connection = engine.connect()
    result = connection.execution_options(stream_results=True, max_row_buffer=2).execute(
        sa.text("SELECT what FROM told")
    )
    assert result.fetchone()

    def child() -> None:
        nonlocal connection, result
        with pytest.raises(InheritedConnectionError):
            result.fetchall()
        result.close()
        connection.close()
        del connection, result
        gc.collect()
        assert told(engine) == ["row"] * 40

    forked(child, "exit", how)
    assert len(result.fetchall()) == 39
    connection.close()
    assert capfd.readouterr().err == ""
