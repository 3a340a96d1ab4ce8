"""The command ``check``: measure one driver against the user's own server."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import secrets
import shutil
import sys
import urllib.parse
from typing import Any

import sqlalchemy as sa

from poolfork.actors import Parent, Spec
from poolfork.cli import BadInput, progress_bar
from poolfork.drivers import Driver, of_url, versions
from poolfork.hazards import all_hazards
from poolfork.nursery import drop_table, in_a_process, make_table
from poolfork.recipes import RECIPES
from poolfork.servers import ServerError
from poolfork.table import (
    Door,
    Measurement,
    NurseryError,
    again_and_again,
    base_versions,
    meaningless,
    nurseries,
    plan,
    take_the_worst,
    throw_away_servers,
)
from poolfork.write_table import one_of

AT_ONCE = 4  # cells; each has a few sessions, "locked" up to fourteen
SYMBOLS = {
    "ok": "+",
    "wrong-row": "!",
    "write-lost": "!",
    "parent-lost": "x",
    "error": "x",
    "hang": "~",
    "starved": "~",
    "not-run": " ",
}


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m poolfork check",
        description="Measure your driver, against your server, with every recipe.",
    )
    parser.add_argument(
        "url", metavar="URL", help="an SQLAlchemy URL, e.g. postgresql+psycopg://user:password@host/database"
    )
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="R",
        help=f"only this recipe, of: {', '.join(RECIPES)} (may be repeated)",
    )
    parser.add_argument(
        "--hazard",
        action="append",
        metavar="H",
        help=f"only this hazard, of: {', '.join(all_hazards())} (may be repeated)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="measure every cell N times; the worst outcome counts",
    )
    parser.epilog = (
        "Exit code: 0 when guard passes every cell (without guard among the recipes: when all do), 1 when not, 2 on bad input. "
        "One table, poolfork_ and a random number, is made and dropped. "
        "With SQLite nothing is done to your file: the cells get files of their own."
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure and print; returns the exit code; raises `BadInput`."""
    options = _arguments(arguments)
    one_of(options.recipe, RECIPES, "recipe")
    one_of(options.hazard, all_hazards(), "hazard")
    if options.repeat < 1:
        raise BadInput("--repeat takes a number from 1")
    url, driver = understand(options.url)
    measured = check(
        url,
        driver,
        options.recipe or list(RECIPES),
        options.hazard or list(all_hazards()),
        options.repeat,
    )
    print(json.dumps(measured, indent=1) if options.json else _terminal(measured))
    decisive = [cell for cell in measured["cells"] if cell["outcome"] != "not-run"]
    if "guard" in (options.recipe or RECIPES):
        decisive = [cell for cell in decisive if cell["recipe"] == "guard"]
    return 0 if decisive and all(cell["outcome"] == "ok" for cell in decisive) else 1


def understand(text: str) -> tuple[sa.URL, Driver]:
    """The URL and its driver, or `BadInput`: not a URL, no such dialect, no such driver here."""
    if not hasattr(os, "fork"):
        raise BadInput("this platform has no fork(), so there is nothing to measure")
    try:
        url = sa.make_url(text)
        dialect = url.get_dialect()
    except sa.exc.NoSuchModuleError as error:
        raise BadInput(f"no SQLAlchemy dialect for this URL: {error}") from None
    except (sa.exc.ArgumentError, ValueError):
        raise BadInput("this is not a database URL (dialect+driver://user:password@host/database)") from None
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise BadInput(f"the driver of {url.drivername} is not installed: {error}") from None
    if dialect.name == "sqlite" and (
        not url.database or ":memory:" in url.database or not pathlib.Path(url.database).exists()
    ):
        raise BadInput("for SQLite, name a database file that exists")
    return url, of_url(url)


def check(
    url: sa.URL, driver: Driver, recipes: list[str], hazards: list[str], repeat: int = 1
) -> dict[str, Any]:
    """Measure one driver against one server; like `poolfork.table.table`'s JSON, with ``passed`` of ``repeat``."""
    found = all_hazards()
    jobs = plan([driver], recipes, [found[name] for name in hazards])
    to_measure = []
    for job in jobs:
        how, hazard = RECIPES[job.cell["recipe"]], found[job.cell["hazard"]]
        reason = how.missing() or meaningless(driver, how, hazard)
        if hazard.name == "tls":
            reason = (
                reason
                or "the URL decides about TLS: crossed and goodbye-* were measured over its own connections"
            )
        if reason:
            job.cell |= {"outcome": "not-run", "detail": reason, "runs": 0}
        else:
            to_measure.append(job)
    if not to_measure:
        raise BadInput(f"nothing is left to measure: {'; '.join({job.cell['detail'] for job in jobs})}")
    rounds = again_and_again(to_measure, repeat)
    measurement = Measurement(progress_bar(sys.stderr))
    with contextlib.ExitStack() as stack:
        place = url
        if driver.server == "sqlite":  # what corrupts a file must not be tried on the user's
            folder = stack.enter_context(throw_away_servers({"sqlite"}))["sqlite"].folder
            place = url.set(database=f"{folder}/POOLFORK_CELL.db")
        door = Door(place.render_as_string(hide_password=False))
        try:
            _refuse_a_shared_session(driver, door.url)
            _try_to_make_a_table(driver, door.url)
            groups = {driver.name: rounds}
            lines = stack.enter_context(nurseries(groups, {driver.name: url.drivername}))
            asyncio.run(measurement.run(groups, lambda name, transport: door, lines, cells_at_once=AT_ONCE))
        except NurseryError as error:
            raise BadInput(f"the driver brought the measuring process down: {error}") from None
        except ServerError as error:
            raise BadInput(_without_password(str(error), url)) from None
    take_the_worst(to_measure, rounds, repeat)
    for job in jobs:
        job.cell["detail"] = _without_password(job.cell["detail"], url)
    return {
        "url": url.render_as_string(),
        "cells": [job.cell for job in jobs],
        "versions": base_versions()
        | {"driver": versions(driver), "server": measurement.server_versions.get(driver.name, "")},
    }


def _try_to_make_a_table(driver: Driver, url: str) -> None:
    """Make and drop one, before there is a progress bar; raises `ServerError`."""
    spec = Spec("", "", "nothing", driver.name, url, table=f"poolfork_{secrets.token_hex(6)}")
    tried = in_a_process(lambda: make_table(spec, [0]) and drop_table(spec), 10.0)
    if "error" in tried:
        raise ServerError(f"no table can be made there: {tried['error']}")


def _refuse_a_shared_session(driver: Driver, url: str) -> None:
    """Raise `BadInput` where two open connections are one session to the server: nothing would tell them apart."""
    spec = Spec("", "", "null-pool", driver.name, url)

    def ask() -> dict[str, bool]:
        parent = Parent(spec, lambda fact: None)
        parent.make_engine()
        if parent.speech.backend is None:
            return {"shared": False}  # they are told apart by a mark that we put into each

        def both() -> bool:
            with parent.engine.connect() as one, parent.engine.connect() as other:
                first = parent.backend(one)
                one.rollback()  # a pooler in transaction mode has its session back now, and lends it again
                return bool(first == parent.backend(other))

        return {"shared": any(parent.do(both) for _ in range(3))}

    asked = in_a_process(ask, 10.0)
    if "error" in asked:
        raise ServerError(f"no connection can be made there: {asked['error']}")
    if asked["shared"]:
        raise BadInput(
            "a pooler in transaction mode answers there: to the server, two open connections were one session, "
            "and check tells sessions apart by the server's number for them; "
            "give it the address of the server itself, or of a pooler in session mode"
        )


def _without_password(text: str, url: sa.URL) -> str:
    password = str(url.password or "")
    for written in password, urllib.parse.quote(password, safe=""):
        text = text.replace(written, "***") if len(written) > 2 else text
    return text


def _terminal(measured: dict[str, Any]) -> str:
    """The cells as a table of words, in as many blocks of columns as the terminal's width needs."""
    cells = measured["cells"]
    rows = list(dict.fromkeys((cell["hazard"], cell["variant"]) for cell in cells))
    recipes = list(dict.fromkeys(cell["recipe"] for cell in cells))
    at = {(cell["hazard"], cell["variant"], cell["recipe"]): cell for cell in cells}
    label = max(len(" ".join(row)) for row in rows) + 2
    width = max([*map(len, recipes), 19 if any(cell.get("repeat", 1) > 1 for cell in cells) else 13]) + 3
    columns = max(1, (shutil.get_terminal_size((100, 24)).columns - label) // width)
    lines = [f"{measured['url']}  {measured['versions']['server']}", ""]
    for first in range(0, len(recipes), columns):
        block = recipes[first : first + columns]
        lines.append(" " * label + "".join(f"{name:{width}}" for name in block).rstrip())
        for row in rows:
            words = []
            for name in block:
                cell = at.get((*row, name)) or at.get((row[0], "", name)) or {"outcome": "not-run"}
                word = cell["outcome"]
                if cell.get("repeat", 1) > 1 and word != "not-run" and cell["passed"] < cell["repeat"]:
                    word += f" {cell['repeat'] - cell['passed']}/{cell['repeat']}"
                words.append(f"{SYMBOLS[cell['outcome']]} {word:{width - 2}}")
            lines.append(f"{' '.join(row):{label}}" + "".join(words).rstrip())
        lines.append("")
    for name in recipes:
        mine = [cell for cell in cells if cell["recipe"] == name and cell["outcome"] != "not-run"]
        passed = sum(cell["outcome"] == "ok" for cell in mine)
        lines.append(f"{name}: passes {passed} of {len(mine)} cells")
        if name == "guard":
            lines += [
                f"  {cell['hazard']} {cell['variant']}: {cell['outcome']}: {cell['detail']}"
                for cell in mine
                if cell["outcome"] != "ok"
            ]
    return "\n".join(lines)
