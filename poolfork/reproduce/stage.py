"""What a reproduction is told with: a parent and its workers on one connection, and the wire between.

The `Wire` is a relay in a process of its own. It passes on what it hears, until it is told to keep
what the server says; then the parent decides which bytes arrive when, and so who reads them. It
changes nothing and adds nothing: all it does is what a slower network could do.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import pathlib
import re
import select
import signal
import socket
import stat
import termios
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

import sqlalchemy as sa

from poolfork.drivers import DRIVERS, address, connect_args

PATIENCE = 8.0  # seconds, for whatever is waited for
LIFETIME = 20  # seconds after which a process of a reproduction ends, whoever is left to end it


class NotShown(Exception):
    """The steps did not come about, or what they should provoke did not."""


@dataclass(frozen=True)
class Place:
    """Where a throw-away server is: its folder, its name and version, its URL without a driver, its authority."""

    folder: str
    name: str
    tcp: str | None = None
    ca: str | None = None


class Worker:
    """A process forked from the parent, with copies of all that the parent has; it leaves by ``os._exit``."""

    def __init__(self, work: Callable[[], Any], *, waits: bool = False) -> None:
        self.ours, theirs = Pipe()
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIFETIME)
            self.ours.close()
            if not waits or (theirs.poll(PATIENCE) and theirs.recv()):
                theirs.send(text_of(work))
        finally:
            os._exit(0)

    def begins(self) -> None:
        """Let it do its work, if it was made to wait for that."""
        self.ours.send(True)

    def says(self) -> str:
        """What came of its work, as text: the error that was raised, or ``repr`` of the answer."""
        if not self.ours.poll(PATIENCE):
            raise NotShown(f"the worker {self.pid} said nothing for {PATIENCE:g} s")
        try:
            return str(self.ours.recv())
        except EOFError:
            raise NotShown("the worker ended without a word") from None

    def dies(self) -> None:
        """It is killed: it says no goodbye, and reads nothing any more."""
        os.kill(self.pid, signal.SIGKILL)
        self.leaves()

    def stops(self) -> None:
        """It is stopped where it is, as a process that the system gives no time."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def goes_on(self) -> None:
        """It gets time again."""
        os.kill(self.pid, signal.SIGCONT)

    def leaves(self) -> None:
        """Wait until it has ended."""
        with contextlib.suppress(ChildProcessError):
            end = time.monotonic() + PATIENCE
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    raise NotShown(f"the worker {self.pid} does not end")
                select.select([], [], [], 0.002)


def text_of(work: Callable[[], Any]) -> str:
    """What an application's log would show of ``work()``: its error with its type, or the answer."""
    try:
        return repr(work())
    except Exception as error:  # noqa: BLE001 - the error is what we came for
        return error_text(error)


def error_text(error: BaseException) -> str:
    """The end of a traceback, as Python prints it; of Python's own errors with the line in the driver."""
    kind = type(error)
    if kind.__module__ != "builtins":
        return f"{kind.__module__}.{kind.__qualname__}: {error}".strip()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    file = frame.filename.rpartition("site-packages/")
    where = f'  File "{file[2]}", line {frame.lineno}, in {frame.name}\n' if file[0] else ""
    return f"{where}{kind.__qualname__}: {error}".rstrip()


def ask(connection: Any, sql: str = "SELECT 1") -> list[tuple[Any, ...]]:
    """Execute on a connection of the DB-API, and fetch."""
    cursor = connection.cursor()
    cursor.execute(sql)
    return [tuple(row) for row in cursor.fetchall()]


# -- the wire --------------------------------------------------------------------------------------


class Wire:
    """A relay to ``host:port`` or a Unix socket, on a port of its own (``port``); see the module's text."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self.control, theirs = Pipe()
        self.heard = b""
        self.pid = os.fork()
        if not self.pid:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(LIFETIME)
                self.control.close()
                _relay(listener, target, theirs)
            finally:
                os._exit(0)
        theirs.close()
        listener.close()

    def keeps(self) -> None:
        """From now on it keeps what the server says."""
        self._ask("keep")

    def hears(self, enough: Callable[[bytes], object]) -> bytes:
        """Wait until what it keeps is ``enough``; gives that."""
        end = time.monotonic() + PATIENCE
        while not enough(self.heard):
            if not self.control.poll(max(0, end - time.monotonic())):
                raise NotShown(f"the server's answer did not come: {self.heard!r}")
            self.heard += self.control.recv_bytes()
        return self.heard

    def gives(self, count: int) -> None:
        """Let the first ``count`` of the kept bytes arrive; returns when they have."""
        first, self.heard = self.heard[:count], self.heard[count:]
        self._ask("give", first)

    def passes(self) -> None:
        """Let the rest of what it keeps arrive, and keep nothing any more."""
        self._ask("hold")  # what comes meanwhile stays at the server's end: nothing is lost, or overtakes
        rest, self.heard = self.heard, b""
        self._ask("give", rest)
        self._ask("pass")

    def stops_listening(self) -> None:
        """From now on it takes nothing from the drivers, as a network that is congested."""
        self._ask("deaf")

    def listens(self) -> None:
        """It takes again what the drivers send."""
        self._ask("listen")

    def _ask(self, *words: object) -> None:
        self.control.send(words)
        end = time.monotonic() + PATIENCE
        while True:
            if not self.control.poll(max(0, end - time.monotonic())):
                raise NotShown(f"the wire does not {words[0]}")
            if (answer := self.control.recv_bytes()) == b"":
                return
            self.heard += answer

    def end_of(self) -> socket.socket:
        """A copy of this process's end of the connection that goes through here."""
        for number in range(3, 256):
            with contextlib.suppress(OSError):
                if not stat.S_ISSOCK(os.fstat(number).st_mode):
                    continue
                end = socket.socket(fileno=os.dup(number))
                with contextlib.suppress(OSError):
                    if end.getpeername()[:2] == ("127.0.0.1", self.port):
                        return end
                end.close()
        raise NotShown("no connection goes over the wire")

    def until_full(self) -> None:
        """Wait until what a process writes has filled every buffer up to here, so that it has to wait."""
        with self.end_of() as end:
            last = [-1, -2]

            def stands_still() -> bool:
                select.select([], [], [], 0.05)
                last[:] = [unsent(end), last[0]]
                return last[0] == last[1] > 0

            until(stands_still, "nobody writes so much that it has to wait")

    def until_read(self) -> None:
        """Wait until some process has read all that has arrived."""
        with self.end_of() as end:
            until(lambda: waiting(end) == 0, "nobody reads what has arrived")


def waiting(end: socket.socket) -> int:
    """How many bytes lie in a socket, unread."""
    count = array.array("i", [0])
    fcntl.ioctl(end.fileno(), termios.FIONREAD, count)
    return count[0]


def unsent(end: socket.socket) -> int:
    """How many bytes were sent and have not arrived."""
    count = array.array("i", [0])
    fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, count)
    return count[0]


def until(true: Callable[[], object], otherwise: str) -> None:
    """Wait until something outside of our hands is so; `NotShown` after `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise NotShown(otherwise)
        select.select([], [], [], 0.002)


@dataclass
class _Line:
    """One connection through the relay."""

    client: socket.socket
    server: socket.socket
    open: set[str] = field(default_factory=lambda: {"client", "server"})


def _relay(listener: socket.socket, target: tuple[str, int] | str, control: Connection) -> None:
    """Relay until the parent's end of ``control`` closes."""
    lines: list[_Line] = []
    keeping = holding = deaf = False
    while True:
        watched: list[Any] = [listener, control]
        for line in lines:
            watched += [line.server] if "server" in line.open and not holding else []
            watched += [line.client] if "client" in line.open and not deaf else []
        ready = wait(watched)
        if control in ready:
            try:
                word, *more = control.recv()
            except EOFError:
                return
            keeping = word == "keep" or (keeping and word != "pass")
            holding = word == "hold" or (holding and word != "pass")
            deaf = word == "deaf" or (deaf and word != "listen")
            if word == "give" and more[0]:
                lines[0].client.sendall(more[0])
                until(lambda: unsent(lines[0].client) == 0, "")
            control.send_bytes(b"")
            continue
        if listener in ready:
            client = listener.accept()[0]
            if isinstance(target, str):
                server = socket.socket(socket.AF_UNIX)
                server.connect(target)
            else:
                server = socket.create_connection(target)
            for end in client, server:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines.append(_Line(client, server))
        for line in lines:
            if line.client in ready:
                _pass_on(line, "client")
            if line.server in ready:
                if keeping and line is lines[0] and (data := line.server.recv(65536)):
                    control.send_bytes(data)
                else:
                    _pass_on(line, "server")


def _pass_on(line: _Line, who: str) -> None:
    source, target = (line.client, line.server) if who == "client" else (line.server, line.client)
    try:
        data = source.recv(65536)
        if data:
            target.sendall(data)
            return
    except OSError:
        pass
    line.open.discard(who)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@dataclass
class Stage:
    """What a reproduction gets: the server, and whether its connections are encrypted."""

    place: Place
    tls: bool = False
    driver: str = ""
    logged: int = 0

    def __post_init__(self) -> None:
        self.logged = len(self.log()) if pathlib.Path(self.place.folder, "log").exists() else 0

    def log(self) -> str:
        """The server's log."""
        return (pathlib.Path(self.place.folder) / "log").read_text(errors="replace")

    def new_in_log(self, pattern: str) -> str:
        """Wait for a line that was not in the log before, and gives it without its time."""
        found: list[str] = []

        def comes() -> bool:
            found[:] = [line for line in self.log()[self.logged :].splitlines() if re.search(pattern, line)]
            return bool(found)

        until(comes, f"the server does not log {pattern}")
        return re.sub(r"^[\d-]+ +[\d:.]+ (\w+ \[\d+\]|\d+) *", "", found[0])

    def url(self, wire: Wire | None = None) -> sa.URL:
        """Where the driver has to go: over the loopback, or over a wire."""
        assert self.place.tcp is not None
        url = sa.make_url(self.place.tcp)
        return url.set(port=wire.port) if wire else url

    def engine(self, wire: Wire | None = None, **more: Any) -> sa.Engine:
        """An engine of SQLAlchemy's, with a pool of one connection."""
        driver = DRIVERS[self.driver]
        url, arguments = address(driver, self.url(wire).render_as_string(False), self._authority())
        arguments = connect_args(driver, arguments) | self._plain()
        return sa.create_engine(url, connect_args=arguments, **{"pool_size": 1, "max_overflow": 0} | more)

    def connection(self, wire: Wire | None = None, **more: Any) -> Any:
        """A connection of the driver's own."""
        engine = self.engine(wire)
        words, options = engine.dialect.create_connect_args(engine.url)
        options = dict(options) | connect_args(
            DRIVERS[self.driver], {"tls_ca": self._authority()} if self.tls else {}
        )
        options |= dict(DRIVERS[self.driver].connect_args) | self._plain() | more
        return engine.dialect.loaded_dbapi.connect(*words, **options)

    def wire(self) -> Wire:
        """A wire to the server; to be made before the first connection."""
        url = self.url()
        return Wire((str(url.host), int(url.port or 0)))

    def _authority(self) -> str | None:
        return self.place.ca if self.tls else None

    def _plain(self) -> dict[str, Any]:
        if self.tls:
            return {}
        if self.driver in ("psycopg2", "psycopg"):
            return {"sslmode": "disable", "gssencmode": "disable"}
        if self.driver in ("pymysql", "mysqlconnector"):
            return {"ssl_disabled": True}
        return {}


def hung_up() -> None:
    """Wait until a server has ended the stream of a TCP connection that this process has."""
    ends = select.poll()
    for number in range(3, 256):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                end = socket.socket(fileno=os.dup(number))
                if end.family in (socket.AF_INET, socket.AF_INET6):
                    ends.register(number, getattr(select, "POLLRDHUP", select.POLLHUP))
                end.close()
    if not ends.poll(PATIENCE * 1000):
        raise NotShown("the server did not hang up")
