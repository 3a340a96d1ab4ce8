"""Run Sphinx on doc/: ``build.py html|doctest|linkcheck|dirhtml|epub [--no-run]``; exit code 2 if it cannot start.

Does what sphinx-build does, but says what went wrong in one sentence where one is enough, leaves
no crash report behind, and looks at DATABASE_URL before anything else.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import runpy
import signal
import sys
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent


def check_database_url() -> None:
    """End with exit code 2 and one sentence if a DATABASE_URL is set that the demos cannot use."""
    if os.environ.get("DATABASE_URL"):
        runpy.run_path(str(ROOT / "demos" / "_setup.py"))["database"]("create")


def build(builder: str, run: bool, output: pathlib.Path) -> int:
    """Build doc/ into `output`/BUILDER; returns the exit code."""
    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError
    from sphinx.util import console, docutils

    if not sys.stdout.isatty():
        console.nocolor()
    # With execution off, nothing that was executed may be touched: another tree, another copy.
    overrides = {} if run else {"sphinx_gallery_conf.plot_gallery": "False", "poolfork_execute": False}
    try:
        with docutils.patch_docutils(str(ROOT)), docutils.docutils_namespace():
            app = Sphinx(
                srcdir=ROOT / "doc",
                confdir=ROOT,
                outdir=output / builder,
                doctreedir=output / "doctrees",
                buildername=builder,
                confoverrides=overrides,
                warningiserror=True,
                parallel=2,
            )
            app.build()
    except SphinxError as error:
        print(f"\n{error.category}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted; the server and everything else of ours has ended.", file=sys.stderr)
        return 130
    import claims  # found through conf.py

    for failure in claims.failures(app):
        print(f"\n{failure}", file=sys.stderr)
    if app.statuscode:
        # Sphinx forgets a page's warnings once it has read the page: have it read all again.
        (output / "doctrees" / "environment.pickle").unlink(missing_ok=True)
    elif builder == "html" and run:
        print(f"\n{claims.summary(app)}")
    return app.statuscode


def main() -> int:
    """Parse the command line and build; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run Sphinx on doc/.")
    parser.add_argument("builder", choices=["html", "doctest", "linkcheck", "dirhtml", "epub"])
    parser.add_argument("--no-run", action="store_true", help="execute no demo and no notebook")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "build", help="default: build/")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="sphinx")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    check_database_url()
    return build(options.builder, not options.no_run, options.output.resolve())


if __name__ == "__main__":
    sys.exit(main())
