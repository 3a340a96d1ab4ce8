"""The truth table: every hazard x recipe x driver, measured on throw-away servers, as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from poolfork import servers
from poolfork.actors import SEVERITY, Spec, slowness
from poolfork.drivers import DRIVERS, Driver, address, machine, of_url, versions
from poolfork.hazards import Hazard, all_hazards
from poolfork.recipes import RECIPES, Recipe, recipe

Cell = dict[str, Any]
CELLS_AT_ONCE = 8  # of one nursery, most of which wait rather than work
AT_WORK = min(12, 4 * (os.cpu_count() or 2))  # cells of all nurseries
AT_WORK_FOR = (
    0.4 * slowness()
)  # seconds; who takes longer waits for what does not come, except where much is to be done


class NurseryError(RuntimeError):
    """A nursery died: a driver crashed it, or somebody killed it."""


@dataclass
class Job:
    """A cell that is to be measured, with the address of its server still open."""

    cell: Cell
    key: str = ""
    told_elsewhere: bool = False

    @property
    def transport(self) -> str:
        """Which of the server's doors it goes through."""
        return "tls" if self.cell["hazard"] == "tls" else "socket"

    @property
    def spawns(self) -> bool:
        """Whether its child is a new program, which keeps a processor busy for half a second."""
        return recipe(self.cell["recipe"]).start == "spawn"


@dataclass
class Door:
    """A server as one driver reaches it: URL and connect arguments."""

    url: str
    connect_args: dict[str, Any] = field(default_factory=dict)


def plan(
    drivers: Iterable[Driver],
    recipes: Iterable[str],
    hazards: Iterable[Hazard],
    *,
    variants: bool = True,
) -> list[Job]:
    """All cells, in the table's order. A new program inherits nothing: there only a hazard's first variant."""
    jobs = []
    for driver in drivers:
        for hazard in hazards:
            for name in recipes:
                several = (
                    variants
                    and recipe(name).start == "fork"
                    and not meaningless(driver, recipe(name), hazard)
                )
                for variant in hazard.variants if several else hazard.variants[:1]:
                    cell = {"hazard": hazard.name, "variant": variant, "recipe": name, "driver": driver.name}
                    jobs.append(Job(cell))
    return jobs


class Measurement:
    """Runs jobs in nurseries, one nursery a driver at a time, and collects their cells."""

    def __init__(self, progress: Callable[[int, int, int], None] | None = None) -> None:
        self.progress = progress or (lambda done, total, bad: None)
        self.done = self.total = self.bad = 0
        self.server_versions: dict[str, str] = {}
        self.places = asyncio.Semaphore(AT_WORK)
        self.programs = asyncio.Semaphore(os.cpu_count() or 2)

    async def run(
        self,
        groups: dict[str, list[Job]],
        doors: Callable[[str, str], Door],
        lines: dict[str, socket.socket],
        *,
        cells_at_once: int = CELLS_AT_ONCE,
        keep_going: bool = False,
        finished: Callable[[str], object] = lambda name: None,
    ) -> None:
        """Measure the groups (a driver's name and its jobs); the outcome is written into each job's cell.

        ``lines`` are those of `nurseries`. With ``keep_going`` a driver whose server or nursery fails is
        ``not-run``; else that is raised. ``finished`` is told each driver's name when its cells are over.
        """
        self.total = sum(map(len, groups.values()))
        self.progress(0, self.total, 0)

        async def one(name: str, jobs: list[Job]) -> None:
            try:
                await self._group(name, jobs, doors, lines[name], cells_at_once)
            except (servers.ServerError, NurseryError) as error:
                if not keep_going:
                    raise
                for job in jobs:
                    job.cell.setdefault("outcome", "not-run")
                    job.cell |= {"detail": str(error), "runs": 0} if job.cell["outcome"] == "not-run" else {}
            finished(name)

        try:
            async with asyncio.TaskGroup() as tasks:
                for name, jobs in sorted(groups.items(), key=lambda group: -len(group[1])):
                    tasks.create_task(one(name, jobs))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _group(
        self,
        name: str,
        jobs: list[Job],
        doors: Callable[[str, str], Door],
        line: socket.socket,
        cells_at_once: int,
    ) -> None:
        hears, says = await asyncio.open_connection(sock=line, limit=2**20)
        try:
            table = f"poolfork_{secrets.token_hex(6)}"

            def spec(number: int, job: Job) -> dict[str, Any]:
                door = doors(name, job.transport)
                cell = job.cell
                url = door.url.replace("POOLFORK_CELL", str(number))
                return asdict(
                    Spec(
                        cell["hazard"],
                        cell["variant"],
                        cell["recipe"],
                        name,
                        url,
                        door.connect_args,
                        table,
                        number,
                    )
                )

            async def ask(question: dict[str, Any]) -> None:
                says.write(json.dumps(question).encode() + b"\n")
                await says.drain()

            async def answer() -> dict[str, Any]:
                line = await hears.readline()
                if not line:
                    raise NurseryError(f"the nursery of {name} died")
                return dict(json.loads(line))

            for job in {job.transport == "tls": job for job in jobs}.values():
                await ask({"do": "table", "rows": list(range(len(jobs))), "spec": spec(-1, job)})
                made = await answer()
                if "error" in made:
                    raise servers.ServerError(made["error"])
                self.server_versions |= {name: made["server"]} if made else {}
            under_way, at_work = asyncio.Semaphore(cells_at_once), dict[int, asyncio.Semaphore]()

            def gives_up_its_place(number: int) -> None:
                if number in at_work:
                    at_work.pop(number).release()

            def has_had_its_time(number: int) -> None:
                if number in at_work and _processors_are_taken():  # then it may be slow rather than wait
                    asyncio.get_running_loop().call_later(AT_WORK_FOR, has_had_its_time, number)
                else:
                    gives_up_its_place(number)

            async def ask_for(lane: list[int], slots: asyncio.Semaphore) -> None:
                for number in lane:
                    await under_way.acquire()
                    await slots.acquire()
                    at_work[number] = slots
                    if slots is self.places and not all_hazards()[jobs[number].cell["hazard"]].busy:
                        asyncio.get_running_loop().call_later(AT_WORK_FOR, has_had_its_time, number)
                    await ask({"do": "cell", "number": number, "spec": spec(number, jobs[number])})

            lanes: tuple[list[int], list[int]] = [], []
            # The last hazards wait longest: they begin. So does crossed, which may hang: nothing shall at the end.
            for number in sorted(range(len(jobs)), key=lambda n: (jobs[n].cell["hazard"] != "crossed", -n)):
                lanes[jobs[number].spawns].append(number)
            asking = [
                asyncio.create_task(ask_for(lane, slots))
                for lane, slots in zip(lanes, (self.places, self.programs), strict=True)
            ]
            try:
                for _ in jobs:
                    result = await answer()
                    number = result.pop("number")
                    gives_up_its_place(number)
                    under_way.release()
                    cell = jobs[number].cell
                    cell |= result | {"measured": _now()}
                    self.done += 1
                    self.bad += cell["outcome"] not in ("ok", "not-run")
                    self.progress(self.done, self.total, self.bad)
            finally:
                for task in asking:
                    task.cancel()
                for number in list(at_work):
                    gives_up_its_place(number)
        finally:
            with contextlib.suppress(OSError):
                says.write_eof()  # it ends its cells and drops its table
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(asyncio.shield(hears.read()), 15)
            says.close()


def _processors_are_taken() -> bool:
    """Whether more wants to run at this moment than two for each processor; False where the system does not tell."""
    try:
        runnable = pathlib.Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    except (OSError, IndexError):
        return False
    return int(runnable) > 2 * (os.cpu_count() or 1)


@contextlib.contextmanager
def nurseries(
    groups: dict[str, list[Job]], dialects: dict[str, str] | None = None, **environment: str
) -> Iterator[dict[str, socket.socket]]:
    """Start a nursery for each group's driver; yields what speaks with each. They warm up by themselves.

    ``dialects`` names those that a driver's name does not tell.
    """
    chosen = {name: (dialects or {}).get(name) or DRIVERS[name].dialect for name in groups}
    methods = {recipe(job.cell["recipe"]).start for jobs in groups.values() for job in jobs}
    with contextlib.ExitStack() as stack:
        pairs = {name: socket.socketpair() for name in chosen}
        ours = {name: stack.enter_context(pair[0]) for name, pair in pairs.items()}
        theirs = {name: pair[1] for name, pair in pairs.items()}
        job = {
            "lines": {line.fileno(): chosen[name] for name, line in theirs.items()},
            "methods": sorted(methods),
            "preload": _preloaded(chosen.values()) if "forkserver" in methods else [],
        }
        try:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",  # not -m: a spawned child would import the nursery once more, as its main module
                    "from poolfork.nursery import main; main()",
                ],
                pass_fds=[line.fileno() for line in theirs.values()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=None if "POOLFORK_DEBUG" in os.environ else subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | environment,
            )
        finally:
            for line in theirs.values():
                line.close()
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as says:  # type: ignore[union-attr]
                says.write(json.dumps(job).encode())
            yield ours
        finally:
            for line in ours.values():
                line.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)


def _preloaded(dialects: Iterable[str]) -> list[str]:
    """The modules that a forkserver imports, for its children to find."""
    modules = [hazard.probe.__module__ for hazard in all_hazards().values()]
    for url in [sa.make_url(f"{dialect}://") for dialect in dialects]:
        kind = url.get_dialect()
        modules += [kind.__module__, *of_url(url).modules, *["sqlalchemy.ext.asyncio"] * kind.is_async]
    return [*dict.fromkeys(modules), "poolfork.rehearsal"]


@contextlib.contextmanager
def throw_away_servers(kinds: set[str]) -> Iterator[dict[str, servers.Server]]:
    """Start the servers of some kinds (``postgresql``, ``postgresql+tls``, ``mysql``, ``sqlite``), at the same time."""
    starts: dict[str, Callable[[], servers.Server]] = {
        "postgresql": lambda: servers.start_postgres(tcp=True),
        "postgresql+tls": lambda: servers.start_postgres(servers.openssl_postgres_home(), tcp=True),
        "mysql": servers.start_mariadb,
        "sqlite": servers.start_sqlite,
    }
    with ThreadPoolExecutor() as pool:
        starting = {kind: pool.submit(start) for kind, start in starts.items() if kind in kinds}
    running = {kind: future.result() for kind, future in starting.items() if future.exception() is None}
    try:
        for future in starting.values():
            if error := future.exception():
                raise error
        yield running
    finally:
        with ThreadPoolExecutor() as pool:
            stopping = [pool.submit(server.stop) for server in running.values()]
        for stopped in stopping:
            stopped.result()


def table(
    *,
    drivers: Iterable[str] | None = None,
    recipes: Iterable[str] | None = None,
    hazards: Iterable[str] | None = None,
    repeat: int = 1,
    every_cell: bool = False,
    cache: bool = True,
    progress: Callable[[int, int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure the table (all of it, or the named part) and return it as the JSON that the site renders.

    What is `told_elsewhere` is measured with ``every_cell``, or if ``recipes`` or ``hazards`` are named.

    ``cells`` is a list, each with hazard, variant, recipe, driver, outcome, runs, detail, seconds and the
    time it was measured (with ``repeat``, each is measured so many times: the worst outcome counts, and
    ``passed`` says how often it was ok); ``versions``, ``hazards`` (criterion and source) and ``not_run`` (what was not
    run, why, and the command that would make it run) stand beside it. Raises `servers.ServerError`.
    """
    not_run: list[dict[str, str]] = []
    chosen = []
    for name in drivers or DRIVERS:
        driver = DRIVERS[name]
        if reason := driver.missing():
            not_run.append({"driver": name, "reason": reason, "command": f"pip install {driver.package[0]}"})
        elif driver.server == "mysql" and servers.mariadb_home() is None:
            command = "apt-get install mariadb-server-core  # or: brew install mariadb"
            not_run.append({"driver": name, "reason": "no mariadbd on this machine", "command": command})
        else:
            chosen.append(driver)
    found = all_hazards()
    jobs = plan(chosen, list(recipes or RECIPES), [found[name] for name in hazards or found])
    server_versions = _server_versions(chosen)
    driver_versions, base = {driver.name: versions(driver) for driver in chosen}, base_versions()
    memory = Memory.load() if cache else Memory({})
    code = _code()
    to_measure: dict[str, list[Job]] = {}
    why_no_tls = _why_no_tls()
    for job in jobs:
        driver, how = DRIVERS[job.cell["driver"]], recipe(job.cell["recipe"])
        hazard = found[job.cell["hazard"]]
        reason = how.missing() or meaningless(driver, how, hazard)
        if not (every_cell or recipes or hazards) and not reason:  # what is named is measured
            reason = told_elsewhere(how, hazard, job.cell["variant"])
            job.told_elsewhere = reason is not None
        if job.transport == "tls":
            reason = reason or why_no_tls
        if reason:
            job.cell |= {"outcome": "not-run", "detail": reason, "runs": 0}
            continue
        guard = _digest(_here() / "guard.py") if how.name.startswith("guard") else ""
        job.key = _hash(
            [
                code,
                guard,
                job.cell,
                driver_versions[driver.name],
                base,
                server_versions.get(job.transport + driver.server),
                repeat,
            ]
        )
        if job.key in memory.cells:
            job.cell |= memory.cells[job.key]
        else:
            to_measure.setdefault(driver.name, []).append(job)
    if to_measure:
        rounds = {name: again_and_again(waiting, repeat) for name, waiting in to_measure.items()}
        try:
            _measure(rounds, Measurement(progress))
        finally:  # an interrupted table goes on where it stopped
            for name, waiting in to_measure.items():
                take_the_worst(waiting, rounds[name], repeat)
            kept = {} if not (drivers or recipes or hazards) else memory.cells
            memory.cells = kept | {
                job.key: {name: job.cell[name] for name in _MEASURED if name in job.cell}
                for job in jobs
                if job.key and "seconds" in job.cell
            }
            if cache:
                memory.save()
    return {
        "cells": [job.cell for job in jobs],
        "versions": base
        | {
            "servers": {kind: text for kind, text in server_versions.items() if text},
            "drivers": driver_versions,
        },
        "hazards": {
            hazard.name: {
                "passes_when": hazard.passes_when,
                "steps": (hazard.probe.__doc__ or "").strip(),
                "variants": list(hazard.variants),
                "source": list(hazard.source),
            }
            for hazard in found.values()
        },
        "recipes": list(RECIPES),
        "not_run": not_run,
        "told_elsewhere": sum(job.told_elsewhere for job in jobs),
        "written": _now(),
    }


def meaningless(driver: Driver, how: Recipe, hazard: Hazard) -> str | None:
    """Why a cell has no meaning, or None; said here, such cells need no process."""
    if hazard.only == "asyncio" and not driver.is_async:
        return "only an asyncio driver has a loop"
    if hazard.only == "threads" and driver.is_async:
        return "an asyncio engine is not shared between threads"
    if hazard.only == "sqlite" and driver.server != "sqlite":
        return "only SQLite's locks belong to a process"
    if hazard.only == "postgresql" and driver.server != "postgresql":
        return "only PostgreSQL has it"
    if hazard.name == "tls" and driver.server == "sqlite":
        return "a file has no wire to encrypt"
    if hazard.name == "c-fork" and how.start != "fork":
        return f"{how.start} starts a new program: there is no bare fork from C"
    if how.start == "spawn" and hazard.name not in _SPAWNED:
        return _AS_FORKSERVER
    return None


def told_elsewhere(how: Recipe, hazard: Hazard, variant: str) -> str | None:
    """Why a cell's outcome follows from that of another, which is measured, or None.

    That it does is tested, on the published table, which has every cell. The guard is measured on all of them.
    """
    if how.name == "guard":
        return None
    if how.start == "spawn":
        return _AS_FORKSERVER
    if reason := _AS_GOODBYE_EXIT.get((hazard.name, variant)):
        return f"{reason}: as measured on goodbye-exit"
    if hazard.name in _OF_ITS_OWN.get(how.name, (hazard.name,)):
        return None
    if how.name == "at-fork":
        return "the call of dispose(close=False), made by the hook: as measured there"
    return "a new program inherits nothing, whatever the parent holds: as measured on the other hazards"


_SPAWNED = ("crossed",)
_AS_FORKSERVER = "a new program, as with forkserver, which is measured; each spawned child costs a second"
# The hazards on which a recipe can do otherwise than the recipe that tells its outcome.
_OF_ITS_OWN = {
    "at-fork": ("crossed", "starved", "grandchild", "c-fork", "event-loop"),
    "forkserver": ("crossed", "goodbye-exit", "held-use", "starved", "locked", "state"),
}
_AS_GOODBYE_EXIT = {
    ("temp-table", ""): "a temporary table is lost with its session",
    ("tls", "goodbye-exit"): "the same goodbye, encrypted",
}
_MEASURED = ("outcome", "detail", "runs", "seconds", "measured", "passed", "repeat")


def again_and_again(jobs: list[Job], repeat: int) -> list[Job]:
    """The same cells ``repeat`` times, one round after the other."""
    return [Job(dict(job.cell)) for _ in range(repeat) for job in jobs]


def take_the_worst(jobs: list[Job], rounds: list[Job], repeat: int) -> None:
    """Write into each job's cell the worst outcome of its rounds, if all of them were measured."""
    for number, job in enumerate(jobs):
        cells = [again.cell for again in rounds[number :: len(jobs)] if "outcome" in again.cell]
        if len(cells) < repeat:
            continue
        words = [cell["outcome"] for cell in cells]
        rank = [SEVERITY.index(word) if word in SEVERITY else len(SEVERITY) for word in words]
        job.cell |= cells[rank.index(min(rank))] | {"runs": sum(cell["runs"] for cell in cells)}
        if repeat > 1:
            job.cell |= {"passed": words.count("ok"), "repeat": repeat}


def _measure(groups: dict[str, list[Job]], measurement: Measurement) -> None:
    kinds = {DRIVERS[name].server for name in groups}
    if "postgresql" in kinds and servers.openssl_postgres_home():
        kinds.add("postgresql+tls")
    measurement.progress(0, sum(map(len, groups.values())), 0)  # servers take seconds to start
    # Our own authority is named; the system's hundred and more would be read by every connection.
    with nurseries(groups, SSL_CERT_FILE=os.devnull) as lines, throw_away_servers(kinds) as running:

        def doors(name: str, transport: str) -> Door:
            driver = DRIVERS[name]
            if driver.server == "sqlite":
                return Door(f"{driver.dialect}:///{running['sqlite'].folder}/{name}-POOLFORK_CELL.db")
            server = running[driver.server]
            if transport == "tls":
                server = running.get(f"{driver.server}+tls", server)
                return Door(*address(driver, str(server.tls), str(server.ca)))
            return Door(*address(driver, server.url))

        needed = [DRIVERS[name].server for name in groups]

        def finished(name: str) -> None:
            needed.remove(server := DRIVERS[name].server)
            if server not in needed:  # it need not be waited for at the end
                stops.submit(running[server].stop)

        with ThreadPoolExecutor() as stops:
            asyncio.run(measurement.run(groups, doors, lines, keep_going=True, finished=finished))


@dataclass
class Memory:
    """Cells measured before, by a hash of everything that decides them."""

    cells: dict[str, Cell]

    @staticmethod
    def _file() -> pathlib.Path:
        base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
        return pathlib.Path(base, "poolfork", "cells.json")

    @classmethod
    def load(cls) -> Memory:
        """What the cache file holds; nothing if there is none, or it is not ours to read."""
        try:
            return cls(dict(json.loads(cls._file().read_text())))
        except (OSError, ValueError):
            return cls({})

    def save(self) -> None:
        """Write the cache file in one piece; a folder that cannot be written is no error."""
        file = self._file()
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(self.cells))
            draft.replace(file)


def _here() -> pathlib.Path:
    return pathlib.Path(__file__).parent


def _digest(file: pathlib.Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""


def _code() -> str:
    files = [
        _here() / f"{name}.py" for name in ("actors", "drivers", "nursery", "recipes", "rehearsal", "servers")
    ]
    return _hash([_digest(file) for file in files + sorted((_here() / "hazards").glob("*.py"))])


def _hash(thing: Any) -> str:
    return hashlib.sha256(json.dumps(thing, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def base_versions() -> dict[str, str]:
    """Python, SQLAlchemy and the machine."""
    return {
        "python": platform.python_version(),
        "sqlalchemy": importlib.metadata.version("sqlalchemy"),
        "machine": machine(),
    }


def _server_versions(drivers: list[Driver]) -> dict[str, str | None]:
    """What the server programs say of themselves, by transport and kind, without starting them."""
    kinds = {driver.server for driver in drivers}
    told: dict[str, str | None] = {}
    if "postgresql" in kinds:
        told["socketpostgresql"] = told["tcppostgresql"] = _says(servers.postgres_home() / "bin" / "postgres")
        home = servers.openssl_postgres_home()
        told["tlspostgresql"] = (
            _says(home / "bin" / "postgres") if home else f"{told['tcppostgresql']}, behind a TLS front"
        )
    if "mysql" in kinds and (folder := servers.mariadb_home()):
        told["socketmysql"] = told["tcpmysql"] = told["tlsmysql"] = _says(folder / "mariadbd")
    return told


def _says(program: pathlib.Path) -> str:
    said = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
    )
    return said.stdout.strip().removeprefix(str(program)).strip()


def _why_no_tls() -> str | None:
    try:
        import trustme  # noqa: F401
    except ImportError:
        return "no certificates: pip install trustme"
    return None
