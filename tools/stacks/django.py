"""Django's own connections, which are not SQLAlchemy's: one a thread, and dispose() knows nothing of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from stacks.gunicorn import command
from stacks.kit import Stack


def stack(setting: str, start: Callable[[int], list[str]], **more: Any) -> Stack:
    """Django, started so."""
    return Stack(
        name="Django", setting=setting, app="django", command=start, needs=("django", "psycopg", "psycopg_pool", "gunicorn"),
        package="django", web=True, **more,
    )  # fmt: skip


RECIPES = ("nothing", "at-fork", "hook")
PRELOAD = command("--preload", application="app:application")
STACKS = [
    stack("gunicorn", command(application="app:application"), reaches=False, recipes=("nothing",)),
    stack(
        "gunicorn --preload", PRELOAD, recipes=RECIPES, hook="pre_fork", clean=RECIPES,
        note="Each worker closes the connection that it inherited when its first request begins, before it uses it "
        "(CONN_MAX_AGE is 0); the first worker that does so ends the master's session.",
    ),
    stack(
        "gunicorn --preload, CONN_MAX_AGE = None", PRELOAD, recipes=RECIPES, hook="pre_fork", env={"PERSISTENT": "1"}
    ),
    stack(
        'gunicorn --preload, OPTIONS = {"pool": True}', PRELOAD, recipes=RECIPES, hook="pre_fork", env={"POOL": "1"},
    ),
    stack(
        "runserver with its reloader", lambda port: [sys.executable, "manage.py", "runserver", str(port)],
        reaches=False, forks="exec", recipes=("nothing",),
        note="The reloader's first process has imported the settings, and used its connection, as well.",
    ),
]  # fmt: skip
