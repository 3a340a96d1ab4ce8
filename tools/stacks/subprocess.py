"""subprocess: another program, which inherits neither memory nor, by default, descriptors."""

from __future__ import annotations

import sys

from stacks.kit import Stack

STACKS = [
    Stack(
        name="subprocess", setting="Popen", app="subprocess", forks="exec", reaches=False,
        command=lambda port: [sys.executable, "parent.py"],
    )
]  # fmt: skip
