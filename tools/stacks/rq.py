"""RQ: forks for each job; whether the job's module was imported before that is the worker's choice."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(setting: str, *command: str, reaches: bool) -> Stack:
    """Jobs with a worker that is started by this command."""
    return Stack(
        name="RQ", setting=setting, app="rq", needs=("rq", "redis"), programs=("redis-server",), package="rq",
        command=lambda port: [sys.executable, "jobs.py", *command], services=("redis",),
        hook="Worker.main_work_horse" if reaches else "", reaches=reaches,
    )  # fmt: skip


STACKS = [
    stack("rq worker", reaches=False),
    stack("a worker pool that imports the jobs first", "python", "worker.py", reaches=True),
]
