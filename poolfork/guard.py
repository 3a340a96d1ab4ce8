"""Make a SQLAlchemy engine safe to inherit through ``fork()``.

::

    from poolfork import guard

    engine = guard(create_engine(...))  # or an AsyncEngine; once, where the engine is made

From then on a child has a pool of its own, says nothing on a connection that it inherited, not
even goodbye, and gets a clear error when it uses one.  The parent notices nothing.

This file needs SQLAlchemy 2.0 or 2.1 and nothing else: it may be copied into a project.

How it works, in the order of a connection's life:

1. **canary**: a page of memory that the kernel wipes in every child, however it was forked
2. **track**: for every open connection, which socket is its own, and in which event loop
3. **gate**: just before a fork, let other threads finish the connect that they are in
4. **log**: just before a fork, close what lies idle on an SQLite database in WAL mode
5. **pin**: just before a fork, hold everything tracked, so that nothing is destroyed in the child
6. in the child, **settle**: **null** the inherited sockets, give inherited event **loops** an epoll
   of their own, put a fresh pool in **replace** of each inherited one, turn **held** connections
   into objects that only raise a clear error, and keep the inherited driver objects **forever**
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import inspect
import mmap
import operator
import os
import select
import selectors
import socket
import stat
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NoReturn, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.engine.cursor import BufferedRowCursorFetchStrategy
from sqlalchemy.exc import ResourceClosedError, SQLAlchemyError
from sqlalchemy.pool import AssertionPool, NullPool, Pool, QueuePool, SingletonThreadPool, base
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord
from sqlalchemy.util.queue import Empty

__all__ = ["MECHANISMS", "GuardError", "GuardWarning", "InheritedConnectionError", "guard", "unguard"]

MECHANISMS = ("canary", "pin", "gate", "log", "null", "identity", "loop", "replace", "held", "forever")
"""What can be left out (`poolfork.ablation` does), so that one can measure what each is for."""

PATIENCE = 1.0
"""Seconds that a fork waits for other threads' connects, and that a connect waits for a fork."""

AnyEngine = TypeVar("AnyEngine")


class InheritedConnectionError(ResourceClosedError):
    """A Connection, Session or raw connection of the parent was used in a child."""


class GuardError(SQLAlchemyError):
    """The guard could not make a child safe (raised where the child uses the engine)."""


class GuardWarning(RuntimeWarning):
    """The guard could not make a child safe, or a fork could not wait any longer."""


# -- canary: who forked? ----------------------------------------------------------------------
# One byte that reads 1 in the process that wrote it and 0 in a child of it, until the child has
# settled.  Python's at-fork hooks do not run when C code forks (uWSGI does), and a pid can come
# round again; the kernel's wipe cannot be missed.  Reading the byte takes a sixth of a getpid().


class _PidCanary:
    """The same answers where the kernel has no MADV_WIPEONFORK (macOS, Linux before 4.14)."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __getitem__(self, index: int) -> int:
        return os.getpid() == self.pid

    def __setitem__(self, index: int, value: int) -> None:
        self.pid = os.getpid() if value else -1


def _make_canary() -> Any:
    if sys.platform != "linux":  # the number may mean something else there
        return _PidCanary()
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(getattr(mmap, "MADV_WIPEONFORK", 18))
    except (OSError, ValueError):
        return _PidCanary()
    try:  # qemu's user mode took any advice and followed none: gitlab.com/qemu-project/qemu/-/issues/343
        page.madvise(0x7FFFFFFF)
    except (OSError, ValueError):
        page[0] = 1
        return page
    return _PidCanary()


_canary: Any = _make_canary()
_off: set[str] = set()  # mechanisms that the ablation has switched off


# -- track: which socket is whose? ------------------------------------------------------------
# One track for each open DBAPI connection, owned by its pool record, or by the fairy once it is
# detached, so that it lives exactly as long.  The module itself knows tracks only weakly.


class _Track:
    __slots__ = (
        *("__weakref__", "cursors", "dbapi", "fairies", "files", "loop"),
        *("pid", "private", "record", "sockets", "state"),
    )

    def __init__(self, state: _State, dbapi: Any, record: _ConnectionRecord) -> None:
        self.state = state
        self.dbapi = dbapi
        self.record = weakref.ref(record)
        self.fairies: list[weakref.ref[_ConnectionFairy]] = []  # those that the record does not know
        self.cursors: list[weakref.ref[Any]] = []  # open ones that may read from the wire when they die
        self.sockets: tuple[_Identity, ...] = ()
        self.loop: Callable[[], Any] = _nothing
        self.files: tuple[str, ...] = ()  # SQLite's
        self.private = False
        self.pid = os.getpid()

    def holders(self) -> Iterator[_ConnectionFairy]:
        """The checked-out handles (SQLAlchemy calls them fairies) through which it can be used."""
        record = self.record()
        refs = list(self.fairies)
        if record is not None and record.fairy_ref is not None:
            refs.append(record.fairy_ref)
        for ref in refs:
            if (fairy := ref()) is not None:
                yield fairy


class _State:
    """What one guarded pool and its heirs share; it knows neither pool nor engine."""

    def __init__(self, dialect: Any, url: Any, on_failure: str) -> None:
        self.dialect = dialect
        self.url = url
        self.on_failure = on_failure
        self.must_search = True  # until the driver has been seen to tell its socket
        self.connected = False  # whether SQLAlchemy has set the dialect up
        self.failures: list[str] = []


_Identity = tuple[int, int, int]  # file descriptor, device, inode
_tracks: dict[int, weakref.ref[_Track]] = {}  # by id() of the DBAPI connection
_engines: dict[int, tuple[weakref.ref[Any], _State]] = {}  # by id() of the engine
_loops: dict[int, tuple[Callable[[], Any], _State]] = {}  # by id(): those that have connected
_lazy: set[type] = set()  # classes of cursors that leave their rows on the wire, asked for or not


def _nothing() -> None:
    return None


def _track(state: _State, dbapi: Any, record: _ConnectionRecord, before: dict[int, str] | None) -> None:
    """Remember a connection that was just opened, and its socket."""
    key = id(dbapi)
    track = _Track(state, dbapi, record)
    driver = state.dialect.get_driver_connection(dbapi)
    if state.dialect.name == "sqlite":
        _see_files(track)
        state.must_search = False
    else:
        track.sockets = tuple(filter(None, map(_identity, _told_sockets(driver))))
        if track.sockets:
            state.must_search = False
        elif before is not None:
            track.sockets = tuple(_new_sockets(before, state))
    if state.dialect.is_async:
        import asyncio

        with contextlib.suppress(RuntimeError, TypeError):  # no loop runs, or none that can be referred to
            track.loop = weakref.ref(getattr(driver, "_loop", None) or asyncio.get_running_loop())
            _see_loop(track.loop, state)
    usual: Any = getattr(driver, "cursorclass", None)  # PyMySQL's and mysqlclient's way to unbuffered rows
    if isinstance(usual, type) and any(
        "SSCursor" in c.__name__ or "UseResult" in c.__name__ for c in usual.__mro__
    ):
        _lazy.add(usual)

    sockets, loop, pid = track.sockets, track.loop, track.pid

    def forget(ref: weakref.ref[_Track], tracks: Any = _tracks, getpid: Any = os.getpid) -> None:
        if getpid() != pid:  # it dies in a child that C code forked, and its driver may say goodbye next
            if "null" not in _off:
                with _Null() as null:
                    null.over_all(sockets)
            if (inherited := loop()) is not None and "loop" not in _off:
                _privatise(inherited)
            if not _canary[0]:
                _settle()
        if tracks.get(key) is ref:
            del tracks[key]

    _tracks[key] = weakref.ref(track, forget)
    record._poolfork = track  # type: ignore[attr-defined]


def _untrack(dbapi: Any) -> None:
    """Forget a connection that is closed."""
    ref = _tracks.get(id(dbapi))
    track = ref() if ref is not None else None
    if track is not None and track.dbapi is dbapi:
        del _tracks[id(dbapi)]
        track.dbapi = None


def _see_files(track: _Track) -> None:
    """Which files an SQLite connection has open; without one, all of it is in this process's memory."""
    state = track.state
    try:
        if state.dialect.is_async:  # its connection is another thread's
            track.files = (str(state.dialect.create_connect_args(state.url)[0][0]),)
        else:
            track.files = tuple(row[2] for row in track.dbapi.execute("PRAGMA database_list") if row[2])
            track.private = not track.files
    except Exception:  # noqa: BLE001
        track.private = False


def _see_loop(loop: Callable[[], Any], state: _State) -> None:
    """Remember an event loop beyond its connections: it crosses a fork without one, too."""
    for key in [key for key, (ref, _) in _loops.items() if ref() is None]:
        _loops.pop(key, None)
    _loops[id(loop())] = loop, state


# Where drivers keep their socket when the connection has no fileno() itself: pg8000, PyMySQL,
# mysql-connector (pure Python), MariaDB Connector 2, asyncpg, aiomysql.
_PATHS = (
    *((), ("_usock",), ("_sock",), ("_socket", "sock"), ("_client", "socket")),
    *(("_transport",), ("_writer", "transport")),
)


def _told_sockets(driver: Any) -> Iterator[int]:
    """The descriptors that the driver's connection tells, now."""
    for path in _PATHS:
        found = driver
        try:
            for name in path:
                found = getattr(found, name)
            if hasattr(found, "get_extra_info"):  # an asyncio transport
                found = found.get_extra_info("socket")
            number = found.fileno()
        except Exception:  # noqa: BLE001  # this path leads nowhere, or the connection is closed
            continue
        if isinstance(number, int) and number >= 0:
            yield number
            return


def _identity(descriptor: int) -> _Identity | None:
    """Device and inode of a socket, by which to recognise it; None for what is no socket."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return (descriptor, status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def _open_sockets() -> dict[int, str]:
    """Every socket of this process (Linux: from /proc; elsewhere from /dev/fd)."""
    found: dict[int, str] = {}
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208  # pathlib is ten times slower
    except OSError:
        return found
    for name in names:
        descriptor = int(name)
        try:
            if sys.platform == "linux":
                link = os.readlink(f"{folder}/{name}")  # noqa: PTH115
                if link.startswith("socket:"):
                    found[descriptor] = link
            elif (identity := _identity(descriptor)) is not None:
                found[descriptor] = repr(identity)
        except OSError:  # it was the listing's own, or is closed by now
            pass
    return found


def _new_sockets(before: dict[int, str], state: _State) -> list[_Identity]:
    """The sockets that appeared during a connect, for drivers that do not tell theirs.

    When other threads opened some meanwhile, those are left out that another connection owns,
    those without a peer that has a name (a pipe's end), and those with another peer than the URL's,
    if that leaves any.
    """
    found = [descriptor for descriptor, link in _open_sockets().items() if before.get(descriptor) != link]
    owned = {s for ref in list(_tracks.values()) if (t := ref()) is not None for s in t.sockets}
    peers = {d: peer for d in found if _identity(d) not in owned and (peer := _peer(d))}
    new = list(peers)
    if len(new) > 1:
        port = state.url.port or {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}.get(state.dialect.name)
        matching = [d for d in new if isinstance(p := peers[d], tuple) and p[1] == port] or [
            d for d in new if isinstance(p := peers[d], str) and p in state.url.query.values()
        ]
        new = matching or new
    return [identity for d in new if (identity := _identity(d)) is not None]


def _peer(descriptor: int) -> Any:
    """The address at the other end, or None."""
    try:
        borrowed = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        return borrowed.getpeername()
    except OSError:
        return None
    finally:
        borrowed.detach()


# -- hooks: where the canary is read ----------------------------------------------------------
# Methods of SQLAlchemy's pool classes, each with the canary in front.  An engine without the guard
# runs them too, and notices nothing but the read of a byte.  (An event listener costs more: it makes
# a checkout take a slower path.  So does a subclass: an interpreter that has got used to one class
# is slow with two.)  All but `connect` and `recreate` are here for children that C code forked:
# their first act may be any of these.

_ONE_HOLDER = (QueuePool, NullPool, SingletonThreadPool, AssertionPool)


def _hook_pool(kind: Any) -> None:
    """Hook the methods of a pool's class, once."""
    for owner in kind.__mro__:
        for name, make in _POOL_HOOKS.items():
            if name in vars(owner) and not hasattr(vars(owner)[name], "_poolfork"):
                _replace_method(owner, name, make(vars(owner)[name]))
    if not issubclass(kind, _ONE_HOLDER) and not hasattr(vars(kind).get("connect"), "_poolfork_noting"):
        _replace_method(kind, "connect", _connect_and_note(kind.connect))


def _replace_method(owner: Any, name: str, method: Any) -> None:
    original = getattr(owner, name)
    method.__name__, method.__qualname__, method.__doc__ = name, original.__qualname__, original.__doc__
    method._poolfork = original
    setattr(owner, name, method)


def _connect(original: Any) -> Any:
    def connect(self: Any) -> Any:
        if not _canary[0] and _settle():
            return self.connect()  # by now this is an inherited pool
        return original(self)

    def connect_at_once(self: Any) -> Any:
        if not _canary[0] and _settle():
            return self.connect()
        return _ConnectionFairy._checkout(self)

    code = getattr(
        original, "__code__", None
    )  # Pool.connect() is one call: here it costs no frame of its own
    if code is not None and code.co_names == ("_ConnectionFairy", "_checkout") and code.co_argcount == 1:
        return connect_at_once
    return connect


def _connect_and_note(original: Any) -> Any:
    def connect(self: Any) -> Any:
        fairy = original(self)
        track = getattr(fairy._connection_record, "_poolfork", None)
        if track is not None:  # a StaticPool's record forgets its earlier holders
            _note(track.fairies, fairy)
        return fairy

    connect._poolfork_noting = True  # type: ignore[attr-defined]
    return connect


def _recreate(original: Any) -> Any:
    def recreate(self: Any) -> Any:  # Engine.dispose() calls it
        if not _canary[0] and _settle():
            return self.recreate()
        return _adopt(original(self), vars(self).get("_poolfork"))

    return recreate


def _dispose(original: Any) -> Any:
    def dispose(self: Any) -> None:
        if _canary[0]:
            original(self)
        elif _settle():
            self.dispose()

    return dispose


def _close_connection(original: Any) -> Any:
    def close_connection(self: Any, connection: Any, **options: Any) -> None:
        if _canary[0]:
            try:
                original(self, connection, **options)
            finally:
                _untrack(connection)
        elif _settle():
            self._close_connection(connection, **options)

    return close_connection


_POOL_HOOKS = {
    "connect": _connect,
    "recreate": _recreate,
    "dispose": _dispose,
    "_close_connection": _close_connection,
}


def _adopt(pool: Any, state: _State | None) -> Any:
    """Let a pool track what it opens."""
    if state is not None:
        pool._poolfork = state
        pool._invoke_creator = _tracking(pool._should_wrap_creator(pool._creator), state)
    return pool


def _take_over(pool: Any, state: _State) -> None:
    """Track what a pool opens from now on, and what it has opened before."""
    _hook_pool(type(pool))
    _adopt(pool, state)
    kinds = _ConnectionRecord, _ConnectionFairy
    frozen = getattr(gc, "get_freeze_count", int)()
    if frozen:  # what gc.freeze() has put aside is not among its objects
        gc.unfreeze()
    things = [t for t in gc.get_objects() if issubclass(type(t), kinds)]  # isinstance() would ask a proxy
    if frozen:
        gc.freeze()
    for record in things:
        if not isinstance(record, _ConnectionRecord) or _owner(record) is not pool:
            continue
        if record.dbapi_connection is not None and "_poolfork" not in vars(record):
            _track(state, record.dbapi_connection, record, None)
    for fairy in things:  # of a StaticPool's holders the record knows the latest only
        of = fairy._connection_record if isinstance(fairy, _ConnectionFairy) else None
        if of is not None and (track := vars(of).get("_poolfork")) and track.state is state:
            _note(track.fairies, fairy)
            with contextlib.suppress(AttributeError):  # SQLAlchemy 2.0 has none
                _refinalize(fairy)


def _guarded_engines() -> list[Any]:
    """Those that are alive; a pool that somebody has put into one meanwhile is taken over."""
    engines = []
    for ref, state in list(_engines.values()):
        if (engine := ref()) is not None:
            engines.append(engine)
            if "_poolfork" not in vars(engine.pool):
                _take_over(engine.pool, state)
    return engines


def _hook_connections() -> None:
    """Hook what a checkout hands out: `Connection` and `Session` speak to the driver through it."""
    detach = _ConnectionFairy.detach
    connect = _ConnectionRecord._ConnectionRecord__connect  # type: ignore[attr-defined]

    def fairy_cursor(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _canary[0] and _settle_for(self):
            return self.cursor(*args, **kwargs)
        connection = self.dbapi_connection
        assert connection is not None  # as SQLAlchemy has it here
        cursor = connection.cursor(*args, **kwargs)
        if (
            args or kwargs or type(cursor) in _lazy
        ):  # the ways to a server-side or unbuffered one, in every driver
            record = self._connection_record
            track = vars(self if record is None else record).get("_poolfork")
            if track is not None:
                with contextlib.suppress(TypeError):  # a class without weak references
                    _note(track.cursors, cursor)
        return cursor

    def fairy_getattr(self: Any, key: str) -> Any:  # commit, rollback, and all else that drivers have
        if not _canary[0] and _settle_for(self):
            return getattr(self, key)
        return getattr(self.dbapi_connection, key)

    def fairy_detach(self: Any) -> None:
        record = self._connection_record
        track = None if record is None else vars(record).pop("_poolfork", None)
        detach(self)
        if track is not None:
            _note(track.fairies, self)
            self._poolfork = track

    def record_connect(self: Any) -> None:  # with SQLAlchemy's first connect, which sets the dialect up
        with _gate(vars(self._ConnectionRecord__pool).get("_poolfork")):
            connect(self)
        track = vars(self).get("_poolfork")
        if track is not None:
            track.state.connected = True
            if track.private or (track.files and not track.state.dialect.is_async):
                _see_files(track)  # a listener may have attached one

    _replace_method(_ConnectionFairy, "cursor", fairy_cursor)
    _replace_method(_ConnectionFairy, "__getattr__", fairy_getattr)
    _replace_method(_ConnectionFairy, "_checkin", _checkin(_ConnectionFairy._checkin))
    _replace_method(_ConnectionFairy, "detach", fairy_detach)
    _replace_method(_ConnectionRecord, "_ConnectionRecord__connect", record_connect)

    # What a Connection and a streamed Result ask of the driver itself: isolation levels, rows, a cursor's close.
    proxied: Any = Connection.connection
    Connection.connection = property(_settled(proxied.fget), doc=proxied.__doc__)  # type: ignore[assignment]
    for name in "_buffer_rows", "fetchmany", "fetchall":
        _replace_method(
            BufferedRowCursorFetchStrategy, name, _reads(getattr(BufferedRowCursorFetchStrategy, name))
        )
    close_cursor = Connection._safe_close_cursor

    def safe_close_cursor(self: Any, cursor: Any) -> None:
        if not _canary[0]:
            _settle()
        if type(self._dbapi_connection) is not _InheritedFairy and id(cursor) not in _theirs:
            close_cursor(self, cursor)

    _replace_method(Connection, "_safe_close_cursor", safe_close_cursor)


_GIVES_BACK = "_finalize_fairy", "dbapi_connection", "_connection_record", "_pool", "_echo"


def _checkin(original: Any) -> Any:
    """Hook the end of a checkout: given back by its holder (this), or by the collector (`_collected`)."""
    finalize = base._finalize_fairy

    def checkin(self: Any, transaction_was_reset: bool = False) -> None:
        if _canary[0]:
            original(self, transaction_was_reset)
        elif _settle_for(self):
            self._checkin(transaction_was_reset)

    # _checkin() is a single call, which costs no frame of its own when it is made here
    def checkin_at_once(self: Any, transaction_was_reset: bool = False) -> None:
        if _canary[0]:
            finalize(
                self.dbapi_connection,
                self._connection_record,
                self._pool,
                self._echo,
                transaction_was_reset=transaction_was_reset,
                fairy=self,
            )
        elif _settle_for(self):
            self._checkin(transaction_was_reset)

    def checkin_at_once_in_2_0(self: Any, transaction_was_reset: bool = False) -> None:
        if _canary[0]:
            finalize(  # type: ignore[misc]
                self.dbapi_connection,
                self._connection_record,
                self._pool,
                None,  # the dead reference, when it is the collector that gives back
                self._echo,
                transaction_was_reset=transaction_was_reset,
                fairy=self,
            )
        elif _settle_for(self):
            self._checkin(transaction_was_reset)

    def collected(*args: Any, **kwargs: Any) -> None:
        if _canary[0] or _settle():
            finalize(*args, **kwargs)

    collected._poolfork = finalize  # type: ignore[attr-defined]
    base._finalize_fairy = collected
    takes = inspect.signature(finalize).parameters
    if original.__code__.co_names == _GIVES_BACK and "echo" in takes:
        return checkin_at_once_in_2_0 if "ref" in takes else checkin_at_once
    return checkin


def _refinalize(fairy: Any) -> None:
    """What was checked out before there was a guard is to be given back through the hook as well."""
    finalizer = object.__getattribute__(fairy, "_finalizer")
    found = finalizer.peek()
    if found is not None and found[1] is getattr(base._finalize_fairy, "_poolfork", None):
        finalizer.detach()
        fairy._finalizer = weakref.finalize(fairy, base._finalize_fairy, *found[2], **found[3])


def _settled(original: Any) -> Any:
    def method(*args: Any, **kwargs: Any) -> Any:
        if not _canary[0]:
            _settle()
        return original(*args, **kwargs)

    return method


def _reads(original: Any) -> Any:
    def method(self: Any, result: Any, cursor: Any, *args: Any, **kwargs: Any) -> Any:
        if not _canary[0]:
            _settle()
        fairy = result.context.root_connection._dbapi_connection
        if type(fairy) is _InheritedFairy:
            fairy._refuse()
        if id(cursor) in _theirs:  # its Connection has been closed meanwhile
            _refuse(_theirs[id(cursor)])
        return original(self, result, cursor, *args, **kwargs)

    return method


def _settle_for(fairy: Any) -> bool:
    """Settle; a fairy that nobody holds, made to tidy up after another, is inherited too."""
    settled = _settle()
    if hasattr(type(fairy._pool), "_poolfork_heir"):
        fairy.__class__ = _InheritedFairy
    return settled


def _note(refs: list[weakref.ref[Any]], thing: Any) -> None:
    """Add a weak reference to a list, once, and let go of the dead."""
    new = weakref.ref(thing)
    refs[:] = [*(ref for ref in refs if ref is not new and ref() is not None), new]


# -- gate: no connect in flight at the fork ---------------------------------------------------
# SQLAlchemy sets a dialect up inside an engine's first connect, once and for all: a child that is
# born in the middle of it has a dialect that nobody will ever finish.  Drivers and the libraries
# below them take locks of their own while they connect.  So a fork waits, for a bounded time,
# until no other thread is connecting, and keeps new connects waiting meanwhile.  No lock here: a
# child would inherit it.  Each dictionary operation used is atomic.

_in_flight: dict[int, int] = {}  # thread -> depth (a creator may use another engine)
_in_loops: dict[int, int] = {}  # thread -> how many connects its event loop is in
_forking: dict[int, bool] = {}  # threads between their `before` and their `after` hook


@contextlib.contextmanager
def _gate(state: _State | None) -> Iterator[None]:
    """Say that this thread connects; wait first if another forks."""
    if state is None or "gate" in _off or (state.dialect.is_async and state.connected):
        yield  # (a later connect of an event loop holds no lock that its child would need)
        return
    me = threading.get_ident()
    if state.dialect.is_async:  # a loop must not be blocked: a fork waits for it, it does not wait
        try:
            _in_loops[me] = _in_loops.get(me, 0) + 1
            yield
        finally:
            if _in_loops.get(me, 0) > 1:
                _in_loops[me] -= 1
            else:
                _in_loops.pop(me, None)
        return
    depth = _in_flight.get(me, 0)
    try:
        _in_flight[me] = depth + 1
        if _forking and not depth:
            _wait_for_fork(me)
        yield
    finally:
        if depth:
            _in_flight[me] = depth
        else:
            _in_flight.pop(me, None)


def _wait_for_fork(me: int) -> None:
    end = time.monotonic() + PATIENCE
    while any(thread != me for thread in list(_forking)) and time.monotonic() < end:
        _in_flight.pop(me, None)
        time.sleep(0.0005)
        if not _forking:
            _in_flight[me] = 1  # say so before looking again
    _in_flight[me] = 1


def _wait_for_connects(me: int) -> bool:
    """Whether every other thread has left its connect in time; this one's loop cannot."""
    end = time.monotonic() + PATIENCE
    while any(thread != me for thread in [*_in_flight, *_in_loops]):
        if time.monotonic() > end:
            return False
        time.sleep(0.0002)
    return me not in _in_loops


# SQLite has locks of its own in each process, which a thread holds for an instant while it executes
# or closes; it does that without the GIL.  Whoever sleeps with the GIL lets all of them come out:
# they finish their call, and then wait for the GIL until the fork is over.  On a loaded machine a
# thread may have to wait for a processor first: on Linux the kernel says whether one still runs.
# The GIL must not go to one of them once more before the fork, and each asks for it when it has waited
# for the switch interval as that was when it began to wait: hence the long one, which all have to see.

DRAIN = 0.1
"""Seconds that a fork waits, where there is an engine on SQLite, for threads that are in the middle of C code."""

_LONG, _SHORT = 0.5, 0.0005  # switch intervals
_drains: list[Any] = []  # the C library, called with the GIL, once there is an SQLite engine
_draining: dict[int, float] = {}  # thread -> the switch interval as it was before any of them


def _drain() -> None:
    me, c, switch = threading.get_ident(), _drains[0], sys.setswitchinterval
    usual = _draining[me] = next(iter(list(_draining.values())), None) or sys.getswitchinterval()
    mine = threading.get_native_id()
    others = {thread.native_id for thread in threading.enumerate()} - {mine}
    least = 1000 if os.access(f"/proc/self/task/{mine}", os.F_OK) else 4000
    try:
        # As one call, so that the GIL goes to who has waited for it for long after all three, and comes back soon.
        list(map(operator.call, (switch, c.usleep, switch), (_LONG, int(min(usual, DRAIN) * 1e6), _SHORT)))
        switch(_LONG)
        c.usleep(least)  # who began to wait meanwhile has it once
        end, quiet = time.monotonic() + DRAIN, 0
        # Twice: one that slept may have been woken by the last to run.
        while quiet < 2 and time.monotonic() < end:
            c.usleep(300)
            quiet = 0 if any(_runs(c, number) for number in others) else quiet + 1
    finally:
        interval = _draining.pop(me)
        if not _draining:
            switch(interval)


def _runs(c: Any, number: int | None) -> bool:
    """Whether a thread runs, waits for a processor or for a disk; asked without giving the GIL away."""
    import ctypes

    file = c.open(b"/proc/self/task/%d/stat" % (number or 0), os.O_RDONLY | os.O_CLOEXEC)
    if file < 0:
        return False  # it has ended, or there is no such file system
    told = ctypes.create_string_buffer(64)  # number, (name), state, ...
    c.read(file, told, len(told))
    c.close(file)
    return told.raw.rpartition(b") ")[2][:1] in (b"R", b"D")


def _tracking(invoke: Callable[[Any], Any], state: _State) -> Callable[[Any], Any]:
    """The pool's creator, with the tracking after it."""

    def create(record: Any) -> Any:
        before = _open_sockets() if state.must_search else None
        dbapi = invoke(record)
        _track(state, dbapi, record, before)
        return dbapi

    return create


# -- log: no write-ahead log is open at the fork ---------------------------------------------
# In WAL mode an SQLite connection has locks between its transactions, too, and the child's SQLite
# takes them for its own.  The parent's last close then deletes the log that the child writes to.
# So what lies idle in a pool is closed before a fork, and opened anew at its next checkout.


def _logged(track: _Track) -> bool:
    """Whether SQLite keeps a write-ahead log, now, for one of the files that a connection has open."""
    for name in track.files:
        path = name.removeprefix("file:").partition("?")[0] if name.startswith("file:") else name
        if os.access(f"{path}-wal", os.F_OK):
            return True
    return False


def _close_logged() -> None:
    """Close them; one that cannot be closed from here remains, and the child says so."""
    found = [track for ref in _tracks.copy().values() if (track := ref()) is not None and _logged(track)]
    tracks = [track for track in found if not _runs_elsewhere(track.loop())]
    for engine in _guarded_engines() if tracks else ():
        pool = engine.pool
        if not isinstance(pool, QueuePool) or all(t.state is not vars(pool)["_poolfork"] for t in tracks):
            continue
        idle: list[Any] = []
        try:
            while True:
                idle.append(pool._pool.get(False))
        except Empty:
            pass
        finally:
            for record in reversed(idle) if pool._pool.use_lifo else idle:
                track = vars(record).get("_poolfork")
                if track in tracks:
                    with contextlib.suppress(Exception):
                        _close_idle(pool, record, track)
                pool._do_return_conn(record)


def _runs_elsewhere(loop: Any) -> bool:
    """Whether another thread is in this event loop: its pool is not for us."""
    return (
        loop is not None
        and loop.is_running()
        and getattr(loop, "_thread_id", 0) not in (0, threading.get_ident())
    )


def _close_idle(pool: Any, record: Any, track: _Track) -> None:
    dialect, dbapi = track.state.dialect, track.dbapi
    if not dialect.is_async:
        dbapi.cursor().close()  # raises in a thread that may not close it either
        record.close()
        return
    driver = dialect.get_driver_connection(dbapi)
    if pool.dispatch.close:
        pool.dispatch.close(dbapi, record)
    driver.stop()  # its thread closes it, and ends; to await that takes a loop
    driver._thread.join(PATIENCE)
    record.finalize_callback.clear()
    record.dbapi_connection = None
    _untrack(dbapi)


# -- pin: nothing dies at the fork ------------------------------------------------------------
# Python destroys what other threads kept in a `threading.local` before it runs the child's
# hooks.  A connection that dies there says goodbye on the parent's session.  So the parent
# takes a strong reference to everything tracked before the fork and lets go after it.

_pins: dict[int, list[Any]] = {}  # thread that forks -> what it holds meanwhile


def _before_fork() -> None:
    if not _canary[0]:
        _settle()  # a child that C code forked, and that forks in its turn
    me = threading.get_ident()
    _forking[me] = True
    in_time = True
    try:
        if _in_flight or _in_loops:
            in_time = _wait_for_connects(me)
        if "log" not in _off:
            _close_logged()
    finally:  # a signal's handler may raise here, and Python forks all the same
        _pin(me)
    if _drains and threading.active_count() > 1 and "gate" not in _off:
        _drain()
    if not in_time:
        _warn(
            f"forked while another thread was connecting for more than {PATIENCE:g} s, or this thread's event "
            "loop was; the driver's locks may be taken in the child, and a first connect left half done"
        )


def _pin(me: int) -> None:
    if any(engine.dialect.is_async for engine in _guarded_engines()) and "asyncio" in sys.modules:
        loop = sys.modules["asyncio"]._get_running_loop()
        if loop is not None:  # it may not have connected yet
            _see_loop(weakref.ref(loop), next(s for _, s in _engines.values() if s.dialect.is_async))
    pins: list[Any] = [ref() for ref, _ in _loops.copy().values()]
    for ref in _tracks.copy().values():
        track = ref()
        if track is not None and "pin" not in _off:
            record = track.record()
            pins.append(track)
            pins.append(record)
            if record is not None and record.fairy_ref is not None:
                pins.append(record.fairy_ref())
            if track.fairies:
                pins.extend(ref() for ref in track.fairies)
            if track.cursors:
                pins.extend(ref() for ref in track.cursors)
            pins.append(track.loop())
    _pins[me] = pins


def _after_in_parent() -> None:
    me = threading.get_ident()
    _pins.pop(me, None)
    _forking.pop(me, None)


def _after_in_child() -> None:
    _canary[0] = 0  # already so, unless the ablation took it away
    _settle()


def _at_exit() -> None:
    if not _canary[0]:  # C code forked: now, before anybody's last words
        _settle()


# -- settle: the child's work -----------------------------------------------------------------
# Once in each child, by whichever comes first: Python's hook, or a read of the canary.

_settling: dict[int, tuple[int, object]] = {}  # pid -> the thread at work
_forever: list[Any] = []
_theirs: dict[int, int] = {}  # id() of an inherited cursor, kept forever -> the pid whose it is


def _settle() -> bool:
    """Settle, or wait until another thread has; False when called from within (by a destructor, say)."""
    pid, me, mine = os.getpid(), threading.get_ident(), object()
    thread, token = _settling.setdefault(pid, (me, mine))  # atomic, and no lock to inherit
    if token is not mine:
        end = time.monotonic() + PATIENCE
        while thread != me and not _canary[0] and time.monotonic() < end:
            time.sleep(0.0002)
        return thread != me
    try:
        if not _canary[0]:
            for interval in list(_draining.values()):  # of threads that are not here
                sys.setswitchinterval(interval)
            _draining.clear()
            _forking.clear()
            _in_loops.clear()
            for thread in [thread for thread in _in_flight if thread != me]:
                del _in_flight[thread]
            texts = _settle_now()
            _pins.clear()
            _canary[0] = 1
            for text in texts:  # last, since a warning may be an error here
                _warn(text)
    finally:
        _settling.pop(pid, None)
    return True


def _settle_now() -> list[str]:
    """Do it; returns what there is to warn of."""
    engines = _guarded_engines()
    tracks = [track for ref in _tracks.copy().values() if (track := ref()) is not None]
    inherited = [track for track in tracks if not track.private]
    failures: dict[_State, list[str]] = {}

    def attempt(state: _State, mechanism: str, action: Callable[[], str | None]) -> None:
        if mechanism in _off:
            return
        try:
            failure = action()
        except Exception as error:  # noqa: BLE001  # reported below
            failure = f"{mechanism}: {type(error).__name__}: {error}"
        if failure:
            failures.setdefault(state, []).append(failure)

    # The wire first: from here on nothing that this process does can reach the parent's sessions.
    with _Null() as null:
        for track in inherited:
            attempt(track.state, "null", lambda t=track: _silence(t, null))  # type: ignore[misc]
    loops = {id(loop): (loop, state) for ref, state in _loops.copy().values() if (loop := ref()) is not None}
    loops |= {id(loop): (loop, track.state) for track in inherited if (loop := track.loop()) is not None}
    _loops.clear()
    for loop, state in loops.values():
        attempt(state, "loop", lambda loop=loop: _privatise(loop))  # type: ignore[misc]

    for track in inherited:
        if "forever" not in _off:
            used = list(track.holders()), [ref() for ref in track.cursors]
            _forever.append((track, track.dbapi, track.record(), used, track.loop()))
            _theirs.update({id(cursor): track.pid for cursor in used[1] if cursor is not None})
        attempt(track.state, "held", lambda t=track: _disown(t))  # type: ignore[misc]
        _tracks.pop(id(track.dbapi), None)

    heirs: dict[int, Any] = {}
    kept = {id(_pool_of(track)) for track in tracks if track.private}
    for engine in engines:
        pool = engine.pool
        guarded_by = vars(pool)["_poolfork"]
        if id(pool) in kept:
            attempt(guarded_by, "replace", lambda p=pool: _unlock(p))  # type: ignore[misc]
        elif not hasattr(pool, "_poolfork_refuses"):
            attempt(guarded_by, "replace", lambda e=engine, p=pool: _replace(e, p, heirs))  # type: ignore[misc]
    if not _immortal(_forever):
        for track in inherited:
            failures.setdefault(track.state, []).append(
                "forever: no ctypes, so the driver's own goodbye may run when the interpreter exits"
            )
    to_warn_of = []
    for state, texts in failures.items():
        state.failures = texts
        text = "could not make this child safe: " + "; ".join(dict.fromkeys(texts))
        for engine in engines:
            if state.on_failure == "raise" and vars(engine.pool).get("_poolfork") is state:
                engine.pool.__class__ = _refusing_class(type(engine.pool), text)
        if state.on_failure == "warn":
            to_warn_of.append(text)
    return to_warn_of


# -- null: silence the wire -------------------------------------------------------------------
# The child's copy of the descriptor is pointed at the null device.  Whatever the driver's close,
# destructor or TLS shutdown writes ends there, and reads end at once.  Not `os.close()`: the
# driver would go on using a number that soon belongs to another file.


class _Null:
    """The null device, opened when first needed."""

    descriptor = -1

    def over(self, descriptor: int) -> None:
        if self.descriptor < 0:
            self.descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(self.descriptor, descriptor, inheritable=False)

    def over_all(self, recorded: Iterable[_Identity]) -> None:
        for socket_ in recorded:  # the parent may have closed it, and the number be another file's
            if _identity(socket_[0]) == socket_ or "identity" in _off:
                self.over(socket_[0])

    def __enter__(self) -> _Null:
        return self

    def __exit__(self, *_: object) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _silence(track: _Track, null: _Null) -> str | None:
    """Cut one inherited connection off its server, in this process only."""
    state = track.state
    if track.dbapi is None:
        return None
    if state.dialect.name == "sqlite":
        if state.dialect.is_async:  # aiosqlite's thread is not here: who waits for it waits for ever
            state.dialect.get_driver_connection(track.dbapi)._running = False
        if _in_transaction(track.dbapi, state):
            return (
                "the parent was in a transaction on an SQLite database, and SQLite may believe here too "
                "that its locks are held: use that database in the parent alone, or fork between transactions"
            )
        if "log" not in _off and _logged(track):
            return (
                "the parent had an SQLite database in WAL mode open, and SQLite may believe here too that "
                "its locks are held, so that what is written here is lost with the parent's last close: use "
                "that database in the parent alone, or fork while no connection to it is checked out"
            )
        return None
    driver = state.dialect.get_driver_connection(track.dbapi)
    _mute(driver)
    if not track.sockets:
        return (
            f"the socket of a {state.dialect.driver} connection was not found; its copy is never "
            "closed, but using the driver's connection directly would reach the parent's session"
        )
    told = [
        number for number in _told_sockets(driver) if _peer(number)
    ]  # it may have reconnected, or be closing
    null.over_all(filter(None, map(_identity, told)))
    null.over_all(track.sockets)
    return None


def _in_transaction(dbapi: Any, state: _State) -> bool:
    """Whether an SQLite connection has begun a transaction (a SELECT alone begins none)."""
    driver = state.dialect.get_driver_connection(dbapi)
    return bool(getattr(getattr(driver, "_conn", driver), "in_transaction", False))


def _mute(driver: Any) -> None:
    """A cancel travels on a wire of its own: some drivers send one when a COPY or a wait is unwound."""
    if hasattr(driver, "_should_cancel"):  # psycopg, which asks itself this first
        driver._should_cancel = lambda: False
    elif hasattr(driver, "_addr"):  # asyncpg: where it would send one
        driver._addr = os.devnull


# -- loop: an epoll of its own ----------------------------------------------------------------
# An epoll object is shared across fork(): when the child unregisters a descriptor, the parent's
# loop goes deaf on it.  The child's descriptor is pointed at a new epoll object with the same
# registrations, and the loop's self-pipe at a new pair, so that it cannot steal a wake-up.


def _privatise(loop: Any) -> None:
    if loop.is_closed() or not hasattr(select, "epoll"):  # a kqueue is not inherited
        return
    selector = getattr(loop, "_selector", None)
    if isinstance(selector, selectors.EpollSelector):
        shared = selector.fileno()
        for end, new in zip((loop._ssock, loop._csock), socket.socketpair(), strict=True):
            with new:
                new.setblocking(False)
                os.dup2(new.fileno(), end.fileno(), inheritable=False)
        keys: Iterable[selectors.SelectorKey] = selector.get_map().values()
    elif hasattr(loop, "_get_backend_id"):  # uvloop
        shared, keys = loop._get_backend_id(), ()
    else:
        return
    with select.epoll() as own:
        for key in keys:
            events = (key.events & selectors.EVENT_READ and select.EPOLLIN) | (
                key.events & selectors.EVENT_WRITE and select.EPOLLOUT
            )
            with contextlib.suppress(OSError):  # the null device: an inherited connection
                own.register(key.fd, events)
        os.dup2(own.fileno(), shared, inheritable=False)


# -- held: a clear error, a silent close ------------------------------------------------------
# A fairy that was checked out at the fork changes its class.  SQLAlchemy asks `is_valid` before
# it sends a ROLLBACK, so that closing, unwinding and collecting it stay silent.


def _refuse(pid: int) -> NoReturn:
    raise InheritedConnectionError(
        "This connection was inherited through fork() and belongs to another process "
        f"(opened by process {pid}, used by process {os.getpid()}). Its session and "
        "transaction go on there, and using them here would corrupt both. Close this Connection or "
        "Session (that is silent and leaves the parent's alone) and open a new one in this process, "
        "for instance with engine.connect()."
    )


class _InheritedFairy(_ConnectionFairy):
    """The child's copy of a connection that the parent had checked out."""

    __slots__ = ()
    _poolfork_pid = 0

    def _refuse(self, *_: Any, **__: Any) -> Any:
        _refuse(self._poolfork_pid)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return self._refuse()

    def _silent(self, *_: Any, **__: Any) -> None:
        return None

    cursor = detach = commit = _refuse
    rollback = close = invalidate = _close_special = _checkin = _close = _reset = _silent
    # (with a setter, for SQLAlchemy's own methods when the canary speaks in the middle of one)
    dbapi_connection = driver_connection = connection = property(_refuse, _silent)
    is_valid = property(lambda self: False)


class _InheritedRecord(_ConnectionRecord):
    __slots__ = ()
    needs_gc = property(lambda self: False)


def _disown(track: _Track) -> None:
    record = track.record()
    for fairy in track.holders():
        with contextlib.suppress(AttributeError):  # SQLAlchemy 2.1 has it; not by getattr(), which is hooked
            object.__getattribute__(fairy, "_finalizer").detach()
        fairy.__class__ = _InheritedFairy
        fairy._poolfork_pid = track.pid  # type: ignore[attr-defined]
    if record is not None:
        record.fairy_ref = None  # SQLAlchemy 2.0 tidies up only what the record still refers to
        record.__class__ = _InheritedRecord
        pool = _pool_of(track)
        if vars(pool).get("_poolfork") is not None and "replace" not in _off:
            _bury(pool)


# -- replace: a pool of its own ---------------------------------------------------------------
# A new pool has a new lock, new counters and no connections.  The old one keeps no power: who
# still refers to it is led to its heir.


def _replace(engine: Any, pool: Any, heirs: dict[int, Any]) -> None:
    if id(pool) not in heirs:
        _bury(pool)
        heirs[id(pool)] = pool, _heir(pool)  # with the pool itself, so that its id stays taken
    engine.pool = heirs[id(pool)][1]


def _unlock(pool: Any) -> None:
    """Locks and counters anew for a pool whose connections are in memory, and so the child's own."""
    if isinstance(pool, QueuePool):
        idle = pool._pool.queue  # type: ignore[attr-defined]
        pool._pool = type(pool._pool)(pool._pool.maxsize, pool._pool.use_lifo)
        pool._pool.queue.extend(idle)  # type: ignore[attr-defined]
        pool._overflow_lock = threading.Lock()
        pool._overflow = len(idle) - pool.size()  # whoever held the others may not be here
    elif isinstance(pool, AssertionPool):
        pool._checked_out = False


def _heir(pool: Any) -> Any:
    if pool._poolfork_heir is None:
        kind: Any = type(pool).__mro__[1]
        pool.__class__ = kind  # SQLAlchemy makes a pool of the same class as this one
        recreate = kind.recreate
        try:
            pool._poolfork_heir = _adopt(getattr(recreate, "_poolfork", recreate)(pool), pool._poolfork)
        finally:
            _bury(pool)
    return pool._poolfork_heir


def _bury(pool: Any) -> None:
    """Make a pool that was inherited lead to its heir, and do nothing else."""
    pool.__class__ = _inherited_class(type(pool))


_inherited: dict[type[Pool], type[Pool]] = {}


def _inherited_class(kind: Any) -> type[Pool]:
    if hasattr(kind, "_poolfork_heir"):
        return kind  # type: ignore[no-any-return]
    if kind not in _inherited:

        class InheritedPool(kind):  # type: ignore[misc]
            _poolfork_heir: Any = None

            def connect(self) -> Any:
                return _heir(self).connect()

            def recreate(self) -> Any:
                return _heir(self).recreate()

            def _nothing(self, *_: Any, **__: Any) -> None:
                return None

            _do_return_conn = _return_conn = _close_connection = dispose = _nothing

        InheritedPool.__name__ = kind.__name__
        _inherited[kind] = InheritedPool
    return _inherited[kind]


def _refusing_class(base: type[Pool], text: str) -> type[Pool]:
    """The class of a pool in a child that could not be made safe, with ``on_failure="raise"``."""

    class RefusingPool(base):  # type: ignore[misc, valid-type]
        _poolfork_refuses = True

        def connect(self) -> Any:
            raise GuardError(f"poolfork.guard {text}")

        def recreate(self) -> Any:
            return self

    return RefusingPool


def _pool_of(track: _Track) -> Any:
    record = track.record()
    return None if record is None else _owner(record)


def _owner(record: Any) -> Any:
    return record._ConnectionRecord__pool


# -- forever: no last words -------------------------------------------------------------------
# What was inherited is never destroyed in the child, not even when the interpreter exits: a
# destructor may send a goodbye, and SQLite's would delete the journal that the parent needs.


def _immortal(thing: Any) -> bool:
    """Take a reference that nobody gives back."""
    try:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    except Exception:  # noqa: BLE001
        return False
    return True


# -- guard: the public functions --------------------------------------------------------------


def guard(
    engine: AnyEngine,
    *,
    on_failure: Literal["warn", "raise"] = "warn",
) -> AnyEngine:
    """Make an `Engine` or `AsyncEngine` safe to inherit through ``fork()``; returns the same engine.

    Call it once, before the first fork; calling it again changes nothing but `on_failure`.
    In a child the engine has a new, empty pool, and Connections and Sessions that the parent had
    open raise `InheritedConnectionError` when used and close silently.

    When something inherited could not be made safe, the child issues a `GuardWarning`; with
    ``on_failure="raise"`` each of its checkouts raises `GuardError` instead.

    Where there is no ``fork()`` it does nothing.  Raises `TypeError` for what is no engine.
    """
    sync = _sync_engine(engine)
    if on_failure not in ("warn", "raise"):
        raise ValueError(f"on_failure is 'warn' or 'raise', not {on_failure!r}")
    if not hasattr(os, "register_at_fork"):
        return engine
    _install(sync.dialect)
    state = vars(sync.pool).get("_poolfork")
    if state is not None:
        state.on_failure = on_failure
    else:
        state = _State(sync.dialect, sync.url, on_failure)
        if isinstance(sync.pool, QueuePool) and not sync.pool.checkedin() + sync.pool.checkedout():
            _hook_pool(type(sync.pool))
            _adopt(sync.pool, state)  # as most engines are that are guarded where they are made
        else:
            _take_over(sync.pool, state)
    key = id(sync)
    _engines[key] = weakref.ref(sync, lambda ref: _engines.pop(key, None) and None), state
    return engine


def unguard(engine: AnyEngine) -> AnyEngine:
    """Undo `guard`: the engine is as SQLAlchemy made it; returns the same engine."""
    sync = _sync_engine(engine)
    pool = sync.pool
    state = vars(pool).get("_poolfork")
    _engines.pop(id(sync), None)
    if state is not None:
        del pool._poolfork
        pool._creator = pool._creator  # sets what calls it
        for ref in list(_tracks.values()):
            if (track := ref()) is not None and track.state is state:
                _tracks.pop(id(track.dbapi), None)
                if (record := track.record()) is not None:
                    vars(record).pop("_poolfork", None)
    return engine


def _sync_engine(engine: Any) -> Any:
    sync = getattr(engine, "sync_engine", engine)
    while hasattr(sync, "_proxied"):  # Engine.execution_options() makes a view of an engine, or of a view
        sync = sync._proxied
    if not isinstance(getattr(sync, "pool", None), Pool):
        raise TypeError(f"guard() takes an Engine or an AsyncEngine, not {type(engine).__name__}")
    return sync


_installed = False


def _install(dialect: Any) -> None:
    """Register the hooks, once in a process and its children."""
    global _installed
    if not _installed:
        _installed = True
        _canary[0] = 1  # a fork before this has nothing to settle
        if hasattr(vars(_ConnectionFairy)["cursor"], "_poolfork"):
            _warn("another copy of guard.py is at work here; have one, or a fork from C may be missed")
        _hook_connections()
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
        )
        atexit.register(_at_exit)
        with contextlib.suppress(ImportError):
            import ctypes  # now, not in each child
    if dialect.name == "sqlite" and not _drains:
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import ctypes

            _drains.append(ctypes.PyDLL(None))


def _warn(text: str) -> None:
    warnings.warn(f"poolfork.guard: {text}", GuardWarning, stacklevel=3)
