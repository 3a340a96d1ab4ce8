"""redis-py: its pool looks at the pid, a connection in a process's own hands does not."""

from __future__ import annotations

from typing import Any

from poolfork.reproduce import reproduces
from poolfork.reproduce.stage import Stage, Wire, Worker, text_of


def client(wire: Wire) -> Any:
    """A client with one connection of its own, past the pool."""
    import redis

    return redis.Redis(port=wire.port, single_connection_client=True)


@reproduces("redis-crossed", "redis", "redis")
def parent_reads_the_end_of_a_list(on: Stage) -> str:
    """A worker is killed after two bytes of its answer, "*30"; the parent reads "0", which is no kind of answer."""
    wire = on.wire()
    shared = client(wire)
    key = f"poolfork-{on.driver}"
    shared.delete(key)
    shared.rpush(key, *range(30))
    wire.keeps()
    worker = Worker(lambda: shared.lrange(key, 0, -1))
    wire.hears(lambda said: said.endswith(b"29\r\n"))
    wire.gives(2)
    wire.until_read()
    worker.dies()
    wire.passes()
    return text_of(lambda: shared.get("nothing"))
