# /// script
# dependencies = ["luigi", "psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""Luigi tasks that use a pool while they are imported: ``python tasks.py WORKERS`` (1, or several).

DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import os
import sys
import tempfile
from functools import partial

import luigi
import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)

with engine.connect() as connection:  # the first use, wherever this module is imported
    connection.execute(sa.text("SELECT 1"))

counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})


class AskThirty(luigi.Task):
    """One task, thirty questions."""

    folder = luigi.Parameter()
    first = luigi.IntParameter()

    def output(self):
        return luigi.LocalTarget(f"{self.folder}/{self.first}")

    def run(self):
        found = []
        for number in range(self.first, self.first + 30):
            try:
                with engine.connect() as connection:
                    answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
                found.append("right" if answer == number else "wrong-row")
            except sa.exc.SQLAlchemyError:
                found.append("error")
        with self.output().open("w") as file:
            file.write("\n".join(found))


def start_task(task):
    """The hook: the event START, which Luigi triggers in a task's process before the task."""
    engine.dispose(close=False)


if recipe == "hook":
    luigi.Task.event_handler(luigi.Event.START)(start_task)


@luigi.Task.event_handler(luigi.Event.TIMEOUT)
def hung(task, message):
    counts["hang"] += 1


if __name__ == "__main__":
    workers = int(sys.argv[1]) if sys.argv[1:] else 4
    AskThirty.worker_timeout = 8 if workers > 1 else None  # a timeout makes Luigi fork, too
    with tempfile.TemporaryDirectory() as folder:
        tasks = [AskThirty(folder, first) for first in range(0, 240, 30)]
        luigi.build(tasks, workers=workers, local_scheduler=True, no_lock=True, log_level="WARNING")
        complete = [task for task in tasks if task.complete()]
        for task in complete:
            counts.update(task.output().open().read().split())
    counts["error"] += len(tasks) - len(complete) - counts["hang"]  # a task that fails is one error
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))
