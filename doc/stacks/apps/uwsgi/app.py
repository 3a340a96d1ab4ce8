# /// script
# dependencies = ["psycopg[binary]", "pyuwsgi", "sqlalchemy>=2.0"]
# ///
"""A WSGI app that uses its pool while it is imported; it answers ``/?n=7`` with 7, as the database says it."""

import os
from functools import partial

import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "hook":
    from uwsgidecorators import postfork

    postfork(partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard

    guard(engine)

with engine.connect() as connection:  # the first use, wherever this module is imported
    connection.execute(sa.text("SELECT 1"))


def application(environ, start_response):
    number = int(environ["QUERY_STRING"].removeprefix("n="))
    with engine.connect() as connection:
        answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer).encode()]
