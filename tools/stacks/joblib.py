"""joblib: its default backend, loky, starts other programs; its backend multiprocessing forks."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(backend: str, forks: str) -> Stack:
    """joblib with a backend."""
    return Stack(
        name="joblib", setting=f"backend {backend}", app="joblib", needs=("joblib",), package="joblib",
        command=lambda port: [sys.executable, "questions.py", backend], hook="initializer", forks=forks,
        reaches=forks == "fork", patience=120,
    )  # fmt: skip


STACKS = [stack("loky", "exec"), stack("multiprocessing", "fork")]
