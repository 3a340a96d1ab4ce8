# /// script
# dependencies = ["celery[redis]", "psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""A Celery app that uses its pool while it is imported; run as a program, it starts a worker and asks it.

``python tasks.py OPTIONS OF celery worker``. DATABASE_URL names the database (postgresql+psycopg://...).
The broker is the Redis at REDIS_URL (redis://..., or redis+socket://...), else a folder here.
"""

import collections
import os
import pathlib
import signal
import subprocess
import sys
from functools import partial

import celery
import celery.exceptions
import celery.signals
import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)


def start_worker(**_):
    """The hook: Celery runs it in each child that it forks, before the child's first task."""
    engine.dispose(close=False)


if recipe == "hook":
    celery.signals.worker_process_init.connect(start_worker)

if redis := os.environ.get("REDIS_URL"):
    app = celery.Celery("tasks", broker=redis, backend=redis)
else:
    folders = [pathlib.Path(name).absolute() for name in ("queue", "control", "results")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    app = celery.Celery("tasks", broker="filesystem://", backend=folders[2].as_uri())
    app.conf.broker_transport_options = {
        "data_folder_in": folders[0], "data_folder_out": folders[0], "control_folder": folders[1]
    }  # fmt: skip

with engine.connect() as connection:  # the first use, wherever this module is imported
    connection.execute(sa.text("SELECT 1"))


@app.task
def up():
    return "up"


@app.task
def ask(number):
    with engine.connect() as connection:
        answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
    return "right" if answer == number else "wrong-row"


if __name__ == "__main__":
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    command = [
        sys.executable,
        "-m",
        "celery",
        "--app",
        "tasks",
        "worker",
        "--concurrency",
        "4",
        *sys.argv[1:],
    ]
    worker = subprocess.Popen(command, start_new_session=True)
    try:
        up.delay().get(timeout=30, interval=0.02)
        pending = [ask.delay(number) for number in range(240)]
        for one in pending:
            try:
                counts[one.get(timeout=8, interval=0.02)] += 1
            except celery.exceptions.TimeoutError:
                counts["hang"] += 1
                break  # one wait of eight seconds is enough of a proof
            except Exception:  # noqa: BLE001 (two askers on one wire can meet any error)
                counts["error"] += 1
    finally:
        os.killpg(worker.pid, signal.SIGKILL)  # at once, and with it a child that hangs
        worker.wait()
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))
