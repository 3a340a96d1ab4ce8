"""Run demos as plain scripts, two at a time: ``run_demos.py [-n TIMES] [--load] [NAME...]``.

Prints a line a demo and a summary; a failing one is named with its claim. Exit codes: 0 all
held, 1 a claim failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BOUND = 60  # seconds that one demo may take
running: set[subprocess.Popen[str]] = set()


def run(demo: pathlib.Path) -> tuple[pathlib.Path, float, str]:
    """Run one demo in a process group of its own; returns it, its seconds, and what failed ("" if nothing)."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, demo],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    running.add(process)
    try:
        _, errors = process.communicate(timeout=BOUND)
        failed = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        return demo, time.monotonic() - began, failed if process.returncode else ""
    except subprocess.TimeoutExpired:
        return demo, BOUND, f"took more than {BOUND} s and was killed"
    finally:
        end(process)
        running.discard(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of a demo's process group, children included."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)


def busy() -> subprocess.Popen[bytes]:
    """A process that keeps one core busy until we end."""
    spin = "import os, sys\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(10**6))"
    return subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.DEVNULL)


def main() -> int:
    """Run the demos that were named, or all; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run demos as plain scripts, two at a time.")
    parser.add_argument("names", nargs="*", help="part of a demo's path (default: all)")
    parser.add_argument("-n", type=int, default=1, help="how often to run each (default 1)")
    parser.add_argument("--load", action="store_true", help="keep every core busy meanwhile")
    options = parser.parse_args()
    demos = sorted((ROOT / "demos").glob("*/plot_*.py"))
    chosen = [demo for demo in demos if not options.names or any(name in str(demo) for name in options.names)]
    if not chosen:
        print(f"No demo has {' or '.join(options.names)} in its path.", file=sys.stderr)
        return 2
    if os.environ.get("DATABASE_URL"):
        runpy.run_path(str(ROOT / "demos" / "_setup.py"))["database"]("create")
        return serve(chosen, options.n, options.load)
    from poolfork.servers import postgres

    with postgres() as server:
        os.environ["DATABASE_URL"] = server.url
        return serve(chosen, options.n, options.load)


def serve(demos: list[pathlib.Path], times: int, load: bool) -> int:
    """Run each demo so many times and tell; returns the exit code."""
    began, failures = time.monotonic(), 0
    spinners = [busy() for _ in range(os.cpu_count() or 1)] if load else []
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=2)
    try:
        jobs = [pool.submit(run, demo) for _ in range(times) for demo in demos]
        for number, job in enumerate(concurrent.futures.as_completed(jobs), 1):
            demo, seconds, failed = job.result()
            failures += bool(failed)
            if failed or times == 1:
                print(f"{demo.relative_to(ROOT)}: {failed or 'ok'} ({seconds:.1f} s)", flush=True)
            elif number % len(demos) == 0:
                print(f"{number} of {len(jobs)} runs, {failures} failed", flush=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running.copy():  # none, unless we were interrupted
            end(process)
        pool.shutdown(wait=True)
        for spinner in spinners:
            spinner.kill()
    runs = f"{len(demos)} demos" + (f", {times} times each" if times > 1 else "")
    print(f"{runs}: {len(jobs) - failures} passed, {failures} failed in {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
