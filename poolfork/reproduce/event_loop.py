"""asyncpg: its connection is watched by an event loop, of which a fork makes two."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from poolfork.reproduce import reproduces
from poolfork.reproduce.libpq import is_ready
from poolfork.reproduce.stage import Stage, Wire, Worker, text_of, until, waiting


class Asked:
    """An asyncpg connection, on a loop that runs while something is asked."""

    def __init__(self, on: Stage, wire: Wire | None = None) -> None:
        import asyncpg

        self.loop = asyncio.new_event_loop()
        url = on.url(wire)
        self.connection: Any = self.loop.run_until_complete(
            asyncpg.connect(
                host=url.host, port=url.port, user=url.username, password=url.password,
                database=url.database, ssl=False,
            )
        )  # fmt: skip
        asyncio_log = logging.getLogger("asyncio")
        asyncio_log.propagate = False
        self.log: list[str] = []
        handler = logging.Handler()
        handler.emit = self._keep  # type: ignore[method-assign]
        asyncio_log.addHandler(handler)

    def _keep(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.log.append(f"{record.getMessage()}\n{type(error).__name__}: {error}")

    def idles(self, wire: Wire) -> None:
        """Let the loop turn until it has read all that has arrived."""
        with wire.end_of() as end:
            until(
                lambda: self.loop.run_until_complete(asyncio.sleep(0.01)) or waiting(end) == 0,
                "the loop reads nothing",
            )

    def __call__(self, sql: str, method: str = "execute") -> Any:
        return self.loop.run_until_complete(getattr(self.connection, method)(sql))


@reproduces("pg-already-closed", "asyncpg", "postgresql")
def asyncpg_waits_for_another_answer(on: Stage) -> str:
    """A worker asks and is killed; the parent asks, reads the worker's answer, and then one too many.

    asyncpg takes the second answer for a message it never asked for, and gives up the connection.
    """
    wire = on.wire()
    asks = Asked(on, wire)
    wire.keeps()
    worker = Worker(lambda: asks("SELECT 1"))
    wire.hears(is_ready)
    worker.dies()
    wire.passes()
    return text_of(lambda: asks("SELECT 2", "fetch"))


@reproduces("pg-already-closed", "asyncpg", "postgresql")
def asyncpg_is_asked_again(on: Stage) -> str:
    """As asyncpg_waits_for_another_answer; then the parent asks on the connection that was given up."""
    wire = on.wire()
    asks = Asked(on, wire)
    wire.keeps()
    worker = Worker(lambda: asks("SELECT 1"))
    wire.hears(is_ready)
    worker.dies()
    wire.passes()
    text_of(lambda: asks("SELECT 2", "fetch"))
    return text_of(lambda: asks("SELECT 2", "fetch"))


@reproduces("asyncpg-torn", "asyncpg", "postgresql")
def loop_hears_half_an_answer(on: Stage) -> str:
    """A worker prepares a statement and is killed; the parent's idle loop reads the answer, which has no end yet.

    worker: Parse, Describe, Flush   killed before it reads
    parent: its loop takes the answer for the beginning of one of its own, and is busy from then on
    """
    wire = on.wire()
    asks = Asked(on, wire)
    wire.keeps()
    worker = Worker(lambda: asks("SELECT 1", "fetch"))
    wire.hears(lambda said: said[:1] == b"1" and b"?column?" in said)
    worker.dies()
    wire.passes()
    asks.idles(wire)
    return text_of(lambda: asks("SELECT 2", "fetch"))


@reproduces("asyncpg-torn", "asyncpg", "postgresql")
def loop_hears_an_answer_to_nothing(on: Stage) -> str:
    """A worker asks and is killed; the parent's idle loop reads the answer, and nobody waits for it.

    asyncpg says so in asyncio's log, and closes the connection under whoever asks next.
    """
    wire = on.wire()
    asks = Asked(on, wire)
    wire.keeps()
    worker = Worker(lambda: asks("SELECT 1"))
    wire.hears(is_ready)
    worker.dies()
    wire.passes()
    asks.idles(wire)
    return asks.log[0]


@reproduces("asyncpg-prepared-exists", "asyncpg", "postgresql")
def both_prepare_with_asyncpg(on: Stage) -> str:
    """A worker prepares its first statement, __asyncpg_stmt_1__; so does the parent, which counts from there too."""
    asks = Asked(on)
    worker = Worker(lambda: asks("SELECT 1", "fetch"))
    worker.says()
    worker.leaves()
    return text_of(lambda: asks("SELECT 2", "fetch"))
