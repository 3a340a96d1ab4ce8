"""A cell of the truth table in a process of its own, whose actors tell what they do: ``live.py JSON``.

What tells is put around the actors' own methods, so that the hazards are measured as they stand.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

import sqlalchemy as sa

from poolfork import actors
from poolfork.hazards import all_hazards, pooled

BOUND = 60.0  # seconds


class Teller:
    """Writes events to a file, whole ones, from whichever process of the cell; its descriptor is out of the way."""

    def __init__(self, path: str) -> None:

        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        self.file = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 500)
        os.close(opened)

    def __call__(self, kind: str, **facts: Any) -> None:
        event = {
            "t": time.monotonic_ns(),
            "kind": kind,
            "pid": os.getpid(),
            "thread": threading.get_native_id(),
        }
        os.write(self.file, json.dumps(event | facts, default=str).encode()[:3900] + b"\n")


def live(asked: dict[str, Any]) -> None:
    """Measure the cell as the nursery does, while its actors tell; never returns."""
    tell = Teller(asked["events"])
    spec = actors.Spec(**asked["spec"])
    hazard = all_hazards()[spec.hazard]
    pooled.BATCH = 1  # one child at a time: the last one is in the picture
    collect = gc.collect
    of_actors(tell)
    of_children(tell, asked["port"])
    of_engines(tell)
    own = os.getpid()

    def report(fact: dict[str, Any]) -> None:
        if os.getpid() != own:  # a driver made an error of its own of a child's SystemExit
            sys.exit(0)

    gc.disable()
    collect()
    gc.freeze()
    signal.setitimer(signal.ITIMER_REAL, BOUND)
    parent = actors.Parent(spec, report)
    try:
        hazard.probe(parent, spec.variant)
    except actors.NotRun as reason:
        tell("over", runs=0, not_run=str(reason))
        os._exit(0)
    except TimeoutError as error:
        parent.found("hang", f"the parent got no answer: {actors.tell(error)}")
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is a finding
        parent.found("error", f"parent: {actors.tell(error)}")
    tell("over", runs=parent.runs)
    os._exit(0)


def settles() -> None:
    """Wait a moment, so that what was just said on a wire is noted there before what comes next."""
    time.sleep(0.1)


def around(owner: Any, name: str, before: Any = None, after: Any = None) -> None:
    """Tell before and after a call of a function; what is told is made of its arguments."""
    original = getattr(owner, name)

    def told(*args: Any, **named: Any) -> Any:
        if before:
            before(*args)
        try:
            return original(*args, **named)
        finally:
            if after:
                after(*args)

    setattr(owner, name, told)


def of_actors(tell: Teller) -> None:
    """What parent, child and referee do, by the names of the steps that hazards are told with."""
    parent = os.getpid()

    def disposes(child: Any, *_: Any) -> None:
        if (named := child.recipe.dispose_in_child) is not None:
            words = ", ".join(f"{name}={value}" for name, value in named.items())
            tell("does", text=f"engine.dispose({words})")

    def collects(*_: Any) -> None:
        if os.getpid() != parent:
            tell("does", text="collects garbage")

    def has_collected(*_: Any) -> None:
        if os.getpid() != parent:
            settles()

    around(actors.Parent, "step", lambda _, what: tell("step", text=what))
    around(actors.Parent, "found", lambda _, outcome, detail: tell("found", outcome=outcome, text=detail))
    for owner, name in (actors.Born, "hears"), (actors.Born, "leaves"), (actors.Child, "hears"):
        around(owner, name, lambda *_: tell("waits"), lambda *_: tell("goes on"))
    around(actors.Born, "stops", after=lambda born, *_: tell("stops", child=born.pid))
    around(actors.Born, "goes_on", lambda born, *_: tell("lets go on", child=born.pid))
    around(actors.Born, "kill", lambda born, *_: tell("kills", child=born.pid))
    around(actors.Born, "_gone", after=lambda born, *_: tell("gone", child=born.pid))
    around(
        actors.Child,
        "applies_recipe",
        disposes,
        lambda child: settles() if child.recipe.dispose_in_child is not None else None,
    )
    around(actors.Child, "drops_everything", lambda _: tell("does", text="lets go of its copy"))
    around(actors.Referee, "__init__", after=lambda *_: tell("referee", text="is there"))
    around(actors.Referee, "locks_row", lambda _: tell("referee", text="locks a row"))
    around(actors.Referee, "lets_go", lambda _: tell("referee", text="lets the row go"))
    around(gc, "collect", collects, has_collected)


class Pipe:
    """A child's pipe to its parent: its last word is that it leaves."""

    def __init__(self, pipe: Any, tell: Teller) -> None:
        self.pipe, self.tell = pipe, tell

    def send(self, facts: dict[str, Any]) -> None:
        """Send facts, and tell those of them that the picture shows."""
        settles()
        if "left" in facts:
            self.tell("leaves", text=facts["left"])
        elif facts.get("error_seen"):
            self.tell("told", text=facts["error_seen"])
        elif "error" in facts:
            self.tell("errs", outcome=facts.get("outcome", "error"), text=facts["error"])
        self.pipe.send(facts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)


def of_children(tell: Teller, port: int) -> None:
    """Who forks, who is born with which sockets to the server, and how a child leaves."""
    inner: Any = actors
    lives, fork = inner._lives, inner._fork

    def begins(spec: Any, step: Any, pipe: Any, leave: str, actor: Any) -> Any:
        tell("born", sockets=sockets_to(port))
        return lives(spec, step, Pipe(pipe, tell), leave, actor)

    def forks(actor: Any, step: Any, leave: str, how: str = "python") -> Any:
        settles()
        tell("forks", how=how)
        return fork(actor, step, leave, how)

    inner._lives, inner._fork = begins, forks
    inner.Parent.forks = lambda parent, step, count: [parent.fork(step) for _ in range(count)]


def sockets_to(port: int) -> int:
    """How many sockets this process has that are connected to a port of the loopback."""
    found = 0
    for entry in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as copy:
                    found += copy.family == socket.AF_INET and copy.getpeername()[1] == port
    return found


def of_engines(tell: Teller) -> None:
    """Statements with their answers and errors, commits, rollbacks, connects: SQLAlchemy's own events."""

    def connects(dbapi_connection: Any, record: Any) -> None:
        record.info["timeline"] = f"{os.getpid()}-{time.monotonic_ns()}"
        tell("connects", token=record.info["timeline"])

    def token(connection: Any) -> str:
        with contextlib.suppress(Exception):  # it may be invalid, or have no connection at all
            return str(connection.connection.info.get("timeline", ""))
        return ""

    def executes(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        tell("sql", text=spelled(statement, parameters, many), token=token(connection))

    result: Any = sa.engine.CursorResult
    scalar = result.scalar

    def reads(self: Any) -> Any:
        value = scalar(self)
        tell("reads", value=value)
        return value

    result.scalar = reads
    sa.event.listen(sa.pool.Pool, "connect", connects)
    sa.event.listen(sa.Engine, "before_cursor_execute", executes)
    sa.event.listen(
        sa.Engine, "handle_error", lambda context: tell("fails", text=actors.tell(context.original_exception))
    )
    for name in "commit", "rollback":
        said = name.upper()
        sa.event.listen(
            sa.Engine, name, lambda connection, said=said: tell("sql", text=said, token=token(connection))
        )


def spelled(statement: str, parameters: Any, many: bool) -> str:
    """A statement with its values in the places of the parameters."""
    statement = re.sub(r"::[A-Z]+\b", "", statement)
    if not many:
        if isinstance(parameters, dict):
            for name, value in parameters.items():
                statement = statement.replace(f"%({name})s", repr(value)).replace(f":{name}", repr(value))
        else:
            values = iter(parameters or ())
            statement = re.sub(r"%s|\?|\$\d+", lambda match: repr(next(values, match[0])), statement)
    statement = re.sub(r" AS (anon|param)_\d+\b", "", " ".join(statement.split()))
    return f"{statement} ({len(parameters)} rows)" if many else statement


if __name__ == "__main__":
    live(json.loads(sys.argv[1]))
