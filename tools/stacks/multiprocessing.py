"""multiprocessing: Pool and Process, by start method."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(kind: str, program: str, method: str, hook: str, *options: str) -> Stack:
    """Pool or Process with a start method."""
    return Stack(
        name="multiprocessing", setting=", ".join((kind, method, *(f"maxtasksperchild={n}" for n in options))), app="multiprocessing", hook=hook,
        command=lambda port: [sys.executable, program, method, *options], forks=method,
        reaches=method == "fork",
    )  # fmt: skip


STACKS = [
    stack(kind, program, method, hook)
    for kind, program, hook in (
        ("Pool", "pool.py", "initializer"),
        ("Process", "process.py", "first line of the target"),
    )
    for method in ("fork", "spawn", "forkserver")
]
STACKS.insert(1, stack("Pool", "pool.py", "fork", "initializer", "20"))
