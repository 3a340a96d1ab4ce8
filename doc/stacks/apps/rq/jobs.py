# /// script
# dependencies = ["psycopg[binary]", "rq", "sqlalchemy>=2.0"]
# ///
"""RQ jobs that use a pool while they are imported; run as a program, it starts a worker and asks it.

``python jobs.py COMMAND`` where COMMAND starts the worker: ``rq worker``, or ``python worker.py``.
DATABASE_URL names the database (postgresql+psycopg://...), REDIS_URL the queue's Redis (redis://localhost:6379/0).
"""

import collections
import os
import subprocess
import sys
from functools import partial

import sqlalchemy as sa
from redis import Redis
from rq import Queue, Worker
from rq.command import send_kill_horse_command

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, guard; hook: in worker.py
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)

with engine.connect() as connection:  # the first use, wherever this module is imported
    connection.execute(sa.text("SELECT 1"))
url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
redis = Redis.from_url(url, socket_timeout=60)


def up():
    return "up"


def ask_thirty(first):
    """One job, thirty questions."""
    found = []
    for number in range(first, first + 30):
        try:
            with engine.connect() as connection:
                answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
            found.append("right" if answer == number else "wrong-row")
        except sa.exc.SQLAlchemyError:
            found.append("error")
    return found


if __name__ == "__main__":
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    queue = Queue("questions", connection=redis)
    command = [*(sys.argv[1:] or ["rq", "worker"]), "questions"]
    worker = subprocess.Popen(
        command,
        env=os.environ | {"RQ_REDIS_URL": url},
        process_group=0,  # of its own: a worker that is told to kill a horse that has just ended may kill its group
    )
    try:
        queue.enqueue("jobs.up").latest_result(timeout=30)
        pending = [queue.enqueue("jobs.ask_thirty", first, job_timeout=8) for first in range(0, 240, 30)]
        for job in pending:
            result = job.latest_result(timeout=20)
            if result is None or "JobTimeoutException" in (result.exc_string or ""):
                counts["hang"] += 1
                break  # one wait of eight seconds is enough of a proof
            counts.update(result.return_value or ["error"])  # a job that fails is one error
    finally:
        for one in Worker.all(queue=queue):
            send_kill_horse_command(redis, one.name)  # at once, even a job that hangs
        worker.terminate()
        worker.wait()
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))
