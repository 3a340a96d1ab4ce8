"""What a stack is, and how it is measured: started for real, asked under load, watched from inside and outside.

A `Stack` is one program that forks (or does not), with one setting. It is run once for each recipe: nothing,
Python's at-fork hook, the stack's own hook, the guard. Its app is a file under doc/stacks/apps that a reader can run
alone; which recipe it applies is told by the environment variable RECIPE. What happens in its processes is
written down by ``witness/sitecustomize.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import psutil

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
APPS = ROOT / "doc" / "stacks" / "apps"
WITNESS = pathlib.Path(__file__).parent / "witness"
WORDS = ("right", "wrong-row", "error", "hang")
Counts = dict[str, int]
Event = dict[str, Any]


class StackError(Exception):
    """A stack did not start, or gave no counts; the message has the end of its output."""


@dataclasses.dataclass(frozen=True)
class Stack:
    """One program that forks, with one setting."""

    name: str  # the page and the anchor: gunicorn
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
    recipes: tuple[str, ...] = ("nothing", "at-fork", "hook", "guard")
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    services: tuple[str, ...] = ()  # of SERVICES, started beside it
    patience: float = 60.0  # seconds for the whole program, or until a server answers
    forks: str = "fork"  # how workers are made: fork, spawn, exec, threads, or C fork
    note: str = ""  # one sentence for the page

    @property
    def id(self) -> str:
        """Name and setting as one word."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.name} {self.setting}".lower()).strip("-")

    def missing(self) -> str:
        """What this machine lacks for it, in words; empty if nothing."""
        gone = [name for name in self.needs if not _importable(name)]
        gone += [name for name in self.programs if not shutil.which(name)]
        return f"{', '.join(gone)} not installed" if gone else ""


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
    shared: int  # connections that `poolfork.scan` found in more than one process

    @property
    def inherited(self) -> int:
        """Processes that took a connection from their pool which another process had opened."""
        return len({e["pid"] for e in self.events if e["event"] == "checkout" and e["opened_by"] != e["pid"]})

    @property
    def users(self) -> list[int]:
        """The processes that used a pool, in the order of their first use."""
        return list(dict.fromkeys(e["pid"] for e in self.events if e["event"] == "checkout"))

    def first(self, pid: int, event: str) -> float | None:
        """When a process first told of an event."""
        return next((e["at"] for e in self.events if e["pid"] == pid and e["event"] == event), None)


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def counts_in(text: str) -> Counts | None:
    """The last line ``right 400 | wrong-row 0 | error 0 | hang 0`` of an output."""
    pattern = r" \| ".join(rf"{word} (\d+)" for word in WORDS)
    found = re.findall(pattern, text)
    return dict(zip(WORDS, map(int, found[-1]), strict=True)) if found else None


def end(process: subprocess.Popen[Any]) -> None:
    """End a program that we started, and every process that it left, within ten seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        for one in [*family, psutil.Process(process.pid)] if process.poll() is None else family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


@contextlib.contextmanager
def redis(folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """A private Redis on a Unix socket and a loopback port; gives REDIS_URL."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait(lambda: _answers(port), server, 10, "redis-server")
        yield {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    finally:
        end(server)


SERVICES = {"redis": redis}


def _answers(port: int) -> bool:
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
        folder = pathlib.Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="stack-")))
        shutil.copytree(APPS / stack.app, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        log, output, port = folder / "events", folder / "output", free_port()
        env = os.environ | {
            "DATABASE_URL": url,
            "RECIPE": recipe,
            "STACK_EVENTS": str(log),
            "PYTHONPATH": os.pathsep.join([str(WITNESS), str(ROOT)]),
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
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
        cleanup.callback(end, process)
        try:
            if stack.web:
                _wait(lambda: _answers(port), process, stack.patience, stack.name)
                counts, shared = _ask(stack, process, port, lambda: _events(log))
            else:
                shared = 0
                process.wait(stack.patience)
                found = counts_in(output.read_text(errors="replace"))
                if found is None:
                    raise StackError(f"{stack.id} printed no counts (exit code {process.returncode})")
                counts = found
        except (StackError, subprocess.TimeoutExpired) as error:
            tail = output.read_text(errors="replace")[-2000:]
            raise StackError(f"{stack.id} with {recipe}: {error}\n{tail}") from None
        return Seen(counts, _events(log), shared)


def _events(log: pathlib.Path) -> list[Event]:
    lines = log.read_text().splitlines() if log.exists() else []
    return sorted(map(json.loads, lines), key=lambda line: line["at"])


def _ask(
    stack: Stack, process: subprocess.Popen[Any], port: int, events: Callable[[], list[Event]]
) -> tuple[Counts, int]:
    """Load over HTTP with doc/stacks/apps/load.py; then, if asked, once more after a worker was ended."""
    from poolfork.scan import scan

    def load() -> Counts:
        command = [sys.executable, str(APPS / "load.py"), f"http://127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if (found := counts_in(done.stdout)) is None:
            raise StackError(f"the load gave no counts: {done.stderr[-500:]}")
        return found

    shared = len(scan([process.pid]).shared)
    counts = load()
    if stack.respawn:
        alive = [pid for pid in Seen({}, events(), 0).users if psutil.pid_exists(pid) and pid != process.pid]
        if alive:
            os.kill(alive[0], signal.SIGKILL)
            until = time.monotonic() + 10
            while psutil.pid_exists(alive[0]) and time.monotonic() < until:
                time.sleep(0.05)
            _wait(lambda: _answers(port), process, 10, stack.name)
            time.sleep(0.5)  # nothing depends on it: a worker that comes later is just not asked
            again = load()
            counts = {word: counts[word] + again[word] for word in WORDS}
    return counts, shared


def version(stack: Stack) -> str:
    """The version of the stack's package; empty for the standard library's."""
    return metadata.version(stack.package) if stack.package else f"Python {sys.version.partition(' ')[0]}"


def measure_stack(stack: Stack, url: str) -> dict[str, Any]:
    """Everything that the page tells of a stack; keys as the fields of ``doc/_ext/stacks.py``."""
    seen = {recipe: run(stack, recipe, url) for recipe in stack.recipes if stack.hook or recipe != "hook"}
    bare = seen["nothing"]
    workers = [e["pid"] for e in bare.events if e["event"] == "at-fork"]
    return {
        "stack": stack.name,
        "setting": stack.setting,
        "id": stack.id,
        "command": " ".join(stack.command(8000)).replace(sys.executable, "python"),
        "app": stack.app,
        "version": version(stack),
        "forks": stack.forks,
        "reaches": bool(bare.inherited),
        "shared": bare.shared,
        "at_fork": bool(set(workers) & set(bare.users)),
        "hook": stack.hook,
        "hook_runs": hook_runs(seen["hook"]) if "hook" in seen else "",
        "load": {recipe: one.counts for recipe, one in seen.items()},
        "note": stack.note,
    }


def hook_runs(seen: Seen) -> str:
    """Where and when dispose() ran, in words: in how many of the processes that used a pool, before or after."""
    owners = {e["opened_by"] for e in seen.events if e["event"] == "checkout"}
    starters = {e["pid"] for e in seen.events if e["event"] == "start"}
    workers = [pid for pid in seen.users if pid not in starters] or [
        pid for pid in seen.users if pid in owners
    ]
    before = [
        pid for pid in workers
        if (disposed := seen.first(pid, "disposed")) is not None and disposed < (seen.first(pid, "checkout") or 0)
    ]  # fmt: skip
    after = [pid for pid in workers if pid not in before and seen.first(pid, "disposed") is not None]
    if not before and not after:
        return "in no worker"
    told = f"in {len(before)} of {len(workers)} workers before their first use of the pool"
    return told + (f", in {len(after)} after it" if after else "")
