"""The kept inventories: readable, complete for Sphinx, and filtered to what the pages name."""

from __future__ import annotations

import http.server
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from sphinx.util.inventory import InventoryFile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import inventories  # noqa: E402

HEAD = "# Sphinx inventory version 2\n# Project: Ducks\n# Version: 3.1\n# URL: https://ducks.example/en/\n"
POND = [
    "pond.Duck py:class 1 api.html#$ -",
    "pond.Duck.quack py:method 1 api.html#$ -",
    "feeding std:label -1 guide.html#feeding How to feed, and with what",
    "a title with spaces std:label -1 guide.html#spaces A title",
    "pond.Swan py:class 1 api.html#$ -",
]


def read(file: pathlib.Path, url: str = "https://ducks.example/en") -> dict[tuple[str, str], str]:
    """What Sphinx itself reads from an inventory: {(type, name): address}."""
    objects = InventoryFile.loads(file.read_bytes(), uri=url).data
    return {(kind, name): item.uri for kind, items in objects.items() for name, item in items.items()}


def test_sphinx_reads_what_build_writes(tmp_path: pathlib.Path) -> None:
    """A text of four head lines and one line an object becomes an inventory that Sphinx resolves."""
    (tmp_path / "ducks.txt").write_text(HEAD + "".join(f"{line}\n" for line in POND))
    url, file = inventories.build(tmp_path, tmp_path / "out")["ducks"]
    found = read(file)
    assert url == "https://ducks.example/en/"
    assert found["py:method", "pond.Duck.quack"] == "https://ducks.example/en/api.html#pond.Duck.quack"
    assert found["std:label", "a title with spaces"].endswith("guide.html#spaces")
    assert len(found) == len(POND)


def test_build_leaves_a_right_file_alone(tmp_path: pathlib.Path) -> None:
    """A second build does not touch the file, so that nothing looks changed; a changed text does."""
    (tmp_path / "ducks.txt").write_text(HEAD + POND[0] + "\n")
    file = inventories.build(tmp_path, tmp_path)["ducks"][1]
    os.utime(file, (1, 1))
    inventories.build(tmp_path, tmp_path)
    assert file.stat().st_mtime == 1
    (tmp_path / "ducks.txt").write_text(HEAD + POND[1] + "\n")
    inventories.build(tmp_path, tmp_path)
    assert list(read(file)) == [("py:method", "pond.Duck.quack")]


def test_build_names_the_text_that_is_no_inventory(tmp_path: pathlib.Path) -> None:
    """A head that is not ours is an error that says which file."""
    (tmp_path / "geese.txt").write_text("pond.Goose py:class 1 api.html#$ -\n")
    with pytest.raises(inventories.InventoryError, match=r"geese\.txt"):
        inventories.build(tmp_path, tmp_path)


def test_names_used_sees_every_form_of_a_role() -> None:
    """Plain, shortened, titled, called and external targets are all seen; literals are not."""
    text = (
        ":func:`os.fork` and :meth:`~pond.Duck.quack()`, :ref:`the guide <feeding>`, ``:class:`` alone,"
        " :external+ducks:ref:`spaces`, {external+ducks:ref}`in MyST <myst>`, :py:class:`a swan <pond.Swan>`, :class:`!not.linked`, `pond.Pike`"
    )
    named = {"os.fork", "pond.Duck.quack", "feeding", "spaces", "myst", "pond.Swan"}
    assert inventories.names_used([text]) == named | {"not.linked"}


def test_wanted_keeps_only_named_objects_sorted() -> None:
    """The filter keeps whole lines, in order, and finds a label written in capitals."""
    assert inventories.wanted(POND, {"pond.Duck.quack", "Feeding"}) == sorted([POND[1], POND[2]])
    assert inventories.wanted(POND, {"pond"}) == []


def test_the_kept_texts_hold_what_the_pages_name() -> None:
    """Every name of SQLAlchemy, Python or psycopg that a role on a page targets is kept."""
    kept: set[str] = set()
    for text in inventories.FOLDER.glob("*.txt"):
        kept |= {line.split(" ")[0] for line in text.read_text().splitlines() if not line.startswith("#")}
    named = inventories.names_used(inventories.sources())
    foreign = {
        name for name in named if name.startswith(("sqlalchemy.", "os.", "psycopg.", "multiprocessing."))
    }
    assert foreign, "no page names anything, or names_used() is blind"
    assert foreign <= kept


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Iterator[str]:
    """A web server on loopback that publishes an objects.inv; gives its address."""
    (tmp_path / "objects.inv").write_bytes(inventories.pack("Ducks", "3.2", "".join(f"{x}\n" for x in POND)))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, directory=str(tmp_path), **options)  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join(10)


def test_refresh_rewrites_from_the_project(
    project: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh takes version and lines from the project's own inventory and keeps only what is named."""
    folder = tmp_path / "kept"
    folder.mkdir()
    text = folder / "ducks.txt"
    text.write_text(HEAD.replace("https://ducks.example/en/", project) + "pond.Gone py:class 1 x.html#$ -\n")
    monkeypatch.setattr(inventories, "ROOT", tmp_path)
    monkeypatch.setattr(inventories, "sources", lambda: [":class:`pond.Duck` :class:`pond.Gone`"])
    inventories.refresh(folder)
    assert text.read_text() == (
        f"# Sphinx inventory version 2\n# Project: Ducks\n# Version: 3.2\n# URL: {project}\n{POND[0]}\n"
    )


def test_refresh_changes_nothing_when_one_project_does_not_answer(
    project: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All or nothing: the first project answers, the second has no inventory, no text is written."""
    folder = tmp_path / "kept"
    folder.mkdir()
    texts = {"a.txt": HEAD.replace("https://ducks.example/en/", project)}
    texts["b.txt"] = texts["a.txt"].replace(project, f"{project}missing/")
    for name, content in texts.items():
        (folder / name).write_text(content)
    monkeypatch.setattr(inventories, "sources", lambda: [":class:`pond.Duck`"])
    with pytest.raises(inventories.InventoryError, match=r"missing/objects\.inv could not be read"):
        inventories.refresh(folder)
    assert {file.name: file.read_text() for file in folder.iterdir()} == texts


def test_a_damaged_inventory_is_an_error() -> None:
    """Neither a web page nor a broken download is taken for an inventory."""
    packed = inventories.pack("Ducks", "3.2", POND[0])
    assert inventories.unpack(packed)[2] == [POND[0]]
    with pytest.raises(inventories.InventoryError, match="not a Sphinx inventory"):
        inventories.unpack(b"<html>moved</html>")
    with pytest.raises(inventories.InventoryError, match="damaged"):
        inventories.unpack(packed[:-9])


def test_the_command_knows_one_word() -> None:
    """Anything but ``refresh`` gets the usage on stderr and exit code 2."""
    ended = subprocess.run(
        [sys.executable, ROOT / "tools" / "inventories.py", "restart"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "usage: python tools/inventories.py refresh\n"
