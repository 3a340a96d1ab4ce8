"""gunicorn: workers are forked from the master; --preload imports the app before that."""

from __future__ import annotations

import sys
from collections.abc import Callable

from stacks.kit import Stack


def command(*options: str, application: str = "app:app") -> Callable[[int], list[str]]:
    """The command line with these options."""
    workers = "4" if "--preload" in options else "2"  # without it, each imports the app for itself
    start = [sys.executable, "-m", "gunicorn", "--workers", workers]
    return lambda port: [*start, "--bind", f"127.0.0.1:{port}", *options, application]


def stack(setting: str, *options: str, reaches: bool = True, respawn: bool = False) -> Stack:
    """gunicorn with these options."""
    return Stack(
        name="gunicorn", setting=setting, app="gunicorn", command=command(*options), needs=("gunicorn",),
        package="gunicorn", hook="post_fork", web=True, reaches=reaches, respawn=respawn,
    )  # fmt: skip


STACKS = [
    stack("sync workers", reaches=False),
    stack("sync workers, --preload", "--preload", respawn=True),
    stack("threads, --preload", "--preload", "--worker-class", "gthread", "--threads", "4"),
]
