"""Keep the set-up block of every demo equal to demos/_setup.py: ``setup_block.py [--check]``."""

from __future__ import annotations

import pathlib
import sys

DEMOS = pathlib.Path(__file__).parent.parent / "demos"
FIRST = "# Set-up, the same in every demo"


def with_setup(source: str, setup: str) -> str:
    """`source` with the text from its set-up's first line up to the next ``# %%`` replaced by `setup`."""
    head, found, rest = source.partition(FIRST)
    if not found or "\n# %%" not in rest:
        raise ValueError(f"no set-up block: it begins with {FIRST!r} and ends before a line '# %%'")
    return head + setup.rstrip("\n") + "\n\n\n# %%" + rest.split("\n# %%", 1)[1]


def main() -> int:
    """Rewrite the demos that differ, or with ``--check`` only name them; returns the exit code."""
    setup = (DEMOS / "_setup.py").read_text()
    stale = []
    for demo in sorted(DEMOS.glob("*/plot_*.py")):
        source = demo.read_text()
        if (wanted := with_setup(source, setup)) != source:
            stale.append(demo)
            if "--check" not in sys.argv:
                demo.write_text(wanted)
    for demo in stale:
        print(demo.relative_to(DEMOS.parent))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
