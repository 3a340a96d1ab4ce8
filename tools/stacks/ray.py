"""Ray: its workers are programs that its raylet starts."""

from __future__ import annotations

import sys

from stacks.kit import Stack

STACKS = [
    Stack(
        name="Ray", setting="tasks", app="ray", needs=("ray",), package="ray", forks="exec", reaches=False,
        command=lambda port: [sys.executable, "questions.py"], install="pip install ray", patience=180,
    )
]  # fmt: skip
