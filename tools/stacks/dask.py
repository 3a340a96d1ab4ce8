"""Dask distributed: a LocalCluster's workers, by start method."""

from __future__ import annotations

import sys

from stacks.kit import Stack


def stack(method: str, note: str) -> Stack:
    """A LocalCluster with a start method."""
    return Stack(
        name="Dask", setting=f"LocalCluster, {method}{note}", app="dask", needs=("distributed",),
        command=lambda port: [sys.executable, "questions.py", method], hook="WorkerPlugin.setup", forks=method,
        reaches=method == "fork", patience=120, package="distributed",
    )  # fmt: skip


STACKS = [stack("spawn", ", the default"), stack("fork", ""), stack("forkserver", "")]
