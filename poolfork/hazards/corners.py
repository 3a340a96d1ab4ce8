"""Corners where a recipe can look right and still do harm: each is the cell of one part of the guard.

`first-connect`, `thread-cursor`, `reused-number`, `loop-closed` and, for SQLite, `file-goodbye`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import socket
import stat
import threading

import sqlalchemy as sa

from poolfork.actors import PATIENCE, STEP, Child, NotRun, Parent, Referee
from poolfork.hazards import hazard
from poolfork.hazards.files import _COUNT, _FIRST, _finish, _half_written
from poolfork.hazards.loop import _wakes


@hazard(
    "first-connect",
    only="threads",
    passes_when="the child's engine knows its server as the parent's does",
)
def first_connect(parent: Parent, variant: str) -> None:
    """Another thread is in the engine's first connect, setting the dialect up, when the parent forks.

    SQLAlchemy asks the server for its version and defaults there, once in an engine's life.
    """
    if parent.driver.server == "sqlite":
        raise NotRun("SQLite is asked nothing at the first connect")
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)
    inside, forked = threading.Event(), threading.Event()

    def first_question(*_: object) -> None:
        if not inside.is_set():
            inside.set()
            forked.wait(0.2)  # time for a fork in the middle; a fork that waits for us has to wait longer

    sa.event.listen(parent.engine, "do_execute", first_question)
    worker = threading.Thread(target=parent.asks, args=["parent"])
    parent.step("a thread connects for the first time")
    worker.start()
    if not inside.wait(STEP):
        raise NotRun("this dialect asks nothing at the first connect")
    child = parent.fork(child_says_what_it_knows)
    forked.set()
    worker.join(STEP)
    with parent.judged():
        theirs = child.hears()["known"]
        if theirs != _known(parent.engine):
            parent.found("error", f"the child's dialect has {theirs}, the parent's {_known(parent.engine)}")
        child.leaves()


def child_says_what_it_knows(child: Child) -> None:
    """Apply the recipe, use the pool, say what the dialect knows."""
    child.applies_recipe()
    child.asks("child")
    child.says(known=_known(child.engine))


def _known(engine: sa.Engine) -> list[object]:
    dialect = engine.dialect
    return [str(getattr(dialect, "server_version_info", None)), dialect.default_schema_name]


_ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
_ROWS += " SELECT i, REPEAT('more than a buffer holds', 100) FROM n"


@hazard("thread-cursor", only="threads", passes_when="the other thread reads the rest of its rows, in order")
def thread_cursor(parent: Parent, variant: str) -> None:
    """Another thread has read 1 of 500 rows of a streamed result, kept in a ``threading.local``; the parent forks.

    Python destroys what is in there in the child, before any hook, and the driver's cursor may read its
    rows to their end when it dies: from a socket that is the parent's too.
    """
    if parent.driver.server not in ("postgresql", "mysql"):
        raise NotRun("only a result that comes over a wire can be read by somebody else")
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)
    reading, forked, rows = threading.Event(), threading.Event(), []
    local = threading.local()

    def work() -> None:
        connection = parent.engine.connect().execution_options(stream_results=True, max_row_buffer=1)
        local.result = connection.execute(sa.text(_ROWS))
        rows.append(local.result.fetchone()[0])
        reading.set()
        forked.wait(STEP)
        with parent.judged("parent-lost"):
            rows.extend(row[0] for row in local.result)

    worker = threading.Thread(target=work, daemon=True)
    parent.step("a thread reads the first row")
    worker.start()
    if not reading.wait(STEP):
        raise sa.exc.InvalidRequestError("the thread could not begin")
    with parent.judged():
        parent.fork(child_does_nothing).leaves()
    parent.step("the thread reads the rest")
    forked.set()
    before = -1
    while parent.sound and worker.is_alive() and len(rows) > before:  # on a busy machine it may be slow
        before = len(rows)
        worker.join(PATIENCE / 2)
    if worker.is_alive() and parent.sound:
        parent.found("hang", f"the thread waits for ever after {len(rows)} rows of 500")
    elif parent.sound and rows != list(range(1, 501)):
        parent.found("wrong-row", f"the thread read {len(rows)} rows of 500")


def child_does_nothing(child: Child) -> None:
    """Apply the recipe."""
    child.applies_recipe()


@hazard("reused-number", only="threads", passes_when="the child can read from the socket that got the number")
def reused_number(parent: Parent, variant: str) -> None:
    """The driver has closed an idle connection by itself; another socket has its number at the fork."""
    if parent.driver.server == "sqlite":
        raise NotRun("SQLite has no socket")
    if parent.recipe.start != "fork":
        raise NotRun("a child that is started anew inherits no descriptor")
    if parent.recipe.engine_arguments:  # NullPool
        raise NotRun("the recipe leaves no idle connection")
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)
    ours, theirs = socket.socketpair()
    before = _sockets()

    def close_behind_the_pool() -> list[int]:
        with parent.engine.connect() as connection:
            parent.backend(connection)
            driver = connection.connection.driver_connection
        numbers = sorted(_sockets() - before)
        assert driver is not None
        driver.close()
        return numbers

    parent.step("the driver closes its connection")
    numbers = parent.do(close_behind_the_pool)
    if not numbers:
        raise NotRun("the recipe left no idle connection")
    for number in numbers:
        os.dup2(theirs.fileno(), number)
    for _ in numbers:
        ours.send(b"still here")
    with parent.judged():
        child = parent.fork(functools.partial(child_reads, numbers=numbers))
        read = child.hears()["read"]
        if any(text != "still here" for text in read):
            parent.found("error", f"the child read {read} from the application's socket")
        child.leaves()
    for number in numbers:
        os.close(number)


def _sockets() -> set[int]:
    found = set()
    for number in range(256):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                found.add(number)
    return found


def child_reads(child: Child, numbers: list[int]) -> None:
    """Apply the recipe, use the pool, read what the application's socket has."""
    child.applies_recipe()
    read = []
    for number in numbers:
        try:
            with socket.socket(fileno=os.dup(number)) as copy:
                copy.settimeout(1)
                read.append(copy.recv(10).decode())
        except OSError as error:
            read.append(f"{type(error).__name__}: {error}")
    child.says(read=read)


@hazard(
    "loop-closed",
    only="asyncio",
    passes_when="the parent's loop still answers on its connection, and hears its other threads",
)
def loop_closed(parent: Parent, variant: str) -> None:
    """The child closes the loop that it inherited, as one does that was forked in ``asyncio.run()`` and leaves it."""
    if parent.loop is None:
        raise NotRun("only an asyncio driver has a loop")
    session = parent.has_idle()[0]
    with parent.judged():
        parent.fork(child_closes_the_loop).leaves()
    parent.still_has(session)
    parent.step("a thread wakes the parent's loop")
    with parent.judged():
        if not _wakes(parent.loop):
            parent.found("hang", "the parent's loop no longer wakes for call_soon_threadsafe()")


def child_closes_the_loop(child: Child) -> None:
    """Apply the recipe, use the pool in a loop of its own, close the inherited one."""
    child.applies_recipe()
    child.asks("child")
    if hasattr(child, "inherited") and child.inherited.loop is not None:
        child.inherited.loop.close()


@hazard(
    "file-goodbye",
    only="sqlite",
    passes_when="after the parent's COMMIT all its rows are there and the file passes integrity_check",
)
def file_goodbye(parent: Parent, variant: str) -> None:
    """The parent is in the middle of a large transaction; the child lets its copy be collected, and exits."""
    if parent.driver.server != "sqlite":
        raise NotRun("only SQLite keeps its journal beside the file")
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)
    parent.step("the parent writes")
    parent.do(_half_written, parent)
    with parent.judged():
        parent.fork(child_lets_go_of_the_file, leave="exit").leaves()
    parent.step("the parent commits")
    with parent.judged("parent-lost"):
        parent.do(_finish, parent)
    parent.step("the referee reads")
    with parent.judged("write-lost"), Referee(parent) as referee:
        kept = referee.rows(
            f"SELECT COUNT(*) FROM {parent.spec.table} WHERE id >= {_FIRST} AND who LIKE 'new%'"
        )[0][0]
        if kept != _COUNT:
            parent.found("write-lost", f"{kept} of {_COUNT} rows are what the parent committed")
        verdict = referee.rows("PRAGMA integrity_check")[0][0]
        if verdict != "ok":
            parent.found("write-lost", f"integrity_check: {' '.join(verdict.split())[:200]}")


def child_lets_go_of_the_file(child: Child) -> None:
    """Apply the recipe, forget the copy, collect garbage."""
    child.applies_recipe()
    child.drops_everything()
    gc.collect()
