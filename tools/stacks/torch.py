"""PyTorch's DataLoader: its workers are multiprocessing's processes, forked where that is the default."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(method: str) -> Stack:
    """A DataLoader with a start method."""
    return Stack(
        name="PyTorch", setting=f"DataLoader, {method}", app="torch", needs=("torch",), package="torch",
        command=lambda port: [sys.executable, "loader.py", method], hook="worker_init_fn", forks=method,
        reaches=method == "fork", patience=120, install="pip install torch",
    )  # fmt: skip


STACKS = [stack(method) for method in ("fork", "spawn", "forkserver")]
