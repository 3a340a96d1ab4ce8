"""Dramatiq: forks before it imports the actors, unless the program that starts it has imported them."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(setting: str, *command: str, reaches: bool) -> Stack:
    """Actors with workers that are started by this command."""
    return Stack(
        name="Dramatiq", setting=setting, app="dramatiq", needs=("dramatiq", "redis"), programs=("redis-server",),
        command=lambda port: [sys.executable, "tasks.py", *command], services=("redis",), package="dramatiq",
        hook="after_process_boot", reaches=reaches, recipes=() if reaches else ("nothing", "hook", "guard"),
    )  # fmt: skip


STACKS = [
    stack("dramatiq", reaches=False),
    stack("started by a program that has imported the actors", "python", "serve.py", reaches=True),
]
