"""What each mechanism of the guard is for: the cells that fail when it is switched off."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from poolfork.guard import MECHANISMS


def switch_off(*mechanisms: str) -> Callable[[], None]:
    """Switch mechanisms of this process's guard off; returns the function that switches them on again.

    Raises `ValueError` for a name that is not in `poolfork.guard.MECHANISMS`. Without its canary the
    guard acts only when Python's own hook calls it.
    """
    if unknown := set(mechanisms) - set(MECHANISMS):
        raise ValueError(f"no such mechanism: {', '.join(sorted(unknown))}")
    guard: Any = importlib.import_module("poolfork.guard")
    before, canary = set(guard._off), guard._canary
    guard._off.update(mechanisms)
    if "canary" in mechanisms:
        guard._canary = bytearray(b"\x01")  # a page that nobody wipes

    def on_again() -> None:
        guard._off.clear()
        guard._off.update(before)
        guard._canary = canary

    return on_again


def ablation(
    *,
    drivers: Iterable[str] | None = None,
    hazards: Iterable[str] | None = None,
    cache: bool = True,
    progress: Callable[[int, int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure the guard without each of its mechanisms in turn.

    Returns ``mechanisms``: for each name the list of cells that fail without it and do not fail with
    the whole guard, ``cells`` (how many were measured) and ``versions`` as in `poolfork.table.table`.
    """
    from poolfork.table import table  # it needs the recipes, and they need this module

    names = {f"guard without {mechanism}": mechanism for mechanism in MECHANISMS}
    measured = table(
        drivers=drivers, recipes=["guard", *names], hazards=hazards, cache=cache, progress=progress
    )
    whole = {
        _place(cell) for cell in measured["cells"] if cell["recipe"] == "guard" and cell["outcome"] == "ok"
    }
    failing: dict[str, list[dict[str, Any]]] = {mechanism: [] for mechanism in MECHANISMS}
    for cell in measured["cells"]:
        failed = cell["recipe"] in names and cell["outcome"] not in ("ok", "not-run")
        if failed and _place(cell) in whole:
            failing[names[cell["recipe"]]].append(cell)
    count = sum(cell["outcome"] != "not-run" for cell in measured["cells"])
    return {
        "mechanisms": failing,
        "cells": count,
        "versions": measured["versions"],
        "not_run": measured["not_run"],
    }


def _place(cell: dict[str, Any]) -> tuple[str, str, str]:
    return cell["hazard"], cell["variant"], cell["driver"]
