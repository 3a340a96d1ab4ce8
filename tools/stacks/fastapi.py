"""FastAPI: under uvicorn's own workers, and under gunicorn with uvicorn's worker class."""

from __future__ import annotations

import sys

from stacks.gunicorn import command
from stacks.kit import Stack

STACKS = [
    Stack(
        name="FastAPI", setting="uvicorn --workers", app="fastapi",
        command=lambda port: [
            sys.executable, "-m", "uvicorn", "--workers", "2", "--port", str(port), "app:app"
        ],
        needs=("fastapi", "uvicorn"), package="fastapi", web=True, forks="spawn", reaches=False,
    ),
    Stack(
        name="FastAPI", setting="gunicorn --preload, UvicornWorker", app="fastapi",
        command=command("--preload", "--worker-class", "uvicorn_worker.UvicornWorker"),
        needs=("fastapi", "gunicorn", "uvicorn_worker"), package="fastapi", hook="post_fork", web=True,
    ),
]  # fmt: skip
