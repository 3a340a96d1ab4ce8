"""multiprocessing.Pool, by start method."""

from __future__ import annotations

import sys

from stacks.kit import Stack

STACKS = [
    Stack(
        name="multiprocessing", setting=f"Pool, {method}", app="multiprocessing", hook="initializer",
        command=lambda port, method=method: [sys.executable, "pool.py", method], forks=method,
    )
    for method in ("fork", "spawn", "forkserver")
]  # fmt: skip
