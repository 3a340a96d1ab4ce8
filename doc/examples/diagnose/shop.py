"""A parent that uses its pool before it forks its workers: they inherit the connection."""

import multiprocessing
import os
import sys

import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])


def work(ready, stop):
    """What a worker would do with the engine; here it only waits."""
    ready.release()
    stop.wait(60)


if __name__ == "__main__":
    with engine.connect() as connection:  # too early
        connection.scalar(sa.text("SELECT 1"))
    fork = multiprocessing.get_context("fork")
    ready, stop = fork.Semaphore(0), fork.Event()
    workers = [fork.Process(target=work, args=(ready, stop)) for _ in range(2)]
    for worker in workers:
        worker.start()
    if all(ready.acquire(timeout=30) for _ in workers):
        print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    for worker in workers:
        worker.join()
