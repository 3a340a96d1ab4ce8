"""Huey: threads by default; its process workers are forked after the tasks were imported."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(setting: str, *options: str, forks: str = "fork") -> Stack:
    """A Huey consumer with these options."""
    return Stack(
        name="Huey", setting=setting, app="huey", needs=("huey",), package="huey",
        command=lambda port: [sys.executable, "tasks.py", *options], hook="on_startup", forks=forks,
        reaches=forks == "fork",
    )  # fmt: skip


PROCESSES = ("--worker-type", "process")
STACKS = [
    stack("threads, the default", forks="threads"),
    stack("processes", *PROCESSES),
    stack("processes, --max-tasks 40", *PROCESSES, "--max-tasks", "40", "--health-check-interval", "1"),
]
