"""The pool's own state crosses the fork: its counters (`starved`), its locks (`locked`), other threads' things."""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from poolfork.actors import PATIENCE, STEP, Born, Child, Missed, NotRun, Parent, tell
from poolfork.hazards import hazard

CONTENDING, CONNECTING = 70, 30
FORKS = CONTENDING + CONNECTING
BATCH = 10


@hazard("starved", passes_when="the child gets pool_size connections at once while the parent holds its own")
def starved(parent: Parent, variant: str) -> None:
    """The parent holds all of its pool (size 2); the child checks out two, without waiting for the parent."""
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)

    def hold_all() -> list[object]:
        parent.held = [parent.engine.connect(), parent.engine.connect()]
        return [parent.backend(connection) for connection in parent.held]

    parent.step("the parent holds its pool")
    held = parent.do(hold_all)
    child = parent.fork(child_checks_out_two)
    with parent.judged():
        facts = child.hears()
        if set(map(str, facts["sessions"])) & set(map(str, held)):
            parent.found("wrong-row", f"the child was given the parent's session {facts['sessions']}")
        if facts["seconds"] > 1:
            parent.found("starved", f"the child waited {facts['seconds']:.1f} s")
        child.leaves()
    parent.step("the parent asks on what it holds")
    with parent.judged("parent-lost"):
        if parent.do(lambda: [parent.backend(connection) for connection in parent.held]) != held:
            parent.found("parent-lost", "the parent's held sessions are not what they were")


def child_checks_out_two(child: Child) -> None:
    """Apply the recipe, check out two connections, ask on both."""
    child.applies_recipe()
    start = time.monotonic()

    def check_out() -> list[object]:
        with contextlib.ExitStack() as stack:
            both = [stack.enter_context(child.engine.connect()) for _ in range(2)]
            return [child.backend(connection) for connection in both]

    sessions = child.do(check_out)
    child.says(sessions=sessions, seconds=time.monotonic() - start)


@hazard(
    "locked",
    passes_when=f"a checkout within 2 s in every one of {FORKS} forks",
    only="threads",
    seconds=60,
)
def locked(parent: Parent, variant: str) -> None:
    """Three threads of the parent hammer a pool whenever it forks; stops after the batch that fails.

    For 70 forks they contend for a pool of two. For 30 more they open and close connections all the time,
    so that the fork meets a driver's own locks.
    """
    if parent.loop is not None:
        raise NotRun("an asyncio engine is not shared between threads")
    parent.runs = 0
    sys.setswitchinterval(
        0.0002
    )  # the threads give way to each other, and to the fork, in the middle of anything
    contending = functools.partial(parent.asks, "parent")
    connecting = functools.partial(_opens_and_closes, parent)
    if parent.recipe.start != "fork":
        _hammered(parent, "check out", contending, 1)  # a new program shares no lock: one is enough
    elif _hammered(parent, "check out", contending, CONTENDING):
        parent.engine.dispose()
        _hammered(parent, "connect", connecting, CONNECTING)


def _opens_and_closes(parent: Parent) -> None:
    with parent.engine.connect() as connection:
        connection.detach()  # closed, not given back: the next one is opened anew


def _hammered(parent: Parent, what: str, hammer: Callable[[], object], forks: int) -> bool:
    """Fork so often while three threads hammer a new engine; whether all children, and the threads, fared well."""
    parent.make_engine(pool_size=2 if what == "check out" else 4, max_overflow=0, pool_timeout=30)
    over, busy, errors = threading.Event(), threading.Event(), []

    def work() -> None:
        while not over.is_set():
            busy.wait(0.5)
            try:
                hammer()
            except Exception as error:  # noqa: BLE001 - whatever it is, the thread lost its session
                errors.append(tell(error))
                return

    parent.asks("parent")
    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    missed: list[Missed] = []
    done = 0
    while done < forks and not (missed or errors):
        busy.set()
        batch = parent.forks(child_asks, min(BATCH, forks))
        busy.clear()  # the forks are what counts; the children shall have the processor now
        done += len(batch)
        missed = _failures(batch)
    parent.runs += done
    over.set()
    busy.set()
    for outcome in {failure.outcome for failure in missed}:
        texts = [failure.detail for failure in missed if failure.outcome == outcome]
        parent.found(outcome, f"{len(texts)} of {done} children, beside threads that {what}: {texts[0]}")
    parent.step("the parent's threads end")
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        parent.found("parent-lost", f"a thread that was to {what}: {errors[0]}")
    return not (missed or errors)


def _failures(batch: list[Born]) -> list[Missed]:
    """Wait for all children of a batch, `PATIENCE` from now; those that failed, how."""
    end, missed = time.monotonic() + PATIENCE, []
    for child in batch:
        try:
            answer = child.hears(max(0.01, end - time.monotonic()))["answer"]
            if answer != "child":
                missed.append(Missed("wrong-row", f"a child asked for 'child' and got {answer!r}"))
        except Missed as failure:
            missed.append(failure)
        child.kill()
    return missed


def child_asks(child: Child) -> None:
    """Apply the recipe, check out, ask, and stay until the parent has heard."""
    child.applies_recipe()
    child.says(answer=child.asks("child"))
    child.hears()


@hazard(
    "thread-local",
    only="threads",
    passes_when="the parent's session answers, and its COMMIT keeps its row",
)
def thread_local(parent: Parent, variant: str) -> None:
    """Another thread of the parent holds a connection in a ``threading.local``; the main thread forks.

    The child uses its pool, collects garbage, and leaves by the interpreter's normal exit.
    """
    if parent.loop is not None:
        raise NotRun("an asyncio engine is not shared between threads")
    ready, forked = threading.Event(), threading.Event()
    store = threading.local()
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)

    def work() -> None:
        store.connection = parent.engine.connect()
        before = parent.backend(store.connection)
        store.connection.commit()
        parent.insert(store.connection, parent.parents_row, "parent")
        ready.set()
        forked.wait(4 * STEP)
        with parent.judged("parent-lost"):
            if parent.backend(store.connection) != before:
                parent.found("parent-lost", "the thread's session is not what it was")
        parent.held = store.connection
        parent.commits()

    worker = threading.Thread(target=work)
    parent.step("a thread begins")
    worker.start()
    if not ready.wait(STEP):
        raise sa.exc.InvalidRequestError("the thread could not begin")
    with parent.judged():
        parent.fork(child_lives_on, leave="exit").leaves()
    parent.step("the thread asks again")
    forked.set()
    worker.join(2 * STEP)


def child_lives_on(child: Child) -> None:
    """Apply the recipe, use the pool, collect garbage."""
    child.applies_recipe()
    child.asks("child")
    gc.collect()
