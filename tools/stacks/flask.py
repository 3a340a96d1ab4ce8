"""Flask with Flask-SQLAlchemy: under gunicorn, and under its own development server, whose reloader starts a new program."""

from __future__ import annotations

import sys

from stacks.gunicorn import command
from stacks.kit import Stack

STACKS = [
    Stack(
        name="Flask", setting="Flask-SQLAlchemy, gunicorn --preload", app="flask", command=command("--preload"),
        needs=("flask", "flask_sqlalchemy", "gunicorn"), package="flask-sqlalchemy", hook="post_fork", web=True,
    ),
    Stack(
        name="Flask", setting="development server with its reloader", app="flask",
        command=lambda port: [sys.executable, "-m", "flask", "run", "--reload", "--port", str(port)],
        needs=("flask", "flask_sqlalchemy"), package="flask", web=True, forks="exec", reaches=False,
        note="The reloader's first process has imported the app, and used its pool, as well.",
    ),
]  # fmt: skip
