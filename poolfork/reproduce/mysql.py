"""Answers of MySQL and MariaDB that reach the wrong process, whole or in parts, as each driver tells it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from poolfork.reproduce import reproduces
from poolfork.reproduce.stage import Stage, Worker, ask, text_of

TWO_ROWS = "SELECT 'ab' AS a UNION ALL SELECT repeat('5', 30)"


def packets(said: bytes) -> list[int]:
    """Where each packet begins, and the end; empty if the last one is not whole."""
    starts = [0]
    while starts[-1] < len(said):
        starts.append(starts[-1] + 4 + int.from_bytes(said[starts[-1] : starts[-1] + 3], "little"))
    return starts if starts[-1] == len(said) else []


def is_whole(said: bytes) -> bool:
    """Whether the answer to TWO_ROWS is complete: count, column, two rows, and the end's packet."""
    starts = packets(said)
    return len(starts) > 5 and said[starts[-2] + 4] == 0xFE


def answer_cut(
    on: Stage, connect: Callable[..., Any], asks: Callable[..., Any], where: Callable[[bytes], int]
) -> Any:
    """A worker asks for TWO_ROWS, reads the answer up to ``where``, and is killed; gives the connection."""
    wire = on.wire()
    connection = connect(wire)
    asks(connection)
    wire.keeps()
    worker = Worker(lambda: asks(connection, TWO_ROWS))
    if on.driver == "mysqlconnector":  # it asks first whether the server is there
        wire.gives(len(wire.hears(lambda said: len(said) >= 11)))
    said = wire.hears(is_whole)
    if count := where(said):
        wire.gives(count)
        wire.until_read()
    worker.dies()
    wire.passes()
    return connection


@reproduces("mysql-packet-sequence", "pymysql", "mysql")
def parent_reads_the_second_packet(on: Stage) -> str:
    """A worker reads the first packet of its answer and is killed; the parent's answer begins with number 2.

    worker: SELECT     packet 1   killed
    parent: SELECT 1   packet 2, where 1 is due
    """
    connection = answer_cut(on, on.connection, ask, lambda said: packets(said)[1])
    return text_of(lambda: ask(connection))


@reproduces("mysql-packet-sequence", "aiomysql", "mysql")
@reproduces("mysql-packet-sequence", "asyncmy", "mysql")
def parents_loop_reads_the_second_packet(on: Stage) -> str:
    """As parent_reads_the_second_packet, with an asyncio driver."""
    loop = asyncio.new_event_loop()

    def connect(wire: Any) -> Any:
        url = on.url(wire)
        driver = importlib.import_module(on.driver)
        return loop.run_until_complete(
            driver.connect(
                host=url.host, port=url.port, user=url.username, password=url.password, db=url.database
            )
        )

    async def fetch(connection: Any, sql: str) -> Any:
        async with connection.cursor() as cursor:
            await cursor.execute(sql)
            return await cursor.fetchall()

    def asks(connection: Any, sql: str = "SELECT 1") -> Any:
        return loop.run_until_complete(fetch(connection, sql))

    connection = answer_cut(on, connect, asks, lambda said: packets(said)[1])
    return text_of(lambda: asks(connection))


@reproduces("mysql-lost-2013", "pymysql", "mysql")
def parent_takes_a_status_for_a_length(on: Stage) -> str:
    """A worker is killed within a packet's head; what is left reads as a packet longer than all that is to come.

    The session is alive and well; the driver believes that it lost it.
    """
    connection = answer_cut(on, on.connection, ask, lambda said: 3)
    return text_of(lambda: ask(connection))


@reproduces("mysql-malformed-packet", "mysqldb", "mysql")
def parent_reads_the_last_packet(on: Stage) -> str:
    """A worker reads all but the packet that ends its answer; the parent takes that for its answer's beginning."""
    connection = answer_cut(on, on.connection, ask, lambda said: packets(said)[-2])
    return text_of(lambda: ask(connection))


@reproduces("mysql-malformed-packet", "mysqlconnector", "mysql")
def ping_reads_four_zeros(on: Stage) -> str:
    """A worker is killed four bytes before its answer's end; they are zeros, and read as an empty packet.

    mysql-connector asks whether it is connected before each statement, and looks at that packet's first byte.
    """
    connection = answer_cut(on, on.connection, ask, lambda said: len(said) - 4)
    return text_of(lambda: ask(connection))


@reproduces("mysql-out-of-sync", "pymysql", "mysql")
def commit_reads_a_row(on: Stage) -> str:
    """A worker's answer is unread when it is killed; the parent's COMMIT finds rows instead of an OK."""
    connection = answer_cut(on, on.connection, ask, lambda said: 0)
    return text_of(connection.commit)


@reproduces("mysql-out-of-sync", "mysqldb", "mysql")
def worker_asks_while_the_parent_streams(on: Stage) -> str:
    """The parent reads a result row by row; a worker, which inherited it half-read, asks something else."""
    from MySQLdb.cursors import SSCursor

    connection = on.connection()
    stream = connection.cursor(SSCursor)
    stream.execute(TWO_ROWS)
    stream.fetchone()
    return Worker(lambda: ask(connection)).says()


@reproduces("savepoint-gone", "mysqldb", "mysql")
@reproduces("savepoint-gone", "pymysql", "mysql")
def worker_ends_mysqls_transaction_around_a_savepoint(on: Stage) -> str:
    """The parent is at a savepoint; a worker rolls the transaction back, with all savepoints."""
    connection = on.connection()
    cursor = connection.cursor()
    cursor.execute("BEGIN")
    cursor.execute("SAVEPOINT sa_savepoint_1")
    Worker(connection.rollback).says()
    return text_of(lambda: cursor.execute("RELEASE SAVEPOINT sa_savepoint_1"))


@reproduces("mysql-log-aborted", "mysqldb", "mysql")
def mysql_log_of_a_killed_family(on: Stage) -> str:
    """A process and its worker share a session; both are killed, and the server reads the end of the stream."""
    kept: list[Any] = []

    def holds() -> None:
        kept.append(on.connection())
        ask(kept[0])
        Worker(lambda: ask(kept[0])).says()

    parent = Worker(holds)
    parent.says()
    parent.leaves()
    return on.new_in_log("Aborted connection")


@reproduces("mysql-log-aborted", "pymysql", "mysql", tls=True)
def mysql_log_of_a_record_that_does_not_decrypt(on: Stage) -> str:
    """A worker asks, then the parent: its record has a number that was used already."""
    connection = on.connection()
    ask(connection)
    worker = Worker(lambda: ask(connection))
    worker.says()
    text_of(lambda: ask(connection))
    return on.new_in_log("Aborted connection")
