# /// script
# dependencies = ["apscheduler>=3.11,<4", "psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""APScheduler with a pool of processes: ``python schedule.py``, or ``python schedule.py fork``.

DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import multiprocessing
import queue
import sys

import jobs
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

if __name__ == "__main__":
    options = {"mp_context": multiprocessing.get_context(sys.argv[1])} if sys.argv[1:] else {}
    if jobs.recipe == "hook":
        options["initializer"] = jobs.start_worker
    executor = ProcessPoolExecutor(4, pool_kwargs=options)
    scheduler = BackgroundScheduler(
        executors={"default": executor}, job_defaults={"misfire_grace_time": None}
    )
    answers = queue.SimpleQueue()
    scheduler.add_listener(answers.put, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
    scheduler.start()
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    first = range(0, 240, 30)
    for number in first:
        scheduler.add_job(jobs.ask_thirty, args=[number])
    for _ in first:
        try:
            counts.update(answers.get(timeout=20).retval or ["error"])  # a job that fails is one error
        except queue.Empty:
            counts["hang"] += 1
            break  # one wait of twenty seconds is enough of a proof
    for worker in multiprocessing.active_children():
        worker.kill()  # a worker that hangs would keep the shutdown waiting
    scheduler.shutdown(wait=False)
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))
