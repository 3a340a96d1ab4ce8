"""What the parent holds at the fork, the child holds too: `held-finish`, `held-use`, `cursor`, `advisory-lock`."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import re

import sqlalchemy as sa

from poolfork.actors import Child, NotRun, Parent, Referee
from poolfork.hazards import hazard


@hazard(
    "held-finish",
    "close",
    "drop",
    "exit",
    passes_when="the parent's COMMIT keeps its row",
)
def held_finish(parent: Parent, variant: str) -> None:
    """The parent's Session has inserted a row; the child finishes with its copies of it and of its Connection.

    ``close``: it leaves the Connection's ``with`` block by an exception, which closes it, and closes the
    Session. ``drop``: it forgets both and collects. ``exit``: it just leaves. Then the parent commits.
    """
    parent.holds_a_session()
    leave = "exit" if variant == "exit" else "_exit"
    with parent.judged():
        facts = None
        child = parent.fork(functools.partial(child_finishes, how=variant), leave=leave)
        facts = child.hears()
        if facts["error_seen"]:
            parent.remark(f"child, finishing: {facts['error_seen']}")
        child.leaves()
    parent.commits()


def child_finishes(child: Child, how: str) -> None:
    """Apply the recipe, then close or drop the copies; or just leave."""
    child.applies_recipe()
    errors: list[str] = []
    if child.held is None:
        pass  # spawned: there is no copy
    elif how == "drop":
        errors = [child.tries(child.drops_everything)]
        gc.collect()
    elif how == "close":
        errors = [child.tries(child_unwinds, child), child.tries(child.held.close)]
    child.says(error_seen="; ".join(filter(None, errors)))


def child_unwinds(child: Child) -> None:
    """Leave the Connection's block by an exception, as a traceback through the caller's frames does."""
    with contextlib.suppress(ZeroDivisionError), child.connection:
        raise ZeroDivisionError


@hazard("held-use", passes_when="clear errors in the child, the parent's transaction intact")
def held_use(parent: Parent, variant: str) -> None:
    """The parent's Session has inserted a row; the child uses its copies of the Session and of its Connection."""
    parent.holds_a_session()
    child = parent.fork(child_uses_the_copies)
    with parent.judged():
        for what, error in child.hears()["errors_seen"].items():
            if not error:
                parent.found(
                    "wrong-row",
                    f"the child's statement on its {what} ran inside the parent's transaction, without an error",
                )
            elif not re.search(r"fork|\bprocess\b|pid\b|inherit", error, re.I):
                parent.found("error", f"child, on its {what}: an error that does not say why: {error}")
            else:
                parent.remark(f"child, on its {what}: {error}")
        child.leaves()
    parent.commits()


def child_uses_the_copies(child: Child) -> None:
    """Apply the recipe, insert a row through the Connection, then ask through the Session."""
    child.applies_recipe()
    if child.held is None:
        child.says(errors_seen={"copies": "spawned: no copy in this process"})
        return
    inserts = child.tries(child.insert, child.connection, child.childs_row, "child")
    asks = child.tries(lambda: child.held.execute(sa.text("SELECT 1")).all())
    child.says(errors_seen={"Connection": inserts, "Session": asks})


_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT "
_ROWS = {  # more than a wire and its buffers hold, so that the server is in the middle of them
    "postgresql": _NUMBERS + "i, repeat('x', 40000) FROM n",
    "mysql": _NUMBERS + "i, repeat('x', 40000) FROM n",
    "sqlite": _NUMBERS + "i FROM n",
}


@hazard("cursor", "close", "drop", passes_when="the parent reads the rest of its rows, in order")
def cursor(parent: Parent, variant: str) -> None:
    """The parent has read 1 of 100 rows of a streamed result; the child finishes with its copy of it."""
    if parent.driver.server not in _ROWS:
        raise NotRun("this dialect's recursive query is not known here")
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)

    def read_one() -> int:
        connection = parent.engine.connect().execution_options(stream_results=True, max_row_buffer=1)
        parent.held = [connection, connection.execute(sa.text(_ROWS[parent.driver.server]))]
        return int(parent.held[1].fetchone()[0])

    parent.step("the parent reads the first row")
    rows = [parent.do(read_one)]
    with parent.judged():
        child = parent.fork(functools.partial(child_ends_the_cursor, how=variant))
        error = child.hears()["error_seen"]
        if error:
            parent.remark(f"child, finishing: {error}")
        child.leaves()
    parent.step("the parent reads the rest")
    with parent.judged("parent-lost"):
        rows += parent.do(lambda: [row[0] for row in parent.held[1]])
        if rows != list(range(1, 101)):
            parent.found("wrong-row", f"the parent read {len(rows)} rows of 100")


def child_ends_the_cursor(child: Child, how: str) -> None:
    """Apply the recipe, then close or drop the copies of result and connection."""
    child.applies_recipe()
    error = ""
    if child.held and how == "close":
        error = child.tries(lambda: [child.held[1].close(), child.held[0].close()])
    elif child.held:
        error = child.tries(child.drops_everything)
        gc.collect()
    child.says(error_seen=error)


@hazard(
    "advisory-lock",
    "held",
    "idle",
    passes_when="the parent alone holds its lock, also after the child has left by normal exit",
)
def advisory_lock(parent: Parent, variant: str) -> None:
    """The parent's session has a lock; the child asks for the same, and exits normally; then a third session asks.

    The parent asks on its session before: the server has then read whatever the child left on that wire.
    ``held``: the parent has the session checked out. ``idle``: it lies in the pool, as sessions do between
    two uses of a lock that is to outlive a transaction.
    """
    take, is_free = (word.replace(":key", _lock_of(parent)) for word in parent.needs("lock"))
    if variant == "idle" and not parent.recipe.keeps_idle:
        raise NotRun("with this recipe no session outlives its checkout")
    parent.has_idle()
    parent.step("the parent takes the lock")
    parent.do(_takes_lock, parent, take, variant == "held")
    with parent.judged():
        child = parent.fork(functools.partial(child_asks_for_the_lock, question=is_free), leave="exit")
        if child.hears()["got_it"]:
            parent.found("wrong-row", "the child is told that it has the lock, which the parent holds")
        child.leaves()
    parent.step("the parent asks on its session")
    answers = False
    with parent.judged("parent-lost"):
        parent.do(_asks, parent)
        answers = True
    if not answers:
        return  # and with the session its lock
    parent.step("the referee asks for the lock")
    with Referee(parent) as referee:
        if referee.rows(is_free)[0][0]:
            parent.found("parent-lost", "another session got the lock that the parent holds")


def _asks(parent: Parent) -> None:
    with contextlib.nullcontext(parent.held) if parent.held else parent.engine.connect() as connection:
        connection.execute(sa.text("SELECT 1")).all()


def _lock_of(parent: Parent) -> str:
    """A number that nobody else on this server locks: as a server's locks are, it is the server's."""
    unique = f"{parent.spec.table} {parent.spec.key}".encode()
    return str(int.from_bytes(hashlib.sha256(unique).digest()[:7]))


def _takes_lock(parent: Parent, take: str, stays: bool) -> None:
    connection = parent.engine.connect()
    if connection.scalar(sa.text(take)) == 0:
        raise sa.exc.InvalidRequestError("the parent did not get its lock")
    connection.commit()
    if stays:
        parent.held = connection
    else:
        connection.close()


def child_asks_for_the_lock(child: Child, question: str) -> None:
    """Apply the recipe and ask for the parent's lock."""
    child.applies_recipe()

    def ask() -> bool:
        with child.engine.connect() as connection:
            return bool(connection.scalar(sa.text(question)))

    child.says(got_it=child.do(ask))
