# /// script
# dependencies = ["huey", "psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""Huey tasks that use a pool while they are imported; run as a program, it starts a consumer and asks it.

``python tasks.py OPTIONS OF huey_consumer``. DATABASE_URL names the database (postgresql+psycopg://...).
The queue is a folder here.
"""

import collections
import os
import signal
import subprocess
import sys
from functools import partial

import sqlalchemy as sa
from huey import FileHuey
from huey.exceptions import ResultTimeout, TaskException

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)

huey = FileHuey("tasks", path="queue")


def start_worker():
    """The hook: Huey runs it in each worker, before the worker's first task."""
    engine.dispose(close=False)


if recipe == "hook":
    huey.on_startup()(start_worker)

with engine.connect() as connection:  # the first use, wherever this module is imported
    connection.execute(sa.text("SELECT 1"))


@huey.task()
def up():
    return "up"


@huey.task()
def ask(number):
    with engine.connect() as connection:
        answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
    return "right" if answer == number else "wrong-row"


def main(options):
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    command = [sys.executable, "-m", "huey.bin.huey_consumer", "tasks.huey", "--workers", "4", *options]
    consumer = subprocess.Popen([*command, "--max-delay", "0.2"], start_new_session=True)
    wait = {"blocking": True, "backoff": 1, "max_delay": 0.02}
    try:
        up().get(timeout=30, **wait)
        pending = [ask(number) for number in range(240)]
        for one in pending:
            try:
                counts[one.get(timeout=8, **wait)] += 1
            except ResultTimeout:
                counts["hang"] += 1
                break  # one wait of eight seconds is enough of a proof
            except TaskException:
                counts["error"] += 1
    finally:
        os.killpg(consumer.pid, signal.SIGKILL)  # at once, and with it a worker that hangs
        consumer.wait()
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))


if __name__ == "__main__":
    from tasks import main  # so that the tasks are known by the name by which the consumer imports them

    main(sys.argv[1:])
