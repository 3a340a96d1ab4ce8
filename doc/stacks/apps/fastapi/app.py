# /// script
# dependencies = ["fastapi", "gunicorn", "psycopg[binary]", "sqlalchemy>=2.0", "uvicorn", "uvicorn-worker"]
# ///
"""A FastAPI app that uses its pool while it is imported; it answers ``/?n=7`` with 7, as the database says it."""

import os
from functools import partial
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse
from sqlalchemy.orm import Session

app = FastAPI()
engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, guard; hook: in gunicorn.conf.py
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard

    guard(engine)

with engine.connect() as connection:  # the first use, wherever this module is imported
    connection.execute(sa.text("SELECT 1"))


def session():
    with Session(engine) as one:
        yield one


@app.get("/", response_class=PlainTextResponse)
def answer(n: int, session: Annotated[Session, Depends(session)]):
    return str(session.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": n}))
