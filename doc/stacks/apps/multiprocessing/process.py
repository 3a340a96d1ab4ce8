# /// script
# dependencies = ["psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""multiprocessing.Process with a pool of connections that its parent has used: ``python process.py fork``.

DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import multiprocessing
import multiprocessing.connection
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
    """The hook: the first line of the target, before anything else in the child."""
    engine.dispose(close=False)


def work(first, step, pipe, begin):
    """The target: ask every fourth (or second) question, and tell the parent of each answer."""
    if recipe == "hook":
        start_worker()
    pipe.send("started")
    begin.wait(30)
    for number in range(first, 240, step):
        try:
            with engine.connect() as connection:
                answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
            pipe.send("right" if answer == number else "wrong-row")
        except Exception:  # noqa: BLE001 (two askers on one wire can meet any error)
            pipe.send("error")
    pipe.send("done")


if __name__ == "__main__":
    with engine.connect() as connection:  # the first use, in the parent
        connection.execute(sa.text("SELECT 1"))
    method = sys.argv[1] if sys.argv[1:] else "fork"
    context, size = (
        multiprocessing.get_context(method),
        4 if method == "fork" else 2,
    )  # others import for themselves
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    pipes, begin = [context.Pipe() for _ in range(size)], context.Event()
    children = [
        context.Process(target=work, args=[n, size, theirs, begin], daemon=True)
        for n, (_, theirs) in enumerate(pipes)
    ]
    for child in children:
        child.start()
    waiting = [ours for ours, _ in pipes]
    if not all(pipe.poll(30) and pipe.recv() == "started" for pipe in waiting):
        sys.exit("the workers did not start")
    begin.set()
    while waiting:
        ready = multiprocessing.connection.wait(waiting, timeout=8)
        if not ready:
            counts["hang"] += len(waiting)  # silent for eight seconds
            break
        for pipe in ready:
            if (word := pipe.recv()) == "done":
                waiting.remove(pipe)
            else:
                counts[word] += 1
    for child in children:
        child.kill()
        child.join()
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))
