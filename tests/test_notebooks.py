"""The notebooks as files: their form, how each runs alone, and that a fix replaced by nothing is noticed."""

from __future__ import annotations

import copy
import itertools
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
from typing import Any

import nbformat
import pytest
import sqlalchemy as sa
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from poolfork.servers import postgres

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SETUP = (ROOT / "demos" / "_setup.py").read_text().rstrip("\n")
STORM = ROOT / "demos" / "1_corruption" / "plot_storm.py"

every_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def read(file: pathlib.Path) -> Any:
    """The notebook as nbformat reads it."""
    return nbformat.read(file, as_version=4)


def code(notebook: Any, name: str) -> Any:
    """The cell with the id `name`."""
    return next(cell for cell in notebook.cells if cell.id == name)


@pytest.fixture(autouse=True)
def jupyter_at_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Jupyter's and IPython's own files out of the user's home, and DATABASE_URL out of the kernel."""
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.delenv("DATABASE_URL", raising=False)


def execute(notebook: Any, folder: pathlib.Path) -> str:
    """Execute a copy of `notebook` in `folder`, a kernel of its own; return what it wrote to its output."""
    notebook = copy.deepcopy(notebook)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    written = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(written)


def tables(url: sa.URL) -> list[str]:
    """The tables of the database's default schema."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    return sa.inspect(engine).get_table_names()


def test_inventory_of_the_notebooks_is_pinned() -> None:
    """Reproduce, fix, try your own: these three."""
    assert [file.stem for file in NOTEBOOKS] == ["fix", "reproduce", "your_database"]


@every_notebook
def test_notebook_is_stored_without_output(file: pathlib.Path) -> None:
    """No output, no execution count, and ids that say what a cell is, so that a change can be read."""
    notebook = read(file)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z][a-z0-9-]+", name)] == []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id


@every_notebook
def test_notebook_has_the_set_up_of_the_demos(file: pathlib.Path) -> None:
    """One early cell is demos/_setup.py, and the site folds it away."""
    notebook = read(file)
    cell = code(notebook, "setup")
    assert cell.source == SETUP, "the set-up cell: copy demos/_setup.py into it"
    assert cell.metadata.tags == ["hide-input"]
    assert cell is next(cell for cell in notebook.cells if cell.cell_type == "code")


@every_notebook
def test_notebook_says_first_what_it_is(file: pathlib.Path) -> None:
    """It opens with a title and links to the page of the fixes; every code cell has prose before it."""
    cells = read(file).cells
    assert cells[0].source.startswith("# ") and "(#pooling_multiprocessing)" in cells[0].source
    unexplained = [
        after.id for before, after in itertools.pairwise(cells)
        if after.cell_type == "code" and before.cell_type == "code"
    ]  # fmt: skip
    assert unexplained == []


@pytest.mark.parametrize("name", ["fix", "reproduce"])
def test_storm_is_the_one_of_the_demo(name: str) -> None:
    """What the fixes stand is the storm of section 1, to the letter."""
    demo = STORM.read_text()
    storm = demo[demo.index("NUMBER = sa.text(") :].split("\n# %%")[0].rstrip()
    assert storm in code(read(ROOT / "notebooks" / f"{name}.ipynb"), "storm-function").source


@every_notebook
def test_notebook_runs_alone(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """In an empty folder and without DATABASE_URL it starts its own server, which ends with the kernel."""
    notebook, empty = read(file), tmp_path / "empty"
    empty.mkdir()
    where = nbformat.v4.new_code_cell('print("SERVER", url.query["host"], os.getpid())')
    notebook.cells.append(where)
    found = re.search(r"^SERVER (/tmp/poolfork-\S+) (\d+)$", execute(notebook, empty), re.MULTILINE)
    assert found, "it used a throw-away server"
    folder, kernel = pathlib.Path(found[1]), int(found[2])
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)
    assert list(empty.iterdir()) == []


@every_notebook
def test_notebook_leaves_nothing_in_a_named_database(
    file: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With DATABASE_URL it runs on that server, through that driver where it is about drivers, and drops its table."""
    with postgres() as server:
        url = sa.make_url(server.url).set(drivername="postgresql+psycopg2")
        monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        written = execute(read(file), tmp_path)
        assert tables(url) == []
    if file.stem == "your_database":
        assert "through psycopg2" in written


def test_failing_measurement_drops_the_table(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that fails in the middle leaves no table in the user's database."""
    notebook = read(ROOT / "notebooks" / "your_database.ipynb")
    cell = code(notebook, "measure")
    cell.source = cell.source.replace(
        "def measure(hazard, recipe):\n", "def measure(hazard, recipe):\n    1 / 0\n"
    )
    with postgres() as server:
        url = sa.make_url(server.url).set(drivername="postgresql+psycopg")
        monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
            execute(notebook, tmp_path)
        assert tables(url) == []


@pytest.mark.parametrize(
    ("cell", "fix", "nothing", "claim"),
    [
        ("dispose", "engine.dispose(close=False)", "pass", "fix 1: every row is right"),
        ("pid-event", "raise sa.exc.DisconnectionError", "str", "fix 2: every row is right"),
        ("pid-event", "connection_record.dbapi_connection = connection_proxy.dbapi_connection = None", "pass",
         "fix 2: the parent keeps its session"),
        ("dispose", "close=False", "close=True", "fix 1: the parent keeps its session"),
    ],
    ids=["fix 1", "fix 2", "half of fix 2", "half of fix 1"],
)  # fmt: skip
def test_fix_replaced_by_nothing_fails(
    cell: str, fix: str, nothing: str, claim: str, tmp_path: pathlib.Path
) -> None:
    """The notebook's claims are measured: without the fix, or without the half that the parent needs, they fail."""
    notebook = read(ROOT / "notebooks" / "fix.ipynb")
    broken = code(notebook, cell)
    assert fix in broken.source
    broken.source = broken.source.replace(fix, nothing)
    with pytest.raises(CellExecutionError) as failed:
        execute(notebook, tmp_path)
    assert failed.value.ename == "AssertionError" and failed.value.evalue.startswith(claim)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense secret", "cannot read it as a URL"),
        ("postgresql+psycopg://user:secret@host:port/db", "cannot read it as a URL"),
        ("nosuch+driver://user:secret@127.0.0.1/db", "knows no such database"),
        ("postgresql+asyncpg://user:secret@127.0.0.1/db", "async driver"),
        ("sqlite:///file.db", "SQLite"),
        ("postgresql+psycopg://user:secret@127.0.0.1:1/db", "refused"),
    ],
)
def test_bad_database_url_gets_one_sentence(url: str, says: str, tmp_path: pathlib.Path) -> None:
    """Exit code 2, one line on stderr, no traceback, no password, in time; here without a kernel."""
    one_sentence(url, says, tmp_path)


def test_silent_server_is_given_up(tmp_path: pathlib.Path) -> None:
    """A server that accepts and never answers does not hold the notebook, whatever the driver."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        one_sentence(f"postgresql+pg8000://user:secret@127.0.0.1:{port}/db", "did not answer", tmp_path)


def one_sentence(url: str, says: str, tmp_path: pathlib.Path) -> None:
    """Run the set-up and the cell that reads DATABASE_URL, and check how it refuses `url`."""
    notebook = read(ROOT / "notebooks" / "your_database.ipynb")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", f"{SETUP}\n{code(notebook, 'url').source}"],
        cwd=tmp_path, env=os.environ | {"DATABASE_URL": url}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert time.monotonic() - began < 5 + os.getloadavg()[0] / 4, "five seconds, more where others work"
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and says in done.stderr, done.stderr
    assert "secret" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "jupyter"] == []
