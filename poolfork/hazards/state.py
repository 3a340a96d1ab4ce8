"""What a session remembers: `state` seen by the child, and a temporary table that the parent loses."""

from __future__ import annotations

import functools
import gc

import sqlalchemy as sa

from poolfork.actors import Child, NotRun, Parent
from poolfork.hazards import hazard

_LEFT = {"setting": "setting", "prepared statement": "prepare", "temporary table": "temporary"}


@hazard("state", passes_when="the child finds nothing of the parent's session")
def state(parent: Parent, variant: str) -> None:
    """The parent's idle session has a SET value, a prepared statement and a temporary table; the child looks.

    Of the three, SQLite knows the temporary table alone.
    """
    session = parent.has_idle()[0]
    words = {thing: getattr(parent.speech, word) for thing, word in _LEFT.items()}
    words = {thing: both for thing, both in words.items() if both}
    if not words:
        raise NotRun("this dialect's SQL for what a session remembers is not known here")
    for thing, (leave, _) in words.items():
        parent.step(f"the parent leaves a {thing}")
        parent.do(_leave, parent, leave)
    looks = {thing: look for thing, (_, look) in words.items()}
    child = parent.fork(functools.partial(child_looks, queries=looks))
    with parent.judged():
        facts = child.hears()
        for thing, seen in facts["seen"].items():
            parent.found("wrong-row", f"the child reads the parent's {thing}: {seen}")
        if facts["backend"] == session:
            parent.found("wrong-row", f"the child is in the parent's session {session}")
        child.leaves()


def child_looks(child: Child, queries: dict[str, str]) -> None:
    """Apply the recipe, look for what the parent left, say which session this is."""
    child.applies_recipe()

    def look(query: str) -> str:
        with child.engine.connect() as connection:
            try:
                return str(connection.scalar(sa.text(query)) or "")
            except sa.exc.DBAPIError:
                return ""  # not there; the next question shows that the session is sound

    answers = {thing: child.do(look, query) for thing, query in queries.items()}
    child.says(seen={thing: seen for thing, seen in answers.items() if seen}, backend=child.asks_backend())


@hazard(
    "temp-table",
    passes_when="the parent still has its temporary table after the child has left by normal exit",
)
def temp_table(parent: Parent, variant: str) -> None:
    """The parent's idle session has a temporary table; the child applies the recipe, collects and exits."""
    if not parent.recipe.keeps_idle:
        raise NotRun("with this recipe no session outlives its checkout")
    leave, look = parent.needs("temporary")
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
