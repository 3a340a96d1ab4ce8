"""uvicorn --workers: each worker is a new interpreter (spawn) that imports the app for itself."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(setting: str, *options: str) -> Stack:
    """uvicorn with these options."""
    start = [sys.executable, "-m", "uvicorn", *options]
    return Stack(
        name="uvicorn", setting=setting, app="asgi", needs=("uvicorn",), package="uvicorn", web=True,
        command=lambda port: [*start, "--port", str(port), "app:app"], forks="spawn", reaches=False,
    )  # fmt: skip


STACKS = [stack("--workers", "--workers", "2"), stack("--reload", "--reload")]
