"""poolfork: is your connection pool safe across ``fork()``?"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolfork.guard import MECHANISMS, GuardError, GuardWarning, InheritedConnectionError, guard, unguard

__all__ = ["MECHANISMS", "GuardError", "GuardWarning", "InheritedConnectionError", "guard", "unguard"]


class _Package(types.ModuleType):
    """The package; it imports SQLAlchemy when the guard is asked for, since ``scan`` needs none of it."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = self.__dict__[name] = getattr(_guard_module(), name)
        return value

    @property
    def guard(self) -> Any:
        """The function, whoever has imported the module of the same name, which Python would put here."""
        return _guard_module().guard

    @guard.setter
    def guard(self, module: types.ModuleType) -> None:
        pass

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


def _guard_module() -> Any:
    import importlib

    return importlib.import_module("poolfork.guard")


sys.modules[__name__].__class__ = _Package
