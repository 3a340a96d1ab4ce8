# /// script
# dependencies = ["dramatiq[redis]", "psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""Dramatiq actors that use a pool while they are imported; run as a program, it starts workers and asks them.

``python tasks.py COMMAND`` where COMMAND starts the workers: ``dramatiq``, or ``python serve.py``.
DATABASE_URL names the database (postgresql+psycopg://...), REDIS_URL the broker (redis://localhost:6379/0).
"""

import collections
import os
import signal
import subprocess
import sys
from functools import partial

import dramatiq
import redis
import sqlalchemy as sa
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results, errors
from dramatiq.results.backends import RedisBackend

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)


class FreshPool(dramatiq.Middleware):
    """The hook: Dramatiq runs it in each worker process, before the process takes messages."""

    def after_process_boot(self, broker):
        engine.dispose(close=False)


client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"), socket_timeout=60)
broker = RedisBroker(client=client)
broker.add_middleware(Results(backend=RedisBackend(client=client)))
if recipe == "hook":
    broker.add_middleware(FreshPool())
dramatiq.set_broker(broker)

with engine.connect() as connection:  # the first use, wherever this module is imported
    connection.execute(sa.text("SELECT 1"))


@dramatiq.actor(store_results=True, max_retries=0)
def up():
    return "up"


@dramatiq.actor(store_results=True, max_retries=0)
def ask(number):
    with engine.connect() as connection:
        answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
    return "right" if answer == number else "wrong-row"


if __name__ == "__main__":
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    size = "4" if "serve.py" in sys.argv else "2"  # those of the command import for themselves
    command = [*(sys.argv[1:] or ["dramatiq"]), "tasks", "--processes", size, "--threads", "1"]
    workers = subprocess.Popen(command, start_new_session=True)
    try:
        up.send().get_result(block=True, timeout=30_000)
        pending = [ask.send(number) for number in range(240)]
        for one in pending:
            try:
                counts[one.get_result(block=True, timeout=8_000)] += 1
            except errors.ResultTimeout:
                counts["hang"] += 1
                break  # one wait of eight seconds is enough of a proof
            except errors.ResultFailure:
                counts["error"] += 1
    finally:
        os.killpg(workers.pid, signal.SIGKILL)  # at once, and with it a worker that hangs
        workers.wait()
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))
