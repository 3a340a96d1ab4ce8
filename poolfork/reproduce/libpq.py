"""Answers that reach the wrong process, whole or in parts: what libpq's drivers and pg8000 make of them."""

from __future__ import annotations

from typing import Any

from poolfork.reproduce import reproduces
from poolfork.reproduce.stage import Stage, Worker, ask, text_of

TWO_ROWS = "SELECT 'ab' AS a, 'c' AS b UNION ALL SELECT repeat('5', 30), 'd'"


def is_ready(said: bytes) -> bool:
    """Whether PostgreSQL has said that it is ready for the next statement."""
    return said[-6:-1] == b"Z\0\0\0\5"


def after(said: bytes, *kinds: bytes) -> int:
    """How many bytes the first messages take, which have to be of these kinds."""
    at = 0
    for kind in kinds:
        assert said[at : at + 1] == kind, (said, kinds)
        at += 1 + int.from_bytes(said[at + 1 : at + 5])
    return at


def answer_cut(on: Stage, connection: Any, wire: Any, sql: str, where: Any) -> None:
    """A worker asks, reads the answer up to ``where(answer)``, and is killed; the rest lies in the socket."""
    wire.keeps()
    worker = Worker(lambda: ask(connection, sql))
    said = wire.hears(is_ready)
    if count := where(said):
        wire.gives(count)
        wire.until_read()
    worker.dies()
    wire.passes()


@reproduces("libpq-no-message", "psycopg2", "postgresql")
def commit_reads_rows(on: Stage) -> str:
    """A worker asks for a row and is killed before it reads it; the parent's COMMIT reads the row.

    worker: SELECT     killed
    server: row
    parent: COMMIT     reads the row: no error to report, and no COMMIT
    """
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    answer_cut(on, connection, wire, "SELECT 1", lambda said: 0)
    return text_of(connection.commit)


@reproduces("libpq-no-message", "psycopg2", "postgresql")
def commit_reads_only_ready(on: Stage) -> str:
    """A worker reads its answer but for the last message, ReadyForQuery; the parent's COMMIT is answered by that."""
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    answer_cut(on, connection, wire, "SELECT 1", lambda said: len(said) - 6)
    return text_of(connection.commit)


@reproduces("psycopg-no-result", "psycopg", "postgresql")
def parent_reads_only_ready(on: Stage) -> str:
    """A worker reads its answer but for the last message, ReadyForQuery; the parent takes that for its answer."""
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    answer_cut(on, connection, wire, "SELECT 1", lambda said: len(said) - 6)
    return text_of(lambda: ask(connection))


@reproduces("psycopg-no-result", "psycopg", "postgresql")
def parent_reads_the_end_of_an_answer(on: Stage) -> str:
    """A worker reads columns and rows; the parent reads what follows: 2 rows were selected, none are there."""
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    answer_cut(on, connection, wire, TWO_ROWS, lambda said: after(said, b"T", b"D", b"D"))
    return text_of(lambda: ask(connection))


@reproduces("libpq-lost-sync", "psycopg2", "postgresql")
@reproduces("libpq-lost-sync", "psycopg", "postgresql")
def parent_reads_the_middle_of_a_row(on: Stage) -> str:
    """The network breaks an answer in the middle of a value: a worker reads the first half, the parent the second.

    worker: SELECT     reads up to the fifth byte of '555555...', and is killed
    parent: SELECT 1   takes 5 for a kind of message, and 5555 for its length
    """
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    answer_cut(on, connection, wire, TWO_ROWS, lambda said: said.index(b"5555") + 5)
    return text_of(lambda: ask(connection))


@reproduces("libpq-lost-sync", "psycopg2", "postgresql")
@reproduces("libpq-lost-sync", "psycopg", "postgresql")
@reproduces("pg8000-torn", "pg8000", "postgresql")
def parent_reads_rows_without_columns(on: Stage) -> str:
    """A worker reads the columns' names and is killed; the parent reads the rows."""
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    answer_cut(on, connection, wire, TWO_ROWS, lambda said: after(said, b"T"))
    return text_of(lambda: ask(connection))


@reproduces("libpq-lost-sync", "psycopg2", "postgresql")
@reproduces("libpq-lost-sync", "psycopg", "postgresql")
@reproduces("pg8000-torn", "pg8000", "postgresql")
def parent_reads_from_the_middle_of_a_head(on: Stage) -> str:
    """A worker reads all of the row's head but its last byte; the parent starts with that, where a letter is due."""
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    answer_cut(on, connection, wire, TWO_ROWS, lambda said: said.index(b"\0\0\0\x02ab") + 3)
    return text_of(lambda: ask(connection))


@reproduces("pg8000-torn", "pg8000", "postgresql")
def parent_reads_the_end_of_pg8000s_answer(on: Stage) -> str:
    """As parent_reads_the_end_of_an_answer: pg8000 finds a cursor that was never executed."""
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    answer_cut(on, connection, wire, TWO_ROWS, lambda said: after(said, b"T", b"D", b"D"))
    return text_of(lambda: ask(connection))


@reproduces("libpq-lost-sync", "psycopg2", "postgresql")
def idle_parent_hears_an_answer(on: Stage) -> str:
    """A worker asks and is killed; the parent, which waits for notifications, reads an answer it did not ask for."""
    wire = on.wire()
    connection = on.connection(wire)
    connection.autocommit = True
    connection.cursor().execute("LISTEN news")
    answer_cut(on, connection, wire, "SELECT 1", lambda said: 0)
    connection.poll()
    return str(connection.notices[0])


@reproduces("prepared-statement-exists", "psycopg", "postgresql")
def both_prepare(on: Stage) -> str:
    """A worker prepares its first statement, _pg3_0; so does the parent, whose counter stands at 0 as well."""
    connection = on.connection(autocommit=True)
    worker = Worker(lambda: connection.execute("SELECT 1", prepare=True).fetchall())
    worker.says()
    return text_of(lambda: connection.execute("SELECT 2", prepare=True).fetchall())


@reproduces("prepared-statement-missing", "pg8000", "postgresql")
def statement_between_two_messages(on: Stage) -> str:
    """Between a worker's Parse and its Describe, another worker's query discards the unnamed statement.

    first worker:  Parse     the wire keeps the answer
    second worker: Query     the server drops the unnamed statement
    first worker:  reads its answer, sends Describe: of what?
    """
    wire = on.wire()
    connection = on.connection(wire)
    connection.autocommit = True
    ask(connection)
    wire.keeps()
    first = Worker(lambda: connection.cursor().execute("SELECT %s", ("a",)))
    parsed = len(wire.hears(is_ready))
    second = Worker(lambda: ask(connection))
    wire.hears(lambda said: is_ready(said) and len(said) > parsed)
    second.stops()
    wire.gives(parsed)
    wire.hears(lambda said: b"26000" in said)  # the first one has read, and asked about its statement
    first.stops()
    second.goes_on()
    wire.gives(wire.heard.index(b"E\0\0\0"))
    second.says()
    first.goes_on()
    wire.passes()
    return first.says()


@reproduces("prepared-statement-missing", "pg8000", "postgresql")
def statement_replaced_before_bind(on: Stage) -> str:
    """Between a worker's Parse and its Bind, another worker parses a statement with more parameters.

    The second worker is killed, so the first one reads its answers too, and its error one statement late.
    """
    wire = on.wire()
    connection = on.connection(wire)
    connection.autocommit = True
    ask(connection)
    wire.keeps()

    def twice() -> None:
        cursor = connection.cursor()
        text_of(lambda: cursor.execute("SELECT %s", ("a",)))
        cursor.execute("SELECT %s", ("a",))

    first = Worker(twice)
    parsed = len(wire.hears(is_ready))
    second = Worker(lambda: connection.cursor().execute("SELECT %s, %s", ("a", "b")))
    wire.hears(lambda said: is_ready(said) and len(said) > parsed)
    second.dies()
    wire.passes()
    return first.says()


@reproduces("psycopg2-no-results", "psycopg2", "postgresql")
def fetch_finds_no_rows(on: Stage) -> str:
    """As parent_reads_the_end_of_an_answer: psycopg2 has a count of rows, and nothing to fetch."""
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    answer_cut(on, connection, wire, TWO_ROWS, lambda said: after(said, b"T", b"D", b"D"))
    return text_of(lambda: ask(connection))


@reproduces("pg-transaction-mixed", "psycopg2", "postgresql")
def both_begin(on: Stage) -> str:
    """A worker begins a transaction and leaves; the parent, whose connection is idle to it, begins one as well."""
    connection = on.connection()
    ask(connection)
    connection.commit()
    Worker(lambda: ask(connection)).says()
    ask(connection)
    return str(connection.notices[-1])


@reproduces("pg-transaction-mixed", "psycopg2", "postgresql")
def both_commit(on: Stage) -> str:
    """The parent is in a transaction at the fork; a worker commits it, and then so does the parent."""
    connection = on.connection()
    ask(connection)
    Worker(connection.commit).says()
    connection.commit()
    return str(connection.notices[-1])


@reproduces("savepoint-gone", "psycopg2", "postgresql")
def worker_ends_the_transaction_around_a_savepoint(on: Stage) -> str:
    """The parent is at a savepoint; a worker rolls the transaction back, with all savepoints."""
    connection = on.connection()
    cursor = connection.cursor()
    cursor.execute("SAVEPOINT sa_savepoint_1")
    Worker(connection.rollback).says()
    return text_of(lambda: cursor.execute("RELEASE SAVEPOINT sa_savepoint_1"))


@reproduces("pg-cursor-exists", "psycopg2", "postgresql")
def both_declare(on: Stage) -> str:
    """The parent reads with a server-side cursor; a worker declares one that the same code gives the same name."""
    connection = on.connection()
    connection.cursor("stream").execute("SELECT 1")
    return Worker(lambda: connection.cursor("stream").execute("SELECT 1")).says()


@reproduces("pg-protocol-violation", "psycopg2", "postgresql")
@reproduces("pg-protocol-violation", "psycopg", "postgresql")
def parent_continues_a_half_written_statement(on: Stage) -> str:
    """A worker is killed while it writes a long statement; the server takes the parent's for its second half."""
    return half_written(on)[0]


@reproduces("pg-log-client-gone", "psycopg2", "postgresql")
@reproduces("pg-log-client-gone", "psycopg2", "postgresql", tls=True)
def log_of_a_half_written_statement(on: Stage) -> str:
    """As parent_continues_a_half_written_statement, seen from the server: the rest of the parent's makes no message."""
    return half_written(on)[1]


def half_written(on: Stage) -> tuple[str, str]:
    """What the parent and the server's log say when two long statements run into each other."""
    wire = on.wire()
    connection = on.connection(wire)
    long = f"SELECT '{'x' * 12_000_000}'"
    ask(connection)
    wire.stops_listening()
    worker = Worker(lambda: ask(connection, long))
    wire.until_full()
    worker.dies()
    wire.listens()
    text = text_of(lambda: ask(connection, long))
    text_of(lambda: ask(connection))
    return text, on.new_in_log("invalid frontend|could not receive data from client")


@reproduces("pg-log-client-gone", "psycopg2", "postgresql")
def log_of_a_killed_family(on: Stage) -> str:
    """A process and its worker share a session with an open transaction; both are killed."""

    kept: list[Any] = []  # or the garbage collector would say goodbye

    def holds() -> None:
        kept.append(on.connection())
        ask(kept[0])
        Worker(lambda: ask(kept[0])).says()

    parent = Worker(holds)
    parent.says()
    parent.leaves()
    return on.new_in_log("unexpected EOF on client connection")
