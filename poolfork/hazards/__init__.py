"""The hazards: one function each, told as the parent's steps; the child's steps stand beside it.

Read one to know exactly what a cell of the truth table means. A hazard says what it found
(`Parent.found`); a cell in which nothing was found is ``ok``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType
from typing import cast

from poolfork.actors import Parent


@dataclass(frozen=True)
class Hazard:
    """A hazard: its name, its variants, the function that takes the parent's steps, its criterion.

    ``only`` narrows it to ``asyncio`` drivers, drivers used by ``threads``, ``postgresql`` or ``sqlite``.
    """

    name: str
    variants: tuple[str, ...]
    probe: Callable[[Parent, str], None]
    passes_when: str
    only: str = ""
    seconds: float = 12.0

    @property
    def busy(self) -> bool:
        """Whether it works all the time that it takes."""
        return self.seconds > 12

    @property
    def source(self) -> tuple[str, int, int]:
        """Where to read it: module, first and last line."""
        lines, first = inspect.getsourcelines(self.probe)
        return self.probe.__module__, first, first + len(lines) - 1

    @property
    def listing(self) -> str:
        """The probe's source, then that of the functions that it uses, the child's steps among them."""
        found: list[FunctionType] = []
        ahead = [cast(FunctionType, self.probe)]
        while ahead:
            function = ahead.pop(0)
            if function not in found:
                found.append(function)
                ahead += _used_by(function)
        return "\n\n\n".join(inspect.getsource(function).rstrip() for function in found)


def _used_by(function: FunctionType) -> list[FunctionType]:
    """The hazards' own functions that a function names, in the order in which it does."""
    codes, names = [function.__code__], list[str]()
    while codes:
        code = codes.pop(0)
        names += code.co_names
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    named = [function.__globals__.get(name) for name in dict.fromkeys(names)]
    return [each for each in named if isinstance(each, FunctionType) and each.__module__.startswith(__name__)]


_REGISTRY: dict[str, Hazard] = {}


def hazard(
    name: str, *variants: str, passes_when: str, only: str = "", seconds: float = 12.0
) -> Callable[[Callable[[Parent, str], None]], Callable[[Parent, str], None]]:
    """Register a function as a hazard; the first variant is the plain one, ``""`` if there is no choice."""

    def register(probe: Callable[[Parent, str], None]) -> Callable[[Parent, str], None]:
        _REGISTRY[name] = Hazard(name, variants or ("",), probe, passes_when, only, seconds)
        return probe

    return register


@cache
def all_hazards() -> dict[str, Hazard]:
    """Every hazard by its name, in the order in which the table shows them."""
    for module in "crossed", "goodbye", "held", "pooled", "state", "wire", "loop", "files", "corners":
        importlib.import_module(f"poolfork.hazards.{module}")
    order = [
        "crossed",
        "goodbye-close",
        "goodbye-gc",
        "goodbye-exit",
        "held-finish",
        "held-use",
        "starved",
        "locked",
        "thread-local",
        "grandchild",
        "state",
        "c-fork",
        "event-loop",
        "tls",
    ]
    return dict(sorted(_REGISTRY.items(), key=lambda item: order.index(item[0]) if item[0] in order else 99))
