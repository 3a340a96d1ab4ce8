"""Importing this module speaks with an SQLite database in memory once, and forgets it.

A forkserver preloads it: what it forks then finds SQLAlchemy's code run and its caches filled, as a process
does that a nursery forks. No connection is left, and no object that a cell could meet.
"""

from __future__ import annotations

import gc

import sqlalchemy as sa


def rehearse() -> None:
    """Connect, insert, ask and roll back: what a child of a forkserver does, which has no parent's Session."""
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.QueuePool, pool_size=2, max_overflow=0)
    insert = sa.text("INSERT INTO poolfork (id, who) VALUES (:id, :who)")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE poolfork (id INTEGER, who TEXT)")
    with engine.connect() as connection:
        connection.execute(insert, {"id": 1, "who": "nobody"})
        connection.scalar(sa.text("SELECT 1"))
        connection.rollback()
    engine.dispose()


rehearse()
gc.collect()
gc.freeze()
