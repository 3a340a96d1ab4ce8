"""Error texts of a shared connection, each produced by a real driver and server in a forced order.

A reproduction is a function: the parent's steps, its workers' steps inside, and a docstring that
says what happens on the wire. It returns the text that a driver raised, or that a server logged.
``python -m poolfork.reproduce [NAME ...]`` runs them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from poolfork.drivers import DRIVERS, versions
from poolfork.explain import normal
from poolfork.reproduce.stage import Stage

MODULES = ("goodbye", "libpq", "event_loop", "mysql", "sqlalchemy_core", "files", "redis_py")
CALLED = {
    "mysqldb": "mysqlclient",
    "pymysql": "PyMySQL",
    "mysqlconnector": "mysql-connector",
    "mariadbconnector": "mariadb",
    "sqlite": "sqlite3",
    "redis": "redis-py",
    "python3.12": "Python",
}


@dataclass(frozen=True)
class Reproduction:
    """One text on one driver: the ``symptom`` it belongs to, the ``server`` that it needs, its ``steps``."""

    name: str
    symptom: str
    driver: str
    server: str
    tls: bool
    steps: Callable[[Stage], str]

    @property
    def source(self) -> str:
        """The function's text, without its decorators."""
        lines = inspect.getsource(self.steps).splitlines(keepends=True)
        start = next(number for number, line in enumerate(lines) if line.startswith("def "))
        return "".join(lines[start:])

    def missing(self) -> str | None:
        """Why it cannot be run here, as far as Python and its packages go."""
        if self.driver == "python3.12":
            return None if newer_python() else "no Python 3.12 or later here"
        if self.driver in DRIVERS:
            return DRIVERS[self.driver].missing()
        try:
            importlib.import_module(self.driver)
        except ImportError as error:
            return f"{type(error).__name__}: {error}"
        return None

    def version(self) -> str:
        """The driver's version, with libpq's where it has one."""
        if self.driver == "python3.12":
            return (newer_python() or ("", ""))[1]
        if self.driver == "sqlite":
            return f"of Python {sys.version_info[0]}.{sys.version_info[1]}"
        if self.driver not in DRIVERS:
            return importlib.metadata.version(self.driver)
        found = versions(DRIVERS[self.driver])
        libpq = f" (libpq {found['libpq'].split()[0]})" if "libpq" in found else ""
        return found["driver"] + libpq


_REGISTRY: dict[str, Reproduction] = {}


def reproduces(
    symptom: str, driver: str, server: str, *, tls: bool = False
) -> Callable[[Callable[[Stage], str]], Callable[[Stage], str]]:
    """Register a function that produces a text of a symptom; may be used several times on one."""

    def register(steps: Callable[[Stage], str]) -> Callable[[Stage], str]:
        name = f"{steps.__name__}[{driver}{'-tls' if tls else ''}]"
        others = (one.steps for one in _REGISTRY.values() if one.steps is not steps)
        if name in _REGISTRY or steps.__name__ in {other.__name__ for other in others}:
            raise ValueError(f"two reproductions are named {name}")
        _REGISTRY[name] = Reproduction(name, symptom, driver, server, tls, steps)
        return steps

    return register


@functools.cache
def all_reproductions() -> dict[str, Reproduction]:
    """Every reproduction by its name."""
    for module in MODULES:
        importlib.import_module(f"poolfork.reproduce.{module}")
    return dict(sorted(_REGISTRY.items()))


@functools.cache
def newer_python() -> tuple[str, str] | None:
    """A Python that warns of a fork beside threads, 3.12 or later, and its version."""
    found = [shutil.which(f"python3.{minor}") for minor in range(15, 11, -1)]
    for program in [sys.executable, *filter(None, found)]:
        asked = [program, "-c", "import sys; print(*sys.version_info[:3], sep='.')"]
        told = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
        version = told.stdout.strip()
        if told.returncode == 0 and tuple(map(int, version.split("."))) >= (3, 12):
            return program, version
    return None


def shape(text: str) -> str:
    """A text without what varies from run to run: numbers, addresses, white space."""
    text = re.sub(r"0x[0-9a-f]+", "0x0", normal(text).lower())
    return re.sub(r"\d+", "0", re.sub(r"'(127\.0\.0\.1|localhost):\d+'", "'host:0'", text))
