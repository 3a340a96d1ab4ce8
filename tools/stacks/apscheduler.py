"""APScheduler's pool of processes: concurrent.futures' own, which it asks for spawn unless it is told otherwise."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(setting: str, *method: str) -> Stack:
    """A scheduler whose jobs run in a pool of processes, by start method."""
    return Stack(
        name="APScheduler", setting=setting, app="apscheduler", needs=("apscheduler",), package="apscheduler",
        command=lambda port: [sys.executable, "schedule.py", *method], hook="initializer" if method else "",
        forks="fork" if method else "spawn", reaches=bool(method),
    )  # fmt: skip


STACKS = [stack("ProcessPoolExecutor, default"), stack("ProcessPoolExecutor, mp_context fork", "fork")]
