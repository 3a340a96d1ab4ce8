"""Celery: its prefork pool forks after the app has been imported, at the start and when it recycles a child."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(setting: str, *options: str, forks: str = "fork", redis: bool = False) -> Stack:
    """A Celery worker with these options."""
    return Stack(
        name="Celery", setting=setting, app="celery", needs=("celery", "redis") if redis else ("celery",),
        command=lambda port: [sys.executable, "tasks.py", "--loglevel", "critical", *options],
        programs=("redis-server",) if redis else (), services=("redis",) if redis else (), package="celery",
        hook="worker_process_init", forks=forks, reaches=forks == "fork",
    )  # fmt: skip


STACKS = [
    stack("prefork, a folder as broker"),
    stack("prefork, Redis", redis=True),
    stack("prefork, --max-tasks-per-child 20", "--max-tasks-per-child", "20"),
    stack("threads", "--pool", "threads", forks="threads"),
]
