"""Setting up: the locks, the private environment, and what someone with an old Python is told."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

from poolfork.servers import mariadb_home, openssl_postgres_home, pgbouncer_program, postgres, postgres_home

ROOT = pathlib.Path(__file__).parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def pins(lock: pathlib.Path) -> set[str]:
    """What a lock pins, as ``name==version``."""
    return {
        line.split()[0]
        for line in lock.read_text().splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_is_hashed_and_names_no_index(lock: pathlib.Path) -> None:
    """Every package of a lock has hashes, and where to fetch it is the user's configuration."""
    text = lock.read_text()
    assert "://" not in text.replace("https://docs.astral.sh", "")
    for block in re.split(r"\n(?=\S)", text):
        if "==" in block.splitlines()[0] and not block.startswith("#"):
            assert "--hash=sha256:" in block, block


@pytest.mark.parametrize("name", ["test", "lab", "serve"])
def test_locks_agree_with_the_site(name: str) -> None:
    """Installing the tests' packages does not change a package that the site was built with."""
    assert pins(ROOT / "requirements" / "html.txt") <= pins(ROOT / "requirements" / f"{name}.txt")


def old_python() -> str | None:
    """A CPython older than 3.11 that runs, if there is one."""
    folders = os.environ.get("PATH", "").split(os.pathsep) + [
        str(p) for p in pathlib.Path.home().glob(".pyenv/versions/3.[89]*/bin")
    ]
    folders += [str(p) for p in pathlib.Path.home().glob(".pyenv/versions/3.10*/bin")]
    for folder in folders:
        for name in "python3.10", "python3.9", "python3.8":
            path = pathlib.Path(folder, name)
            if path.exists() and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
                return str(path)
    return None


def test_old_python_is_told_what_to_do(tmp_path: pathlib.Path) -> None:
    """Without a Python 3.11 the set-up ends with exit code 2 and one sentence."""
    if (python := old_python()) is None:
        pytest.skip("no Python older than 3.11 on this machine")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "requirements" / "html.in", tmp_path / "requirements")
    shutil.copy(ROOT / "tools" / "bootstrap.py", tmp_path / "tools")
    done = subprocess.run(
        [python, tmp_path / "tools" / "bootstrap.py"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Python 3.11 or newer is needed") and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / ".venv").exists()


def test_second_set_up_is_instant() -> None:
    """When nothing changed, setting up takes a fraction of a second."""
    if not (ROOT / ".venv" / ".installed-html").exists():
        pytest.skip("this run does not use the checkout's .venv")
    began = time.monotonic()
    subprocess.run([sys.executable, ROOT / "tools" / "bootstrap.py", "html"], check=True, timeout=60)
    assert time.monotonic() - began < 1.5


def test_plain_make_lists_every_target() -> None:
    """Each target of the Makefile has its line in the help."""
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert declared
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10).stdout
    assert [target for target in declared[1].split() if f"make {target} " not in listed] == []


@pytest.mark.skipif(
    "CI" not in os.environ, reason="a machine of one's own may lack some: their tests are skipped"
)
@pytest.mark.parametrize(
    "program", ["mariadbd", "pgbouncer", "postgres", "redis-server", "chromium", "lsof", "node"]
)
def test_full_run_has_every_program(program: str) -> None:
    """What a test is skipped without is there where nothing may be skipped."""
    servers = {
        "mariadbd": mariadb_home, "pgbouncer": pgbouncer_program, "postgres": openssl_postgres_home
    }  # fmt: skip
    assert servers.get(program, lambda: shutil.which(program))() is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root does the server run as another user")
def test_server_as_another_user_leaves_the_wheels_files_as_they_were() -> None:
    """Its programs are links to them: they keep their owner, and the folder goes without them."""
    programs = postgres_home() / "bin"

    def owners() -> dict[str, tuple[int, int]]:
        return {file.name: (file.stat().st_uid, file.stat().st_mode) for file in programs.iterdir()}

    before = owners()
    with postgres() as server:
        folder = server.folder
        assert pathlib.Path(folder, "data").stat().st_uid != 0
        assert owners() == before
    assert owners() == before and not folder.exists()
