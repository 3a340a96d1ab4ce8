"""One process ends the session that others still use: by closing, or by breaking its encryption."""

from __future__ import annotations

import os

from poolfork.reproduce import reproduces
from poolfork.reproduce.stage import Stage, Worker, ask, hung_up, text_of


@reproduces("tls-closed", "psycopg2", "postgresql", tls=True)
@reproduces("tls-closed", "psycopg", "postgresql", tls=True)
@reproduces("pg-server-closed", "psycopg2", "postgresql")
@reproduces("pg-server-closed", "psycopg", "postgresql")
@reproduces("pg8000-torn", "pg8000", "postgresql")
@reproduces("mysql-lost-2013", "mysqldb", "mysql")
@reproduces("mysql-lost-2013", "pymysql", "mysql")
@reproduces("mysql-lost-2013", "mysqldb", "mysql", tls=True)
@reproduces("mysql-connector-lost", "mysqlconnector", "mysql")
@reproduces("mariadb-lost", "mariadbconnector", "mysql")
def worker_closes(on: Stage) -> str:
    """A worker closes the connection in good order; the server ends the session of both.

    worker: goodbye (Terminate; COM_QUIT)
    server: ends the session and the stream
    parent: SELECT 1  ->  finds the end
    """
    connection = on.connection()
    ask(connection)
    worker = Worker(connection.close)
    worker.says()
    worker.leaves()
    return text_of(lambda: ask(connection))


@reproduces("pg-already-closed", "psycopg2", "postgresql")
@reproduces("pg-already-closed", "psycopg", "postgresql")
@reproduces("mysql-gone-2006", "mysqldb", "mysql")
@reproduces("mysql-already-closed", "pymysql", "mysql")
@reproduces("mariadb-lost", "mariadbconnector", "mysql")
def parent_asks_twice(on: Stage) -> str:
    """As worker_closes; the parent's first statement finds the end, and the second one an object that knows.

    This is what stands at the bottom of a log when the first error was caught.
    """
    connection = on.connection()
    ask(connection)
    worker = Worker(connection.close)
    worker.says()
    worker.leaves()
    text_of(lambda: ask(connection))
    return text_of(lambda: ask(connection))


@reproduces("mysql-gone-2006", "pymysql", "mysql")
def third_process_asks(on: Stage) -> str:
    """A worker closes, a second one notices; the parent, who noticed nothing, writes into a closed stream.

    first worker:  goodbye
    second worker: SELECT 1  ->  end of the stream; the server's side answers that it is gone (RST)
    parent:        SELECT 1  ->  broken pipe
    """
    connection = on.connection()
    ask(connection)
    for work in connection.close, lambda: ask(connection):
        worker = Worker(work)
        worker.says()
        worker.leaves()
    return text_of(lambda: ask(connection))


@reproduces("mysql-connector-lost", "mysqlconnector", "mysql")
def third_process_commits(on: Stage) -> str:
    """As third_process_asks; mysql-connector asks whether it is connected before a statement, not before COMMIT."""
    connection = on.connection()
    ask(connection)
    for work in connection.close, lambda: ask(connection):
        worker = Worker(work)
        worker.says()
        worker.leaves()
    return text_of(connection.commit)


@reproduces("tls-bad-record-mac", "psycopg2", "postgresql", tls=True)
@reproduces("tls-bad-record-mac", "psycopg", "postgresql", tls=True)
@reproduces("tls-bad-record-mac-python", "pg8000", "postgresql", tls=True)
@reproduces("tls-bad-record-mac", "mysqldb", "mysql", tls=True)
@reproduces("tls-bad-record-mac", "pymysql", "mysql", tls=True)
@reproduces("mysql-connector-lost", "mysqlconnector", "mysql", tls=True)
def parent_asks_after_worker(on: Stage) -> str:
    """A worker asks and reads its answer; then the parent asks, with a record number that was used already.

    worker: record n: SELECT 1     server: record n: the row
    parent: record n: SELECT 1     the server expects n + 1 and cannot decrypt it
    server: record n + 1: alert    the parent expects n and cannot decrypt that
    """
    connection = on.connection()
    ask(connection)
    worker = Worker(lambda: ask(connection))
    worker.says()
    return text_of(lambda: ask(connection))


@reproduces("tls-bad-record-mac", "psycopg2", "postgresql", tls=True)
@reproduces("tls-bad-record-mac", "psycopg", "postgresql", tls=True)
@reproduces("tls-bad-record-mac-python", "pg8000", "postgresql", tls=True)
@reproduces("tls-bad-record-mac", "mysqldb", "mysql", tls=True)
@reproduces("tls-bad-record-mac", "pymysql", "mysql", tls=True)
def parent_hears_the_alert(on: Stage) -> str:
    """A worker asks and is killed; the parent asks, reads the worker's row, and is told off at its next statement.

    worker: record n: SELECT 1     killed before it reads
    parent: record n: SELECT 1     reads the worker's row as its own answer
    server: cannot decrypt the parent's record, says so (an alert that the parent can decrypt) and hangs up
    parent: SELECT 1               reads the alert
    """
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    wire.keeps()
    worker = Worker(lambda: ask(connection))
    wire.hears(bool)
    worker.dies()
    wire.passes()
    text_of(lambda: ask(connection))
    return text_of(lambda: ask(connection))


@reproduces("tls-bad-record-mac", "mysqlconnector", "mysql", tls=True)
def commit_hears_the_alert(on: Stage) -> str:
    """As parent_hears_the_alert: a worker's answer is unread, the parent's COMMIT reads it, the next one the alert."""
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    wire.keeps()
    worker = Worker(connection.commit)
    wire.hears(bool)
    worker.dies()
    wire.passes()
    text_of(connection.commit)
    return text_of(connection.commit)


@reproduces("tls-eof", "psycopg2", "postgresql", tls=True)
@reproduces("tls-eof", "psycopg", "postgresql", tls=True)
@reproduces("tls-eof-python", "pymysql", "mysql", tls=True)
def third_process_finds_the_end(on: Stage) -> str:
    """Two workers ask in turn, the server gives up the session; the parent, who only held it, finds the end.

    first worker:  record n       answered
    second worker: record n again the server sends an alert and hangs up, without TLS's own goodbye
    parent:        end of the stream
    """
    connection = on.connection()
    ask(connection)
    for _ in range(2):
        worker = Worker(lambda: ask(connection))
        worker.says()
        worker.leaves()
    hung_up()
    return text_of(lambda: ask(connection))


@reproduces("tls-eof-python", "mysqlconnector", "mysql", tls=True)
def third_process_commits_over_tls(on: Stage) -> str:
    """As third_process_finds_the_end, with COMMIT, before which mysql-connector does not look."""
    connection = on.connection()
    ask(connection)
    for _ in range(2):
        worker = Worker(connection.commit)
        worker.says()
        worker.leaves()
    hung_up()
    return text_of(connection.commit)


@reproduces("tls-bad-record-mac", "psycopg2", "postgresql", tls=True)
def log_of_a_record_that_does_not_decrypt(on: Stage) -> str:
    """As parent_asks_after_worker, seen from the server."""
    connection = on.connection()
    ask(connection)
    worker = Worker(lambda: ask(connection))
    worker.says()
    text_of(lambda: ask(connection))
    return on.new_in_log("SSL error")


@reproduces("descriptor-closed", "psycopg2", "postgresql", tls=True)
@reproduces("descriptor-closed", "psycopg2", "postgresql")
def worker_closes_only_the_descriptor(on: Stage) -> str:
    """A worker closes the inherited descriptor, as a hook may, and then uses the driver's object all the same.

    worker: os.close     says nothing to the server: the parent's connection lives
    worker: SELECT 1     on a number that stands for no file
    """
    connection = on.connection()
    ask(connection)

    def works() -> object:
        os.close(connection.fileno())
        return ask(connection)

    return Worker(works).says()


@reproduces("tls-torn-record", "psycopg2", "postgresql", tls=True)
@reproduces("tls-torn-record", "psycopg", "postgresql", tls=True)
@reproduces("tls-torn-record", "mysqldb", "mysql", tls=True)
@reproduces("tls-torn-record", "pymysql", "mysql", tls=True)
def parent_reads_the_middle_of_a_record(on: Stage) -> str:
    """The network breaks a record: a worker reads its first byte and is killed, the parent starts with the second.

    worker: SELECT 1     reads the record's kind
    parent: SELECT 1     reads its version (3.3) where the kind is due
    """
    wire = on.wire()
    connection = on.connection(wire)
    ask(connection)
    wire.keeps()
    worker = Worker(lambda: ask(connection))
    wire.hears(lambda said: len(said) > 5)
    wire.gives(1)
    wire.until_read()
    worker.dies()
    wire.passes()
    return text_of(lambda: ask(connection))
