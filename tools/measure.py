"""Measure what the site's tables show: ``measure.py TABLE.json ABLATION.json``; cells known already are not measured again.

The ablation runs on one driver of each kind: libpq's, one whose destructor says goodbye, one on asyncio.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ABLATED = ("psycopg2", "mysqldb", "asyncpg")


def main() -> int:
    """Write both files; returns the exit code."""
    from poolfork.ablation import ablation
    from poolfork.servers import ServerError
    from poolfork.table import table

    cache = ROOT / "build" / "cache"
    try:
        for output, name, measure in zip(sys.argv[1:], ("table", "ablation"), (table, ablation), strict=True):
            os.environ["XDG_CACHE_HOME"] = str(cache / name)
            measured = measure() if name == "table" else measure(drivers=ABLATED)
            pathlib.Path(output).write_text(json.dumps(measured))
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
