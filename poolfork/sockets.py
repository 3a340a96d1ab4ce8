"""Which process holds which socket, read without changing anything: /proc on Linux, else lsof.

A socket that two processes hold appears once, with two holders: the kernel gives it one number
(Linux: the inode of ``socket:[INODE]``; elsewhere: the address that lsof prints).
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

PROC = pathlib.Path("/proc")
INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # include/linux/proc_ns.h: PROC_PID_INIT_INO
TCP_STATES = [
    *("?", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "close"),
    *("close-wait", "last-ack", "listen", "closing", "new-syn-recv"),
]
_KERNEL_THREAD = 0x00200000  # include/linux/sched.h: PF_KTHREAD
_CLONE_NEWNET = 0x40000000
_MAPPED = ("0000000000000000FFFF0000", "00000000000000000000FFFF")  # ::ffff: in /proc/net/tcp6
Key = int | str
End = tuple[str, int]


class SocketsError(RuntimeError):
    """This system's sockets cannot be read; the message says why."""


@dataclass(frozen=True)
class Process:
    """A process: its name as the kernel has it, and when it was started, in seconds after boot."""

    pid: int
    parent: int
    name: str
    uid: int
    started: float


@dataclass(frozen=True)
class Socket:
    """One end of a connection: addresses and ports, or for a Unix socket its path and 0.

    ``other`` is the number of the socket at the other end, where the kernel tells it (Unix sockets).
    """

    key: Key
    family: str  # "tcp" or "unix"
    state: str
    local: End
    remote: End = ("", 0)
    uid: int = -1
    namespace: str = ""
    other: Key | None = None


@dataclass
class Look:
    """What one look at the machine saw, and in ``not_seen`` what it could not."""

    processes: dict[int, Process] = field(default_factory=dict)
    holders: dict[Key, dict[int, list[int]]] = field(default_factory=dict)  # socket -> pid -> descriptors
    sockets: dict[Key, Socket] = field(default_factory=dict)
    descriptors: int = 0
    not_seen: list[str] = field(default_factory=list)


def look() -> Look:
    """Look at every process that we may look into; raises `SocketsError`."""
    if (PROC / "self" / "fd").exists():
        return _look_in_proc()
    return look_with_lsof()


def held_now(pid: int) -> set[Key] | None:
    """The sockets that a process holds now; None where that cannot be told."""
    if not (PROC / "self" / "fd").exists():
        return None
    try:
        return {inode for inode, _ in _descriptors(pid) if inode is not None}
    except OSError:
        return set()


def uptime() -> float:
    """Seconds since boot, as `Process.started` counts them; infinite where unknown."""
    try:
        return float((PROC / "uptime").read_text().split()[0])
    except (OSError, ValueError):
        return float("inf")


def command(pid: int) -> str:
    """A process's program and script or module, without the arguments, which may hold passwords."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return ""
    if len(words) == 1 and " " in words[0]:  # a title that the process gave itself, such as gunicorn's
        return words[0].split(" -")[0][:60] if "://" not in words[0] else ""
    first = pathlib.PurePath(words[0]).name
    rest = words[1:]
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
        rest = rest[1:]
    if rest[:1] == ["-m"] and len(rest) > 1:
        return f"{first} -m {rest[1]}"
    if not rest or rest[0] == "-c" or not first.startswith(("python", "uwsgi", "ruby", "node", "php")):
        return first
    script = pathlib.PurePath(rest[0]).name
    return first if any(mark in script for mark in "=@: ") else f"{first} {script}"


# -- Linux -------------------------------------------------------------------------


def _look_in_proc() -> Look:
    """Read /proc: processes, then descriptors, then the sockets of every network namespace seen."""
    found = Look()
    tick = os.sysconf("SC_CLK_TCK")
    namespaces: dict[str, int] = {}
    closed: dict[int, int] = {}
    for entry in os.scandir(PROC):
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        with contextlib.suppress(OSError, ValueError, IndexError):  # it may end while we look
            process, is_kernel = _process(pid, entry.stat().st_uid, tick)
            if is_kernel:
                continue
            found.processes[pid] = process
            try:
                for inode, descriptor in _descriptors(pid):
                    found.descriptors += 1
                    if inode is not None:
                        found.holders.setdefault(inode, {}).setdefault(pid, []).append(descriptor)
                namespaces.setdefault(_link(f"/proc/{pid}/ns/net"), pid)
            except PermissionError:
                closed[process.uid] = closed.get(process.uid, 0) + 1
    with contextlib.suppress(OSError):
        namespaces[_link("/proc/self/ns/net")] = os.getpid()
    for namespace, pid in namespaces.items():
        _read_namespace(found, namespace, pid)
    _say_what_was_not_seen(found, closed)
    return found


def _link(path: str) -> str:
    return os.readlink(path)  # noqa: PTH115 - 10,000 of them: no Path for each


def _process(pid: int, uid: int, tick: int) -> tuple[Process, bool]:
    """A process from /proc/PID/stat, and whether it is a thread of the kernel."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        text = stat.read().decode(errors="replace")
    name = text[text.index("(") + 1 : text.rindex(")")]
    rest = text[text.rindex(")") + 2 :].split()
    return Process(pid, int(rest[1]), name, uid, int(rest[19]) / tick), bool(int(rest[6]) & _KERNEL_THREAD)


def _descriptors(pid: int) -> Iterator[tuple[int | None, int]]:
    """The open descriptors of a process: the socket's inode (None: no socket), and the number."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):  # noqa: PTH208 - nor here
        try:
            target = _link(f"{folder}/{name}")
        except FileNotFoundError:
            continue
        is_socket = target.startswith("socket:[")
        yield (int(target[8:-1]) if is_socket else None), int(name)


def _read_namespace(found: Look, namespace: str, pid: int) -> None:
    """Add the TCP and Unix sockets of the network namespace that a process lives in."""
    for table in "tcp", "tcp6":
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/net/{table}", "rb") as lines:
                next(lines, None)
                for line in lines:
                    words = line.split(None, 10)
                    key = int(words[9])
                    if key:
                        found.sockets[key] = Socket(
                            key, "tcp", TCP_STATES[min(int(words[3], 16), 12)], _end(words[1].decode()),
                            _end(words[2].decode()), int(words[7]), namespace,
                        )  # fmt: skip
    try:
        with _diagnosis(namespace, pid) as wire:
            for unix in _unix_sockets(wire):
                found.sockets[unix.key] = unix
    except OSError:
        found.not_seen.append(
            f"the peers of the Unix sockets in {namespace} (only its own root can see them)"
        )


_ends: dict[str, End] = {}


def _end(text: str) -> End:
    """``0100007F:1538`` as ``("127.0.0.1", 5432)``; the kernel prints words of the machine's order."""
    if (end := _ends.get(text)) is None:
        digits, _, port = text.partition(":")
        if len(digits) == 32 and digits[:24] in _MAPPED:
            digits = digits[24:]
        words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
        packed = struct.pack(f"={len(words)}I", *words)
        end = _ends[text] = (str(ipaddress.ip_address(packed)), int(port, 16))
        if len(_ends) > 200_000:  # a long --watch
            _ends.clear()
    return end


@contextlib.contextmanager
def _diagnosis(namespace: str, pid: int) -> Iterator[socket.socket]:
    """A sock_diag socket (what ``ss`` uses) in a namespace; entering another's needs root."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if _link("/proc/self/ns/net") != namespace:
            there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            try:
                if libc.setns(there, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(there)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as wire:  # NETLINK_SOCK_DIAG
            wire.settimeout(5)
            libc.setns(home, _CLONE_NEWNET)
            yield wire
    finally:
        libc.setns(home, _CLONE_NEWNET)
        os.close(home)


def _unix_sockets(wire: socket.socket) -> Iterator[Socket]:
    """Every Unix socket of a namespace, with the number of its peer: man 7 sock_diag."""
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, 0x45, 0, 0)  # name, peer, uid
    wire.send(struct.pack("=IHHII", 16 + len(request), 20, 0x301, 1, 0) + request)  # SOCK_DIAG_BY_FAMILY
    while True:
        data = wire.recv(1 << 18)
        at = 0
        while at < len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind == 3:  # NLMSG_DONE
                return
            if kind == 2:  # NLMSG_ERROR
                raise OSError("sock_diag")
            _, _, state, _, inode = struct.unpack_from("=BBBBI", data, at + 16)
            name, peer, uid, part = "", None, -1, at + 32
            while part + 4 <= at + length:
                size, which = struct.unpack_from("=HH", data, part)
                value = data[part + 4 : part + size]
                if which == 0:
                    name = value.decode(errors="replace").rstrip("\0").replace("\0", "@")
                elif which == 2:
                    (peer,) = struct.unpack("=I", value)
                elif which == 7:
                    (uid,) = struct.unpack("=I", value)
                part += max((size + 3) & ~3, 4)
            yield Socket(inode, "unix", TCP_STATES[min(state, 12)], (name, 0), uid=uid, other=peer)
            at += (length + 3) & ~3


def _say_what_was_not_seen(found: Look, closed: dict[int, int]) -> None:
    """Put in words whose processes could not be looked into, and what a container hides."""
    if closed:
        count = sum(closed.values())
        found.not_seen.append(
            f"the descriptors of {count} process{'es' if count > 1 else ''} of other users or with other rights "
            "(root can see them)"
        )
    with contextlib.suppress(OSError):
        if _link("/proc/self/ns/pid") != INITIAL_PID_NAMESPACE:
            found.not_seen.append("processes outside of this container (run scan on its host for those)")


# -- elsewhere: lsof -------------------------------------------------------------------


def look_with_lsof() -> Look:
    """Read the sockets from lsof, which macOS brings along; raises `SocketsError`."""
    program = shutil.which("lsof", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/bin")
    if program is None:
        raise SocketsError(
            f"Cannot see who holds which socket on {sys.platform}: there is no /proc and no lsof."
        )
    try:
        done = subprocess.run(
            [program, "-nP", "-w", "-iTCP", "-U", "-F", "pRcuftdPnT"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SocketsError("lsof did not answer within 60 seconds.") from None
    found = parse_lsof(done.stdout.decode(errors="replace"))
    if os.geteuid() != 0:
        found.not_seen.append("processes of other users (root can see them)")
    if sys.platform == "darwin":
        found.not_seen.append("which process is younger (macOS: pids tell it only roughly)")
    return found


def parse_lsof(text: str) -> Look:
    """What ``lsof -F pRcuftdPnT`` printed: a line a field, its first letter says which."""
    found, process = Look(), Process(0, 0, "", -1, 0)
    fields: dict[str, str] = {}

    def add() -> None:
        if fields.get("t") in ("IPv4", "IPv6", "unix") and fields.get("d") and fields["f"].isdecimal():
            made = _of_lsof(fields)
            found.sockets[made.key] = made
            found.holders.setdefault(made.key, {}).setdefault(process.pid, []).append(int(fields["f"]))
            found.descriptors += 1

    for line in text.splitlines():
        letter, value = line[:1], line[1:]
        if letter in "pf":
            add()
            fields = {}
        if letter == "p":
            process = Process(int(value), 0, "", -1, float(value))
        elif letter in "Rcu":
            parent = int(value) if letter == "R" else process.parent
            name = value if letter == "c" else process.name
            process = Process(
                process.pid, parent, name, int(value) if letter == "u" else process.uid, float(process.pid)
            )
        elif letter == "T":
            if value.startswith("ST="):
                fields["ST"] = value[3:]
        else:
            fields[letter] = value
        found.processes[process.pid] = process
    add()
    return found


def _of_lsof(fields: dict[str, str]) -> Socket:
    """One socket of lsof's: ``n`` is ``LOCAL->REMOTE``, a path, or ``->0xPEER`` for a Unix client."""
    name, key = fields.get("n", ""), fields["d"]
    local, _, remote = name.partition("->")
    if fields["t"] == "unix":
        return Socket(key, "unix", "?", (local.split(" type=")[0], 0), other=remote or None)
    state = fields.get("ST", "").lower().replace("_", "-")
    return Socket(key, "tcp", state, _end_of_lsof(local), _end_of_lsof(remote) if remote else ("", 0))


def _end_of_lsof(text: str) -> End:
    """``127.0.0.1:5432``, ``[::1]:5432`` or ``*:5432``."""
    address, _, port = text.rpartition(":")
    address = address.strip("[]")
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(address)
        address = str(getattr(found, "ipv4_mapped", None) or found)
    return ("0.0.0.0" if address == "*" else address), int(port) if port.isdecimal() else 0
