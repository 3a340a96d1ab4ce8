"""What the Makefile's tools leave behind when they do not come to their end: nothing."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request
import uuid

import pytest
from test_demos import survivors

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tools")]

import audit  # noqa: E402 - found by the line above


def test_program_that_overstays_ends_with_all_that_it_started() -> None:
    """Lighthouse starts a browser; neither outlives the bound, and the message says how long that was."""
    marker = uuid.uuid4().hex
    environment = os.environ | {"POOLFORK_TEST": marker}
    told = audit.run_to_its_end(["sh", "-c", "setsid --wait sleep 60 & wait"], environment, 0.5)
    assert told == "no end after 0.5 s"
    assert survivors(marker) == []


def test_program_that_fails_is_quoted() -> None:
    """What it said last, else its exit code; nothing where it did its work."""
    assert audit.run_to_its_end(["sh", "-c", "echo said; exit 3"], dict(os.environ), 20) == "said"
    assert audit.run_to_its_end(["sh", "-c", "exit 3"], dict(os.environ), 20) == "exit code 3"
    assert audit.run_to_its_end(["sh", "-c", "echo said"], dict(os.environ), 20) == ""


def test_served_site_is_gone_after_an_error(tmp_path: pathlib.Path) -> None:
    """An audit that fails stops its server."""
    (tmp_path / "index.html").write_text("<p>here</p>")
    with pytest.raises(ZeroDivisionError), audit.serve(tmp_path) as address:
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"here" in answer.read()
        1 / 0  # noqa: B018
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=20)


def test_interrupted_demos_end_at_once(tmp_path: pathlib.Path) -> None:
    """Whoever stops `make demos` does not wait for the demos under way, and leaves none of them."""
    marker = uuid.uuid4().hex
    (tmp_path / "begun").mkdir()
    demo = tmp_path / "plot_endless.py"
    demo.write_text(
        "import pathlib, os, time\npathlib.Path('begun', str(os.getpid())).touch()\ntime.sleep(55)"
    )
    code = "import pathlib, run_demos; run_demos.serve([pathlib.Path('plot_endless.py')], 3, False)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"POOLFORK_TEST": marker, "PYTHONPATH": str(ROOT / "tools")},
    )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while len(list((tmp_path / "begun").iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=25)
    finally:
        process.kill()
        process.wait(timeout=10)
    assert len(list((tmp_path / "begun").iterdir())) == 2, "two at a time, and none after the interrupt"
    assert survivors(marker) == []
