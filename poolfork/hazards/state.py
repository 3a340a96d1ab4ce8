"""What a session remembers: `state` seen by the child, and a temporary table that the parent loses."""

from __future__ import annotations

import functools
import gc

import sqlalchemy as sa

from poolfork.actors import Child, NotRun, Parent
from poolfork.hazards import hazard


@hazard(
    "state", "setting", "prepared", "temporary", passes_when="the child finds nothing of the parent's session"
)
def state(parent: Parent, variant: str) -> None:
    """The parent's idle session has a SET value, a prepared statement or a temporary table; the child looks."""
    leave, look = _words(parent, variant)
    session = parent.has_idle()[0]
    parent.step(f"the parent leaves a {variant}")
    parent.do(_leave, parent, leave)
    child = parent.fork(functools.partial(child_looks, query=look))
    with parent.judged():
        facts = child.hears()
        if facts["seen"]:
            parent.found("wrong-row", f"the child reads the parent's {variant}: {facts['seen']}")
        if facts["backend"] == session:
            parent.found("wrong-row", f"the child is in the parent's session {session}")
        child.leaves()


def child_looks(child: Child, query: str) -> None:
    """Apply the recipe, look for what the parent left, say which session this is."""
    child.applies_recipe()

    def look() -> str:
        with child.engine.connect() as connection:
            try:
                return str(connection.scalar(sa.text(query)) or "")
            except sa.exc.DBAPIError:
                return ""  # not there; the next question shows that the session is sound

    seen = child.do(look)
    child.says(seen=seen, backend=child.asks_backend())


@hazard(
    "temp-table",
    passes_when="the parent still has its temporary table after the child has left by normal exit",
)
def temp_table(parent: Parent, variant: str) -> None:
    """The parent's idle session has a temporary table; the child applies the recipe, collects and exits."""
    if not parent.recipe.keeps_idle:
        raise NotRun("with this recipe no session outlives its checkout")
    leave, look = _words(parent, "temporary")
    parent.has_idle()
    parent.step("the parent makes a temporary table")
    parent.do(_leave, parent, leave)
    with parent.judged():
        parent.fork(child_collects_and_exits, leave="exit").leaves()
    parent.step("the parent reads its temporary table")
    with parent.judged("parent-lost"):
        parent.do(_leave, parent, look)


def child_collects_and_exits(child: Child) -> None:
    """Apply the recipe, collect garbage."""
    child.applies_recipe()
    gc.collect()


def _leave(parent: Parent, statement: str) -> None:
    with parent.engine.connect() as connection:
        connection.execute(sa.text(statement))
        connection.commit()


def _words(parent: Parent, variant: str) -> tuple[str, str]:
    words = parent.needs({"prepared": "prepare"}.get(variant, variant))
    return words[0], words[1]
