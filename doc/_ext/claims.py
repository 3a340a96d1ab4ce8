"""Counts what the build executed for the line that ends it; keeps the demos in reading order."""

from __future__ import annotations

import ast
import pathlib
import time
from typing import Any

import nbformat
from sphinx.application import Sphinx
from throwaway import ROOT

READING_ORDER = [
    *("one_socket", "crossed_answers", "storm", "lost_commit", "wire", "goodbye"),
    *("dispose_in_child", "pid_event", "fixes_under_storm", "null_pool", "dispose_before_fork"),
    *("at_fork_hook", "spawn_forkserver"),
    *("held_connection", "thread_local", "starved_child", "locked_pool"),
    *("garbage_collector", "normal_exit", "c_fork"),
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


def summary(app: Sphinx) -> str:
    """The line that ends a build: what ran, what was checked, how long it took, where to look."""
    demos = sorted((ROOT / "demos").glob("*/plot_*.py"))
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    total = sum(claims(demo.read_text()) for demo in demos)
    for notebook in notebooks:
        cells = nbformat.read(notebook, as_version=4).cells
        total += sum(claims(cell.source) for cell in cells if cell.cell_type == "code")
    run = len(app.config.poolfork_demos_run) + len(app.config.poolfork_notebooks_run)
    return (
        f"{len(demos)} demos and {len(notebooks)} notebooks hold ({run} run now, "
        f"{len(demos) + len(notebooks) - run} unchanged), {total} claims checked, "
        f"{time.monotonic() - _began:.0f} s: open {pathlib.Path(app.outdir, 'index.html')}"
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Start the clock."""
    global _began
    _began = time.monotonic()
    return {"parallel_read_safe": True, "parallel_write_safe": True}
