"""Make the private .venv hold what one of requirements/*.txt names: ``python3 bootstrap.py NAME``.

Uses uv when it is on the PATH, else venv and pip. Every file is checked against the hash in the
lock. When nothing changed it returns at once; an interrupted installation starts again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import NoReturn, TextIO

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
FLOOR = (3, 11)


def fail(message: str) -> NoReturn:
    """End with one sentence and exit code 2."""
    print(message, file=sys.stderr)
    sys.exit(2)


def find_python() -> str:
    """The path of a CPython 3.11 or newer: this one, else the newest of the PATH."""
    if sys.version_info >= FLOOR:
        return sys.executable
    for minor in range(15, FLOOR[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    fail(
        "Python 3.11 or newer is needed and python3 is {}.{}: install one, or say "
        "'make PYTHON=/path/to/python3.11'.".format(*sys.version_info)
    )


def make_venv(uv: str | None) -> None:
    """Create .venv if it is missing or its Python no longer runs."""
    wanted = f"import sys; sys.exit(sys.version_info < {FLOOR})"
    if PYTHON.exists() and subprocess.run([PYTHON, "-c", wanted], check=False).returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    python = find_python()
    print(f"Setting up .venv with {python}", flush=True)
    command: list[str | os.PathLike[str]]
    command = [uv, "venv", "--quiet", "--python", python, VENV] if uv else [python, "-m", "venv", VENV]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        if "ensurepip" in made.stdout + made.stderr:
            fail("This Python has no venv: install it (Debian, Ubuntu: apt-get install python3-venv) or uv.")
        fail(f"The virtual environment could not be made: {(made.stderr or made.stdout).strip()[-300:]}")


def install(uv: str | None, name: str) -> None:
    """Install requirements/NAME.txt unless its stamp says that this very file is in place."""
    lock = ROOT / "requirements" / f"{name}.txt"
    if not lock.exists():
        fail(f"There is no requirements/{name}.txt.")
    digest, stamp = hashlib.sha256(lock.read_bytes()).hexdigest(), VENV / f".installed-{name}"
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"Installing requirements/{name}.txt", flush=True)
    command: list[str | os.PathLike[str]] = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    if uv:
        # pip compiles as it installs; without, every demo and every child would compile SQLAlchemy for itself
        command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", PYTHON]
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    command += ["--require-hashes", "--only-binary", ":all:", "-r", lock]
    stamp.unlink(
        missing_ok=True
    )  # from here on until the end, what is in place is neither the old nor the new
    if subprocess.run(command, env=environment, check=False).returncode:
        fail(
            f"requirements/{name}.txt could not be installed; what went wrong stands above. Run it again to go on."
        )
    stamp.write_text(digest)


def wait_for(turn: TextIO, seconds: int = 1800) -> None:
    """Take the lock that only one set-up holds; say so when another does."""
    for second in range(seconds):
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not second:
                print("Another make is setting up .venv; waiting for it", flush=True)
            time.sleep(1)
    fail(f"Another make has been setting up .venv for {seconds // 60} minutes.")


def main() -> None:
    """Bring .venv up to date, one process at a time."""
    with open(ROOT / "requirements" / "html.in") as turn:
        wait_for(turn)
        uv = shutil.which("uv")
        make_venv(uv)
        for name in sys.argv[1:] or ["html"]:
            install(uv, name)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
