"""Seen from inside every Python process of a stack: at-fork hooks, first checkouts, dispose().

Python imports this when its folder is on PYTHONPATH. It writes one line of JSON for each event to the file
that STACK_EVENTS names; the stack's own code knows nothing of it. SQLAlchemy is watched once a process has
imported it by itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

log = -1
seen: set[tuple[int, int]] = set()


def tell(what: str, **more: object) -> None:
    """Append one event; a line is short enough to be written in one piece."""
    line = {"at": time.monotonic(), "pid": os.getpid(), "ppid": os.getppid(), "event": what} | more
    os.write(log, (json.dumps(line) + "\n").encode())


def watch() -> None:
    """Listen to all pools and engines of this process."""
    from sqlalchemy import event, pool
    from sqlalchemy.engine import Engine

    def on_connect(connection: object, record: pool.ConnectionPoolEntry) -> None:
        """A connection was opened: remember by whom."""
        record.info["opened_by"] = os.getpid()

    def on_checkout(connection: object, record: pool.ConnectionPoolEntry, proxy: object) -> None:
        """A connection was taken from a pool; told once for each process and connection."""
        if (key := (os.getpid(), id(connection))) not in seen:
            seen.add(key)
            tell("checkout", opened_by=record.info.get("opened_by", os.getpid()))

    event.listen(pool.Pool, "connect", on_connect)
    event.listen(pool.Pool, "checkout", on_checkout)
    event.listen(Engine, "engine_disposed", lambda engine: tell("disposed"))


class Importing:
    """Stands in the way of the first import of SQLAlchemy, to be told when it is done."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's own spec, whose loader watches after it has loaded."""
        if name != "sqlalchemy":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and (loader := spec.loader):
            execute = loader.exec_module

            def execute_and_watch(module: ModuleType) -> None:
                execute(module)
                watch()

            loader.exec_module = execute_and_watch  # type: ignore[method-assign]
        return spec


if "STACK_EVENTS" in os.environ:
    log = os.open(os.environ["STACK_EVENTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sys.meta_path.insert(0, Importing())
    os.register_at_fork(after_in_child=lambda: tell("at-fork"))
    tell("start")
