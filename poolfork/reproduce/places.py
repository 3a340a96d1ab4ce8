"""The servers on which texts are produced: started when they are first asked for, and gone together."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import sqlite3
import types
from collections.abc import Callable

from poolfork.reproduce.stage import Place
from poolfork.servers import (
    Server,
    ServerError,
    _folder,
    _free_port,
    _keep,
    openssl_postgres_home,
    start_mariadb,
    start_postgres,
    start_sqlite,
)

_REDIS = r"""
trap '' INT TERM HUP PIPE
cd "$2" || exit 1
"$1/redis-server" --bind 127.0.0.1 --port $PORT --save '' --appendonly no --dir "$2" >log 2>&1 &
server=$!
tries=0
until grep -q 'Ready to accept connections' log || [ $tries = 100 ] || ! kill -0 $server 2>/dev/null
do sleep 0.05; tries=$((tries + 1)); done
grep -q 'Ready to accept connections' log && echo ready || echo failed
cat >/dev/null
kill -9 $server 2>/dev/null
wait $server 2>/dev/null
cd / && rm -rf "$2"
"""


def start_redis() -> Server:
    """Start a Redis from the machine's ``redis-server``, on the loopback; raises `ServerError`."""
    found = shutil.which("redis-server")
    if found is None:
        raise ServerError("No Redis here: install it (on Debian: apt-get install redis-server).")
    folder, port = _folder(), _free_port()
    url = f"redis://127.0.0.1:{port}"
    return _keep(_REDIS, pathlib.Path(found).parent, folder, url, {"PORT": str(port)}, tcp=url)


def _postgres_with_tls() -> Server:
    server = start_postgres(openssl_postgres_home(), tcp=True)
    if server.tls is None:
        server.stop()
        raise ServerError(f"No PostgreSQL with TLS here: {server.no_tls}")
    return server


_START: dict[str, Callable[[], Server]] = {
    "postgresql": lambda: start_postgres(tcp=True),
    "postgresql-tls": _postgres_with_tls,
    "mysql": start_mariadb,
    "sqlite": start_sqlite,
    "redis": start_redis,
}
_VERSION = {
    "postgresql": r"starting (PostgreSQL [\d.]+)",
    "postgresql-tls": r"starting (PostgreSQL [\d.]+)",
    "mysql": r"Version: '([\d.]+-MariaDB)",
    "redis": r"(Redis) version=([\d.]+)",
}


class Places(contextlib.AbstractContextManager["Places"]):
    """Servers by their kind; one that cannot be started says why whenever it is asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        self._not_here: dict[str, ServerError] = {}

    def __call__(self, kind: str, tls: bool = False) -> Place:
        """The server of a kind (postgresql, mysql, redis, sqlite), running; raises `ServerError`."""
        key = "postgresql-tls" if tls and kind == "postgresql" else kind
        if key in self._not_here:
            raise self._not_here[key]
        if key not in self._servers:
            try:
                self._servers[key] = _START[key]()
            except ServerError as error:
                self._not_here[key] = error
                raise
        server = self._servers[key]
        if tls and server.tls is None:
            raise ServerError(f"No TLS here: {server.no_tls}")
        return Place(
            str(server.folder),
            _name(key, server),
            server.tls if tls else server.tcp,
            str(server.ca) if tls else None,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        for server in self._servers.values():
            server.stop()


def _name(key: str, server: Server) -> str:
    if key == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}"
    log = (server.folder / "log").read_text(errors="replace")
    found = re.search(_VERSION[key], log)
    name = " ".join(found.groups()) if found else key
    return re.sub(r"^([\d.]+)-MariaDB", r"MariaDB \1", name)
