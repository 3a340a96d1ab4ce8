"""A time line for each hazard: one cell in which it strikes, and the same with the guard, recorded as they happen."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

if (own := str(pathlib.Path(__file__).resolve().parent)) not in sys.path:
    sys.path.insert(0, own)

FILES = (
    *(f"poolfork/{name}.py" for name in ("actors", "drivers", "guard", "nursery", "recipes", "servers")),
    "poolfork/hazards/*.py",
    "tools/timelines/*.py",
    "requirements/html.txt",
)


class Scene(NamedTuple):
    """Which cell shows a hazard best: a recipe that people use, and a driver with which it fails there."""

    hazard: str
    variant: str
    recipe: str
    driver: str


SCENES = (
    Scene("crossed", "", "nothing", "psycopg"),
    Scene("goodbye-close", "", "dispose", "psycopg2"),
    Scene("goodbye-gc", "", "dispose(close=False)", "mysqldb"),
    Scene("goodbye-exit", "", "dispose(close=False)", "mysqlconnector"),
    Scene("held-finish", "close", "dispose(close=False)", "psycopg"),
    Scene("held-use", "", "dispose(close=False)", "psycopg2"),
    Scene("starved", "", "pid-event", "psycopg"),
    Scene("locked", "", "pid-event", "psycopg"),
    Scene("thread-local", "", "at-fork", "psycopg2"),
    Scene("grandchild", "", "dispose", "psycopg"),
    Scene("state", "", "nothing", "psycopg"),
    Scene("c-fork", "", "at-fork", "psycopg"),
    Scene("event-loop", "running", "dispose(close=False)", "asyncpg"),
    Scene("tls", "crossed", "nothing", "psycopg2"),
    Scene("temp-table", "", "at-fork", "mysqldb"),
    Scene("cursor", "close", "dispose(close=False)", "psycopg"),
    Scene("advisory-lock", "idle", "nothing", "psycopg2"),
    Scene("notify", "idle", "nothing", "psycopg"),
    Scene("copy", "in", "dispose(close=False)", "psycopg"),
    Scene("first-connect", "", "at-fork", "psycopg"),
    Scene("thread-cursor", "", "at-fork", "pymysql"),
    Scene("reused-number", "", "guard without identity", "psycopg2"),
    Scene("loop-closed", "", "at-fork", "asyncpg"),
    Scene("file-lock", "rollback", "dispose(close=False)", "sqlite"),
    Scene("file-log", "", "nothing", "sqlite"),
    Scene("file-goodbye", "", "at-fork", "sqlite"),
)


@contextlib.contextmanager
def recorded(scene: Scene, servers: dict[str, Any]) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A function that records the scene with a recipe; its tables live as long as the block."""
    from dataclasses import asdict, replace

    from sqlalchemy.engine import make_url
    from timelines import record
    from timelines.wire import Wire

    from poolfork.actors import Spec
    from poolfork.drivers import DRIVERS, address
    from poolfork.nursery import drop_table, in_a_process, make_table

    driver = DRIVERS[scene.driver]
    with contextlib.ExitStack() as stack:
        if driver.server == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url, arguments, there = "sqlite+pysqlite:///", dict[str, Any](), None
        else:
            server, tls = servers[driver.server], scene.hazard == "tls"
            url, arguments = address(
                driver, server.tls if tls else server.tcp, str(server.ca) if tls else None
            )
            there = make_url(url)

        def run(recipe: str) -> dict[str, Any]:
            table = f"poolfork_{uuid.uuid4().hex[:12]}"
            here = url if there is not None else f"{url}{folder}/{table}.db"
            spec = Spec(scene.hazard, scene.variant, recipe, scene.driver, here, arguments, table, 1)
            made = in_a_process(functools.partial(make_table, spec, [1]), 20)
            if "error" in made:
                raise RuntimeError(f"no table for {scene.hazard}: {made['error']}")
            stack.callback(in_a_process, functools.partial(drop_table, spec), 20)
            if there is None:
                return record({"spec": asdict(spec)}, None)
            with Wire(str(there.host), int(there.port or 0), driver.server) as wire:
                through = there.set(port=wire.port).render_as_string(hide_password=False)
                return record({"spec": asdict(replace(spec, url=through))}, wire)

        yield run


def told(scene: Scene, recipe: str, take: dict[str, Any]) -> dict[str, Any]:
    """A recorded take with what it is of, and the worst that was found as its outcome."""
    from poolfork.actors import SEVERITY

    outcome = min((each["outcome"] for each in take["found"]), key=SEVERITY.index, default="ok")
    return scene._asdict() | {"recipe": recipe, "outcome": outcome} | take


def measure(progress: Callable[..., None]) -> dict[str, Any]:
    """Record every scene, and beside it the same with the guard."""
    from poolfork.drivers import DRIVERS, machine, versions
    from poolfork.servers import ServerError, mariadb, postgres

    found: dict[str, Any] = {}
    with postgres(tcp=True) as postgresql, mariadb() as mysql:
        servers = {"postgresql": postgresql, "mysql": mysql}
        for number, scene in enumerate(SCENES):
            progress(number, len(SCENES), 0)
            with recorded(scene, servers) as run:
                found[scene.hazard] = [told(scene, recipe, run(recipe)) for recipe in (scene.recipe, "guard")]
            without, guarded = (take["outcome"] for take in found[scene.hazard])
            if without == "ok" or guarded != "ok":
                raise ServerError(
                    f"{scene.hazard} does not show itself: {without}, and {guarded} with the guard"
                )
        progress(len(SCENES), len(SCENES), 0)
    used = sorted({scene.driver for scene in SCENES})
    return {
        "versions": {
            "python": sys.version.split()[0],
            "machine": machine(),
            "drivers": {name: versions(DRIVERS[name]) for name in used},
        },
        "timelines": found,
    }
