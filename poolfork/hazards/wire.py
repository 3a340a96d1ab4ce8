"""What is on the wire at the fork: a notification on its way (`notify`), a COPY half done (`copy`). PostgreSQL."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.util import await_only

from poolfork.actors import START, Child, NotRun, Parent, Referee
from poolfork.hazards import hazard

_WORD = "for the parent"


@hazard(
    "notify",
    "idle",
    "held",
    only="postgresql",
    passes_when="the parent hears what its session listens for",
)
def notify(parent: Parent, variant: str) -> None:
    """The parent's session listens; notified after the fork, it is first spoken to by the child.

    ``idle``: it lies in the pool, which the child uses. ``held``: the child drops its copy.
    """
    _only_postgresql(parent)
    if variant == "idle" and not parent.recipe.keeps_idle:
        raise NotRun("with this recipe no session outlives its checkout")
    channel = f"{parent.spec.table}_{parent.spec.key}"
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)
    parent.step("the parent listens")
    heard = parent.do(_listens, parent, channel, variant == "held")
    child = parent.fork(functools.partial(child_speaks_first, how=variant))
    with parent.judged():
        child.hears()
        parent.step("the referee notifies")
        with Referee(parent) as referee:
            referee.rows(f"NOTIFY {channel}, '{_WORD}'")
            referee.commits()
        child.told()
        child.leaves()
    parent.step("the parent asks, and hears what came meanwhile")
    with parent.judged("parent-lost"):
        texts = parent.do(_asks_twice, parent, heard)
        if texts != [_WORD]:
            parent.found("wrong-row", f"the parent was told {texts}, having been sent {[_WORD]}")


def child_speaks_first(child: Child, how: str) -> None:
    """Apply the recipe; once the notification is out, use the pool or drop the copy, and collect."""
    child.says(ready=True)
    child.hears()
    child.applies_recipe()
    if how == "held":
        child.do(child.drops_everything)
    else:
        child.asks("child")
    gc.collect()


def _only_postgresql(parent: Parent) -> None:
    if sa.make_url(parent.spec.url).get_backend_name() != "postgresql":
        raise NotRun("LISTEN and COPY are measured with PostgreSQL itself")


def _listens(parent: Parent, channel: str, stays: bool) -> Callable[[], list[str]]:
    """LISTEN on a connection of the pool; returns what tells the notifications that its driver has read."""
    connection = parent.engine.connect()
    driver: Any = connection.connection.driver_connection
    heard: list[str] = []
    tell = lambda: heard  # noqa: E731 - most drivers call back
    if parent.driver.name == "psycopg2":
        tell = lambda: [notice.payload for notice in driver.notifies]  # noqa: E731
    elif parent.driver.name == "pg8000":
        tell = lambda: [notice[2] for notice in driver.notifications]  # noqa: E731
    elif parent.driver.name in ("psycopg", "psycopg-async"):
        driver.add_notify_handler(lambda notice: heard.append(notice.payload))
    elif parent.driver.name == "asyncpg":
        await_only(driver.add_listener(channel, lambda _, pid, channel, payload: heard.append(payload)))
    else:
        raise NotRun("how this driver tells notifications is not known here")
    connection.execute(sa.text(f"LISTEN {channel}"))
    connection.commit()
    if stays:
        parent.held = connection
    else:
        connection.close()
    return tell


def _asks_twice(parent: Parent, heard: Callable[[], list[str]]) -> list[str]:
    """A session is told its notifications when its transaction is over, so at the second question at the latest."""
    with parent.held or parent.engine.connect() as connection:
        for _ in range(2):
            parent.backend(connection)
            connection.commit()
        return heard()


_LINES = 100


@hazard(
    "copy",
    "in",
    "out",
    only="postgresql",
    passes_when="the parent's COPY ends with all of its rows",
)
def copy(parent: Parent, variant: str) -> None:
    """The parent is in the middle of a COPY; the child uses its pool, collects, and leaves by normal exit.

    The exit unwinds the parent's frames, as ``sys.exit()`` and any exception do that the child does not catch.
    ``in``: COPY FROM STDIN, half of the rows are sent. ``out``: COPY TO STDOUT, the first rows are read.
    """
    _only_postgresql(parent)
    copier = _COPIERS.get((parent.driver.name, variant))
    if copier is None:
        raise NotRun("how this driver copies is not known here")
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)

    def meanwhile() -> None:
        with parent.judged():
            parent.fork(child_uses_the_pool_and_exits, leave="exit").leaves()
        parent.step(f"the parent goes on with its COPY {variant}")

    def copies() -> None:
        parent.held = parent.engine.connect()
        parent.backend(parent.held)
        driver = parent.held.connection.driver_connection
        if variant == "in":
            copier(driver, f"COPY {parent.spec.table} (id, who) FROM STDIN", _lines(first, meanwhile))
        else:
            copier(driver, f"COPY ({_FAT_ROWS}) TO STDOUT", _counts(read, meanwhile))

    first, read = 10_000_000 + _LINES * parent.spec.key, [0]
    parent.step(f"the parent begins a COPY {variant}")
    with parent.judged("parent-lost"):
        parent.do(copies, patience=2 * START)
        if variant == "out" and read[0] != _LINES:
            parent.found("wrong-row", f"the parent read {read[0]} rows of {_LINES}")
        parent.do(parent.held.commit)
    if variant == "in" and parent.sound:
        with Referee(parent) as referee:
            query = f"SELECT COUNT(*) FROM {parent.spec.table} WHERE id >= {first} AND id < {first + _LINES}"
            there = referee.rows(query)[0][0]
        if there != _LINES:
            parent.found("write-lost", f"{there} of {_LINES} rows are there, and no error")


def child_uses_the_pool_and_exits(child: Child) -> None:
    """Apply the recipe, use the pool, collect garbage."""
    child.applies_recipe()
    child.asks("child")
    gc.collect()


_FAT_ROWS = (
    f"SELECT i, repeat('x', 40000) FROM generate_series(1, {_LINES}) AS n(i)"  # more than a wire holds
)


def _lines(first: int, meanwhile: Callable[[], None]) -> Iterator[bytes]:
    """The rows to copy; in the middle of them something happens."""
    for number in range(_LINES):
        if number == _LINES // 2:
            meanwhile()
        yield f"{first + number}\tparent\n".encode()


def _counts(read: list[int], meanwhile: Callable[[], None]) -> Callable[[bytes], None]:
    """A function that takes what is copied and counts its rows; after the first of them something happens."""

    def take(data: bytes) -> None:
        before, read[0] = read[0], read[0] + bytes(data).count(b"\n")
        if not before and read[0]:
            meanwhile()

    return take


class _Reader(io.RawIOBase):
    """What psycopg2 reads a COPY FROM STDIN from."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.lines = lines

    def read(self, size: int = -1) -> bytes:
        return next(self.lines, b"")


class _Writer(io.RawIOBase):
    """What psycopg2 and pg8000 write a COPY TO STDOUT to."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.write = take  # type: ignore[assignment, method-assign]


def _psycopg_in(driver: Any, statement: str, lines: Iterator[bytes]) -> None:
    with driver.cursor().copy(statement) as copying:
        for line in lines:
            copying.write(line)


def _psycopg_out(driver: Any, statement: str, take: Callable[[bytes], None]) -> None:
    with driver.cursor().copy(statement) as copying:
        for data in copying:
            take(data)


async def _psycopg_async_in(driver: Any, statement: str, lines: Iterator[bytes]) -> None:
    async with driver.cursor().copy(statement) as copying:
        for line in lines:
            await copying.write(line)


async def _psycopg_async_out(driver: Any, statement: str, take: Callable[[bytes], None]) -> None:
    async with driver.cursor().copy(statement) as copying:
        async for data in copying:
            take(data)


async def _asyncpg_in(driver: Any, statement: str, lines: Iterator[bytes]) -> None:
    async def source() -> AsyncIterator[bytes]:
        for line in lines:
            yield line

    table = statement.split()[1]
    async with contextlib.aclosing(source()) as rows:  # type: ignore[type-var]
        await driver.copy_to_table(table, source=rows, columns=["id", "who"])


async def _asyncpg_out(driver: Any, statement: str, take: Callable[[bytes], None]) -> None:
    async def output(data: bytes) -> None:
        take(data)

    await driver.copy_from_query(_FAT_ROWS, output=output)


_COPIERS: dict[tuple[str, str], Callable[[Any, str, Any], Any]] = {
    ("psycopg2", "in"): lambda driver, statement, lines: driver.cursor().copy_expert(
        statement, _Reader(lines)
    ),
    ("psycopg2", "out"): lambda driver, statement, take: driver.cursor().copy_expert(
        statement, _Writer(take)
    ),
    ("psycopg", "in"): _psycopg_in,
    ("psycopg", "out"): _psycopg_out,
    ("psycopg-async", "in"): lambda *how: await_only(_psycopg_async_in(*how)),
    ("psycopg-async", "out"): lambda *how: await_only(_psycopg_async_out(*how)),
    ("pg8000", "in"): lambda driver, statement, lines: driver.cursor().execute(statement, stream=lines),
    ("pg8000", "out"): lambda driver, statement, take: driver.cursor().execute(
        statement, stream=_Writer(take)
    ),
    ("asyncpg", "in"): lambda *how: await_only(_asyncpg_in(*how)),
    ("asyncpg", "out"): lambda *how: await_only(_asyncpg_out(*how)),
}
