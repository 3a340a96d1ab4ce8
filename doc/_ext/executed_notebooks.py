"""Executes notebooks/ beside the gallery and gives MyST-NB the executed copies to render.

A notebook is run again only when its own text or the build's fingerprint changed.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from throwaway import NOTEBOOKS, ROOT

_running: subprocess.Popen[str] | None = None


def _stamp(notebook: pathlib.Path) -> pathlib.Path:
    return NOTEBOOKS / f".{notebook.stem}.sha256"


def stale_notebooks() -> list[pathlib.Path]:
    """The notebooks whose executed copy is missing or was made from another text."""

    def is_current(notebook: pathlib.Path) -> bool:
        stamp = _stamp(notebook)
        digest = hashlib.sha256(notebook.read_bytes()).hexdigest()
        return (NOTEBOOKS / notebook.name).exists() and stamp.exists() and stamp.read_text() == digest

    return [notebook for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")) if not is_current(notebook)]


def start(app: Sphinx) -> None:
    """Begin to execute the stale notebooks in a process of their own."""
    global _running
    app.config.poolfork_notebooks_run = stale = stale_notebooks()
    if not app.config.poolfork_execute:
        NOTEBOOKS.mkdir(exist_ok=True)
        for notebook in stale:
            shutil.copy(notebook, NOTEBOOKS)
        return
    if not stale:
        return
    private = ROOT / "build" / "jupyter"  # leave the user's own ~/.ipython and ~/.jupyter alone
    environment = os.environ | {
        "IPYTHONDIR": str(private), "JUPYTER_RUNTIME_DIR": str(private), "JUPYTER_CONFIG_DIR": str(private),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }  # fmt: skip
    _running = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "run_notebooks.py"), "--output", str(NOTEBOOKS), *map(str, stale)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(app: Sphinx) -> None:
    """Wait for the notebooks before Sphinx looks for sources; a failing one fails the build."""
    global _running
    if _running is None:
        return
    try:
        said, _ = _running.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        abandon()
        raise ExtensionError("the notebooks took more than 600 s and were ended") from None
    failed, _running = _running.returncode, None
    if failed:
        raise ExtensionError(f"a notebook failed:\n{said}")
    for notebook in app.config.poolfork_notebooks_run:
        _stamp(notebook).write_text(hashlib.sha256(notebook.read_bytes()).hexdigest())


def abandon() -> None:
    """End the runner when the build ends before it, for whatever reason; it ends its kernels."""
    if _running is not None:
        _running.terminate()
        try:
            _running.wait(timeout=30)
        except subprocess.TimeoutExpired:
            _running.kill()
            _running.wait(timeout=30)


def setup(app: Sphinx) -> dict[str, Any]:
    """Run between the server's start (priority 100) and the reading of sources."""
    app.add_config_value("poolfork_notebooks_run", [], "")
    app.connect("builder-inited", start, priority=200)
    app.connect("builder-inited", finish, priority=900)
    atexit.register(abandon)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
