"""Granian: workers by multiprocessing; the command imports the app in the worker, a program of one's own may have before."""

from __future__ import annotations

import sys
from collections.abc import Callable

from stacks.kit import Stack


def stack(setting: str, command: Callable[[int], list[str]], reaches: bool) -> Stack:
    """Granian, started so."""
    return Stack(
        name="Granian", setting=setting, app="granian", needs=("granian",), package="granian", web=True,
        command=command, reaches=reaches,
    )  # fmt: skip


STACKS = [
    stack(
        "the command, --workers",
        lambda port: [
            sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), "--workers", "2", "app:app"
        ],
        reaches=False,
    ),
    stack(
        "Granian().serve() in a program that imports the app",
        lambda port: [sys.executable, "serve.py", str(port)],
        reaches=True,
    ),
]  # fmt: skip
