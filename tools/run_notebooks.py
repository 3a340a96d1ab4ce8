"""Execute notebooks, each in a kernel of its own: ``run_notebooks.py [--output FOLDER] FILE...``.

Prints a line a notebook; a failing cell is named with its error, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys
import tempfile

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

CELL_SECONDS = 120


def run(source: pathlib.Path, output: pathlib.Path | None) -> str | None:
    """Execute one notebook in an empty folder; returns what failed, or None."""
    notebook = nbformat.read(source, as_version=4)
    with tempfile.TemporaryDirectory(prefix="poolfork-notebook-") as empty:
        client = NotebookClient(
            notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": empty}}
        )
        try:
            client.execute()
        except CellExecutionError as error:
            return f"{error.ename}: {error.evalue}"
        except (CellTimeoutError, DeadKernelError) as error:
            return str(error)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day: the copy depends on the results alone
    if output:
        output.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, output / source.name)
    return None


def main() -> int:
    """Run every notebook that is named; returns the exit code."""
    parser = argparse.ArgumentParser(description="Execute notebooks, each in a kernel of its own.")
    parser.add_argument("notebooks", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, help="folder for the executed copies")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the kernel is ended
    failures = 0
    for source in options.notebooks:
        wrong = run(source, options.output)
        print(f"notebooks/{source.name}: {'ok' if wrong is None else wrong}", flush=True)
        failures += wrong is not None
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
