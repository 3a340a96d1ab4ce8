"""The guard's ablation, on a driver of each kind: libpq's, destructors that say goodbye, pure Python, asyncio, a file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

FILES = (
    *(
        f"poolfork/{name}.py"
        for name in ("ablation", "actors", "drivers", "guard", "nursery", "recipes", "servers", "table")
    ),
    "poolfork/hazards/*.py",
    "requirements/html.txt",
)
CACHE = pathlib.Path(__file__).resolve().parent.parent / "build" / "cache"
DRIVERS = ("psycopg2", "mysqldb", "pymysql", "asyncpg", "sqlite")


def measure(progress: Callable[..., None]) -> dict[str, Any]:
    """Switch off one mechanism after the other and measure all cells."""
    from poolfork.ablation import ablation

    os.environ["XDG_CACHE_HOME"] = str(CACHE / "ablation")
    return ablation(drivers=DRIVERS, progress=progress)
