"""A real PostgreSQL while the build executes something: ``DATABASE_URL``, or a throw-away one.

The server is started only when a demo, a notebook or a doctest is about to run, and every
result that was made with other packages, another Python or another server is dropped first,
so that no stale result is shown as fresh.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import sys
from typing import Any

import sqlalchemy as sa
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx_gallery.gen_rst import get_md5sum, md5sum_is_current

from poolfork.servers import Server, ServerError, mariadb_home, start_postgres

ROOT = pathlib.Path(__file__).parent.parent.parent
GALLERY = ROOT / "doc" / "gallery"
NOTEBOOKS = ROOT / "doc" / "notebooks"
RUNNING = GALLERY / ".running"  # the demos that the build under way has begun
_server: Server | None = None


def fingerprint(execute: bool) -> str:
    """What every executed result depends on besides its own source, as a hexadecimal digest."""
    parts = [str(execute), sys.version, os.environ.get("DATABASE_URL", "")]
    parts += [file.read_text() for file in (ROOT / "requirements").glob("*.txt")]
    parts += [(ROOT / "poolfork" / "guard.py").read_text(), str(mariadb_home())]  # what demos find here
    parts += [
        pathlib.Path(__file__).with_name(name).read_text()
        for name in ("throwaway.py", "executed_notebooks.py")
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def drop_stale_results(execute: bool) -> None:
    """Remove the generated pages if their fingerprint is not today's."""
    stamp, now = GALLERY / ".fingerprint", fingerprint(execute)
    if stamp.exists() and stamp.read_text() == now:
        return
    for folder in GALLERY, NOTEBOOKS:
        shutil.rmtree(folder, ignore_errors=True)
    GALLERY.mkdir()
    stamp.write_text(now)


def stale_demos() -> list[pathlib.Path]:
    """The demos whose page was not made from their present text."""

    def is_current(demo: pathlib.Path) -> bool:
        copy = GALLERY / demo.relative_to(ROOT / "demos")
        return (
            copy.exists() and get_md5sum(demo, "t") == get_md5sum(copy, "t") and md5sum_is_current(copy, "t")
        )

    return [demo for demo in sorted((ROOT / "demos").glob("*/plot_*.py")) if not is_current(demo)]


def forget_interrupted_runs() -> None:
    """Have the demos run again that a build had begun and not finished.

    Sphinx-Gallery notes a demo as run before it has written its page and its picture.
    """
    if RUNNING.exists():
        for name in RUNNING.read_text().splitlines():
            (GALLERY / f"{name}.md5").unlink(missing_ok=True)


def note_end_of_gallery(app: Sphinx) -> None:
    """All demos that this build began have their pages."""
    RUNNING.unlink(missing_ok=True)


def provide(app: Sphinx) -> None:
    """Set ``DATABASE_URL`` if this build is going to execute anything."""
    from executed_notebooks import stale_notebooks

    drop_stale_results(app.config.poolfork_execute)
    if not app.config.poolfork_execute:
        return
    forget_interrupted_runs()
    app.config.poolfork_demos_run = stale_demos()
    RUNNING.write_text("".join(f"{d.relative_to(ROOT / 'demos')}\n" for d in app.config.poolfork_demos_run))
    if app.builder.name == "doctest" or app.config.poolfork_demos_run or stale_notebooks():
        database_url()


def database_url() -> str:
    """The URL that everything executed in this build gets, for psycopg; starts the server at need."""
    global _server
    given = os.environ.get("DATABASE_URL")
    if not given:
        try:
            _server = start_postgres()
        except ServerError as error:
            raise ExtensionError(str(error)) from None
        given = os.environ["DATABASE_URL"] = _server.url
    os.environ["DATABASE_URL"] = (
        sa.make_url(given).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    )
    return os.environ["DATABASE_URL"]


def stop(app: Sphinx, exception: Exception | None) -> None:
    """Stop the server; should we die before this, its keeper does it."""
    global _server
    if _server is not None:
        _server.stop()
        del os.environ["DATABASE_URL"]
        _server = None


def setup(app: Sphinx) -> dict[str, Any]:
    """Start before Sphinx-Gallery runs the demos (priority 500) and stop at the very end."""
    app.add_config_value("poolfork_execute", True, "")
    app.add_config_value("poolfork_demos_run", [], "")
    app.connect("builder-inited", provide, priority=100)
    app.connect("builder-inited", note_end_of_gallery, priority=600)
    app.connect("build-finished", stop, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
