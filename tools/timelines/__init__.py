"""Record one cell of the truth table as it happens: who does what, and what goes over which session's wire.

`record` measures the cell in a process of its own, whose actors tell what they do (`live`); its driver reaches the
server through a `Wire`, which tells what was said there, whoever said it. Both use one clock. What comes out are the
steps of a picture (``who``, ``does``, ``sees``; `story`), with names for what differs from run to run:
``session 1`` for a backend's id, ``t`` for the table.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from timelines.story import steps
from timelines.wire import Wire

LIVE = pathlib.Path(__file__).with_name("live.py")
QUIET = 10.0  # seconds without an event, more than any bound of the cell's own


def record(asked: dict[str, Any], wire: Wire | None) -> dict[str, Any]:
    """Measure a cell (``spec``, as `poolfork.actors.Spec`'s fields) in a process of its own; returns its `steps`."""
    with tempfile.NamedTemporaryFile("r") as file:
        asked = asked | {"events": file.name, "port": wire.port if wire else 0}
        process = subprocess.Popen(
            [sys.executable, str(LIVE), json.dumps(asked)],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        hangs = ""
        try:
            hangs = _wait(process, pathlib.Path(file.name))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        events = [json.loads(line) for line in file.read().splitlines()]
    if hangs:
        now = {"t": time.monotonic_ns(), "pid": events[0]["pid"], "thread": events[0]["pid"]}
        doing = [event["text"] for event in events if event["kind"] == "step"][-1]
        events += [
            now | {"kind": "found", "outcome": "hang", "text": f"{doing}: {hangs}"},
            now | {"kind": "over", "runs": 1},
        ]
    if not any(event["kind"] == "over" for event in events):
        raise RuntimeError(
            f"{asked['spec']['hazard']} with {asked['spec']['recipe']} did not come to its end"
        )
    return steps(events, wire.events if wire else [], asked)


def _wait(process: subprocess.Popen[bytes], file: pathlib.Path) -> str:
    """Wait for the cell's end; returns why it is not waited for any longer, or nothing."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            return ""
        if time.time() - file.stat().st_mtime > QUIET:
            return f"no end after {QUIET:g} s"
