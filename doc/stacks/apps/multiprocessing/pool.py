# /// script
# dependencies = ["psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""multiprocessing.Pool with a pool of connections that its parent has used: ``python pool.py fork``.

A second argument is ``maxtasksperchild``.

DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import multiprocessing
import os
import sys
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
    """The hook: Pool(initializer=start_worker) runs it in every worker, before its first task."""
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
    with engine.connect() as connection:  # the first use, in the parent
        connection.execute(sa.text("SELECT 1"))
    method = sys.argv[1] if sys.argv[1:] else "fork"
    context, size = (
        multiprocessing.get_context(method),
        4 if method == "fork" else 2,
    )  # others import for themselves
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    started = context.Semaphore(0)
    recycle = int(sys.argv[2]) if sys.argv[2:] else None  # tasks, after which a worker is replaced
    with context.Pool(size, start, [started], maxtasksperchild=recycle) as workers:
        if not all(started.acquire(timeout=30) for _ in range(size)):
            sys.exit("the workers did not start")
        pending = [workers.apply_async(ask, [number]) for number in range(240)]
        for one in pending:
            try:
                counts[one.get(timeout=8)] += 1
            except multiprocessing.TimeoutError:
                counts["hang"] += 1
                break  # one wait of eight seconds is enough of a proof
            except Exception:  # noqa: BLE001 (two askers on one wire can meet any error)
                counts["error"] += 1
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))
