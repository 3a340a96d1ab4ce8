"""What was measured is shown with its day and its code, and never as another day's or another code's."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "doc" / "_ext")]

import measure  # noqa: E402
import measured  # noqa: E402


@pytest.fixture
def folders(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pathlib.Path, pathlib.Path]:
    """Empty folders in the place of build/ and doc/measured/."""
    build, published = tmp_path / "build", tmp_path / "published"
    build.mkdir()
    published.mkdir()
    monkeypatch.setattr(measure, "BUILD", build)
    monkeypatch.setattr(measure, "PUBLISHED", published)
    return build, published


def write(folder: pathlib.Path, **changes: str) -> None:
    """A measurement of the costs, by today's code unless `changes` say otherwise."""
    data = {"measured": "2001-02-03", "fingerprint": measure.fingerprint("cost"), "python": sys.version}
    (folder / "cost.json").write_text(json.dumps(data | changes))


def test_nothing_measured_is_told_as_such(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    """Neither here nor published: the page names the command."""
    assert measured.load("cost") is None
    assert "make measure ONLY=cost" in measured.note("cost")[0].astext()


def test_own_measurement_comes_first(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    """Measured by this checkout, with this code and this Python."""
    build, published = folders
    write(build)
    write(published, measured="2000-01-01")
    found = measured.load("cost")
    assert found and found.fresh and found.says == "Measured by this checkout on 2001-02-03."


@pytest.mark.parametrize("stale", [{"fingerprint": "another"}, {"python": "another"}])
def test_own_measurement_of_other_code_is_not_shown(
    stale: dict[str, str], folders: tuple[pathlib.Path, pathlib.Path]
) -> None:
    """What was measured here before the code changed is no longer this checkout's."""
    build, published = folders
    write(build, **stale)
    assert measured.load("cost") is None
    write(published, measured="2000-01-01")
    found = measured.load("cost")
    assert found and not found.fresh and "2000-01-01, with this code, on another machine" in found.says


def test_published_measurement_of_earlier_code_says_so(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    """It is shown, as what it is."""
    write(folders[1], fingerprint="another")
    found = measured.load("cost")
    assert found and not found.fresh and "with earlier code" in found.says


def test_publishing_refuses_what_other_code_measured(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    """Nothing stale, and nothing that was never measured, is kept."""
    with pytest.raises(LookupError, match="was not measured yet"):
        measure.publish("cost")
    write(folders[0], fingerprint="another")
    with pytest.raises(LookupError, match="other code"):
        measure.publish("cost")
    write(folders[0])
    measure.publish("cost")
    assert json.loads((folders[1] / "cost.json").read_text())["measured"] == "2001-02-03"


def test_published_json_has_a_line_for_each_item() -> None:
    """So that a diff shows what changed."""
    data = {"cells": [{"a": 1}, {"b": "ü"}], "empty": [], "versions": {"x": "1"}}
    text = measure.as_lines(data)
    assert json.loads(text) == data and text.count("\n") == 8
    now, remembered = {"outcome": "ok", "runs": 1}, {"runs": 1, "outcome": "ok"}
    assert measure.as_lines({"cells": [now]}) == measure.as_lines({"cells": [remembered]})


def test_published_errors_name_no_folder_of_one_machine() -> None:
    """A traceback's file is told by its package alone, in what is written and in what was."""
    told = "at /srv/x/lib/python3.11/site-packages/asyncpg/a.py:1, /opt/y/lib/python3.11/asyncio/tasks.py:2]"
    assert (
        json.loads(measure.as_lines({"detail": told}))["detail"] == "at asyncpg/a.py:1, asyncio/tasks.py:2]"
    )
    for file in (ROOT / "doc" / "measured").glob("*.json"):
        assert "site-packages/" not in (text := file.read_text()) and "/lib/python3" not in text, file.name


def test_measurement_that_cannot_be_written_leaves_the_one_before(tmp_path: pathlib.Path) -> None:
    """Where the disk ends in the middle of it, the pages still have what they had, whole, and no rest lies about."""
    file = tmp_path / "cost.json"
    measure.keep(file, "before")
    code = (
        "import pathlib, resource, sys, measure; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "measure.keep(pathlib.Path(sys.argv[1]), 'x' * 5000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file], cwd=ROOT / "tools", capture_output=True, text=True, timeout=60
    )
    assert "File too large" in done.stderr
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


def test_unknown_measurement_gets_one_sentence() -> None:
    """Exit code 2, and the names that there are."""
    done = subprocess.run(
        [sys.executable, "tools/measure.py", "colour"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "there is no measurement colour" in done.stderr and "table" in done.stderr


def test_guard_passes_every_published_cell() -> None:
    """The sentence that the guard's page rests on; and the table is as large as it says."""
    cells = json.loads((ROOT / "doc" / "measured" / "table.json").read_text())["cells"]
    ran = [cell for cell in cells if cell["outcome"] != "not-run"]
    assert len(ran) >= 1000
    assert [cell for cell in ran if cell["recipe"] == "guard" and cell["outcome"] != "ok"] == []


def test_every_mechanism_of_the_guard_has_a_cell_that_needs_it() -> None:
    """What no measurement needs does not belong into a file that people copy."""
    mechanisms = json.loads((ROOT / "doc" / "measured" / "ablation.json").read_text())["mechanisms"]
    assert [name for name, cells in mechanisms.items() if not cells] == []


def test_every_figure_leads_to_how_it_was_measured() -> None:
    """Each measurement there is has a place on the site that tells how it is made."""
    assert set(measured.HOW) == set(measure.measurements())
