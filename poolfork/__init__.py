"""poolfork: is your connection pool safe across ``fork()``?"""

from __future__ import annotations

from poolfork.guard import MECHANISMS, GuardError, GuardWarning, InheritedConnectionError, guard, unguard

__all__ = ["MECHANISMS", "GuardError", "GuardWarning", "InheritedConnectionError", "guard", "unguard"]
