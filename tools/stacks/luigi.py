"""Luigi: a process of multiprocessing's for each task, when there are several workers; else none."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(workers: int) -> Stack:
    """A local scheduler with so many workers."""
    several = workers > 1
    return Stack(
        name="Luigi", setting=f"{workers} worker{'s' if several else ''}", app="luigi", needs=("luigi",), package="luigi",
        command=lambda port: [sys.executable, "tasks.py", str(workers)], hook="Event.START" if several else "",
        forks="fork" if several else "no process", reaches=several, install="pip install luigi",
    )  # fmt: skip


STACKS = [stack(1), stack(4)]
