"""Measure what the site's tables show: ``measure.py [NAME ...]`` writes build/NAME.json; ``--publish`` keeps it.

Every ``tools/measure_NAME.py`` is one measurement: ``FILES`` are the globs of what it depends on (its fingerprint
covers them), ``measure(progress)`` returns what was measured, with ``versions`` and ``measured`` (the day).
``--publish`` copies build/NAME.json to doc/measured/NAME.json, which the site shows, with its date and as
such, where a build has not measured for itself. Without a name, everything is measured.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import hashlib
import importlib
import json
import os
import pathlib
import re
import signal
import sys
from types import ModuleType
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD, PUBLISHED = ROOT / "build", ROOT / "doc" / "measured"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def measurements() -> list[str]:
    """The names of all measurements, in alphabetical order."""
    return sorted(file.stem[len("measure_") :] for file in (ROOT / "tools").glob("measure_*.py"))


def measurement(name: str) -> ModuleType:
    """The module that measures; LookupError names what there is."""
    if name not in measurements():
        raise LookupError(f"there is no measurement {name}; there are: {', '.join(measurements())}")
    return importlib.import_module(f"measure_{name}")


@functools.cache
def fingerprint(name: str) -> str:
    """What a measurement depends on: the code that measures, the packages; a hexadecimal digest."""
    globs = [f"tools/measure_{name}.py", *measurement(name).FILES]
    files = sorted({file for pattern in globs for file in ROOT.glob(pattern) if file.is_file()})
    told = (f"{file.relative_to(ROOT)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files)
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


_PLACE = re.compile(r"/[^\s\"'<>:;,()]*/(?:site-packages|lib/python3\.\d+)/")


def as_lines(data: dict[str, Any]) -> str:
    """JSON with a line for each key, and for each item of a list: what changed is seen in a diff.

    Errors that name a file of a package name it without the folder that it lay in on this machine.
    A cell's keys stand in one order, whether it was measured now or remembered.
    """

    def text(value: Any) -> str:
        return _PLACE.sub("", json.dumps(value, ensure_ascii=False))

    def item(value: Any) -> str:
        return text(dict(sorted(value.items())) if isinstance(value, dict) and "outcome" in value else value)

    def told(value: Any) -> str:
        return (
            "[\n" + ",\n".join(map(item, value)) + "\n]" if isinstance(value, list) and value else text(value)
        )

    return "{\n" + ",\n".join(f"{text(key)}: {told(value)}" for key, value in data.items()) + "\n}\n"


def keep(file: pathlib.Path, text: str) -> None:
    """Write a file whole or not at all: a build reads it, and may do so after we were killed."""
    part = file.with_suffix(".part")
    try:
        part.write_text(text)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def publish(name: str) -> None:
    """Keep what was measured in the repository."""
    file = BUILD / f"{name}.json"
    if not file.exists():
        raise LookupError(f"{name} was not measured yet: make measure ONLY={name}")
    data = json.loads(file.read_text())
    if data["fingerprint"] != fingerprint(name):
        raise LookupError(f"{name} was measured with other code than today's: make measure ONLY={name}")
    PUBLISHED.mkdir(exist_ok=True)
    if name == "table":  # what is different goes to the feed
        sys.path.insert(0, str(ROOT / "doc" / "_ext"))
        from for_machines import record

        old = PUBLISHED / file.name
        for told in record(json.loads(old.read_text()) if old.exists() else None, data):
            print(told, file=sys.stderr)
    keep(PUBLISHED / file.name, as_lines(data))
    print(f"Kept doc/measured/{file.name}", file=sys.stderr)


def measure(name: str) -> None:
    """Measure and write build/NAME.json."""
    from poolfork.cli import progress_bar

    now, module = fingerprint(name), measurement(name)  # before: what is changed meanwhile is not measured
    print(f"Measuring {name}", file=sys.stderr)
    found = module.measure(progress_bar(sys.stderr))
    found = (
        {"measured": f"{datetime.date.today():%Y-%m-%d}"}
        | found
        | {"fingerprint": now, "python": sys.version}
    )
    BUILD.mkdir(exist_ok=True)
    keep(BUILD / f"{name}.json", json.dumps(found))
    print(f"\nWrote build/{name}.json", file=sys.stderr)


def main() -> int:
    """The command line; returns the exit code."""
    from poolfork.servers import ServerError

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="*", help=f"one of {', '.join(measurements())} (default: all)")
    parser.add_argument("--publish", action="store_true", help="keep in doc/measured what was measured")
    asked = parser.parse_args()
    os.environ.pop("DATABASE_URL", None)
    try:
        for name in asked.name or measurements():
            (publish if asked.publish else measure)(name)
    except (ServerError, LookupError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
