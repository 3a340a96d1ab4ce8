"""SQLite's own hazards, `file-lock` and `file-log`: its locks belong to a process, and a fork does not inherit them.

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


@hazard(
    "file-log",
    only="sqlite",
    passes_when="the parent's and the child's committed rows are in the file, and it passes integrity_check",
)
def file_log(parent: Parent, variant: str) -> None:
    """The parent's connection to a database in WAL mode lies idle; the parent closes its pool, then the child commits.

    No transaction is open at the fork. A parent's pool is closed at the latest when the parent exits normally.
    """
    if parent.driver.server != "sqlite":
        raise NotRun("only SQLite keeps its log beside the file")
    parent.make_engine(pool_size=2, max_overflow=0, pool_timeout=0.5)
    parent.step("the parent writes, in WAL mode")
    parent.do(_writes_in_wal_mode, parent)
    with parent.judged():
        child = parent.fork(child_commits_last)
        child.hears()
        parent.step("the parent closes its pool")
        parent.do(parent.engine.dispose)
        child.told()
        child.leaves()
    parent.step("the referee reads")
    with parent.judged("write-lost"), Referee(parent) as referee:
        rows = referee.rows(f"SELECT who FROM {parent.spec.table} WHERE id IN ({_both(parent)}) ORDER BY id")
        kept = [who for (who,) in rows]
        if kept != ["parent", "child"]:
            parent.found("write-lost", f"of two committed rows the file has {kept}")
        verdict = referee.rows("PRAGMA integrity_check")[0][0]
        if verdict != "ok":
            parent.found("write-lost", f"integrity_check: {' '.join(verdict.split())[:200]}")


def _both(parent: Parent) -> str:
    return f"{parent.parents_row}, {parent.childs_row}"


def _writes_in_wal_mode(parent: Parent) -> None:
    with parent.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with parent.engine.begin() as connection:
        parent.insert(connection, parent.parents_row, "parent")


def child_commits_last(child: Child) -> None:
    """Apply the recipe, read from the file; once the parent's pool is closed, insert a row and commit."""
    child.applies_recipe()

    def read() -> None:
        with child.engine.connect() as connection:
            connection.exec_driver_sql(f"SELECT COUNT(*) FROM {child.spec.table}").all()

    child.do(read)
    child.says()
    child.hears()

    def commit() -> None:
        with child.engine.begin() as connection:
            child.insert(connection, child.childs_row, "child")

    child.do(commit)
