# /// script
# dependencies = ["psycopg[binary]", "sqlalchemy>=2.0", "torch"]
# ///
"""A DataLoader whose dataset reads a database that its parent has used: ``python loader.py fork``.

The other methods are ``spawn`` and ``forkserver``. DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import os
import signal
import sys
from functools import partial

import sqlalchemy as sa
from torch.utils.data import DataLoader, Dataset

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)


def start_worker(worker):
    """The hook: DataLoader(worker_init_fn=start_worker) runs it in every worker, before its first item."""
    engine.dispose(close=False)


def give_up(*_):
    raise TimeoutError


class Questions(Dataset):
    """An item is a question; its value says how the answer was."""

    def __len__(self):
        return 240

    def __getitem__(self, number):
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(8)
        try:
            with engine.connect() as connection:
                answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
            return "right" if answer == number else "wrong-row"
        except TimeoutError:
            return "hang"
        except Exception:  # noqa: BLE001 (two askers on one wire can meet any error)
            return "error"
        finally:
            signal.alarm(0)


if __name__ == "__main__":
    questions, method = Questions(), sys.argv[1] if sys.argv[1:] else "fork"
    with engine.connect() as connection:  # the first use, in the parent: most datasets ask for their length
        connection.execute(sa.text("SELECT 1"))
    loader = DataLoader(
        questions,
        num_workers=4 if method == "fork" else 2,  # others import for themselves
        batch_size=None,
        multiprocessing_context=method,
        worker_init_fn=start_worker if recipe == "hook" else None,
        timeout=60,
        in_order=False,  # so that an answer need not wait for one that hangs
    )
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    for found in loader:
        counts[found] += 1
        if counts["hang"]:
            break  # one wait of eight seconds is enough of a proof
    print(" | ".join(f"{word} {count}" for word, count in counts.items()), flush=True)
    os._exit(0)  # a worker that hangs would keep the interpreter's exit waiting
