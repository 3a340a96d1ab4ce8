"""The build as a user sees it, in a clean copy of the checkout: what it runs, says, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from test_demos import survivors

ROOT = pathlib.Path(__file__).parent.parent
BOUND = 600
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("build")]


def sources() -> list[str]:
    """The checkout's own files, by their names below it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A clean copy of the checkout, without anything that a build made."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in sources():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def build(folder: pathlib.Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run tools/build.py there with `changes` in the environment."""
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"} | changes
    return subprocess.run(
        [sys.executable, "tools/build.py", *(arguments or ["html"])],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOUND,
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(checkout: pathlib.Path) -> pathlib.Path:
    """The copy after its first build, which has to end with the summary line."""
    done = build(checkout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    last = done.stdout.strip().splitlines()[-1]
    assert re.fullmatch(
        r"\d+ demos and \d+ notebooks hold \(\d+ run now, 0 unchanged\), \d+ claims checked, \d+ s: open .*/index\.html",
        last,
    )
    return checkout


@pytest.fixture
def restored(built: pathlib.Path) -> Iterator[pathlib.Path]:
    """The built copy; the sources that the test changed are put back afterwards."""
    yield built
    for name in sources():
        if (built / name).read_bytes() != (ROOT / name).read_bytes():
            shutil.copy2(ROOT / name, built / name)


def change(folder: pathlib.Path, name: str, old: str, new: str) -> None:
    """Replace text in a file of the copy, and insist that it was there."""
    file = folder / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


def test_nothing_changed_means_nothing_run(built: pathlib.Path) -> None:
    """A second build starts no server and runs no demo."""
    done = build(built)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "(0 run now, " in done.stdout.strip().splitlines()[-1]


def test_changing_one_demo_reruns_that_demo_alone(restored: pathlib.Path) -> None:
    """The other demos keep their measured output."""
    change(
        restored,
        "demos/1_corruption/plot_goodbye.py",
        "\nengine.dispose()\n",
        "\nengine.dispose()  # changed\n",
    )
    done = build(restored)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "(1 run now, " in done.stdout.strip().splitlines()[-1]


def test_broken_claim_fails_the_build_and_is_named(restored: pathlib.Path) -> None:
    """If dispose(close=False) is replaced by what it cures, the message names the demo and the claim."""
    change(
        restored, "demos/1_corruption/plot_goodbye.py", "engine.dispose(close=False))", "engine.dispose())"
    )
    for _ in "first", "again":
        done = build(restored)
        assert done.returncode == 1
        assert "demos/1_corruption/plot_goodbye.py does not hold: " in done.stderr
        assert "hold (" not in done.stdout.strip().splitlines()[-1]


def test_broken_notebook_fails_the_build_and_is_named(restored: pathlib.Path) -> None:
    """A notebook whose claim fails is named with its error, and leaves no page that looks fresh."""
    file = restored / "notebooks" / "reproduce.ipynb"
    notebook = json.loads(file.read_text())
    notebook["cells"][-1] = {
        "cell_type": "code", "id": "broken", "metadata": {}, "execution_count": None, "outputs": [],
        "source": "assert 1 == 2, 'one is two'",
    }  # fmt: skip
    file.write_text(json.dumps(notebook))
    done = build(restored)
    assert done.returncode != 0
    assert "notebooks/reproduce.ipynb: AssertionError: one is two" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_warning_fails_the_build_every_time(restored: pathlib.Path) -> None:
    """A dead reference fails the first build and the second, which would have nothing to read again."""
    with open(restored / "doc" / "pooling.rst", "a") as page:
        page.write("\n\n:ref:`no_such_label`\n")
    assert build(restored).returncode == 1
    assert build(restored).returncode == 1


@pytest.mark.parametrize(
    "url", ["nonsense", "postgresql://user:secret@127.0.0.1:1/db", "mysql://user:secret@h/db"]
)
def test_bad_database_url_ends_the_build_at_once(built: pathlib.Path, url: str) -> None:
    """One sentence, exit code 2, within five seconds, no password; and the results are still there."""
    began = time.monotonic()
    done = build(built, DATABASE_URL=url)
    assert time.monotonic() - began < 5
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "secret" not in done.stderr
    assert (built / "build" / "html" / "index.html").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_interrupted_build_leaves_no_process(restored: pathlib.Path, how: signal.Signals) -> None:
    """Ended in the middle of the demos, a build takes its server, workers, kernels and children with it."""
    shutil.rmtree(restored / "doc" / "gallery")
    marker = f"{os.getpid()}-{how.name}"
    process = subprocess.Popen(
        [sys.executable, "tools/build.py", "html"],
        cwd=restored, env=os.environ | {"POOLFORK_TEST": marker}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        begun = any("generating gallery for" in line and "%" in line for line in process.stdout)
        assert begun and process.poll() is None, "it is in the middle of the demos"
        os.killpg(process.pid, how) if how is signal.SIGINT else process.send_signal(how)
        process.stdout.close()
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait(timeout=10)
    assert survivors(f"POOLFORK_TEST={marker}", 30) == []


def test_build_after_an_interrupted_one_runs_what_was_begun(restored: pathlib.Path) -> None:
    """A demo that was noted as run but has no page or picture yet is run again; nothing old is shown for it."""
    gallery = restored / "doc" / "gallery"
    assert build(restored).returncode == 0
    (gallery / "1_corruption" / "images" / "thumb" / "sphx_glr_plot_goodbye_thumb.png").unlink(
        missing_ok=True
    )
    (gallery / ".running").write_text("1_corruption/plot_goodbye.py\n")
    done = build(restored)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "(1 run now, " in done.stdout.strip().splitlines()[-1]


def test_empty_database_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DATABASE_URL that is set to nothing, as a CI's is that lacks the secret, gets a throw-away server."""
    monkeypatch.syspath_prepend(str(ROOT / "doc" / "_ext"))
    import throwaway

    monkeypatch.setenv("DATABASE_URL", "")
    try:
        assert throwaway.database_url().startswith("postgresql+psycopg://postgres@/postgres?host=")
    finally:
        throwaway.stop(None, None)


def test_every_block_of_every_page_holds(built: pathlib.Path) -> None:
    """make doctest: Sphinx's doctest builder against a real PostgreSQL."""
    done = build(built, "doctest")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* tests?\b", done.stdout) and "0 failures in tests" in done.stdout


def test_downloads_of_the_site_are_the_demos(built: pathlib.Path) -> None:
    """What a page offers to download is the demo, byte for byte, and a notebook of it."""
    assert build(built).returncode == 0  # other tests built from changed sources
    downloads = built / "build" / "html" / "_downloads"
    for demo in sorted((built / "demos").glob("*/plot_*.py")):
        offered = list(downloads.glob(f"*/{demo.name}"))
        assert [file.read_text() for file in offered] == [demo.read_text()]
        assert len(list(downloads.glob(f"*/{demo.stem}.ipynb"))) == 1


def test_downloaded_notebooks_run_alone(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The notebooks that Sphinx-Gallery makes of the demos run in an empty folder, without DATABASE_URL."""
    assert build(built).returncode == 0
    notebooks = sorted((built / "build" / "html" / "_downloads").glob("*/plot_*.ipynb"))
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run_notebooks.py"), *map(str, notebooks)],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOUND,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count(": ok\n") == len(notebooks) > 0
