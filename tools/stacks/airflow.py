"""Apache Airflow: its scheduler forks the LocalExecutor's workers, and these fork a process for each task."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(setting: str, *words: str, forks: str = "fork", reaches: bool = False) -> Stack:
    """A scheduler with its LocalExecutor, and an engine that is imported so."""
    return Stack(
        name="Airflow", setting=f"LocalExecutor, {setting}", app="airflow", needs=("airflow",), forks=forks,
        package="apache-airflow", command=lambda port: [sys.executable, "questions.py", *words], reaches=reaches,
        recipes=() if reaches else ("nothing",), patience=300, install="pip install apache-airflow",
    )  # fmt: skip


STACKS = [
    stack("DAG files import the engine", "dag"),
    stack("a plugin imports it too", "plugin", reaches=True),
    stack("a plugin too, mp_start_method spawn", "plugin", "spawn", forks="spawn"),
]
