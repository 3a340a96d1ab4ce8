# /// script
# dependencies = ["distributed", "psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""Dask's workers and a pool of connections that their parent has used: ``python questions.py spawn``.

The other methods are ``fork`` and ``forkserver``. DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import os
import sys
from functools import partial

import dask
import distributed
import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)


class FreshPool(distributed.WorkerPlugin):
    """The hook: client.register_plugin(FreshPool()) has each worker run it, those that join later too."""

    def setup(self, worker):
        engine.dispose(close=False)


def ask(number):
    with engine.connect() as connection:
        answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
    return "right" if answer == number else "wrong-row"


def main(method):
    with engine.connect() as connection:  # the first use, in the parent
        connection.execute(sa.text("SELECT 1"))
    dask.config.set({"distributed.worker.multiprocessing-method": method})
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    size = 4 if method == "fork" else 2  # others import for themselves
    options = {"n_workers": size, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(size, timeout=30)
        if recipe == "hook":
            client.register_plugin(FreshPool())
        pending = client.map(ask, range(240))
        for one in pending:
            try:
                counts[one.result(timeout=8)] += 1
            except TimeoutError:
                counts["hang"] += 1
                break  # one wait of eight seconds is enough of a proof
            except Exception:  # noqa: BLE001 (two askers on one wire can meet any error)
                counts["error"] += 1
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))


if __name__ == "__main__":
    from questions import main  # so that the workers find ask() in a module, with this parent's engine

    main(sys.argv[1] if sys.argv[1:] else "spawn")
