"""What executing costs: times builds of a clean copy and prints the two ratios that are promised.

- full: a build from a clean checkout against (the same pages without executing) + (the demos and
  notebooks as plain scripts, divided over two cores); at most 1.3.
- no-op: a build with nothing changed against the same with execution off; at most 1.3.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 1.3


def timed(folder: pathlib.Path, *command: str | pathlib.Path) -> float:
    """Seconds that a command takes in `folder`; ends with its output and exit code 1 if it fails."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.monotonic() - began


def clean_copy(folder: pathlib.Path) -> pathlib.Path:
    """The tracked and untracked files of the checkout, copied into a new folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def main() -> int:
    """Measure and print; returns 1 if a promise is broken."""
    os.environ.pop("DATABASE_URL", None)
    with tempfile.TemporaryDirectory(prefix="poolfork-bench-") as name:
        still = clean_copy(pathlib.Path(name, "still"))
        build_only = timed(still, "tools/build.py", "html", "--no-run")
        noop_only = min(timed(still, "tools/build.py", "html", "--no-run") for _ in range(3))
        print(f"without executing: {build_only:.1f} s; again, nothing changed: {noop_only:.1f} s", flush=True)
        demos = sorted((still / "demos").glob("*/plot_*.py"))
        notebooks = sorted((still / "notebooks").glob("*.ipynb"))
        scripts = sum(timed(still, demo) for demo in demos)
        scripts += sum(timed(still, "tools/run_notebooks.py", notebook) for notebook in notebooks)
        print(
            f"{len(demos)} demos and {len(notebooks)} notebooks as plain scripts: {scripts:.1f} s", flush=True
        )
        full_copy = clean_copy(pathlib.Path(name, "full"))
        full = timed(full_copy, "tools/build.py", "html")
        noop = min(timed(full_copy, "tools/build.py", "html") for _ in range(3))
    full_ratio, noop_ratio = full / (build_only + scripts / 2), noop / noop_only
    print(
        f"full build: {full:.1f} s, ratio {full_ratio:.2f}; no-op: {noop:.1f} s, ratio {noop_ratio:.2f}; limit {LIMIT}"
    )
    return 0 if max(full_ratio, noop_ratio) <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
