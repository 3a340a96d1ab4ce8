"""An asyncio loop crosses the fork: its epoll object is one, in two processes (`event-loop`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

from poolfork.actors import Child, NotRun, Parent
from poolfork.hazards import hazard


@hazard(
    "event-loop",
    "running",
    "collected",
    "wakes",
    only="asyncio",
    passes_when="the parent's loop still answers on every connection (wakes: and hears its other threads)",
)
def event_loop(parent: Parent, variant: str) -> None:
    """The parent has three idle connections on its loop; the child lets transports (and loop) be collected.

    ``running``: the fork is taken inside the running loop, whose frames keep it alive in the child.
    ``collected``: between two runs of the loop, so that the child can let the loop go as well.
    ``wakes``: as collected; then a thread of the parent uses ``call_soon_threadsafe``, as executors
    and aiosqlite do. It goes through a pipe of the loop's own, which the same epoll object watches.
    """
    if parent.loop is None:
        raise NotRun("only an asyncio driver has a loop")
    sessions = parent.has_idle(3)

    def fork() -> None:
        with parent.judged():
            parent.fork(child_lets_go).leaves()

    if variant == "running":
        parent.do(fork)
    else:
        fork()
    parent.step("the parent asks on every connection")

    def ask_all() -> list[object]:
        with contextlib.ExitStack() as stack:
            return [parent.backend(stack.enter_context(parent.engine.connect())) for _ in sessions]

    with parent.judged("parent-lost"):
        now = parent.do(ask_all)
        if parent.recipe.keeps_idle and parent.recipe.start == "fork" and set(now) != set(sessions):
            parent.found("parent-lost", f"the parent has sessions {now} instead of {sessions}")
    if variant == "wakes":
        parent.step("a thread wakes the parent's loop")
        if not _wakes(parent.loop):
            parent.found("hang", "the parent's loop no longer wakes for call_soon_threadsafe()")


def child_lets_go(child: Child) -> None:
    """Apply the recipe, drop the engine and the inherited loop, collect garbage."""
    child.applies_recipe()
    if hasattr(child, "inherited"):
        child.inherited.loop = None
        asyncio.set_event_loop(None)
        child.inherited.engine = child.inherited.application_engine = None  # type: ignore[assignment]
        child.engine = child.application_engine = None  # type: ignore[assignment]
    gc.collect()


def _wakes(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a sleeping loop hears another thread within a second and a half."""

    async def sleeper() -> bool:
        for _ in range(4):  # on a busy machine a thread may have spoken before the loop slept
            awake = asyncio.Event()
            threading.Timer(0.03, loop.call_soon_threadsafe, [awake.set]).start()
            started = loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(awake.wait(), 1.5)
            if loop.time() - started > 1.4:
                return False
        return True

    return loop.run_until_complete(sleeper())
