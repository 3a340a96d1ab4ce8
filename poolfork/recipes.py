"""The recipes: what an application does about forking, as it is written in an application.

A recipe acts at three moments: when the engine is made (`prepare`), in the parent just before a
fork (`before_fork`), and first thing in the child (`in_child`). Those that need none of these
choose how the child is started (`start`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, NullPool, event, exc

if TYPE_CHECKING:  # not at run time: a spawned child would pay a tenth of a second for it
    from sqlalchemy.ext.asyncio import AsyncEngine


def _nothing(engine: Any) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Recipe:
    """One recipe. The functions get the engine as the application made it, sync or async.

    ``dispose_in_child`` and ``dispose_before_fork`` are given as the arguments of
    ``engine.dispose()``, because an async engine has to await it.
    """

    name: str
    prepare: Callable[[Any], object] = _nothing
    dispose_in_child: dict[str, bool] | None = None
    dispose_before_fork: bool = False
    engine_arguments: tuple[tuple[str, Any], ...] = ()
    start: str = "fork"
    keeps_idle: bool = True

    def missing(self) -> str | None:
        """Why this recipe cannot be measured here, or None when it can."""
        if self.prepare is _guard:
            try:
                from poolfork.guard import guard  # noqa: F401
            except ImportError as error:
                return f"poolfork.guard is not there: {error}"
        return None


def _sync(engine: Engine | AsyncEngine) -> Engine:
    return engine if isinstance(engine, Engine) else engine.sync_engine


def _pid_event(engine: Engine | AsyncEngine) -> None:
    """Invalidate, at checkout, what another process opened (SQLAlchemy's documented event)."""

    @event.listens_for(_sync(engine), "connect")
    def connect(dbapi_connection: Any, record: Any) -> None:
        record.info["pid"] = os.getpid()

    @event.listens_for(_sync(engine), "checkout")
    def checkout(dbapi_connection: Any, record: Any, proxy: Any) -> None:
        pid = os.getpid()
        if record.info["pid"] != pid:
            record.dbapi_connection = proxy.dbapi_connection = None
            raise exc.DisconnectionError(
                f"Connection record belongs to pid {record.info['pid']}, attempting to check out in pid {pid}"
            )


def _at_fork(engine: Engine | AsyncEngine) -> None:
    """Drop the inherited pool, without closing it, in every child that Python forks."""
    os.register_at_fork(after_in_child=lambda: _sync(engine).dispose(close=False))


def _guard(engine: Engine | AsyncEngine) -> None:
    from poolfork.guard import guard

    guard(engine)


def _guard_without(mechanism: str) -> Callable[[Any], object]:
    def prepare(engine: Engine | AsyncEngine) -> None:
        from poolfork.ablation import switch_off
        from poolfork.guard import guard

        switch_off(mechanism)
        guard(engine)

    return prepare


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in [
        Recipe("nothing"),
        Recipe("dispose", dispose_in_child={}),
        Recipe("dispose(close=False)", dispose_in_child={"close": False}),
        Recipe("pid-event", _pid_event),
        Recipe("null-pool", engine_arguments=(("poolclass", NullPool),), keeps_idle=False),
        Recipe("dispose-before-fork", dispose_before_fork=True, keeps_idle=False),
        Recipe("at-fork", _at_fork),
        Recipe("spawn", start="spawn"),
        Recipe("forkserver", start="forkserver"),
        Recipe("guard", _guard),
    ]
}


def recipe(name: str) -> Recipe:
    """The recipe of that name; ``guard without X`` is the guard with mechanism X switched off."""
    if name.startswith("guard without "):
        return Recipe(name, _guard_without(name.removeprefix("guard without ")))
    return RECIPES[name]
