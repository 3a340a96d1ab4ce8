"""os.fork(), without anything around it."""

from __future__ import annotations

import sys

from stacks.kit import Stack

STACKS = [
    Stack(
        name="os.fork", setting="four children", app="os_fork", hook="first line of the child",
        command=lambda port: [sys.executable, "fork.py"],
    )
]  # fmt: skip
