"""APScheduler's jobs, and the pool that they use while they are imported."""

import os
from functools import partial

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


def start_worker():
    """The hook: the pool's initializer, which every worker runs before its first job."""
    engine.dispose(close=False)


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
