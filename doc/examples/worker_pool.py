"""Fix 1 in multiprocessing.Pool and in ProcessPoolExecutor."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"])
fork = multiprocessing.get_context("fork")


def initializer():
    """Runs once in each child, before its first task."""
    engine.dispose(close=False)


def backend(_=None):
    """The process id, on the server, of the session that a checkout talks to."""
    with engine.connect() as connection:
        return connection.scalar(text("SELECT pg_backend_pid()"))


if __name__ == "__main__":
    parent = backend()
    with fork.Pool(2, initializer=initializer) as pool:
        children = pool.map_async(backend, range(8), chunksize=1).get(timeout=30)
    print("Pool: shared" if parent in children else "Pool: not shared")
    with ProcessPoolExecutor(2, mp_context=fork, initializer=initializer) as executor:
        children = list(executor.map(backend, range(8), timeout=30))
    print("ProcessPoolExecutor: shared" if parent in children else "ProcessPoolExecutor: not shared")
    print("parent: unharmed" if backend() == parent else "parent: another session")
