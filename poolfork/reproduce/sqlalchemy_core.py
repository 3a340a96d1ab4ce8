"""What SQLAlchemy and its pool say when a connection is shared, whatever the driver."""

from __future__ import annotations

import subprocess

import sqlalchemy as sa

from poolfork.reproduce import newer_python, reproduces
from poolfork.reproduce.libpq import is_ready
from poolfork.reproduce.stage import Stage, Wire, Worker, text_of


def unread(wire: Wire, worker: Worker) -> None:
    """A worker has asked on a wire that keeps the answer: kill it, let the answer arrive."""
    wire.hears(is_ready)
    worker.dies()
    wire.passes()


@reproduces("result-closed", "psycopg2", "postgresql")
@reproduces("result-closed", "psycopg", "postgresql")
def select_reads_a_commit(on: Stage) -> str:
    """A worker's COMMIT was answered when it was killed; the parent's SELECT reads that: no rows, no columns.

    worker: COMMIT     killed before it reads
    parent: SELECT     reads COMMIT's answer
    """
    wire = on.wire()
    connection = on.engine(wire).connect()
    connection.scalar(sa.text("SELECT 1"))
    wire.keeps()
    unread(wire, Worker(connection.commit))
    return text_of(lambda: connection.execute(sa.text("SELECT 1")).all())


@reproduces("no-such-column", "psycopg2", "postgresql")
@reproduces("no-such-column", "psycopg", "postgresql")
def select_reads_another_row(on: Stage) -> str:
    """A worker's row arrives at the parent: it is noticed only because its columns are others."""
    wire = on.wire()
    hosts = sa.table("host_mappings", sa.column("id"), sa.column("name"))
    connection = on.engine(wire).connect()
    connection.execute(sa.text("CREATE TEMPORARY TABLE host_mappings AS SELECT 1 AS id, 'a' AS name"))
    wire.keeps()
    unread(wire, Worker(lambda: connection.scalar(sa.text("SELECT 42 AS answer"))))
    row = connection.execute(sa.select(hosts.c.id, hosts.c.name)).one()
    return text_of(lambda: row._mapping[hosts.c.id])


@reproduces("wrong-response", "psycopg2", "postgresql")
def application_checks_its_answer(on: Stage) -> str:
    """A worker asks and is killed; an application that asks for a number and compares notices."""
    wire = on.wire()
    connection = on.engine(wire).connect()

    def asks(number: int) -> None:
        answer = connection.scalar(sa.text("SELECT CAST(:number AS integer)"), {"number": number})
        if answer != number:
            raise ValueError(f"Wrong response: Request {number} - Get {answer}")

    asks(0)
    wire.keeps()
    unread(wire, Worker(lambda: asks(57)))
    return text_of(lambda: asks(12))


@reproduces("sqlalchemy-connection-closed", "psycopg2", "postgresql")
def closed_after_the_first_error(on: Stage) -> str:
    """A worker disposes of the engine; the parent's statement fails, its Connection is closed, and used again."""
    engine = on.engine()
    with engine.connect() as connection:
        connection.scalar(sa.text("SELECT 1"))
    worker = Worker(engine.dispose)
    worker.says()
    worker.leaves()
    try:
        with engine.connect() as connection:
            connection.scalar(sa.text("SELECT 1"))
    except sa.exc.OperationalError:
        return text_of(lambda: connection.scalar(sa.text("SELECT 1")))
    return "no error"


@reproduces("queuepool-timeout", "psycopg2", "postgresql")
def worker_waits_for_the_parents_connection(on: Stage) -> str:
    """The parent holds the pool's only connection at the fork; for the worker's copy of the pool it is out for ever."""
    engine = on.engine(pool_timeout=0.2)
    with engine.connect() as connection:
        connection.scalar(sa.text("SELECT 1"))
        return Worker(lambda: engine.connect().scalar(sa.text("SELECT 1"))).says()


THREADED = """
import os, threading
over = threading.Event()
threading.Thread(target=over.wait).start()
if not os.fork():
    os._exit(0)
over.set()
"""


@reproduces("fork-in-threads", "python3.12", "sqlite")
def fork_beside_a_thread(on: Stage) -> str:
    """A program with two threads forks; Python 3.12 and later warn."""
    python = newer_python()
    assert python is not None
    done = subprocess.run(
        [python[0], "-W", "always", "-c", THREADED],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=8,
    )
    return done.stderr.partition(": ")[2].partition("\n")[0]


@reproduces("psycopg-pool-timeout", "psycopg_pool", "postgresql")
def worker_has_a_pool_without_its_threads(on: Stage) -> str:
    """The parent's psycopg_pool has one connection, which the parent uses; in the worker no thread opens another."""
    from psycopg_pool import ConnectionPool

    with ConnectionPool(
        on.url().render_as_string(False), min_size=1, max_size=2, timeout=0.3, open=True
    ) as pool:
        pool.wait(5)
        with pool.connection():

            def asks() -> object:
                with pool.connection() as connection:
                    return connection.execute("SELECT 1").fetchone()

            return Worker(asks).says()
