"""SQLite: what a fork breaks is locks, which belong to a process and not to a connection."""

from __future__ import annotations

import pathlib
import sqlite3
import uuid

from poolfork.reproduce import reproduces
from poolfork.reproduce.stage import Stage, Worker, text_of


def opened(file: pathlib.Path) -> sqlite3.Connection:
    """A database in WAL mode with forty rows."""
    connection = sqlite3.connect(file, isolation_level=None, timeout=1)
    connection.execute("PRAGMA journal_mode = wal").fetchall()
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, b)")
    connection.executemany("INSERT INTO t (b) VALUES (randomblob(?))", [(300,)] * 40)
    return connection


@reproduces("sqlite-io-error", "sqlite", "sqlite")
def worker_opens_beside_its_copy(on: Stage) -> str:
    """The parent closes: it sees no lock of the worker's copy, takes itself for the last, and removes the log.

    parent: close     checkpoint; the files -wal and -shm are removed
    worker: INSERT    on its copy, whose -wal and -shm have no names any more
    worker: opens the file anew, and finds the old -shm beside a new -wal
    """
    file = pathlib.Path(on.place.folder, f"{uuid.uuid4().hex}.db")
    connection = opened(file)

    def works() -> int:
        connection.execute("INSERT INTO t (b) VALUES (randomblob(300))")
        return int(sqlite3.connect(file).execute("SELECT count(*) FROM t").fetchone()[0])

    worker = Worker(works, waits=True)
    connection.close()
    worker.begins()
    return worker.says()


@reproduces("sqlite-malformed", "sqlite", "sqlite")
def worker_writes_back_what_it_remembers(on: Stage) -> str:
    """The parent closes and rewrites the file; the worker's copy writes old pages over it from a log of its own.

    parent: close     the files -wal and -shm are removed
    parent: opens the file anew, and puts another table where the first one was
    worker: UPDATE    on its copy, which remembers the pages of the first table
    parent: opens the file anew, and reads
    """
    file = pathlib.Path(on.place.folder, f"{uuid.uuid4().hex}.db")
    connection = opened(file)

    def works() -> None:
        connection.execute("UPDATE t SET b = randomblob(300)")
        connection.execute("PRAGMA wal_checkpoint").fetchall()

    worker = Worker(works, waits=True)
    connection.close()
    again = sqlite3.connect(file, isolation_level=None)
    again.execute("DROP TABLE t")
    again.execute("VACUUM")
    again.execute("CREATE TABLE u (id INTEGER PRIMARY KEY, b)")
    again.executemany("INSERT INTO u (b) VALUES (hex(randomblob(?)))", [(200,)] * 100)
    again.close()
    worker.begins()
    worker.says()
    return text_of(lambda: sqlite3.connect(file).execute("SELECT count(b) FROM u").fetchone())
