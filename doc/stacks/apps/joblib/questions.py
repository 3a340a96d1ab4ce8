# /// script
# dependencies = ["joblib", "psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""joblib's workers and a pool of connections that their parent has used: ``python questions.py loky``.

The other backend is ``multiprocessing``, which forks. DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import os
import signal
import sys
from functools import partial

import joblib
import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)


def start_worker():
    """The hook: parallel_config(initializer=start_worker) runs it in every worker, before its first task."""
    engine.dispose(close=False)


def up():
    return "up"


def give_up(*_):
    raise TimeoutError


def ask_twelve(first):
    """One task, twelve questions; one that hangs is the last."""
    found = []
    signal.signal(signal.SIGALRM, give_up)  # Parallel gives no results of a call in which one task hangs
    for number in range(first, first + 12):
        signal.alarm(8)
        try:
            with engine.connect() as connection:
                answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
            found.append("right" if answer == number else "wrong-row")
        except TimeoutError:
            return [*found, "hang"]
        except Exception:  # noqa: BLE001 (two askers on one wire can meet any error)
            found.append("error")
        finally:
            signal.alarm(0)
    return found


def main(backend):
    with engine.connect() as connection:  # the first use, in the parent
        connection.execute(sa.text("SELECT 1"))
    size = 4 if backend == "multiprocessing" else 2  # others import for themselves
    hook = {"initializer": start_worker} if recipe == "hook" else {}
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    with (
        joblib.parallel_config(backend=backend, n_jobs=size, **hook),
        joblib.Parallel(timeout=30) as parallel,
    ):
        parallel(joblib.delayed(up)() for _ in range(8))  # the workers have started
        for start in range(0, 240, 48):
            for found in parallel(
                joblib.delayed(ask_twelve)(first) for first in range(start, start + 48, 12)
            ):
                counts.update(found)
            if counts["hang"]:
                break  # one wait of eight seconds is enough of a proof
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))


if __name__ == "__main__":
    from questions import main  # so that the workers find ask() in a module, with this parent's engine

    main(sys.argv[1] if sys.argv[1:] else "loky")
