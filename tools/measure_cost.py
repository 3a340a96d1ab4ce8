"""What the recipes cost when nothing goes wrong: a checkout, a child's first row, a fork, memory; all as ratios.

Every figure comes from a process of its own, forked from one that never made an engine, so that no
recipe sees what another left behind. The processes of one round follow each other in an order drawn
anew; a ratio is taken within a round, and what is told are the median and the quartiles of all rounds.
A process says its fastest batch, which other work on the machine has disturbed least.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import platform
import random
import signal
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

import sqlalchemy as sa

from poolfork.recipes import RECIPES, Recipe

FILES = ("poolfork/guard.py", "poolfork/recipes.py", "poolfork/servers.py", "requirements/html.txt")
AGAIN = "nothing, again"  # how far two equal things differ: what the method can tell apart
FRESH = "fresh engine"
SLOW = ("spawn", "forkserver")  # they start an interpreter, or a server of forks
POOLED = {"psycopg": (1, 10, 100), "sqlite in memory": (1, 10, 100, 1000)}
ROUNDS = {"checkout": 100, "first_row": 16, "slow": 5, "fork": 7, "memory": 2}
BOUND = 60
fork = multiprocessing.get_context("fork")
Ratios = dict[str, list[float]]


def measure(progress: Callable[..., None]) -> dict[str, Any]:
    """All of it, by a fresh interpreter, whose hooks at the fork are nobody's; some minutes."""
    from poolfork.servers import ServerError, postgres

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with postgres() as server:
        url = sa.make_url(server.url).set(drivername="postgresql+psycopg")
        process = context.Process(
            target=_everything, args=(url.render_as_string(hide_password=False), theirs)
        )
        process.start()
        theirs.close()
        try:
            while ours.poll(10 * BOUND):
                kind, value = ours.recv()
                if kind == "found":
                    return dict(value)
                progress(*value)
            raise TimeoutError("a measurement of cost did not end")
        except EOFError:
            raise ServerError("A measurement of cost failed; what failed is told above.") from None
        finally:
            process.kill()
            process.join(10)


def _everything(url: str, pipe: Any) -> None:
    """Measure part by part, and send progress and the result."""
    with sa.create_engine(url).connect() as connection:  # imports the driver, before anything is timed
        server = str(connection.scalar(sa.text("SELECT current_setting('server_version')"))).split()[0]
    sa.create_engine("sqlite://").connect().close()
    done, total = 0, sum(ROUNDS.values())

    def rounds(kind: str) -> Iterable[int]:
        nonlocal done
        for number in range(ROUNDS[kind]):
            yield number
            done += 1
            pipe.send(("progress", (done, total, 0)))

    found = {
        "checkout": checkouts(url, rounds("checkout")),
        "first_row": first_rows(url, rounds("first_row"), rounds("slow")),
        "fork": forks(url, rounds("fork")),
        "new_pool": quartiles([apart(one_new_pool, url) for _ in range(ROUNDS["fork"])]),
        "memory": memory(url, rounds("memory")),
        "rounds": ROUNDS,
        "load": os.getloadavg()[0] / (os.cpu_count() or 1),
        "versions": {
            "Python": platform.python_version(),
            "SQLAlchemy": metadata.version("sqlalchemy"),
            "psycopg": metadata.version("psycopg"),
            "PostgreSQL": server,
            "machine": f"{platform.system()} {platform.machine()}",
        },
    }
    pipe.send(("found", found))


def apart(work: Callable[..., Any], *args: Any) -> Any:
    """What work(*args) returns in a child that leaves by os._exit."""

    def run() -> None:
        signal.alarm(BOUND)
        theirs.send(work(*args))

    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=run)
    child.start()
    theirs.close()
    try:
        if not ours.poll(BOUND):
            raise TimeoutError(f"{work.__name__}{args[1:]} did not end within {BOUND} s")
        return ours.recv()
    finally:
        child.kill()
        child.join(10)


def shuffled(names: Iterable[str]) -> list[str]:
    """The names in an order drawn anew."""
    names = list(names)
    return random.sample(names, len(names))


def quartiles(found: list[float]) -> list[float]:
    """First quartile, median, third quartile."""
    return [round(value, 4) for value in statistics.quantiles(found, n=4, method="inclusive")]


def made(url: str, recipe: Recipe) -> sa.Engine:
    """The application's engine, with the recipe's part of it."""
    engine = sa.create_engine(url, **dict(recipe.engine_arguments))
    recipe.prepare(engine)
    return engine


def of(name: str) -> Recipe:
    """The recipe of that name; the second bare pool is one too."""
    return RECIPES["nothing"] if name in (AGAIN, FRESH) else RECIPES[name]


def best(work: Callable[[], object], batches: int, size: int) -> float:
    """Seconds that work() takes, in the fastest of so many batches."""
    seconds = []
    for _ in range(batches):
        began = time.perf_counter()
        for _ in range(size):
            work()
        seconds.append(time.perf_counter() - began)
    return min(seconds) / size


# -- a checkout in the parent -----------------------------------------------------------------


def checkouts(url: str, rounds: Iterable[int]) -> dict[str, Ratios]:
    """Against a bare pool: a checkout with its checkin, alone and around a SELECT, with each recipe that acts there."""
    bare = RECIPES["nothing"]
    acting = [
        name
        for name, recipe in RECIPES.items()
        if recipe.prepare is not bare.prepare or recipe.engine_arguments
    ]
    names = ["nothing", AGAIN, *acting]
    alone, around = ({name: list[float]() for name in names} for _ in range(2))
    for _ in rounds:
        seconds = {name: apart(one_checkout, url, name) for name in shuffled(names)}
        for name in names:
            alone[name].append(seconds[name][0] / seconds["nothing"][0])
            around[name].append(seconds[name][1] / seconds["nothing"][1])
    return {
        "alone": {name: quartiles(found) for name, found in alone.items()},
        "around a SELECT": {name: quartiles(found) for name, found in around.items()},
    }


def one_checkout(url: str, name: str) -> tuple[float, float]:
    """Seconds for a checkout and its checkin, and for one with a SELECT between the two."""
    engine, select = made(url, of(name)), sa.text("SELECT 1")

    def around() -> None:
        with engine.connect() as connection:
            connection.scalar(select)

    around()
    batches, size = (6, 1) if isinstance(engine.pool, sa.NullPool) else (60, 25)
    return best(lambda: engine.connect().close(), batches, size), best(around, batches, max(1, size // 5))


# -- a child's first row ----------------------------------------------------------------------


def first_rows(url: str, rounds: Iterable[int], slow: Iterable[int]) -> Ratios:
    """Against a child that makes an engine of its own: from the parent's start() until the child has a row."""
    names = [FRESH, *(name for name in RECIPES if name not in ("nothing", *SLOW))]
    ratios: Ratios = {name: [] for name in [*names, *SLOW]}
    for which, chosen in (rounds, names), (slow, [FRESH, *SLOW]):
        for _ in which:
            seconds = {name: apart(one_first_row, url, name) for name in shuffled(chosen)}
            for name in chosen:
                ratios[name].append(seconds[name] / seconds[FRESH])
    return {name: quartiles(found) for name, found in ratios.items()}


def one_first_row(url: str, name: str) -> float:
    """Seconds from the start of a child until it has a row, the fastest of some."""
    recipe = of(name)
    engine = made(url, recipe)
    context: Any = multiprocessing.get_context(recipe.start)
    engine.connect().close()
    seconds = []
    for _ in range(2 if name in SLOW else 4):
        ours, theirs = context.Pipe(duplex=False)
        began = time.perf_counter()
        if recipe.dispose_before_fork:
            engine.dispose()
        inherits = recipe.start == "fork" and name != FRESH
        child = context.Process(target=reads_a_row, args=(url, name, engine if inherits else None, theirs))
        child.start()
        theirs.close()
        if not ours.poll(BOUND):
            raise TimeoutError(f"{name}: no row within {BOUND} s")
        seconds.append(float(ours.recv()) - began)
        child.join(BOUND)
        with contextlib.suppress(
            sa.exc.OperationalError
        ):  # dispose: the child has ended the parent's session
            engine.connect().close()
    return min(seconds)


def reads_a_row(url: str, name: str, engine: sa.Engine | None, pipe: Any) -> None:
    """The child: apply the recipe, read a row, say when."""
    recipe = of(name)
    if engine is None:
        engine = sa.create_engine(url)
    elif recipe.dispose_in_child is not None:
        engine.dispose(**recipe.dispose_in_child)
    with engine.connect() as connection:
        connection.scalar(sa.text("SELECT 1"))
    pipe.send(time.perf_counter())


# -- a fork in the parent ---------------------------------------------------------------------


def forks(url: str, rounds: Iterable[int]) -> dict[str, dict[str, Ratios]]:
    """What the guard's hooks cost at a fork, with so many pooled connections: in forks, and in microseconds."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {
        driver: {str(many): {"forks": [], "parent": [], "child": []} for many in numbers}
        for driver, numbers in POOLED.items()
    }
    for _ in rounds:
        for driver, numbers in POOLED.items():
            for many in numbers:
                whole, parent, child = apart(one_fork, url, driver, many)
                for key, value in ("forks", whole), ("parent", parent), ("child", child):
                    found[driver][str(many)][key].append(value)
    return {
        driver: {
            many: {key: quartiles(values) for key, values in told.items()} for many, told in cells.items()
        }
        for driver, cells in found.items()
    }


def one_fork(url: str, driver: str, many: int) -> tuple[float, float, float]:
    """Medians of some forks: with hooks / without; the hooks' microseconds in parent and child.

    Hooks run in the reverse order of their registration before the fork and in that order after it, so
    that one pair of ours lies inside of the guard's and one outside, and one fork gives both times:
    processor time, because a child that waits for a processor costs nobody anything.
    """
    clock: dict[str, float] = {}

    def look(begin: str, end: str, child: str) -> None:
        def at(moment: str) -> Callable[[], None]:
            return lambda: clock.update({moment: time.thread_time()})

        os.register_at_fork(before=at(begin), after_in_parent=at(end), after_in_child=at(child))

    def told(child: int, reader: int) -> float:
        os.waitpid(child, 0)
        return float(os.read(reader, 100))

    look("fork begins", "fork ends", "child begins")
    of_url = url if driver == "psycopg" else "sqlite://"
    engine = sa.create_engine(of_url, poolclass=sa.QueuePool, pool_size=many, max_overflow=0)
    RECIPES["guard"].prepare(engine)
    look("hooks begin", "hooks end", "child ends")
    with contextlib.ExitStack() as stack:
        for _ in range(many):
            stack.enter_context(engine.connect())
    whole, parent, in_child = [], [], []
    for _ in range(20):
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            os.write(writer, f"{clock['child ends'] - clock['child begins']}".encode())
            os._exit(0)
        in_child.append(told(child, reader))
        os.close(reader)
        os.close(writer)
        inner, outer = clock["fork ends"] - clock["fork begins"], clock["hooks end"] - clock["hooks begin"]
        whole.append(outer / inner)
        parent.append((outer - inner) * 1e6)
    return statistics.median(whole), statistics.median(parent), statistics.median(in_child) * 1e6


def one_new_pool(url: str) -> float:
    """Microseconds of processor time that ``dispose(close=False)`` takes in a child, the median of some."""
    engine = sa.create_engine(url)
    engine.connect().close()

    def child() -> float:
        began = time.thread_time()
        engine.dispose(close=False)
        return time.thread_time() - began

    return statistics.median(float(apart(child)) * 1e6 for _ in range(10))


# -- memory -----------------------------------------------------------------------------------


def memory(url: str, rounds: Iterable[int]) -> dict[str, Ratios]:
    """Python's memory against a bare engine's: for an engine, and for one with a hundred connections."""
    names = [name for name, recipe in RECIPES.items() if recipe.start == "fork"]
    ratios: dict[str, Ratios] = {kind: {name: [] for name in names} for kind in ("engine", "connection")}
    for _ in rounds:
        taken = {name: apart(one_memory, url, name) for name in shuffled(names)}
        for name in names:
            for kind, value, bare in zip(ratios, taken[name], taken["nothing"], strict=True):
                ratios[kind][name].append(value / bare)
    return {kind: {name: quartiles(found) for name, found in told.items()} for kind, told in ratios.items()}


def one_memory(url: str, name: str) -> tuple[float, float]:
    """Bytes that an engine takes, and each of a hundred connections held in it (SQLite's, in memory)."""
    recipe, many = of(name), 100
    pool: dict[str, Any] = {"poolclass": sa.QueuePool, "pool_size": many}
    pool = dict(recipe.engine_arguments) or pool

    def build(count: int) -> tuple[sa.Engine, list[sa.Connection]]:
        engine = sa.create_engine("sqlite://", **pool)
        recipe.prepare(engine)
        return engine, [engine.connect() for _ in range(count)]

    def taken(count: int) -> float:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        kept = build(count)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before + 0 * len(kept)

    warm = build(1)  # whatever the first engine of its kind leaves behind is no engine's
    tracemalloc.start()
    engine = taken(0)
    del warm
    return engine, (taken(many) - engine) / many
