"""hypercorn --workers: each worker is a new interpreter (spawn), also with --reload, where the parent imports the app."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(setting: str, *options: str) -> Stack:
    """hypercorn with these options."""
    start = [sys.executable, "-m", "hypercorn", *options]
    return Stack(
        name="hypercorn", setting=setting, app="asgi", needs=("hypercorn",), package="hypercorn", web=True,
        command=lambda port: [*start, "--bind", f"127.0.0.1:{port}", "app:app"], forks="spawn", reaches=False,
    )  # fmt: skip


STACKS = [
    stack("--workers", "--workers", "2"),
    stack("--workers, --reload", "--workers", "2", "--reload"),
]
