# /// script
# dependencies = ["psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""An ASGI app that uses its pool while it is imported; it answers ``/?n=7`` with 7, as the database says it."""

import asyncio
import os
from functools import partial

import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard

    guard(engine)

with engine.connect() as connection:  # the first use, wherever this module is imported
    connection.execute(sa.text("SELECT 1"))


def ask(number):
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})


async def app(scope, receive, send):
    assert scope["type"] == "http"  # no lifespan here; servers take an error for that answer
    answer = await asyncio.to_thread(ask, int(scope["query_string"].removeprefix(b"n=")))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(answer).encode()})
