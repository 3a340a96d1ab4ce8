"""The stacks: each started for real, once for every recipe, two at a time."""

from __future__ import annotations

import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

FILES = (
    "tools/stacks/**/*.py", "doc/stacks/apps/**/*", "poolfork/guard.py", "poolfork/servers.py",
    "poolfork/scan.py", "poolfork/sockets.py",
    "requirements/test.txt", "requirements/stacks.txt",
)  # fmt: skip


def measure(progress: Callable[[int, int, int], None]) -> dict[str, Any]:
    """``stacks``: one entry a stack and setting; ``not_run``: which were not, why, and what would make them run."""
    import sqlalchemy
    from stacks import all_stacks
    from stacks.kit import StackError, measure_stack, stop

    from poolfork.servers import postgres

    stacks = all_stacks()
    runnable = [stack for stack in stacks if not stack.missing()]
    not_run = [
        {"stack": s.name, "setting": s.setting, "reason": s.missing(), "command": s.install}
        for s in stacks
        if s.missing()
    ]
    found = []
    with postgres(tcp=True) as server, ThreadPoolExecutor(2) as two:
        url = server.url.replace("postgresql://", "postgresql+psycopg://")
        running = {two.submit(measure_stack, stack, url): stack for stack in runnable}
        try:
            for done, future in enumerate(as_completed(running), 1):
                stack = running[future]
                try:
                    found.append(future.result())
                except StackError as error:
                    reason = str(error).partition("\n")[0]
                    not_run.append(
                        {"stack": stack.name, "setting": stack.setting, "reason": reason, "command": ""}
                    )
                progress(done, len(runnable), len(not_run))
        except BaseException:  # Ctrl-C, or SIGTERM as SystemExit: don't wait for those that run
            two.shutdown(wait=False, cancel_futures=True)
            stop()
            raise
    order = [stack.id for stack in stacks]
    return {
        "stacks": sorted(found, key=lambda one: order.index(one["id"])),
        "not_run": not_run,
        "versions": {
            "python": platform.python_version(),
            "sqlalchemy": sqlalchemy.__version__,
            "machine": platform.platform(terse=True),
        },
    }
