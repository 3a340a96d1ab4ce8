"""Our engine, in a module that DAG files and plugins import; it uses its pool while it is imported."""

import os
from functools import partial

import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)

with engine.connect() as connection:  # the first use, wherever this module is imported
    connection.execute(sa.text("SELECT 1"))
