"""Seen from inside every Python process of a stack: at-fork hooks, first checkouts, dispose().

Python imports this when its folder is on PYTHONPATH. It writes one line of JSON for each event to the file
that STACK_EVENTS names; the stack's own code knows nothing of it.
"""

import json
import os
import time

if events := os.environ.get("STACK_EVENTS"):
    from sqlalchemy import event, pool
    from sqlalchemy.engine import Engine

    log = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    seen: set[tuple[int, int]] = set()

    def tell(what: str, **more: object) -> None:
        """Append one event; a line is short enough to be written in one piece."""
        line = {"at": time.monotonic(), "pid": os.getpid(), "ppid": os.getppid(), "event": what} | more
        os.write(log, (json.dumps(line) + "\n").encode())

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
    os.register_at_fork(after_in_child=lambda: tell("at-fork"))
    tell("start")
