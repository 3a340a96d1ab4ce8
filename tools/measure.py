"""Measure the truth table and the guard's ablation: ``measure.py`` writes build/truth-table.json and build/ablation.json.

Cells that were measured with the same code and versions are not measured again. The ablation runs on one
driver of each kind: libpq's, one whose destructor says goodbye, one on asyncio.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ABLATED = ("psycopg2", "mysqldb", "asyncpg")


def fingerprint() -> str:
    """What the tables depend on: the code that measures, the packages, the Python; a hexadecimal digest."""
    files = [*sorted((ROOT / "poolfork").rglob("*.py")), ROOT / "requirements" / "html.txt"]
    return hashlib.sha256(
        "\0".join([sys.version, *(file.read_text() for file in files)]).encode()
    ).hexdigest()


def main() -> int:
    """Write both files; returns the exit code."""
    from poolfork.ablation import ablation
    from poolfork.cli import progress_bar
    from poolfork.servers import ServerError
    from poolfork.table import table

    os.environ.pop("DATABASE_URL", None)
    build, now = ROOT / "build", fingerprint()
    try:
        for name in "truth-table", "ablation":
            os.environ["XDG_CACHE_HOME"] = str(build / "cache" / name)
            print(f"Measuring {name}", file=sys.stderr)
            bar = progress_bar(sys.stderr)
            measured = (
                table(progress=bar) if name == "truth-table" else ablation(drivers=ABLATED, progress=bar)
            )
            (build / f"{name}.json").write_text(json.dumps(measured | {"fingerprint": now}))
            print(f"\nWrote build/{name}.json", file=sys.stderr)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
