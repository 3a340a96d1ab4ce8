"""The command line says what it does, takes bad input well, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import sqlalchemy as sa
from processes import alive, below

from poolfork import servers

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A PostgreSQL's URL, with a password in it."""
    with servers.postgres(tcp=True) as server:
        yield str(server.tcp).replace("postgresql:", "postgresql+psycopg:")


def poolfork(*words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run ``python -m poolfork`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "poolfork", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_user_without_a_command_is_told_the_commands() -> None:
    """No command and an unknown one are bad input; ``--help`` is not."""
    assert poolfork().returncode == 2
    assert "there is no command" in poolfork("frobnicate").stderr
    told = poolfork("--help")
    assert told.returncode == 0 and "check" in told.stdout and "table" in told.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["check", "nonsense"],
        ["table", "--output", "/proc"],
        ["table", "--output", "/proc/table.json"],
        ["check", "postgresql+nosuch://u:sekret@127.0.0.1/x"],
        ["check", "oracle+cx_oracle://u:sekret@127.0.0.1/x"],
        ["check", "postgresql+psycopg://u:sekret@127.0.0.1:1/x"],
        ["check", "postgresql+asyncpg://u:sekret@127.0.0.1:1/x"],
        ["check", "sqlite:////no/such/file.db"],
        ["check", "postgresql+psycopg://u:sekret@127.0.0.1:1/x", "--recipe", "hope"],
        ["check", "postgresql+psycopg://u:sekret@127.0.0.1:1/x", "--hazard", "rain"],
        ["check", "postgresql+psycopg://u:sekret@127.0.0.1:1/x", "--repeat", "0"],
        ["check", "postgresql+psycopg://u:sekret@127.0.0.1:1/x", "--hazard", "event-loop"],
        ["table", "--repeat", "0"],
        ["table", "--output", "/no/such/folder/x.json"],
        ["table", "--driver", "carrier-pigeon"],
    ],
)
def test_user_who_errs_gets_one_sentence(words: list[str]) -> None:
    """Exit code 2, one line on standard error, no traceback, no password."""
    said = poolfork(*words, timeout=60)
    assert said.returncode == 2 and said.stdout == ""
    assert len(said.stderr.strip().splitlines()) == 1, said.stderr
    assert "Traceback" not in said.stderr and "sekret" not in said.stderr


def test_user_without_permission_gets_one_sentence(url: str) -> None:
    """A role that may not make a table is told so."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE ROLE weak LOGIN PASSWORD 'feeble'"))
        connection.execute(sa.text("REVOKE CREATE ON SCHEMA public FROM public"))
    engine.dispose()
    said = poolfork("check", sa.make_url(url).set(username="weak", password="feeble").render_as_string(False))
    assert said.returncode == 2 and "permission denied" in said.stderr and "feeble" not in said.stderr


def test_check_says_by_its_exit_code_whether_the_recipes_pass(url: str) -> None:
    """0 when the guard passes, whatever the others do; 1 when a chosen recipe fails and there is no guard."""
    good = poolfork(
        "check", url, "--hazard", "held-finish", "--recipe", "nothing", "--recipe", "guard", "--json"
    )
    assert good.returncode == 0, good.stderr
    told = json.loads(good.stdout)
    assert "***" in told["url"] and str(sa.make_url(url).password) not in good.stdout
    for cell in told["cells"]:
        assert {"hazard", "recipe", "driver", "outcome", "runs", "detail"} <= set(cell)
    bad = poolfork("check", url, "--hazard", "starved", "--recipe", "nothing", "--repeat", "2")
    assert bad.returncode == 1 and "starved 2/2" in bad.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_user_who_stops_a_check_leaves_nothing(url: str, how: signal.Signals) -> None:
    """Ctrl-C, kill and kill -9: no process stays, the table is dropped."""
    check = subprocess.Popen(
        [sys.executable, "-m", "poolfork", "check", url],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    def tables() -> list[str]:
        return [name for name in sa.inspect(engine).get_table_names() if name.startswith("poolfork_")]

    ours: set[psutil.Process] = set()
    try:
        deadline = time.monotonic() + 60
        while (len(ours) < 4 or not tables()) and time.monotonic() < deadline:
            ours |= below(check.pid)
            time.sleep(0.05)
        assert len(ours) >= 4 and tables(), "it is measuring"
        ours |= below(check.pid)
        os.kill(check.pid, how)
        assert check.wait(40) == (130 if how == signal.SIGINT else -how)
    finally:
        check.kill()
        check.wait(10)
    deadline = time.monotonic() + 40
    while (tables() or any(map(alive, ours))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert tables() == [] and [process for process in ours if alive(process)] == []
