"""Four tasks at the same time, each with sixty questions for our engine."""

import os
import pathlib
import time
from datetime import datetime

import sqlalchemy as sa
from airflow.sdk import dag, task
from warehouse import engine

words = ["right", "wrong-row", "error", "hang"]


@dag(schedule="@once", start_date=datetime(2026, 1, 1))
def questions():
    @task
    def ask(first):
        folder = pathlib.Path(os.environ["ANSWERS"])
        (folder / f"up-{first}").touch()
        until = time.monotonic() + 60
        while len(list(folder.glob("up-*"))) < 4 and time.monotonic() < until:  # they start together
            time.sleep(0.01)
        with (folder / "answers").open("ab", buffering=0) as answers:
            for number in range(first, 240, 4):
                try:
                    with engine.connect() as connection:
                        answer = connection.scalar(sa.text("SELECT CAST(:n AS integer)"), {"n": number})
                    found = "right" if answer == number else "wrong-row"
                except Exception:  # noqa: BLE001 (two askers on one wire can meet any error)
                    found = "error"
                answers.write(bytes([words.index(found)]))

    ask.expand(first=[0, 1, 2, 3])


questions()
