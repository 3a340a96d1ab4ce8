# /// script
# dependencies = ["psycopg[binary]", "ray", "sqlalchemy>=2.0"]
# ///
"""Ray's workers and a pool of connections that the program which starts them has used: ``python questions.py``.

DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import os
import tempfile
from functools import partial

import ray
import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)


def up():
    return "up"


def ask(number):
    with engine.connect() as connection:
        answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
    return "right" if answer == number else "wrong-row"


def main():
    with engine.connect() as connection:  # the first use, in the parent
        connection.execute(sa.text("SELECT 1"))
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        try:
            remote_up, remote_ask = (
                ray.remote(up),
                ray.remote(ask),
            )  # a decorated ask() would be pickled with its engine
            ray.get([remote_up.remote() for _ in range(8)], timeout=30)  # the workers have started
            for one in [remote_ask.remote(number) for number in range(240)]:
                try:
                    counts[ray.get(one, timeout=8)] += 1
                except ray.exceptions.GetTimeoutError:
                    counts["hang"] += 1
                    break  # one wait of eight seconds is enough of a proof
                except ray.exceptions.RayError:
                    counts["error"] += 1
        finally:
            ray.shutdown()
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))


if __name__ == "__main__":
    from questions import (
        main,
    )  # so that the workers find ask() in a module, with their own engine

    main()
