"""SQLite's own hazard, `file-lock`: its locks belong to a process, and a fork does not inherit them.

See "How To Corrupt An SQLite Database File", section 2.6, https://www.sqlite.org/howtocorrupt.html.
"""

from __future__ import annotations

import functools

import sqlalchemy as sa

from poolfork.actors import Child, NotRun, Parent, Referee
from poolfork.hazards import hazard

_FIRST, _COUNT = 3_000_000, 300


@hazard(
    "file-lock",
    "rollback",
    "commit",
    only="sqlite",
    passes_when="after the parent's COMMIT all its rows are there and the file passes integrity_check",
)
def file_lock(parent: Parent, variant: str) -> None:
    """The parent is in the middle of a large transaction; the child ends the transaction of its copy."""
    if parent.driver.server != "sqlite":
        raise NotRun("only SQLite's locks belong to a process")
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)
    parent.step("the parent writes")
    parent.do(_half_written, parent)
    with parent.judged():
        child = parent.fork(functools.partial(child_ends_the_transaction, how=variant))
        error = child.hears()["error_seen"]
        if error:
            parent.remark(f"child, finishing: {error}")
        child.leaves()
    parent.step("the parent commits")
    with parent.judged("parent-lost"):
        parent.do(_finish, parent)
    parent.step("the referee reads")
    with parent.judged("write-lost"), Referee(parent) as referee:
        kept = referee.rows(
            f"SELECT COUNT(*) FROM {parent.spec.table} WHERE id >= {_FIRST} AND who LIKE 'new%'"
        )[0][0]
        if kept != _COUNT:
            parent.found("write-lost", f"{kept} of {_COUNT} rows are what the parent committed")
        verdict = referee.rows("PRAGMA integrity_check")[0][0]
        if verdict != "ok":
            parent.found("write-lost", f"integrity_check: {' '.join(verdict.split())[:200]}")


def _half_written(parent: Parent) -> None:
    """Commit old rows, then change all of them, with a cache so small that pages reach the file early."""
    parent.held = parent.engine.connect()
    rows = [{"id": _FIRST + number, "who": "old" + "." * 2000} for number in range(_COUNT)]
    parent.held.execute(sa.text(f"INSERT INTO {parent.spec.table} (id, who) VALUES (:id, :who)"), rows)
    parent.held.commit()
    parent.held.exec_driver_sql("PRAGMA cache_size = 10")
    parent.held.execute(
        sa.text(f"UPDATE {parent.spec.table} SET who = 'new' || who WHERE id < {_FIRST + _COUNT // 2}")
    )


def _finish(parent: Parent) -> None:
    parent.held.execute(
        sa.text(f"UPDATE {parent.spec.table} SET who = 'new' || who WHERE id >= {_FIRST + _COUNT // 2}")
    )
    parent.held.commit()
    parent.held.close()


def child_ends_the_transaction(child: Child, how: str) -> None:
    """Apply the recipe, then roll back or commit the copy."""
    child.applies_recipe()
    child.says(error_seen="" if child.held is None else child.tries(getattr(child.held, how)))
