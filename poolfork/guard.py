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
3. **pin**: just before a fork, hold everything tracked, so that nothing is destroyed in the child
4. **gate**: just before a fork, let other threads finish the connect that they are in
5. in the child, **settle**: **null** the inherited sockets, give inherited event **loops** an epoll
   of their own, put a fresh pool in **replace** of each inherited one, turn **held** connections
   into objects that only raise a clear error, and keep the inherited driver objects **forever**
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import mmap
import os
import select
import selectors
import socket
import stat
import sys
import threading
import time
import types
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Literal, TypeVar

from sqlalchemy.exc import ResourceClosedError, SQLAlchemyError
from sqlalchemy.pool import AssertionPool, NullPool, Pool, QueuePool, SingletonThreadPool
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord

__all__ = ["MECHANISMS", "GuardError", "GuardWarning", "InheritedConnectionError", "guard", "unguard"]

MECHANISMS = ("canary", "pin", "gate", "null", "identity", "loop", "replace", "held", "forever")
"""What ``guard(engine, _without={...})`` can leave out, so that one can measure what each is for."""

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
        self.pid = os.getpid()


def _make_canary() -> Any:
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(getattr(mmap, "MADV_WIPEONFORK", 18))
    except (AttributeError, OSError, ValueError):
        return _PidCanary()
    if sys.platform != "linux":  # 18 may mean something else there
        return _PidCanary()
    page[0] = 1
    return memoryview(page)


_canary: Any = _make_canary()
_blind_canary = b"\x01"  # for the ablation: it never sees a fork


# -- track: which socket is whose? ------------------------------------------------------------
# One track for each open DBAPI connection, owned by its pool record, or by the fairy once it is
# detached, so that it lives exactly as long.  The module itself knows tracks only weakly.


class _Track:
    __slots__ = ("__weakref__", "dbapi", "fairies", "loop", "pid", "private", "record", "sockets", "state")

    def __init__(self, state: _State, dbapi: Any, record: _ConnectionRecord) -> None:
        self.state = state
        self.dbapi = dbapi
        self.record = weakref.ref(record)
        self.fairies: list[weakref.ref[_ConnectionFairy]] = []  # those that the record does not know
        self.sockets: tuple[_Identity, ...] = ()
        self.loop: Callable[[], Any] = _nothing
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

    def __init__(self, dialect: Any, url: Any, on_failure: str, without: Collection[str]) -> None:
        self.dialect = dialect
        self.url = url
        self.on_failure = on_failure
        self.without = frozenset(without)
        self.canary = _blind_canary if "canary" in without else _canary
        self.must_search = True  # until the driver has been seen to tell its socket
        self.failures: list[str] = []


_Identity = tuple[int, int, int]  # file descriptor, device, inode
_tracks: dict[int, weakref.ref[_Track]] = {}  # by id() of the DBAPI connection
_engines: dict[int, weakref.ref[Any]] = {}  # by id() of the engine


def _nothing() -> None:
    return None


def _track(state: _State, dbapi: Any, record: _ConnectionRecord, before: dict[int, str] | None) -> None:
    """Remember a connection that was just opened, and its socket."""
    key = id(dbapi)
    track = _Track(state, dbapi, record)
    driver = state.dialect.get_driver_connection(dbapi)
    if state.dialect.name == "sqlite":
        track.private = not state.dialect.is_async and _in_memory(dbapi)
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
            track.loop = weakref.ref(asyncio.get_running_loop())

    def forget(ref: weakref.ref[_Track]) -> None:
        if _tracks.get(key) is ref:
            del _tracks[key]

    _tracks[key] = weakref.ref(track, forget)
    record.__class__ = _GuardedRecord
    record._poolfork = track  # type: ignore[attr-defined]


def _untrack(dbapi: Any) -> None:
    """Forget a connection that is closed."""
    ref = _tracks.get(id(dbapi))
    track = ref() if ref is not None else None
    if track is not None and track.dbapi is dbapi:
        del _tracks[id(dbapi)]
        track.dbapi = None


def _in_memory(dbapi: Any) -> bool:
    """Whether all that an SQLite connection has open is in this process's memory."""
    try:
        return not any(row[2] for row in dbapi.execute("PRAGMA database_list"))
    except Exception:  # noqa: BLE001
        return False


# Where drivers keep their socket when the connection has no fileno() itself: pg8000, PyMySQL,
# mysql-connector (pure Python), asyncpg, aiomysql.
_PATHS = ((), ("_usock",), ("_sock",), ("_socket", "sock"), ("_transport",), ("_writer", "transport"))


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
    and those with another peer than the URL's, if that leaves any.
    """
    new = [descriptor for descriptor, link in _open_sockets().items() if before.get(descriptor) != link]
    if len(new) > 1:
        owned = {s[0] for ref in list(_tracks.values()) if (t := ref()) is not None for s in t.sockets}
        new = [descriptor for descriptor in new if descriptor not in owned]
    if len(new) > 1:
        peers = {descriptor: _peer(descriptor) for descriptor in new}
        new = [d for d in new if peers[d]]
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


# -- pool: where the canary is read -----------------------------------------------------------
# A guarded pool is the same object with a subclass of its class, made here.  So the canary is
# read inside calls that happen anyway (a checkout event costs more: it takes a slower path), and
# `recreate()`, which `Engine.dispose()` calls, makes guarded pools.  The last five overrides are
# for children forked from C: their first act may be any of these.

_classes: dict[tuple[type[Pool], bool], type[Pool]] = {}
_ONE_HOLDER = (QueuePool, NullPool, SingletonThreadPool, AssertionPool)


def _guarded_class(base: type[Pool], canary: Any) -> type[Pool]:
    """The guarded subclass of a pool's class."""
    key = base, canary is _canary
    if key in _classes:
        return _classes[key]
    checkout = _checkout_guarded() if base.connect is Pool.connect else None
    one_holder = issubclass(base, _ONE_HOLDER)  # else the record forgets earlier holders (StaticPool)

    class GuardedPool(base):  # type: ignore[misc, valid-type]
        _poolfork: _State | None = None
        _poolfork_base = base

        def connect(self) -> Any:
            if not canary[0]:
                _settle()
                return self.connect()  # by now this is an inherited pool
            if checkout is not None:
                fairy = checkout(_GuardedFairy, self)
            else:
                fairy = super().connect()
                fairy.__class__ = _GuardedFairy
            if not one_holder:
                track = getattr(fairy._connection_record, "_poolfork", None)
                if track is not None:
                    track.fairies = [ref for ref in track.fairies if ref() is not None]
                    track.fairies.append(weakref.ref(fairy))
            return fairy

        def recreate(self) -> Any:
            if not canary[0]:
                _settle()
                return self.recreate()
            return _adopt(super().recreate(), self._poolfork)

        def _should_wrap_creator(self, creator: Any) -> Any:
            invoke = super()._should_wrap_creator(creator)
            return invoke if self._poolfork is None else _tracking(invoke, self._poolfork)

        def _return_conn(self, record: Any) -> None:
            if not canary[0]:
                _settle()
            else:
                self._do_return_conn(record)

        def _close_connection(self, connection: Any, **options: Any) -> None:
            if not canary[0]:
                _settle()
                return
            try:
                super()._close_connection(connection, **options)
            finally:
                _untrack(connection)

        def dispose(self) -> None:
            if not canary[0]:
                _settle()
            else:
                super().dispose()

        if not hasattr(_ConnectionRecord, "needs_gc"):  # SQLAlchemy 2.0: see _GuardedRecord

            @property
            def _reset_on_return(self) -> Any:
                if not canary[0]:
                    _settle()
                return self.__dict__["_reset_on_return"]

            @_reset_on_return.setter
            def _reset_on_return(self, value: Any) -> None:
                self.__dict__["_reset_on_return"] = value

    GuardedPool.__name__ = base.__name__
    GuardedPool.__qualname__ = base.__qualname__
    GuardedPool.__module__ = base.__module__
    return _classes.setdefault(key, GuardedPool)


def _adopt(pool: Any, state: _State | None) -> Any:
    """Let a pool of a guarded class track what it opens."""
    pool._poolfork = state
    pool._creator = pool._creator  # calls _should_wrap_creator()
    return pool


class _GuardedFairy(_ConnectionFairy):
    """What a checkout hands out; `Connection` and `Session` speak to the driver through it."""

    __slots__ = ()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        if not _canary[0] and _forked(self):
            return self.cursor(*args, **kwargs)  # by now this is an inherited fairy
        return self.dbapi_connection.cursor(*args, **kwargs)

    def __getattr__(self, key: str) -> Any:  # commit, rollback, and all else that drivers have
        if not _canary[0] and _forked(self):
            return getattr(self, key)
        return getattr(self.dbapi_connection, key)

    def detach(self) -> None:
        record = self._connection_record
        track = getattr(record, "_poolfork", None)
        super().detach()
        if track is not None:
            del record._poolfork  # type: ignore[union-attr]
            track.fairies.append(weakref.ref(self))
            self._poolfork = track


def _forked(fairy: _GuardedFairy) -> bool:
    """Settle, unless this fairy's guard is built without the canary."""
    state = getattr(fairy._pool, "_poolfork", None)
    if state is not None and state.canary is _blind_canary:
        return False
    _settle()
    return fairy.__class__ is not _GuardedFairy


def _rebound(method: Any, **names: Any) -> Any:
    """The same code with other globals; None where it does not use them."""
    function = method.__func__
    if not names.keys() <= set(function.__code__.co_names):
        return None
    copy = types.FunctionType(
        function.__code__.replace(),
        function.__globals__ | names,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


@functools.cache
def _checkout_guarded() -> Any:
    """SQLAlchemy's own checkout, making a `_GuardedFairy` where it says `_ConnectionFairy`.

    Changing the class afterwards does the same at some cost for each checkout, so that is only for
    pools that check out in a way of their own.
    """
    of_record = _rebound(_ConnectionRecord.checkout, _ConnectionFairy=_GuardedFairy)
    if of_record is None:
        return None
    maker = types.SimpleNamespace(checkout=functools.partial(of_record, _ConnectionRecord))
    return _rebound(_ConnectionFairy._checkout, _ConnectionRecord=maker)


class _GuardedRecord(_ConnectionRecord):
    """A place in the pool; SQLAlchemy asks `needs_gc` before it tidies up after a lost fairy."""

    __slots__ = ()

    @property
    def needs_gc(self) -> bool:
        if not _canary[0]:
            track = getattr(self, "_poolfork", None)
            if track is None or track.state.canary is not _blind_canary:
                _settle()
                return False
        ref = self.fairy_ref
        return ref is not None and ref() is None


# -- gate: no connect in flight at the fork ---------------------------------------------------
# Drivers and the libraries below them take locks of their own while they connect (mysqlclient
# does).  A child that inherits such a lock taken can never connect.  So a fork waits, for a
# bounded time, until no other thread is connecting, and keeps new connects waiting meanwhile.
# No lock here: a child would inherit it.  Each dictionary operation used is atomic.

_in_flight: dict[int, int] = {}  # thread -> depth (a creator may use another engine)
_forking: dict[int, bool] = {}  # threads between their `before` and their `after` hook


def _tracking(invoke: Callable[[Any], Any], state: _State) -> Callable[[Any], Any]:
    """The pool's creator, with the gate before it and the tracking after it."""
    gated = not state.dialect.is_async and "gate" not in state.without  # a loop must not be blocked

    def create(record: Any) -> Any:
        me = threading.get_ident()
        depth = _in_flight.get(me, 0)
        if gated:
            _in_flight[me] = depth + 1
            if _forking and not depth:
                _wait_for_fork(me)
        try:
            before = _open_sockets() if state.must_search else None
            dbapi = invoke(record)
            _track(state, dbapi, record, before)
            return dbapi
        finally:
            if gated:
                if depth:
                    _in_flight[me] = depth
                else:
                    _in_flight.pop(me, None)

    return create


def _wait_for_fork(me: int) -> None:
    end = time.monotonic() + PATIENCE
    while any(thread != me for thread in list(_forking)) and time.monotonic() < end:
        _in_flight.pop(me, None)
        time.sleep(0.0005)
        if not _forking:
            _in_flight[me] = 1  # say so before looking again
    _in_flight[me] = 1


def _wait_for_connects(me: int) -> bool:
    """Whether every other thread has left its connect in time."""
    end = time.monotonic() + PATIENCE
    while any(thread != me for thread in list(_in_flight)):
        if time.monotonic() > end:
            return False
        time.sleep(0.0002)
    return True


# -- pin: nothing dies at the fork ------------------------------------------------------------
# Python destroys what other threads kept in a `threading.local` before it runs the child's
# hooks.  A connection that dies there says goodbye on the parent's session.  So the parent
# takes a strong reference to everything tracked before the fork and lets go after it.

_pins: dict[int, list[Any]] = {}  # thread that forks -> what it holds meanwhile


def _before_fork() -> None:
    me = threading.get_ident()
    _forking[me] = True
    in_time = _wait_for_connects(me) if _in_flight else True
    pins: list[Any] = []
    for ref in _tracks.copy().values():
        track = ref()
        if track is not None and "pin" not in track.state.without:
            record = track.record()
            pins.append(track)
            pins.append(record)
            if record is not None and record.fairy_ref is not None:
                pins.append(record.fairy_ref())
            if track.fairies:
                pins.extend(ref() for ref in track.fairies)
            pins.append(track.loop())
    _pins[me] = pins
    if not in_time:
        _warn(
            f"forked while another thread was connecting for more than {PATIENCE:g} s; "
            "the driver's locks may be taken in the child"
        )


def _after_in_parent() -> None:
    me = threading.get_ident()
    _pins.pop(me, None)
    _forking.pop(me, None)


def _after_in_child() -> None:
    if not _canary[0]:
        _settle()


# -- settle: the child's work -----------------------------------------------------------------
# Once in each child, by whichever comes first: Python's hook, or a read of the canary.

_settling: dict[int, tuple[int, object]] = {}  # pid -> the thread at work
_forever: list[Any] = []


def _settle() -> None:
    pid, me, mine = os.getpid(), threading.get_ident(), object()
    thread, token = _settling.setdefault(pid, (me, mine))  # atomic, and no lock to inherit
    if token is not mine:  # another thread of this child is at it, or we came from within (by a GC)
        end = time.monotonic() + PATIENCE
        while thread != me and not _canary[0] and time.monotonic() < end:
            time.sleep(0.0002)
        return
    try:
        if not _canary[0]:
            _forking.clear()
            for thread in [thread for thread in _in_flight if thread != me]:
                del _in_flight[thread]
            _settle_now()
            _pins.clear()
            _canary[0] = 1
    finally:
        _settling.pop(pid, None)


def _settle_now() -> None:
    tracks = [track for ref in _tracks.copy().values() if (track := ref()) is not None]
    inherited = [track for track in tracks if not track.private]
    engines = [engine for ref in list(_engines.values()) if (engine := ref()) is not None]
    failures: dict[_State, list[str]] = {}

    def attempt(state: _State, mechanism: str, action: Callable[[], str | None]) -> None:
        if mechanism in state.without:
            return
        try:
            failure = action()
        except Exception as error:  # noqa: BLE001  # reported below
            failure = f"{mechanism}: {type(error).__name__}: {error}"
        if failure:
            failures.setdefault(state, []).append(failure)

    # The wire first: from here on nothing that this process does can reach the parent's sessions.
    null = _Null()
    for track in inherited:
        attempt(track.state, "null", lambda t=track: _silence(t, null))  # type: ignore[misc]
    null.close()
    loops = {id(loop): (loop, track.state) for track in inherited if (loop := track.loop()) is not None}
    for loop, state in loops.values():
        attempt(state, "loop", lambda loop=loop: _privatise(loop))  # type: ignore[misc]

    for track in inherited:
        if "forever" not in track.state.without:
            _forever.append((track, track.dbapi, track.record(), list(track.holders()), track.loop()))
        attempt(track.state, "held", lambda t=track: _disown(t))  # type: ignore[misc]
        _tracks.pop(id(track.dbapi), None)

    heirs: dict[int, Any] = {}
    kept = {id(_pool_of(track)) for track in tracks if track.private}
    for engine in engines:
        pool = engine.pool
        guarded_by = getattr(pool, "_poolfork", None)
        if guarded_by is not None and id(pool) not in kept:
            attempt(guarded_by, "replace", lambda e=engine, p=pool: _replace(e, p, heirs))  # type: ignore[misc]
    if not _immortal(_forever):
        for track in inherited:
            failures.setdefault(track.state, []).append(
                "forever: no ctypes, so the driver's own goodbye may run when the interpreter exits"
            )
    for state, texts in failures.items():
        state.failures = texts
        text = "could not make this child safe: " + "; ".join(dict.fromkeys(texts))
        for engine in engines:
            if state.on_failure == "raise" and getattr(engine.pool, "_poolfork", None) is state:
                engine.pool.__class__ = _refusing_class(type(engine.pool), text)
        if state.on_failure == "warn":
            _warn(text)


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

    def close(self) -> None:
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
        return None
    if not track.sockets:
        return (
            f"the socket of a {state.dialect.driver} connection was not found; its copy is never "
            "closed, but using the driver's connection directly would reach the parent's session"
        )
    told = _told_sockets(state.dialect.get_driver_connection(track.dbapi))
    found = {s for s in map(_identity, told) if s is not None}  # the driver may have reconnected
    if "identity" in state.without:
        for descriptor, _, _ in track.sockets:
            null.over(descriptor)
    for recorded in track.sockets:  # the parent may have closed it, and the number be another file's
        if _identity(recorded[0]) == recorded:
            found.add(recorded)
    for descriptor, _, _ in found:
        null.over(descriptor)
    return None


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


class _InheritedFairy(_ConnectionFairy):
    """The child's copy of a connection that the parent had checked out."""

    __slots__ = ()
    _poolfork_pid = 0

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise InheritedConnectionError(
            "This connection was inherited through fork() and belongs to another process "
            f"(opened by process {self._poolfork_pid}, used by process {os.getpid()}). Its session and "
            "transaction go on there, and using them here would corrupt both. Close this Connection or "
            "Session (that is silent and leaves the parent's alone) and open a new one in this process, "
            "for instance with engine.connect()."
        )

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return self._refuse()

    def _silent(self, *_: Any, **__: Any) -> None:
        return None

    cursor = detach = _refuse
    commit = rollback = close = invalidate = _close_special = _checkin = _close = _silent
    # (with a setter, for SQLAlchemy's own methods when the canary speaks in the middle of one)
    dbapi_connection = driver_connection = connection = property(_refuse, _silent)
    is_valid = property(lambda self: False)


class _InheritedRecord(_ConnectionRecord):
    __slots__ = ()
    needs_gc = property(lambda self: False)


def _disown(track: _Track) -> None:
    record = track.record()
    for fairy in track.holders():
        if (finalizer := getattr(fairy, "_finalizer", None)) is not None:  # SQLAlchemy 2.1
            finalizer.detach()
        fairy.__class__ = _InheritedFairy
        fairy._poolfork_pid = track.pid  # type: ignore[attr-defined]
    if record is not None:
        record.fairy_ref = None  # SQLAlchemy 2.0 tidies up only what the record still refers to
        record.__class__ = _InheritedRecord
        pool = _pool_of(track)
        if getattr(pool, "_poolfork", None) is not None and "replace" not in track.state.without:
            _bury(pool)


# -- replace: a pool of its own ---------------------------------------------------------------
# A new pool has a new lock, new counters and no connections.  The old one keeps no power: who
# still refers to it is led to its heir.


def _replace(engine: Any, pool: Any, heirs: dict[int, Any]) -> None:
    if id(pool) not in heirs:
        heirs[id(pool)] = pool, _heir(pool)  # with the pool itself, so that its id stays taken
    engine.pool = heirs[id(pool)][1]


def _heir(pool: Any) -> Any:
    _bury(pool)
    if pool._poolfork_heir is None:
        pool._poolfork_heir = pool._poolfork_recreate()
    return pool._poolfork_heir


def _bury(pool: Any) -> None:
    """Make a pool that was inherited lead to its heir, and do nothing else."""
    pool.__class__ = _inherited_class(type(pool))


_inherited: dict[type[Pool], type[Pool]] = {}


def _inherited_class(guarded: Any) -> type[Pool]:
    if hasattr(guarded, "_poolfork_recreate"):
        return guarded  # type: ignore[no-any-return]
    if guarded not in _inherited:

        class InheritedPool(guarded):  # type: ignore[misc]
            _poolfork_heir: Any = None

            def _poolfork_recreate(self) -> Any:
                new = guarded._poolfork_base.recreate(self)
                new.__class__ = guarded
                return _adopt(new, self._poolfork)

            def connect(self) -> Any:
                return _heir(self).connect()

            def recreate(self) -> Any:
                return _heir(self).recreate()

            def _nothing(self, *_: Any, **__: Any) -> None:
                return None

            _return_conn = _close_connection = dispose = _nothing

        InheritedPool.__name__ = guarded.__name__
        _inherited[guarded] = InheritedPool
    return _inherited[guarded]


def _refusing_class(base: type[Pool], text: str) -> type[Pool]:
    """The class of a pool in a child that could not be made safe, with ``on_failure="raise"``."""

    class RefusingPool(base):  # type: ignore[misc, valid-type]
        def connect(self) -> Any:
            raise GuardError(f"poolfork.guard {text}")

        def recreate(self) -> Any:
            return self

    return RefusingPool


def _pool_of(track: _Track) -> Any:
    record = track.record()
    return None if record is None else record._ConnectionRecord__pool  # type: ignore[attr-defined]


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
    _without: Collection[str] = frozenset(),
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
    if unknown := set(_without) - set(MECHANISMS):
        raise ValueError(f"no such mechanism: {', '.join(sorted(unknown))}")
    if not hasattr(os, "register_at_fork"):
        return engine
    _install()
    pool = sync.pool
    if getattr(pool, "_poolfork", None) is not None:
        pool._poolfork.on_failure = on_failure
    else:
        state = _State(sync.dialect, sync.url, on_failure, _without)
        pool.__class__ = _guarded_class(type(pool), state.canary)
        _adopt(pool, state)
    key = id(sync)
    _engines[key] = weakref.ref(sync, lambda ref: _engines.pop(key, None) and None)
    return engine


def unguard(engine: AnyEngine) -> AnyEngine:
    """Undo `guard`: the engine is as SQLAlchemy made it; returns the same engine."""
    sync = _sync_engine(engine)
    pool = sync.pool
    state = getattr(pool, "_poolfork", None)
    _engines.pop(id(sync), None)
    if state is not None:
        pool._poolfork = None
        pool.__class__ = type(pool)._poolfork_base
        pool._creator = pool._creator
        for ref in list(_tracks.values()):
            if (track := ref()) is not None and track.state is state:
                _tracks.pop(id(track.dbapi), None)
    return engine


def _sync_engine(engine: Any) -> Any:
    sync = getattr(engine, "sync_engine", engine)
    sync = getattr(sync, "_proxied", sync)  # Engine.execution_options() makes a view of an engine
    if not isinstance(getattr(sync, "pool", None), Pool):
        raise TypeError(f"guard() takes an Engine or an AsyncEngine, not {type(engine).__name__}")
    return sync


_installed = False


def _install() -> None:
    """Register the hooks, once in a process and its children."""
    global _installed
    if not _installed:
        _installed = True
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
        )
        atexit.register(_after_in_child)  # for a child that C code forked, before its last words
        with contextlib.suppress(ImportError):
            import ctypes  # noqa: F401  # now, not in each child


def _warn(text: str) -> None:
    warnings.warn(f"poolfork.guard: {text}", GuardWarning, stacklevel=3)
