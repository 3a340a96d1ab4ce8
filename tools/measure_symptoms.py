"""Produce every error text of the symptoms' page that poolfork.reproduce knows how to produce."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import sqlalchemy

from poolfork.explain import explain
from poolfork.reproduce import CALLED, all_reproductions
from poolfork.reproduce.places import Places
from poolfork.reproduce.play import text
from poolfork.reproduce.stage import NotShown
from poolfork.servers import ServerError

FILES = [
    "poolfork/reproduce/*.py",
    *(f"poolfork/{name}" for name in ("drivers.py", "explain.py", "servers.py", "symptoms.toml")),
    "requirements/html.txt",
]


def measure(progress: Callable[[int, int, int], None]) -> dict[str, Any]:
    """``symptoms``: by id, the texts that were seen; ``missing``: by name, why a reproduction did not run."""
    todo = all_reproductions()
    seen: dict[str, list[dict[str, Any]]] = {}
    missing: dict[str, str] = {}
    with Places() as places:
        for done, (name, one) in enumerate(todo.items()):
            progress(done, len(todo), len(missing))
            try:
                if why := one.missing():
                    raise ServerError(why)
                place = places(one.server, one.tls)
                said = text(one, place)
                found = [match.symptom["id"] for match in explain(said).matches][:1]
                if not found:
                    raise NotShown(f"what it said is no error text that is known: {said[:80]}")
            except (ServerError, NotShown) as error:
                missing[name] = str(error).strip().splitlines()[-1]
                continue
            seen.setdefault(one.symptom, []).append(
                {
                    "name": name,
                    "text": said,
                    "driver": CALLED.get(one.driver, one.driver),
                    "version": one.version(),
                    "server": place.name,
                    "tls": one.tls,
                    "found": found,
                }
            )
        progress(len(todo), len(todo), len(missing))
    return {
        "versions": {"python": platform.python_version(), "sqlalchemy": sqlalchemy.__version__},
        "symptoms": seen,
        "missing": missing,
    }
