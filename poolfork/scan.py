"""``python -m poolfork scan``: which database connections of this machine are held by two processes?

A connection that more than one process holds is one wire with several speakers. The scan only
reads (see ``poolfork.sockets``); with ``--ask`` it also opens a connection of its own to each
server that it does not know, and hears what it speaks.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import pwd
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from poolfork.sockets import End, Key, Look, Process, Socket, SocketsError, command, held_now, look, uptime

# What listens where by default (each product's manual), and Debian's further PostgreSQL clusters.
PORTS = {
    **dict.fromkeys(range(5432, 5440), "postgresql"),
    **{6432: "postgresql", 26257: "cockroachdb", 3306: "mysql", 3307: "mysql", 6033: "mysql"},
    **{6379: "redis", 6380: "redis", 26379: "redis", 1433: "mssql", 1521: "oracle", 2484: "oracle"},
    **{27017: "mongodb", 27018: "mongodb", 27019: "mongodb", 11211: "memcached", 9042: "cassandra"},
    **{7687: "neo4j", 3050: "firebird"},
}
# A server program's name as the kernel has it (its first 15 bytes).
PROGRAMS = [
    (re.compile(pattern), kind)
    for pattern, kind in [
        (r"postgres|postmaster|pgbouncer|pgcat|odyssey|pgpool|pgdog|yb-tserver", "postgresql"),
        (r"mysqld|mariadbd|proxysql|mysqlrouter|maxscale", "mysql"),
        (r"redis-server|redis-sentinel|valkey-server|keydb-server|dragonfly", "redis"),
        (r"sqlservr", "mssql"),
        (r"tnslsnr|oracle", "oracle"),
        (r"mongod|mongos", "mongodb"),
        (r"memcached", "memcached"),
        (r"cockroach", "cockroachdb"),
        (r"clickhouse", "clickhouse"),
        (r"firebird", "firebird"),
    ]
]
PATHS = [
    (re.compile(pattern), kind)
    for pattern, kind in [
        (r"\.s\.PGSQL\.\d+$", "postgresql"),
        (r"(mysql|maria)[^/]*\.sock$|/(mysqld?|mariadbd?)/[^/]*\.sock$", "mysql"),
        (r"(redis|valkey)[^/]*\.sock$|/(redis|valkey)[^/]*/[^/]*\.sock$", "redis"),
        (r"mongodb-\d+\.sock$", "mongodb"),
        (r"memcached[^/]*\.(sock|socket)$", "memcached"),
    ]
]
# Unix sockets of the system that everything inherits: logs, buses, desktops.
SYSTEM_PATHS = (
    "/run/systemd/",
    "/run/dbus/",
    "/var/run/dbus/",
    "/run/user/",
    "/dev/log",
    "/tmp/.X11-unix/",
    "@",
)
SHELLS = ("sh", "dash", "bash", "cat", "sleep")  # what a server's start script leaves running
YOUNG = 0.25  # seconds: a process this young may be about to exec or to let go
EVERY = 1.0  # seconds between two looks of --watch


@dataclass
class Holding:
    """A connection that more than one process holds."""

    kind: str | None  # None: not known as a database's
    known_by: str
    socket: Socket
    peer: str
    pids: list[int]
    owner: int
    owner_is: str
    processes: list[dict[str, Any]]
    server: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The connection as ``--json`` prints it."""
        return {
            "kind": self.kind, "peer": self.peer, "pids": self.pids, "owner": self.owner,
            "owner_is": self.owner_is, "known_by": self.known_by, "state": self.socket.state,
            "local": _text(self.socket.local), "server": self.server, "processes": self.processes,
        }  # fmt: skip


@dataclass
class Report:
    """One scan's answer: ``shared`` are databases', ``unknown`` are not known to be any's."""

    shared: list[Holding] = field(default_factory=list)
    unknown: list[Holding] = field(default_factory=list)
    processes: int = 0
    descriptors: int = 0
    not_seen: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report as ``--json`` prints it."""
        return {
            "shared": [holding.as_json() for holding in self.shared],
            "unknown": [
                {"peer": peer, "pids": list(pids), "connections": count}
                for (peer, pids), count in Counter(
                    (one.peer, tuple(one.pids)) for one in self.unknown
                ).items()
            ],
            "looked_at": {"processes": self.processes, "descriptors": self.descriptors},
            "not_seen": self.not_seen,
        }


def scan(only: Iterable[int] = (), *, ask: bool = False) -> Report:
    """Look at the machine, or at the processes ``only`` and their descendants.

    Raises `poolfork.sockets.SocketsError` where sockets cannot be read. ``ask`` connects to
    unknown servers to hear what they speak.
    """
    seen = look()
    chosen = _with_descendants(seen, set(only))
    report = Report(processes=len(seen.processes), descriptors=seen.descriptors, not_seen=seen.not_seen)
    several = {
        key: pids
        for key, pids in seen.holders.items()
        if len(pids) > 1 and key in seen.sockets and (not only or chosen & pids.keys())
    }
    tables = _Tables(seen)
    found = [
        (key, held) for key, pids in several.items() if (held := tables.holding(seen.sockets[key], pids))
    ]
    gone = _passed_by(seen, {pid for _, held in found for pid in held.pids})
    for key, held in found:
        staying = {pid: numbers for pid, numbers in several[key].items() if key not in gone.get(pid, ())}
        if len(staying) < 2:
            continue
        if len(staying) < len(held.pids):
            again = tables.holding(seen.sockets[key], staying)
            assert again is not None
            held = again
        if held.kind is None and ask:
            held.kind = spoken(held.socket, held.peer)
            held.known_by = "protocol: it answered a connection of our own"
        (report.shared if held.kind else report.unknown).append(held)
    for part in report.shared, report.unknown:
        part.sort(key=lambda one: (one.owner, one.kind or "", one.peer, str(one.socket.key)))
    return report


def _with_descendants(seen: Look, pids: set[int]) -> set[int]:
    """These processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for process in seen.processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, todo = set[int](), list(pids)
    while todo:
        if (pid := todo.pop()) not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return found


def _passed_by(seen: Look, pids: set[int]) -> dict[int, set[Key]]:
    """What the youngest of these processes let go of soon: they were on their way to exec, or tidying up."""
    now = uptime()
    young = [pid for pid in pids if now - seen.processes[pid].started < YOUNG]
    if young:
        time.sleep(YOUNG)  # the one wait: a bound on how long a child may take to let go
    held = {pid: held_now(pid) for pid in young}
    return {pid: seen.holders.keys() - keys for pid, keys in held.items() if keys is not None}


class _Tables:
    """What a look's sockets tell about one of them: is it a client's, and what serves it?"""

    def __init__(self, seen: Look) -> None:
        self.seen = seen
        self.ends: dict[tuple[End, End], list[Socket]] = {}
        self.listeners: dict[int, list[Socket]] = {}
        for one in seen.sockets.values():
            if one.family == "tcp":
                if one.state == "listen":
                    self.listeners.setdefault(one.local[1], []).append(one)
                else:
                    self.ends.setdefault((one.local, one.remote), []).append(one)
        self.known: dict[frozenset[int], Any] = {}
        self.published = _published(seen)
        self.programs: dict[int, set[str | None]] = {}
        for process in seen.processes.values():
            if process.name not in SHELLS:
                self.programs.setdefault(process.uid, set()).add(_program(process.name))

    def holding(self, mine: Socket, pids: dict[int, list[int]]) -> Holding | None:
        """The connection as a finding; None if it is none, or is a server's own end."""
        if mine.state in ("listen", "close", "?", "") and mine.family == "tcp":
            return None
        if all(_program(self.seen.processes[pid].name) for pid in pids):
            return None  # a server's own processes: a postmaster and its backends, a saving Redis
        served = self._server_end(mine)
        if mine.family == "unix":
            if mine.local[0] or served is None or not served.local[0]:
                return None  # the server's end; a socket pair
            peer = served.local[0]
            kind, known_by = self._kind_of_path(peer)
            if kind is None and peer.startswith(SYSTEM_PATHS):
                return None
        else:
            if any(_covers(listener, mine) for listener in self.listeners.get(mine.local[1], [])):
                return None  # accepted here: a server's end
            peer, (kind, known_by) = _text(mine.remote), self._kind_of_port(mine.remote[1])
        server = self._process_of(served)
        if kind is None and served is not None:
            kind, known_by = self._kind_of_server(served, server)
        if kind is None and mine.family == "tcp" and mine.remote[1] in self.published:
            kind, known_by = self._kind_of_port(self.published[mine.remote[1]])
            known_by = known_by and f"{known_by} of a container"
        if kind is None and mine.family == "unix" and server is not None:
            return None  # a desktop's or a system's service: nothing to wonder about
        return Holding(kind, known_by, mine, peer, *self._people(pids), server)

    def _server_end(self, mine: Socket) -> Socket | None:
        """The other end if it is on this machine and visible, else who listens there."""
        if mine.other is not None:
            return self.seen.sockets.get(mine.other)
        if mine.family == "unix":
            return None
        for other in self.ends.get((mine.remote, mine.local), []):
            if other.key != mine.key:
                return other
        for listener in self.listeners.get(mine.remote[1], []):
            if listener.namespace == mine.namespace and listener.local[0] in (
                mine.remote[0],
                "0.0.0.0",
                "::",
            ):
                return listener if mine.remote[0] in ("127.0.0.1", "::1", mine.local[0]) else None
        return None

    def _process_of(self, served: Socket | None) -> dict[str, Any] | None:
        if served is None or not (holders := self.seen.holders.get(served.key)):
            return None
        pid = max(
            holders, key=lambda pid: self.seen.processes[pid].started
        )  # the backend, not its postmaster
        return {"pid": pid, "name": self.seen.processes[pid].name}

    def _kind_of_path(self, path: str) -> tuple[str | None, str]:
        kind = next((kind for pattern, kind in PATHS if pattern.search(path)), None)
        return kind, "name of the Unix socket" if kind else ""

    def _kind_of_port(self, port: int) -> tuple[str | None, str]:
        kind = PORTS.get(port)
        return kind, f"port {port}" if kind else ""

    def _kind_of_server(self, served: Socket, server: dict[str, Any] | None) -> tuple[str | None, str]:
        """By the server's program, or where we may not look, by all that its user runs."""
        if server is not None:
            if kind := _program(server["name"]):
                return kind, f"the server is {server['name']}"
            return None, ""
        kinds = self.programs.get(served.uid, set())
        if served.uid > 0 and len(kinds) == 1 and (kind := next(iter(kinds))):
            return kind, f"its server's user, {_user(served.uid)}, runs nothing else"
        return None, ""

    def _people(self, pids: dict[int, list[int]]) -> tuple[list[int], int, str, list[dict[str, Any]]]:
        """The holders, eldest first; the owner and why; each with its relation to another holder."""
        who = frozenset(pids)
        if who not in self.known:
            self.known[who] = self._relations(who)
        order, owner, owner_is, told = self.known[who]
        return order, owner, owner_is, [one | {"descriptors": sorted(pids[one["pid"]])} for one in told]

    def _relations(self, pids: frozenset[int]) -> tuple[list[int], int, str, list[dict[str, Any]]]:
        processes = self.seen.processes
        above = {pid: _ancestors(processes, pid) for pid in pids}
        order = sorted(pids, key=lambda pid: (processes[pid].started, len(above[pid]), pid))
        owner = next((pid for pid in order if all(pid in above[one] for one in order if one != pid)), None)
        owner_is = "ancestor of the other holders"
        if owner is None:
            owner, owner_is = (
                order[0],
                "eldest holder; who opened it does not hold it any more, or is not seen",
            )
        told = []
        for pid in order:
            nearest = next((up for up in above[pid] if up in pids), None)
            relation = (
                nearest and f"{'child' if processes[pid].parent == nearest else 'descendant'} of {nearest}"
            )
            told.append({
                "pid": pid, "parent": processes[pid].parent, "name": processes[pid].name,
                "command": command(pid) or processes[pid].name, "relation": relation,
            })  # fmt: skip
        return order, owner, owner_is, told


def _ancestors(processes: dict[int, Process], pid: int) -> list[int]:
    """A process's parent, its parent's parent, and so on."""
    found: list[int] = []
    while (up := processes.get(processes[pid].parent)) is not None and up.pid not in found:
        found.append(up.pid)
        pid = up.pid
    return found


def _covers(listener: Socket, mine: Socket) -> bool:
    """Whether a connection was accepted from this listening socket."""
    same_place = listener.namespace == mine.namespace
    return same_place and listener.local[0] in (mine.local[0], "0.0.0.0", "::")


@functools.cache
def _program(name: str) -> str | None:
    """The kind of database that a program of this name serves."""
    return next((kind for pattern, kind in PROGRAMS if pattern.match(name)), None)


def _published(seen: Look) -> dict[int, int]:
    """The ports that Docker publishes, each with the one inside of its container, by its proxies' arguments."""
    found: dict[int, int] = {}
    for process in seen.processes.values():
        if process.name == "docker-proxy":
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{process.pid}/cmdline", "rb") as file:
                    words = file.read().decode().split("\0")
                host, inside = (words[words.index(f"-{end}-port") + 1] for end in ("host", "container"))
                found[int(host)] = int(inside)
    return found


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _text(end: End) -> str:
    """An address as people write it: ``127.0.0.1:5432``, ``[::1]:5432``, or a path."""
    address, port = end
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# -- --ask ---------------------------------------------------------------------------------


def spoken(mine: Socket, peer: str) -> str | None:
    """Open a connection of our own to the server of ``mine`` and hear what it speaks."""

    def says(send: bytes, patience: float) -> bytes:
        family = (
            socket.AF_UNIX
            if mine.family == "unix"
            else socket.AF_INET6
            if ":" in mine.remote[0]
            else socket.AF_INET
        )
        with contextlib.suppress(OSError), socket.socket(family) as wire:
            wire.settimeout(2)
            wire.connect(peer if mine.family == "unix" else mine.remote)
            wire.settimeout(patience)
            if send:
                wire.sendall(send)
            return wire.recv(256)
        return b""

    greeting = says(b"", 0.3)  # MySQL speaks first: length, number 0, protocol 10 or an error
    if len(greeting) > 5 and greeting[3] == 0 and greeting[4] in (10, 255):
        return "mysql"
    if not greeting and says(b"\0\0\0\x08\x04\xd2\x16\x2f", 2) in (b"S", b"N"):  # PostgreSQL's SSLRequest
        return "postgresql"
    if not greeting and says(b"PING\r\n", 2).startswith((b"+PONG", b"-NOAUTH", b"-DENIED")):
        return "redis"
    return None


# -- what people read ----------------------------------------------------------------------


def as_text(report: Report) -> str:
    """The report for a terminal."""
    lines: list[str] = []
    count = len(report.shared)
    if not count:
        lines.append("No connection to a database is held by more than one process.")
    else:
        lines.append(
            "1 database connection is held by more than one process:"
            if count == 1
            else f"{count} database connections are held by more than one process each:"
        )
    for held in report.shared:
        server = f"; server: {held.server['name']}, pid {held.server['pid']}" if held.server else ""
        state = "" if held.socket.state == "established" else f", {held.socket.state}"
        lines += ["", f"{held.kind}  {held.peer}  (known by: {held.known_by}{server}{state})"]
        rows = [
            (
                str(one["pid"]),
                one["command"],
                _role(held, one),
                f"fd {', '.join(map(str, one['descriptors']))}",
            )
            for one in held.processes
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for pid, name, role, numbers in rows:
            lines.append(f"  {pid:>{widths[0]}}  {name:<{widths[1]}}  {role:<{widths[2]}}  {numbers}")
    if report.shared:
        lines += [
            "",
            "One wire, several speakers: answers reach the wrong process, and who closes first ends the",
            "session of all. Each process but the owner has to let go of it without speaking on it.",
            "(One that has, by dispose(close=False), keeps the descriptor, and so is still listed.)",
        ]
    if report.unknown:
        peers = sorted({held.peer for held in report.unknown})
        lines += [
            "",
            f"Also shared, not known as a database (--ask asks what they speak): {', '.join(peers)}",
        ]
    lines += ["", f"Looked at {report.processes} processes, {report.descriptors} descriptors."]
    lines += [f"Could not see {what}." for what in report.not_seen]
    return "\n".join(lines)


def _role(held: Holding, one: dict[str, Any]) -> str:
    if one["pid"] != held.owner:
        return str(one["relation"] or "no relation to the other holders")
    if held.owner_is.startswith("ancestor"):
        return "owner (ancestor of the others)"
    return "eldest (who opened it holds it no more)"


def _watch(options: argparse.Namespace) -> int:
    """Look again and again, and print each change, until Ctrl-C or until the named processes end."""
    found, before = 0, None
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            report = scan(options.pid, ask=options.ask)
            found |= bool(report.shared)
            now = [(held.peer, held.pids, held.socket.key) for held in report.shared]
            if now != before:
                _print(report, options.json, stamp=True)
                before = now
            if options.pid and not any(_exists(pid) for pid in options.pid):
                break
            time.sleep(EVERY)
    return found


def _print(report: Report, as_json: bool, stamp: bool = False) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    if as_json:
        print(
            json.dumps(({"at": at} if stamp else {}) | report.as_json(), indent=None if stamp else 2),
            flush=True,
        )
    else:
        print((f"-- {at}\n" if stamp else "") + as_text(report), flush=True)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _a_pid(text: str) -> int:
    """A running process's id, for argparse."""
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a process id")
    if not _exists(int(text)):
        raise argparse.ArgumentTypeError(f"there is no process {text}")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 1 if a database connection is shared, 0 if none is, 2 on bad input."""
    parser = _Parser(
        prog="python -m poolfork scan",
        description="List the database connections of this machine that more than one process holds. "
        "It only reads; no root is needed for your own processes.",
        epilog="Exit code: 1 if such a connection was found, 0 if not, 2 if the scan could not be made.",
    )
    parser.add_argument(
        "pid", nargs="*", type=_a_pid, help="look only at these processes and their descendants"
    )
    parser.add_argument(
        "--watch", action="store_true", help="look every second, print each change, end with Ctrl-C"
    )
    parser.add_argument("--json", action="store_true", help="print JSON (with --watch: one line a change)")
    parser.add_argument(
        "--ask", action="store_true", help="connect to each unknown server to hear whether it is a database"
    )
    try:
        options = parser.parse_args(argv)
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    try:
        if options.watch:
            return _watch(options)
        report = scan(options.pid, ask=options.ask)
        _print(report, options.json)
        return int(bool(report.shared))
    except SocketsError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
