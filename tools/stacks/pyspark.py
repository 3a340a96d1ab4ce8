"""PySpark: a daemon that has imported nothing of the program's forks its workers."""

from __future__ import annotations

import sys

from stacks.kit import Stack

STACKS = [
    Stack(
        name="PySpark", setting="workers", app="pyspark", needs=("pyspark",), programs=("java",), package="pyspark",
        command=lambda port: [sys.executable, "questions.py"], reaches=False, patience=180,
        install="pip install pyspark",
    )
]  # fmt: skip
