"""The truth table: every hazard x recipe x driver, on the servers that this machine has."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

FILES = (
    *(f"poolfork/{name}.py" for name in ("ablation", "actors", "drivers", "guard", "nursery", "recipes")),
    *(f"poolfork/{name}.py" for name in ("rehearsal", "servers", "table")),
    "poolfork/hazards/*.py",
    "requirements/html.txt",
)
CACHE = pathlib.Path(__file__).resolve().parent.parent / "build" / "cache"


def measure(progress: Callable[..., None]) -> dict[str, Any]:
    """Measure; cells that were measured with the same code and versions are remembered."""
    from poolfork.table import table

    os.environ["XDG_CACHE_HOME"] = str(CACHE / "table")
    return table(every_cell=True, progress=progress)
