# /// script
# dependencies = ["psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""ProcessPoolExecutor forks late, at its first submit(): ``python executor.py fork``.

DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)


def start_worker():
    """The hook: ProcessPoolExecutor(initializer=start_worker) runs it in every worker, before its first task."""
    engine.dispose(close=False)


def start(started):
    """What this program's workers start with: the hook if it is asked for, then word to the parent."""
    if recipe == "hook":
        start_worker()
    started.release()


def ask(number):
    with engine.connect() as connection:
        answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
    return "right" if answer == number else "wrong-row"


if __name__ == "__main__":
    method = sys.argv[1] if sys.argv[1:] else "fork"
    context, size = (
        multiprocessing.get_context(method),
        4 if method == "fork" else 2,
    )  # others import for themselves
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    started = context.Semaphore(0)
    executor = ProcessPoolExecutor(size, mp_context=context, initializer=start, initargs=[started])
    print("after ProcessPoolExecutor():", len(multiprocessing.active_children()), "workers")
    with engine.connect() as connection:  # the first use, after the executor was made and before it forks
        connection.execute(sa.text("SELECT 1"))
    pending = [executor.submit(ask, number) for number in range(240)]
    print("after the first submit():", len(multiprocessing.active_children()), "workers")
    workers = multiprocessing.active_children()
    if not all(started.acquire(timeout=30) for _ in workers):
        sys.exit("the workers did not start")
    for one in pending:
        try:
            counts[one.result(timeout=8)] += 1
        except TimeoutError:
            counts["hang"] += 1
            break  # one wait of eight seconds is enough of a proof
        except Exception:  # noqa: BLE001 (two askers on one wire can meet any error)
            counts["error"] += 1
    for worker in workers:
        worker.kill()  # a worker that hangs would keep shutdown() waiting
    executor.shutdown(cancel_futures=True)
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))
