# /// script
# dependencies = ["psycopg[binary]", "pyspark", "sqlalchemy>=2.0"]
# ///
"""PySpark's workers and a pool of connections that the program which starts them has used: ``python questions.py``.

DATABASE_URL names the database (postgresql+psycopg://...). It needs a Java.
"""

import collections
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


def ask(number):
    try:
        with engine.connect() as connection:
            answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
    except Exception:  # noqa: BLE001 (two askers on one wire can meet any error)
        return "error"
    return "right" if answer == number else "wrong-row"


def main():
    from pyspark.sql import SparkSession

    with engine.connect() as connection:  # the first use, in the driver
        connection.execute(sa.text("SELECT 1"))
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    spark = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    try:
        counts = collections.Counter({"right": 0, "wrong-row": 0, "error": 0, "hang": 0})
        counts.update(spark.sparkContext.parallelize(range(240), 4).map(ask).collect())
    finally:
        spark.stop()
    print(" | ".join(f"{word} {count}" for word, count in counts.items()))


if __name__ == "__main__":
    from questions import (
        main,
    )  # so that the workers find ask() in a module, with their own engine

    main()
