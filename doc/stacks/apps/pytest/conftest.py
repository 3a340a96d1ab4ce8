# /// script
# dependencies = ["psycopg[binary]", "pytest", "pytest-forked", "pytest-xdist", "sqlalchemy>=2.0"]
# ///
"""A test suite's engine, used by the process that starts the tests: ``pytest --forked``, ``pytest -n 4``."""

import collections
import os
from functools import partial

import pytest
import pytest_forked
import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, hook, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)


def pytest_sessionstart(session):
    with engine.connect() as connection:  # the first use, before any test; here one creates a schema
        connection.execute(sa.text("SELECT 1"))


@pytest.fixture(scope="session", autouse=recipe == "hook")
def fresh_pool():
    """With --forked, a session's fixture runs in each test's own process, before the test."""
    engine.dispose(close=False)


@pytest.fixture
def database():
    return engine


def pytest_terminal_summary(terminalreporter):
    counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        counts.update(dict(report.user_properties).get("counts", {"hang": 1}))
    terminalreporter.write_line(" | ".join(f"{word} {count}" for word, count in counts.items()))


def serialize_report(report, serialize=pytest_forked.serialize_report):
    """pytest-forked 1.7.5 cannot send the reports of pytest 9.2: without this, every test ends with status 3."""
    sent = serialize(report)
    return sent | {"nodeid": str(sent.pop("_id"))} if "_id" in sent else sent


pytest_forked.serialize_report = serialize_report
