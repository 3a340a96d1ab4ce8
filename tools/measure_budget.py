"""Connection budgets: workers against ``max_connections`` up to the refusal, and PgBouncer between the two."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import json
import multiprocessing
import os
import re
import select
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from poolfork import servers
from poolfork.actors import PATIENCE, SEVERITY, NotRun, Parent, Spec, tell
from poolfork.drivers import DRIVERS, address, machine
from poolfork.hazards import all_hazards
from poolfork.nursery import make_table

_USED = ("servers", "actors", "recipes", "guard", "drivers", "nursery", "hazards/*")
FILES = (*(f"poolfork/{name}.py" for name in _USED), "requirements/html.txt")
POOL_SIZE, MAX_OVERFLOW, MAX_CONNECTIONS = 2, 1, 20
MODES = ("transaction", "session")
RECIPES = (
    *("nothing", "dispose", "dispose(close=False)", "pid-event", "null-pool", "dispose-before-fork"),
    *("at-fork", "guard"),
)
HAZARDS = (
    *(("crossed", ""), ("goodbye-close", ""), ("goodbye-gc", ""), ("goodbye-exit", "")),
    *(("held-finish", "close"), ("held-use", "")),
)
THROUGH = ("psycopg", "asyncpg")  # one driver that stays silent when it is collected, one that does not
fork = multiprocessing.get_context("fork")


def measure(progress: Callable[..., None]) -> dict[str, Any]:
    """All of it; what needs PgBouncer says ``not_run`` where there is none."""
    parts: dict[str, Callable[[str], Any]] = {"budget": refusal, "killed": killed_parents}
    around: dict[str, Callable[[str], Any]] = {
        "multiplexing": multiplexing, "identity": identity, "state": session_state,
        "prepared": prepared_statements, "recipes": recipes_behind, "check": check_behind, "cost": null_pool_cost,
    }  # fmt: skip
    program = servers.pgbouncer_program()
    found: dict[str, Any] = {}
    for number, (name, part) in enumerate((parts | (around if program else {})).items()):
        progress(number, len(parts) + len(around), 0)
        with servers.postgres(max_connections=MAX_CONNECTIONS if name == "budget" else 100) as server:
            found[name] = part(server.url)
    progress(len(parts) + len(around), len(parts) + len(around), 0)
    if program is None:
        found["not_run"] = "No PgBouncer here: install it (on Debian: apt-get install pgbouncer)."
    return {"versions": versions(), **found}


def versions() -> dict[str, str]:
    """What decides the figures."""
    packages = ("sqlalchemy", "psycopg", "psycopg2-binary", "asyncpg", "pg8000")
    found = {name: importlib.metadata.version(name) for name in packages}
    said = [servers.postgres_home() / "bin" / "postgres", servers.pgbouncer_program()]
    for program in filter(None, said):
        told = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
        )
        line = told.stdout.splitlines()[0]
        found[program.name] = re.findall(r"\d+\.[\d.]+", line)[0]
    return found | {"machine": machine()}


# -- workers: real processes, each with a pool of its own --------------------------------------


class Worker:
    """A forked process with an engine that it makes itself; it does what it is asked, in turn."""

    def __init__(self, url: str, **engine: Any) -> None:
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=_works, args=(theirs, url, engine), daemon=True)
        self.process.start()
        theirs.close()

    def asked(self, what: str, *args: Any, patience: float = 20) -> Any:
        """Its answer, or its error as `tell` puts it; TimeoutError when it says nothing."""
        self.pipe.send((what, args))
        if not self.pipe.poll(patience):
            raise TimeoutError(f"the worker did not answer to {what}")
        return self.pipe.recv()

    def ends(self) -> None:
        """Tell it to leave; kill it if it does not. (Siblings have this pipe too: no end of file would come.)"""
        with contextlib.suppress(OSError):
            self.pipe.send(("leave", ()))
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def workers(count: int, url: str, **engine: Any) -> Iterator[list[Worker]]:
    """So many workers, gone at the end of the block."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(Worker(url, **engine))
            stack.callback(made[-1].ends)
        yield made


def _works(pipe: Pipe, url: str, arguments: dict[str, Any]) -> None:
    """A worker's life."""
    held: list[Any] = []
    is_async = sa.make_url(url).get_dialect().is_async
    made: Any = (create_async_engine if is_async else sa.create_engine)(url, **arguments)
    loop = asyncio.new_event_loop() if is_async else None
    engine: sa.Engine = made.sync_engine if isinstance(made, AsyncEngine) else made

    def fill(count: int, in_transaction: bool = False) -> dict[str, Any]:
        """Check out so many connections, ask through each, and keep them; stop at the first error."""
        for number in range(count):
            try:
                connection = engine.connect()
                connection.execute(sa.text("SELECT 1"))
                if not in_transaction:
                    connection.rollback()
                held.append(connection)
            except sa.exc.SQLAlchemyError as error:
                return {"granted": number, "error": tell(error), "type": _names(error)}
        return {"granted": count}

    def release() -> int:
        while held:
            held.pop().close()
        return engine.pool.checkedin()  # type: ignore[attr-defined, no-any-return]

    def run(statement: str, times: int = 1) -> Any:
        """Execute a statement in so many transactions; its last answer."""
        for _ in range(times):
            with engine.begin() as connection:
                answer = connection.scalar(sa.text(statement), {"n": 1} if ":n" in statement else {})
        return answer

    does: dict[str, Callable[..., Any]] = {"fill": fill, "release": release, "run": run}
    from sqlalchemy.util import greenlet_spawn

    with contextlib.suppress(EOFError):
        while True:
            what, args = pipe.recv()
            if what == "leave":
                break
            try:
                if loop is None:
                    pipe.send(does[what](*args))
                else:
                    pipe.send(loop.run_until_complete(greenlet_spawn(does[what], *args)))
            except Exception as error:  # noqa: BLE001 - told to the asker
                pipe.send({"error": tell(error), "type": _names(error)})
    os._exit(0)


def _names(error: Exception) -> str:
    """An error's type, and the driver's behind it."""
    inner: Any = getattr(error, "orig", None)
    inner = getattr(inner, "__cause__", None) or inner
    return " from ".join(type(one).__name__ for one in (error, inner) if one is not None)


def url_for(url: str, driver: str, user: str | None = None) -> str:
    """A `Server` URL for a driver."""
    chosen = sa.make_url(address(DRIVERS[driver], url)[0])
    return chosen.set(username=user or chosen.username).render_as_string(hide_password=False)


def plain(url: str, database: str | None = None) -> psycopg.Connection[Any]:
    """A psycopg connection outside of every pool, in autocommit, which never prepares."""
    parts = sa.make_url(url)
    return psycopg.connect(
        host=str(parts.query["host"]), port=int(str(parts.query.get("port", 5432))), user=parts.username,
        dbname=database or parts.database, autocommit=True, prepare_threshold=None, connect_timeout=10,
    )  # fmt: skip


def fatal(text: str) -> str:
    """An error text from the server's own words on, without paths."""
    said = re.search(r"(FATAL|ERROR):? .*", text)
    rest = re.sub(r"(/[\w.-]+){2,}(:\d+)?", "...", re.sub(r"^\w+: \([\w.]+\) ", "", text))
    rest = re.sub(r"(__asyncpg_(?:stmt_)?)[0-9a-f-]+__", r"\1...__", rest)  # a counter, or unique
    if pg8000 := re.search(r"'M': '([^']*)'", rest):
        rest = pg8000[1]
    return " ".join((said[0] if said else rest).split())[:200]


# -- the budget -------------------------------------------------------------------------------


def refusal(url: str) -> dict[str, Any]:
    """Fill worker after worker until the server refuses, as a role and as a superuser."""
    with plain(url) as superuser:
        superuser.execute("CREATE ROLE app LOGIN")
        settings = "max_connections", "superuser_reserved_connections", "reserved_connections"
        limits = {name: int(str(superuser.execute(f"SHOW {name}").fetchone()[0])) for name in settings}  # type: ignore[index]
    slots = limits["max_connections"] - sum(limits[name] for name in settings[1:])
    each = POOL_SIZE + MAX_OVERFLOW
    pool = {"pool_size": POOL_SIZE, "max_overflow": MAX_OVERFLOW, "pool_timeout": 0.2}
    app = url_for(url, "psycopg", "app")
    texts: dict[str, dict[str, str]] = {}
    with workers(slots // each + 1, app, **pool) as crew, contextlib.ExitStack() as reserved:
        until_free(url, 1)
        filled = [worker.asked("fill", each) for worker in crew]
        last = filled[-1]
        for driver in ("psycopg2", "asyncpg"):
            with workers(1, url_for(url, driver, "app")) as (late,):
                answer = late.asked("fill", 1)
                texts[driver] = {"type": answer["type"], "text": fatal(answer["error"])}
        texts["psycopg"] = {"type": last["type"], "text": fatal(last["error"])}
        superusers = 0
        try:
            while True:
                reserved.enter_context(plain(url))
                superusers += 1
        except psycopg.OperationalError as error:
            too_many = fatal(str(error))
        reserved.close()
        until_free(url, slots + 1)
        own_limit = crew[0].asked("fill", 1)
        kept = crew[0].asked("release")
        until_free(url, slots)
        again = crew[-1].asked("fill", 1)
        idle = [worker.asked("release") for worker in crew]
        with plain(url) as superuser:
            open_ones = _sessions(superuser, "app")
    return {
        **limits, "slots": slots, "pool_size": POOL_SIZE, "max_overflow": MAX_OVERFLOW,
        "granted": sum(one["granted"] for one in filled), "workers_whole": sum(one["granted"] == each for one in filled),
        "refused": texts, "superusers": superusers, "too_many": too_many,
        "own_limit": {"type": own_limit["type"], "text": own_limit["error"].split(" (")[0]},
        "kept_after_release": kept, "granted_again": again["granted"], "idle_after": sum(idle), "open_after": open_ones,
        "threads": threads_cap(url), "tasks": tasks_cap(url),
    }  # fmt: skip


def _sessions(connection: psycopg.Connection[Any], user: str) -> int:
    """How many sessions of that role the server counts."""
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()", (user,)
    ).fetchone()
    return int(row[0]) if row else 0


def until_free(url: str, sessions: int) -> None:
    """Wait until the server has let go of what was closed, and this question's own session with it.

    A session that has said goodbye holds its slot until its process has ended, a moment later.
    """
    end = time.monotonic() + 20
    with plain(url) as superuser:
        while time.monotonic() < end:
            row = superuser.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            ).fetchone()
            if row is not None and row[0] <= sessions:
                break
            time.sleep(0.01)
        own = superuser.info.backend_pid
    while _alive(own) and time.monotonic() < end:
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def threads_cap(url: str, threads: int = 3) -> dict[str, int]:
    """Sessions that a pool of 5 + 10 opens for some threads, each with one connection at a time."""
    engine = sa.create_engine(url_for(url, "psycopg"))
    opened: list[int] = []
    sa.event.listen(engine, "connect", lambda *_: opened.append(1))
    everybody = threading.Barrier(threads, timeout=20)

    def work() -> None:
        for _ in range(20):
            with engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
                everybody.wait()

    crew = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    engine.dispose()
    return {"threads": threads, "opened": len(opened)}


def tasks_cap(url: str, tasks: int = 40) -> dict[str, int]:
    """Sessions that one asyncio worker with a pool of 5 + 10 opens for many tasks."""

    async def crowd() -> int:
        engine = create_async_engine(url_for(url, "asyncpg"))
        opened: list[int] = []
        sa.event.listen(engine.sync_engine, "connect", lambda *_: opened.append(1))
        full = asyncio.Event()

        async def work() -> None:
            async with engine.connect() as connection:
                await connection.execute(sa.text("SELECT 1"))
                if len(opened) == 15:
                    full.set()
                await full.wait()

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(work())
        await engine.dispose()
        return len(opened)

    return {"tasks": tasks, "opened": asyncio.run(crowd())}


def killed_parents(url: str) -> dict[str, dict[str, int]]:
    """Sessions of a parent that was killed, while its child lives and when the child has gone."""
    found: dict[str, dict[str, int]] = {}
    with plain(url) as referee:
        for name in RECIPES:
            user = f"poolfork_{len(found)}"
            referee.execute(f"CREATE ROLE {user} LOGIN")
            ready, theirs = fork.Pipe()
            pid = os.fork()
            if pid == 0:
                _parent_of_one(name, url_for(url, "psycopg", user), theirs)
            theirs.close()
            if not ready.poll(20):
                raise TimeoutError("the parent did not get ready")
            child = ready.recv()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            left = _sessions_until_none(referee, user, PATIENCE)
            os.kill(child, signal.SIGKILL)
            found[name] = {"while_child_lives": left, "after": _sessions_until_none(referee, user, 20)}
    return found


def _sessions_until_none(referee: psycopg.Connection[Any], user: str, patience: float) -> int:
    end = time.monotonic() + patience
    while (count := _sessions(referee, user)) and time.monotonic() < end:
        time.sleep(0.02)
    return count


def _parent_of_one(recipe: str, url: str, pipe: Pipe) -> None:
    """A parent with two idle connections and a child that applies the recipe and lives on; never returns."""
    parent = Parent(Spec("", "", recipe, "psycopg", url), lambda fact: None)
    parent.has_idle(2)

    def lives_on(child: Any) -> None:
        child.applies_recipe()
        pipe.send(os.getpid())
        time.sleep(60)

    parent.fork(lives_on)
    time.sleep(60)
    os._exit(0)


# -- PgBouncer: how many clients, and who is who ----------------------------------------------


def multiplexing(url: str) -> dict[str, Any]:
    """Client connections against server sessions, and the three ways in which a client is kept out."""
    found: dict[str, Any] = {"default_pool_size": 5, "workers": 6}
    pool = {"pool_size": POOL_SIZE, "max_overflow": MAX_OVERFLOW, "pool_timeout": 0.2}
    for mode in MODES:
        user = f"app_{mode}"
        with plain(url) as superuser:
            superuser.execute(f"CREATE ROLE {user} LOGIN")
        behind = str(sa.make_url(url).set(username=user))
        with servers.pgbouncer(behind, pool_mode=mode, default_pool_size=5, query_wait_timeout=1) as front:
            through = url_for(front.url, "psycopg")
            for what, in_transaction in (("idle", False), ("in_transaction", True)):
                with workers(6, through, **pool) as crew, plain(url) as referee:
                    filled, refused = list[dict[str, Any]](), dict[str, Any]()
                    for worker in crew:
                        filled.append(worker.asked("fill", POOL_SIZE + MAX_OVERFLOW, in_transaction))
                        if "error" in filled[-1]:
                            refused = filled[-1]
                            break
                    found.setdefault(mode, {})[what] = {
                        "clients": sum(one["granted"] for one in filled),
                        "sessions": _sessions(referee, user),
                    } | ({"refused": fatal(refused["error"]), "type": refused["type"]} if refused else {})
            idle: list[Any] = []
            for kind, made in (("QueuePool", {}), ("NullPool", {"poolclass": sa.NullPool})):
                with workers(6, through, **made) as crew:
                    answers = [worker.asked("run", "SELECT 1") for worker in crew]
                    idle.append((kind, sum(answer == 1 for answer in answers)))
            found[mode]["one_after_the_other"] = dict(idle)
    with servers.pgbouncer(url, max_client_conn=2) as front, contextlib.ExitStack() as clients:
        try:
            for _ in range(3):
                clients.enter_context(plain(front.url))
        except psycopg.OperationalError as error:
            found["max_client_conn"] = fatal(str(error))
    try:
        servers.start_pgbouncer(url, max_prepared_statements=100).stop()
        found["max_prepared_statements"] = "accepted"
    except servers.ServerError as error:
        found["max_prepared_statements"] = fatal(str(error).split(" | ")[0])
    return found


def identity(url: str) -> dict[str, Any]:
    """What names a connection through PgBouncer: ``pg_backend_pid()``, and the driver's own number."""
    found: dict[str, Any] = {}
    for mode in MODES:
        with servers.pgbouncer(url, pool_mode=mode, default_pool_size=2) as front:
            with plain(front.url) as one, plain(front.url) as two:
                before = _backend(one)
                if mode == "session":
                    other, shared = _backend(one), _backend(two)
                else:
                    shared = _backend(two)  # nobody is in a transaction: it gets the session used last
                    with two.transaction():
                        _backend(two)
                        other = _backend(one)
                found[mode] = {
                    "one_client": len({before, other}),
                    "two_clients": len({before, shared}),
                    "numbers": len({one.info.backend_pid, two.info.backend_pid}),
                    "number_is_the_backend": one.info.backend_pid == _backend(one),
                }
    with servers.pgbouncer(url, pool_mode="transaction") as front:
        found["scan"] = _scanned(front.url)
    return found


def _backend(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def _scanned(url: str) -> list[dict[str, Any]]:
    """What ``poolfork scan`` says of a connection to PgBouncer that a child inherited."""
    from poolfork.scan import scan

    reader, writer = os.pipe()
    with plain(url):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        shared = scan([os.getpid()]).shared
    os.close(writer)
    os.close(reader)
    os.waitpid(child, 0)
    return [{"kind": one.kind, "processes": len(one.pids)} for one in shared]


# -- PgBouncer: what a session remembers ------------------------------------------------------

# name: what is done, and a question whose answer is true where it is remembered
STATE = {
    "SET statement_timeout": (
        "SET statement_timeout = '7s'",
        "SELECT current_setting('statement_timeout') = '7s'",
    ),
    "SET TimeZone": ("SET TimeZone = 'Asia/Tokyo'", "SELECT current_setting('TimeZone') = 'Asia/Tokyo'"),
    "temporary table": (
        "CREATE TEMPORARY TABLE poolfork_t AS SELECT 1",
        "SELECT to_regclass('pg_temp.poolfork_t') IS NOT NULL",
    ),
    "pg_advisory_lock()": (
        "SELECT pg_advisory_lock(77)",
        "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND pid = pg_backend_pid()",
    ),
    "LISTEN": (
        "LISTEN poolfork_c",
        "SELECT count(*) > 0 FROM pg_listening_channels() AS c WHERE c = 'poolfork_c'",
    ),
    "PREPARE": (
        "PREPARE poolfork_p AS SELECT 1",
        "SELECT count(*) > 0 FROM pg_prepared_statements WHERE name = 'poolfork_p'",
    ),
    "DECLARE ... WITH HOLD": (
        "DECLARE poolfork_h CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*) > 0 FROM pg_cursors WHERE name = 'poolfork_h'",
    ),
}
INSIDE = {
    "SET LOCAL": ("SET LOCAL statement_timeout = '7s'", STATE["SET statement_timeout"][1]),
    "pg_advisory_xact_lock()": ("SELECT pg_advisory_xact_lock(77)", STATE["pg_advisory_lock()"][1]),
    "temporary table ON COMMIT DROP": (
        "CREATE TEMPORARY TABLE poolfork_t ON COMMIT DROP AS SELECT 1",
        STATE["temporary table"][1],
    ),
}


def _true(connection: psycopg.Connection[Any], question: str) -> bool:
    return connection.execute(question).fetchone() == (True,)


def session_state(url: str) -> dict[str, Any]:
    """For each kind of state: does its owner find it in the next transaction, does a stranger find it?"""
    found: dict[str, Any] = {name: {} for name in (*STATE, *INSIDE)}
    always = {"server_reset_query_always": 1}
    for mode, label, settings in (
        ("transaction", "transaction", {}),
        ("session", "session", {}),
        ("transaction", "transaction, server_reset_query_always", always),
    ):
        for name, (do, question) in STATE.items():
            found[name][label] = _remembered(url, mode, settings, do, question)
    for name, (do, question) in INSIDE.items():
        with servers.pgbouncer(url, pool_mode="transaction", default_pool_size=1) as front:
            with plain(front.url) as owner, plain(front.url) as stranger:
                with owner.transaction():
                    owner.execute(do)
                    inside = _true(owner, question)
                found[name]["transaction"] = {"inside": inside, "stranger": _true(stranger, question)}
    for mode in MODES:
        found["LISTEN"][mode]["notified"] = _notified(url, mode)
    return found


def _remembered(url: str, mode: str, settings: dict[str, int], do: str, question: str) -> dict[str, bool]:
    """Owner: asks again while another client is in a transaction on the session that it had. Stranger: comes after."""
    with servers.pgbouncer(url, pool_mode=mode, default_pool_size=2, **settings) as front:
        with plain(front.url) as owner, plain(front.url) as other:
            owner.execute(do)
            with other.transaction():
                other.execute("SELECT 1")
                mine = _true(owner, question)
    with servers.pgbouncer(url, pool_mode=mode, default_pool_size=1, **settings) as front:
        with plain(front.url) as owner:
            owner.execute(do)
        with plain(front.url) as stranger:
            return {"owner": mine, "stranger": _true(stranger, question)}


def _notified(url: str, mode: str) -> bool:
    """Whether a client that listens hears of a NOTIFY, within a second and some questions of its own."""
    with servers.pgbouncer(url, pool_mode=mode, default_pool_size=1) as front, plain(url) as sender:
        with plain(front.url) as listener:
            listener.execute("LISTEN poolfork_c")
            sender.execute("NOTIFY poolfork_c")
            return bool(list(listener.notifies(timeout=1.0, stop_after=1)))


# -- PgBouncer: prepared statements -----------------------------------------------------------

PREPARED: dict[str, tuple[str, dict[str, Any]]] = {
    "psycopg2": ("psycopg2", {}),
    "psycopg": ("psycopg", {}),
    "psycopg, prepare_threshold=None": ("psycopg", {"connect_args": {"prepare_threshold": None}}),
    "asyncpg": ("asyncpg", {}),
    "asyncpg, caches 0": (
        "asyncpg",
        {"connect_args": {"statement_cache_size": 0, "prepared_statement_cache_size": 0}},
    ),
    "asyncpg, caches 0, unique names": (
        "asyncpg",
        {"connect_args": {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "names": True}},
    ),
    "asyncpg, caches 0, unique names, NullPool": (
        "asyncpg",
        {
            "connect_args": {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "names": True},
            "poolclass": sa.NullPool,
        },
    ),
    "pg8000": ("pg8000", {}),
}


def _unique_name() -> str:
    import uuid

    return f"__asyncpg_{uuid.uuid4()}__"


def prepared_statements(url: str) -> dict[str, dict[str, str]]:
    """Each driver's habit behind PgBouncer: ``moved`` to another session, and two workers on one (``met``)."""
    found: dict[str, dict[str, str]] = {}
    for name, (driver, engine) in PREPARED.items():
        arguments = dict(engine.get("connect_args", {}))
        if arguments.pop("names", False):
            arguments["prepared_statement_name_func"] = _unique_name
        found[name] = {}
        for mode in MODES:
            for case, probe in (("moved", _moved), ("met", _met)):
                with servers.pgbouncer(
                    url, pool_mode=mode, default_pool_size=4, query_wait_timeout=5
                ) as front:
                    more = address(DRIVERS[driver], front.url)[1]
                    made = {**engine, "connect_args": arguments | more}
                    found[name][f"{mode}, {case}"] = probe(front.url, url_for(front.url, driver), made)
        for case, probe, sessions in (("left", _left, 1), ("autocommit", _autocommit, 2)):
            with servers.pgbouncer(url, pool_mode="transaction", default_pool_size=sessions) as front:
                more = address(DRIVERS[driver], front.url)[1]
                made = {**engine, "connect_args": arguments | more}
                found[name][case] = probe(front.url, url_for(front.url, driver), made)
    return found


STATEMENT = "SELECT CAST(:n AS INTEGER)"
ROUNDS = 12


def _moved(front: str, url: str, engine: dict[str, Any]) -> str:
    """``ok``, or the error of a worker whose session another client takes after seven executions."""
    with workers(1, url, **engine) as (one,):
        first = one.asked("run", STATEMENT, 7)
        with plain(front) as other, other.transaction():
            other.execute("SELECT 1")  # on the session that was used last: who comes now gets another
            return _how(first, one.asked("run", STATEMENT, 7))


def _met(front: str, url: str, engine: dict[str, Any]) -> str:
    """``ok``, or the first error of two workers that take turns on one session."""
    with workers(2, url, **engine) as (one, two):
        return _how(*(worker.asked("run", STATEMENT, 7) for worker in (one, two, one, two)))


def _left(front: str, url: str, engine: dict[str, Any]) -> str:
    """How many prepared statements a worker leaves on the session for whoever comes next."""
    with workers(1, url, **engine) as (one,):
        one.asked("run", STATEMENT, 7)
        with plain(front) as other:
            row = other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
            return str(row[0] if row else "")


def _autocommit(front: str, url: str, engine: dict[str, Any], crew_size: int = 4, times: int = 200) -> str:
    """``ok``, or the first error of four workers in AUTOCOMMIT on two sessions, in up to `ROUNDS` rounds.

    The error needs another client between two messages of one execution: a race, so it is repeated.
    """
    with workers(crew_size, url, **engine, isolation_level="AUTOCOMMIT") as crew:
        for _ in range(ROUNDS):
            for worker in crew:
                worker.pipe.send(("run", (STATEMENT, times)))
            answers = [worker.pipe.recv() if worker.pipe.poll(60) else "no answer" for worker in crew]
            if (how := _how(*answers)) != "ok":
                return how
    return "ok"


def _how(*answers: Any) -> str:
    wrong = [answer for answer in answers if answer != 1]
    return fatal(wrong[0]["error"]) if wrong and isinstance(wrong[0], dict) else str(wrong or "ok")


# -- PgBouncer: the recipes -------------------------------------------------------------------


def recipes_behind(url: str) -> list[dict[str, Any]]:
    """Hazard x recipe x driver, direct and in each mode; a connection is known by the driver's own number.

    In transaction mode ``pg_backend_pid()`` says nothing about who shares a wire; PgBouncer gives each
    client a number of its own when it connects, and that is what is compared here.
    """
    cells: list[dict[str, Any]] = []
    for mode in ("direct", *MODES):
        for driver in THROUGH:
            with contextlib.ExitStack() as stack:
                way = url
                if mode != "direct":
                    front = servers.pgbouncer(url, pool_mode=mode, default_pool_size=10)
                    way = stack.enter_context(front).url
                through, arguments = address(DRIVERS[driver], way)
                arguments = arguments | QUIET[driver]
                rows = len(RECIPES) * len(HAZARDS)
                table = f"poolfork_{mode}_{driver}"
                direct = Spec("", "", "nothing", "psycopg", url_for(url, "psycopg"), {}, table)
                make_table(direct, list(range(rows)))
                for recipe in RECIPES:
                    for hazard, variant in HAZARDS:
                        spec = Spec(
                            hazard, variant, recipe, driver, through, arguments, table, len(cells) % rows
                        )
                        told = worst_of(spec)
                        cells.append(
                            {"mode": mode, "driver": driver, "recipe": recipe, "hazard": hazard} | told
                        )
    return cells


# Prepared statements off, as behind PgBouncer they have to be.
QUIET: dict[str, dict[str, Any]] = {
    "psycopg": {"prepare_threshold": None},
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": _unique_name,
    },
}


def worst_of(spec: Spec, runs: int = 3) -> dict[str, str]:
    """The first goodbye that is not ok, in so many runs: what is torn down at an exit, and when, varies.

    One that hung is run once more: a real hang hangs again, a machine that stood still for two seconds
    does not. Not so the guard's: of what it promises, one hang is one too many. The held ones, each of
    which inserts its one row, run once.
    """
    if not spec.hazard.startswith("goodbye"):
        return cell(spec)
    for _ in range(runs):
        told = cell(spec)
        if told["outcome"] == "hang" and spec.recipe != "guard":
            told = cell(spec)
        if told["outcome"] != "ok":
            break
    return told


def cell(spec: Spec) -> dict[str, str]:
    """Run one hazard in a process of its own; its worst outcome, and the text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a driver that is upset tells its whole traceback
        code = 1
        try:
            _live_cell(spec, writer)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    told, end = b"", time.monotonic() + 6 * PATIENCE
    while (left := end - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        if not (more := os.read(reader, 65536)) or b'"done"' in told + more:
            told += more
            break
        told += more
    os.close(reader)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    facts = [json.loads(line) for line in told.decode().splitlines() if line.endswith("}")]
    if not any("done" in fact for fact in facts):
        step = next((fact["step"] for fact in reversed(facts) if "step" in fact), "start")
        facts.append({"outcome": "hang", "detail": f"{step}: no end"})
    findings = [(fact["outcome"], fact["detail"]) for fact in facts if "outcome" in fact]
    worst = min(findings or [("ok", "")], key=lambda one: SEVERITY.index(one[0]))
    return {"outcome": worst[0], "detail": fatal(worst[1]) if worst[0] != "ok" else ""}


def _live_cell(spec: Spec, writer: int) -> None:
    parent = Parent(spec, lambda fact: void(os.write(writer, json.dumps(fact).encode() + b"\n")))
    parent.backend = client  # type: ignore[method-assign]  # in the instance: a child has it too
    gc.disable()  # what a driver says when it is collected shows in goodbye-gc, which collects, and only there
    try:
        all_hazards()[spec.hazard].probe(parent, spec.variant)
    except NotRun as reason:
        parent.found("error", str(reason))
    except Exception as error:  # noqa: BLE001 - a finding
        parent.found("error", tell(error))
    parent.report({"done": True})


def void(_: object) -> None:
    """Nothing."""


class Client(int):
    """The number that PgBouncer gave a client connection; as text, the backend that answered it just now."""

    backend: int

    def __new__(cls, number: int, backend: int) -> Client:
        made = super().__new__(cls, number)
        made.backend = backend
        return made

    def __str__(self) -> str:
        return str(self.backend)

    def __reduce__(self) -> tuple[Any, ...]:
        return Client, (int(self), self.backend)


def client(connection: sa.Connection) -> Client:
    """Who asks, and which backend answers: compared by the first, asked about at the server by the second."""
    backend = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    raw: Any = connection.connection.driver_connection
    number = raw.get_server_pid() if hasattr(raw, "get_server_pid") else raw.info.backend_pid
    return Client(number, int(backend or 0))


def check_behind(url: str) -> dict[str, dict[str, str]]:
    """What ``poolfork check`` says of ``forkserver``, which inherits nothing, and of the guard, in each mode."""
    from poolfork.check import check, understand
    from poolfork.cli import BadInput

    found: dict[str, dict[str, str]] = {}
    for mode in MODES:
        with servers.pgbouncer(url, pool_mode=mode, default_pool_size=10) as front:
            chosen, driver = understand(url_for(front.url, "psycopg2"))
            try:
                measured = check(chosen, driver, ["forkserver", "guard"], ["crossed"], 1)
            except BadInput as refused:
                found[mode] = {"refused": str(refused).split(":")[0]}
            else:
                found[mode] = {one["recipe"]: one["outcome"] for one in measured["cells"]}
    return found


def null_pool_cost(url: str, rounds: int = 7, times: int = 30) -> dict[str, float]:
    """How many times a NullPool's checkout takes of a QueuePool's, both direct and both through PgBouncer."""
    with servers.pgbouncer(url, pool_mode="transaction") as front, contextlib.ExitStack() as stack:
        engines = {}
        for way, address_ in (("direct", url), ("through", front.url)):
            for kind in (sa.QueuePool, sa.NullPool):
                engine = sa.create_engine(url_for(address_, "psycopg2"), poolclass=kind)
                stack.callback(engine.dispose)
                engines[way, kind.__name__] = engine
        seconds: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
        for _ in range(rounds):
            for key, engine in engines.items():
                start = time.perf_counter()
                for _ in range(times):
                    with engine.connect() as connection:
                        connection.execute(sa.text("SELECT 1"))
                seconds[key].append(time.perf_counter() - start)
        half = {key: statistics.median(times_) for key, times_ in seconds.items()}
    return {
        way: round(half[way, "NullPool"] / half[way, "QueuePool"], 1) for way in ("direct", "through")
    } | {"null_pool_direct_to_through": round(half["direct", "NullPool"] / half["through", "NullPool"], 1)}
