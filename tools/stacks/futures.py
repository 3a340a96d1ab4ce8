"""concurrent.futures.ProcessPoolExecutor, by start method: with fork, it forks at the first submit()."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(method: str) -> Stack:
    """The executor with a start method."""
    return Stack(
        name="futures", setting=f"ProcessPoolExecutor, {method}", app="futures", hook="initializer",
        command=lambda port: [sys.executable, "executor.py", method], forks=method,
        reaches=method == "fork",
    )  # fmt: skip


STACKS = [stack(method) for method in ("fork", "spawn", "forkserver")]
