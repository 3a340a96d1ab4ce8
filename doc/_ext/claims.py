"""Counts what the build executed for the line that ends it; keeps the demos in reading order."""

from __future__ import annotations

import ast
import pathlib
import time
from typing import Any

import nbformat
import pictures
from sphinx.application import Sphinx
from throwaway import GALLERY, ROOT

READING_ORDER = [
    *("one_socket", "crossed_answers", "storm", "lost_commit", "wire", "goodbye"),
    *("dispose_in_child", "pid_event", "fixes_under_storm", "null_pool", "dispose_before_fork"),
    *("at_fork_hook", "spawn_forkserver"),
    *("held_connection", "thread_local", "starved_child", "locked_pool"),
    *("garbage_collector", "normal_exit", "c_fork"),
    "late_fork",
    *("checkout_cost", "fork_cost"),
]
_began = time.monotonic()


def reading_order(name: str) -> tuple[int, str]:
    """Sort key of a demo's file name: its place in the story, then the alphabet."""
    stem = pathlib.Path(name).stem.removeprefix("plot_")
    return (READING_ORDER.index(stem) if stem in READING_ORDER else len(READING_ORDER), stem)


def claims(source: str) -> int:
    """How many assert statements of a script run in the parent, that is, outside of functions."""
    inside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)

    def count(node: ast.AST) -> int:
        return isinstance(node, ast.Assert) + sum(
            count(child) for child in ast.iter_child_nodes(node) if not isinstance(child, inside)
        )

    return count(ast.parse(source))


def failures(app: Sphinx) -> list[str]:
    """One sentence for each demo of this build whose claim did not hold: the demo and the claim."""
    failing: dict[str, str] = app.config.sphinx_gallery_conf["failing_examples"]
    return [
        f"{pathlib.Path(demo).relative_to(ROOT)} does not hold: {traceback.strip().splitlines()[-1]}"
        for demo, traceback in failing.items()
    ]


def not_run(demo: pathlib.Path) -> str:
    """Why a demo did not run on this machine, as it said itself; "" if it ran, and its claims hold."""
    page = GALLERY / demo.relative_to(ROOT / "demos").with_suffix(".rst")
    steps = map(pictures.step, map(str.strip, page.read_text().splitlines()) if page.exists() else ())
    return next((step.sees for step in steps if step and step.outcome == "not-run"), "")


def summary(app: Sphinx) -> str:
    """What ends a build: what was not run and why; what ran, what was checked, how long, where to look."""
    demos = sorted((ROOT / "demos").glob("*/plot_*.py"))
    missed = {demo: reason for demo in demos if (reason := not_run(demo))}
    demos = [demo for demo in demos if demo not in missed]
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    total = sum(claims(demo.read_text()) for demo in demos)
    for notebook in notebooks:
        cells = nbformat.read(notebook, as_version=4).cells
        total += sum(claims(cell.source) for cell in cells if cell.cell_type == "code")
    run = len({*app.config.poolfork_demos_run} - {*missed}) + len(app.config.poolfork_notebooks_run)
    told = "".join(f"Not run here: {d.relative_to(ROOT)}: {reason}\n" for d, reason in missed.items())
    return told + (
        f"{len(demos)} demos and {len(notebooks)} notebooks hold ({run} run now, "
        f"{len(demos) + len(notebooks) - run} unchanged), {total} claims checked, "
        f"{time.monotonic() - _began:.0f} s: open {pathlib.Path(app.outdir, 'index.html')}"
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Start the clock."""
    global _began
    _began = time.monotonic()
    return {"parallel_read_safe": True, "parallel_write_safe": True}
