# /// script
# dependencies = ["psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""subprocess starts another program, which has none of the parent's memory: ``python parent.py``.

DATABASE_URL names the database (postgresql+psycopg://...).
"""

import collections
import os
import subprocess
import sys
from functools import partial

import sqlalchemy as sa

engine = sa.create_engine(os.environ["DATABASE_URL"])
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, guard
if recipe == "at-fork":
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
if recipe == "guard":
    from guard import guard  # guard.py, beside this file

    guard(engine)


def work(first):
    """The child, this program started again: ask 120 questions, one line of output for each."""
    for number in range(first, 240, 2):
        try:
            with engine.connect() as connection:
                answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
            print("right" if answer == number else "wrong-row")
        except sa.exc.SQLAlchemyError:
            print("error")


if sys.argv[1:]:
    work(int(sys.argv[1]))
    sys.exit()
with engine.connect() as connection:  # the first use, in the parent
    connection.execute(sa.text("SELECT 1"))
options = {"stdout": subprocess.PIPE, "text": True}
children = [subprocess.Popen([sys.executable, __file__, str(first)], **options) for first in range(2)]
counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
for child in children:
    try:
        counts.update(child.communicate(timeout=30)[0].split())
    except subprocess.TimeoutExpired:
        counts["hang"] += 1
    child.kill()
    child.wait()
print(" | ".join(f"{word} {count}" for word, count in counts.items()))
