"""What a stack is, and how it is measured: started for real, asked under load, watched from inside and outside.

A `Stack` is one program that forks (or does not), with one setting. It is run once for each recipe: nothing,
Python's at-fork hook, the stack's own hook, the guard. Its app is a file under doc/stacks/apps that a reader can run
alone; which recipe it applies is told by the environment variable RECIPE. What happens in its processes is
written down by ``witness/sitecustomize.py``. However a run ends, ``kill -9`` of this program included, a keeper
ends all of its processes and removes its folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import importlib.util
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import psutil

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
APPS = ROOT / "doc" / "stacks" / "apps"
WITNESS = pathlib.Path(__file__).parent / "witness"
BIN = pathlib.Path(sys.executable).parent
WORDS = ("right", "wrong-row", "error", "hang")
RECIPES = ("nothing", "at-fork", "hook", "guard")
Counts = dict[str, int]
Event = dict[str, Any]

# Waits until its standard input ends, as it does however we end; then nothing of the run is left. A process of the
# run is known by STACK_EVENTS in its environment, whatever session or parent it gave itself.
_KEEPER = r"""
trap '' INT TERM HUP PIPE
tries=0
cat >/dev/null
while left=$(grep -lszFx "STACK_EVENTS=$1/events" /proc/[0-9]*/environ); [ "$left" ]; do
  for environ in $left; do p=${environ%/environ}; kill -9 "${p#/proc/}" 2>/dev/null; done
  tries=$((tries + 1)); [ "$tries" -lt 20 ] || break
done
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""


class StackError(Exception):
    """A stack did not start, or gave no counts; the message has the end of its output."""


@dataclasses.dataclass(frozen=True)
class Stack:
    """One program that forks, with one setting."""

    name: str  # the page: gunicorn
    setting: str  # what distinguishes it: --preload
    app: str  # folder under doc/stacks/apps
    command: Callable[[int], list[str]]  # from a free port, what to start, in a copy of the app's folder
    needs: tuple[str, ...] = ()  # modules that must be importable
    programs: tuple[str, ...] = ()  # programs that must be on PATH
    package: str = ""  # the distribution whose version is told
    hook: str = ""  # the stack's own hook, as its documentation spells it; empty: there is none
    install: str = ""  # the command that would make it run, where it is not obvious
    web: bool = False  # serves HTTP on the port; else the program does its own load and prints the counts
    respawn: bool = False  # end one worker while it runs, and look at the one that replaces it
    reaches: bool = True  # expected: a connection that was opened before the workers start reaches them
    clean: tuple[str, ...] | None = (
        None  # expected: recipes that leave all answers right; None: all that there are
    )
    recipes: tuple[
        str, ...
    ] = ()  # those to run; empty: all, or where nothing reaches the workers the first and last
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    services: tuple[str, ...] = ()  # of SERVICES, started beside it
    patience: float = 60.0  # seconds for the whole program, or until a server answers
    forks: str = "fork"  # how workers are made: fork, spawn, forkserver, exec, threads, or C fork
    note: str = ""  # one sentence for the page

    @property
    def id(self) -> str:
        """Name and setting as one word."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.name} {self.setting}".lower()).strip("-")

    @property
    def runs(self) -> tuple[str, ...]:
        """The recipes that are run."""
        chosen = self.recipes or (RECIPES if self.reaches else ("nothing", "guard"))
        return tuple(recipe for recipe in chosen if self.hook or recipe != "hook")

    @property
    def shown(self) -> str:
        """The command that starts it, as one types it."""
        words = ["python" if word == sys.executable else word for word in self.command(8000)]
        return shlex.join(words)

    @property
    def settings(self) -> str:
        """What it needs in its environment, as one types it before a command; ends with a blank if there is any."""
        told = {name: value for name, value in self.env.items() if name != "VIRTUAL_ENV"}
        if "redis" in self.services:
            told["REDIS_URL"] = "redis://localhost:6379/0"
        return "".join(f"{name}={shlex.quote(value)} " for name, value in told.items())

    @property
    def harmful(self) -> bool:
        """Whether some answers are expected to be wrong without a recipe."""
        return self.reaches and "nothing" not in (self.clean or ())

    def missing(self) -> str:
        """What this machine lacks for it, in words; empty if nothing."""
        gone = [name for name in self.needs if not _importable(name)]
        gone += [name for name in self.programs if not shutil.which(name, path=_path())]
        return f"{', '.join(gone)} not installed" if gone else ""


def _path() -> str:
    """PATH, with this Python's own programs first."""
    return f"{BIN}{os.pathsep}{os.environ['PATH']}"


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@dataclasses.dataclass
class Seen:
    """What one run showed."""

    counts: Counts
    events: list[Event]
    shared: int | None = (
        None  # connections that `poolfork.scan` found in more than one process; None: not asked
    )

    @property
    def inherited(self) -> int:
        """Processes that took a connection from their pool which another process had opened."""
        return len({e["pid"] for e in self.events if e["event"] == "checkout" and e["opened_by"] != e["pid"]})

    @property
    def users(self) -> list[int]:
        """The processes that used a pool, in the order of their first use; without a pool, those that were forked."""
        pids = [
            dict.fromkeys(e["pid"] for e in self.events if e["event"] == w) for w in ("checkout", "at-fork")
        ]
        return list(pids[0] or pids[1])

    @property
    def workers(self) -> list[int]:
        """The processes that used a pool and did not start others that did."""
        parents: dict[int, int] = {}
        for one in self.events:
            parents.setdefault(one["pid"], one.get("ppid", 0))
        above = set()
        for pid in self.users:
            while (pid := parents.get(pid, 0)) and pid not in above:
                above.add(pid)
        return [pid for pid in self.users if pid not in above]

    def first(self, pid: int, event: str) -> float | None:
        """When a process first told of an event."""
        return next((e["at"] for e in self.events if e["pid"] == pid and e["event"] == event), None)


def free_port() -> int:
    """A port of the loopback that was free a moment ago, and that no system gives to those who ask for any."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port := random.randrange(20000, 32000)))
            return port


def counts_in(text: str) -> Counts | None:
    """The last line ``right 400 | wrong-row 0 | error 0 | hang 0`` of an output."""
    pattern = r" \| ".join(rf"{word} (\d+)" for word in WORDS)
    found = re.findall(pattern, text)
    return dict(zip(WORDS, map(int, found[-1]), strict=True)) if found else None


def end(process: subprocess.Popen[Any], patience: float = 5.0) -> None:
    """End a program that we started, and every process that it left."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


_keepers: set[subprocess.Popen[bytes]] = set()


@contextlib.contextmanager
def workplace() -> Iterator[pathlib.Path]:
    """A folder for one run; it goes, and with it the run's processes, when we do."""
    folder = tempfile.mkdtemp(
        prefix=f"stack-{os.getpid()}-", dir="/tmp"
    )  # short: Unix sockets are made in it
    keeper = subprocess.Popen(
        ["sh", "-c", _KEEPER, "keeper", folder], stdin=subprocess.PIPE, start_new_session=True
    )
    _keepers.add(keeper)
    try:
        yield pathlib.Path(folder)
    finally:
        _keepers.discard(keeper)
        _release(keeper)
        keeper.wait(30)


def _release(keeper: subprocess.Popen[bytes]) -> None:
    assert keeper.stdin
    with contextlib.suppress(OSError):
        keeper.stdin.close()


def stop() -> None:
    """End all runs of this process at once, from another thread: their keepers end what they started."""
    for keeper in list(_keepers):
        _release(keeper)


def mark(folder: pathlib.Path) -> dict[str, str]:
    """What the environment of each process of a run has: the keeper knows them by it."""
    return {"STACK_EVENTS": str(folder / "events")}


@contextlib.contextmanager
def redis(folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """A private Redis on a loopback port; gives REDIS_URL."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=os.environ | mark(folder), start_new_session=True
    )
    try:
        _wait(lambda: answers(port), server, 10, "redis-server")
        yield {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    finally:
        end(server)


SERVICES = {"redis": redis}


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False


def _wait(ready: Callable[[], bool], process: subprocess.Popen[Any], bound: float, what: str) -> None:
    until = time.monotonic() + bound
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            raise StackError(f"{what} did not answer within {bound:.0f} s (exit code {process.poll()})")
        time.sleep(0.05)


def run(stack: Stack, recipe: str, url: str) -> Seen:
    """Run a stack once with a recipe against the database of an SQLAlchemy URL; nothing of it is left."""
    with contextlib.ExitStack() as cleanup:
        folder = cleanup.enter_context(workplace())
        shutil.copytree(APPS / stack.app, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "poolfork" / "guard.py", folder / "app")  # as a reader does
        (folder / "tmp").mkdir()
        log, output, port = folder / "events", folder / "output", free_port()
        env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}
        env |= mark(folder) | {
            "DATABASE_URL": url,
            "RECIPE": recipe,
            "PYTHONPATH": str(WITNESS),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": _path(),
            "TMPDIR": str(folder / "tmp"),
            "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={folder}/tmp",  # Spark's Java does not ask TMPDIR
            "HOME": str(folder),  # gunicorn keeps a socket there
            "PYTHONUSERBASE": site.getuserbase(),
            **stack.env,
        }
        for name in stack.services:
            env |= cleanup.enter_context(SERVICES[name](folder))
        process = subprocess.Popen(
            stack.command(port),
            cwd=folder / "app",
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        seen = Seen({}, [])
        cleanup.callback(
            lambda: end(process, 1 if seen.counts.get("hang") else 5)
        )  # what hangs does not end by itself
        try:
            if stack.web:
                _wait(lambda: answers(port), process, stack.patience, stack.name)
                if stack.reaches and recipe == "nothing":  # before the first request, which may close it
                    with contextlib.suppress(StackError):
                        _wait(lambda: _shared(process.pid) > 0, process, 5, stack.name)
                    seen.shared = _shared(process.pid)
                _wait(lambda: _serves(port, stack.patience), process, stack.patience, stack.name)
                seen.shared = seen.shared or _shared(process.pid)
                seen.counts = load(port)
                if stack.respawn and not seen.counts["hang"]:
                    _end_a_worker(Seen({}, _events(log)).workers, process.pid, log)
                    again = load(port)
                    seen.counts = {word: seen.counts[word] + again[word] for word in WORDS}
            else:
                process.wait(stack.patience)
                found = counts_in(output.read_text(errors="replace"))
                if found is None:
                    raise StackError(f"{stack.id} printed no counts (exit code {process.returncode})")
                seen.counts = found
        except (StackError, subprocess.TimeoutExpired) as error:
            tail = output.read_text(errors="replace")[-2000:]
            raise StackError(f"{stack.id} with {recipe}: {error}\n{tail}") from None
        seen.events = _events(log)
        return seen


def _events(log: pathlib.Path) -> list[Event]:
    lines = log.read_text().splitlines() if log.exists() else []
    return sorted(map(json.loads, lines), key=lambda line: line["at"])


def _serves(port: int, patience: float) -> bool:
    """Whether a first request gets an answer, be it an error: then a worker is up."""
    if not answers(port):
        return False
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/?n=0", timeout=patience).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException):
        return False
    return True


def _shared(pid: int) -> int:
    """How many connections a program shares with its children, seen from outside."""
    from poolfork.scan import scan

    return len(scan([pid]).shared)


def load(port: int) -> Counts:
    """Load over HTTP with doc/stacks/apps/load.py."""
    command = [sys.executable, str(APPS / "load.py"), f"http://127.0.0.1:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if (found := counts_in(done.stdout)) is None:
        raise StackError(f"the load gave no counts: {done.stderr[-500:]}")
    return found


def _end_a_worker(workers: list[int], main: int, log: pathlib.Path) -> None:
    """Kill one of the workers that are alive, not the program itself, and note it among the events."""
    alive = [pid for pid in workers if psutil.pid_exists(pid) and pid != main]
    if not alive:
        return
    os.kill(alive[0], signal.SIGKILL)
    with log.open("a") as told:
        told.write(json.dumps({"at": time.monotonic(), "pid": alive[0], "event": "killed"}) + "\n")
    until = time.monotonic() + 10
    while psutil.pid_exists(alive[0]) and time.monotonic() < until:
        time.sleep(0.05)


def version(stack: Stack) -> str:
    """The stack's package and its version; Python's where it is the standard library's."""
    if not stack.package:
        return f"Python {sys.version.partition(' ')[0]}"
    return f"{stack.package} {metadata.version(stack.package)}"


def all_right(counts: Counts) -> bool:
    """Whether there were answers, and all were right."""
    return counts["right"] > 0 and counts["right"] == sum(counts.values())


def measure_stack(stack: Stack, url: str, recipes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything that the page tells of a stack; the keys are those that ``doc/_ext/stack_pages.py`` reads.

    ``recipes`` are those to run, with ``nothing``; empty: all that the stack has.
    """
    seen = {recipe: run(stack, recipe, url) for recipe in recipes or stack.runs}
    tries = 1
    while stack.harmful and all_right(seen["nothing"].counts) and tries < 3:  # it is a race: give it chances
        seen["nothing"] = run(stack, "nothing", url)
        tries += 1
    bare = seen["nothing"]
    entry = {
        "stack": stack.name,
        "setting": stack.setting,
        "id": stack.id,
        "command": stack.settings + stack.shown,
        "app": stack.app,
        "version": version(stack),
        "forks": stack.forks,
        "reaches": bool(bare.inherited or bare.shared),
        "shared": bare.shared,
        "at_fork": any(bare.first(pid, "at-fork") is not None for pid in bare.workers),
        "workers": len(bare.workers),
        "hook": stack.hook,
        "hook_runs": hook_runs(seen["hook"]) if "hook" in seen else "",
        "load": {recipe: one.counts for recipe, one in seen.items()},
        "note": stack.note,
    }
    return entry | {"unexpected": unexpected(stack, entry)}


def unexpected(stack: Stack, entry: dict[str, Any]) -> list[str]:
    """Where a measurement is not what the stack's entry expects, in sentences."""
    counts: dict[str, Counts] = entry["load"]
    found = []
    if entry["reaches"] != stack.reaches:
        found.append(
            f"a connection opened before the workers {'reached' if entry['reaches'] else 'did not reach'} them"
        )
    clean = stack.clean
    if clean is None:
        clean = tuple(recipe for recipe in stack.runs if recipe != "nothing" or not stack.reaches)
    for recipe in counts:
        if recipe in clean and not all_right(counts[recipe]):
            found.append(f"with {recipe} not every answer was right: {counts[recipe]}")
        if recipe not in clean and all_right(counts[recipe]):
            found.append(f"with {recipe} every answer was right")
    return found


def hook_runs(seen: Seen) -> str:
    """Where and when dispose() ran, in words: in how many of the workers, before or after their first use."""
    workers = seen.workers
    disposed = {pid: at for pid in workers if (at := seen.first(pid, "disposed")) is not None}
    before = [pid for pid, at in disposed.items() if at < (seen.first(pid, "checkout") or 0)]
    if not any(one["event"] == "checkout" for one in seen.events):
        return ""  # no pool of SQLAlchemy's: nothing to watch
    if not disposed:
        return "in no worker"
    many = f"{'all ' if len(disposed) == len(workers) else f'{len(disposed)} of '}{len(workers)} workers"
    when = "before" if len(before) == len(disposed) else "after" if not before else "before or after"
    told = f"in {many}, {when} their first use of the pool"
    killed = next((one["at"] for one in seen.events if one["event"] == "killed"), None)
    late = [pid for pid in workers if killed is not None and (seen.first(pid, "checkout") or 0) > killed]
    if fresh := [pid for pid in late if (seen.first(pid, "disposed") or 0) > (killed or 0)]:
        told += f"; {len(fresh)} of them replaced one that was killed"
    return told
