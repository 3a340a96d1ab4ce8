"""uWSGI forks in C after it has loaded the app: Python's at-fork hooks do not run unless told to."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(setting: str, section: str, *clean: str) -> Stack:
    """uWSGI with a section of uwsgi.ini, and the recipes that are expected to leave all answers right."""
    more = ["--ini", f"uwsgi.ini:{section}"] if section else []
    return Stack(
        name="uWSGI", setting=setting, app="uwsgi", needs=("pyuwsgi",), package="pyuwsgi", web=True, hook="postfork",
        command=lambda port: ["uwsgi", "--ini", "uwsgi.ini", *more, "--http-socket", f"127.0.0.1:{port}"],
        env={"VIRTUAL_ENV": sys.prefix},  # as an activated environment has it; uWSGI looks there
        install="pip install pyuwsgi", respawn=not section, forks="C fork", reaches="nothing" not in clean, clean=clean,
    )  # fmt: skip


STACKS = [
    stack("default", "", "hook", "guard"),
    stack("py-call-osafterfork", "hooks", "at-fork", "hook", "guard"),
    stack("py-call-uwsgi-fork-hooks", "all-hooks", "at-fork", "hook", "guard"),
    stack("lazy-apps", "lazy", "nothing", "guard"),
]
