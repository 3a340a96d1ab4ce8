"""The stacks that are measured: each module here but `kit` has a list ``STACKS``."""

from __future__ import annotations

import importlib
import pkgutil

from stacks.kit import Stack


def all_stacks() -> list[Stack]:
    """Every stack, by name, its settings in the order of its module; their ids are distinct."""
    modules = [m.name for m in pkgutil.iter_modules(__path__) if m.name != "kit"]
    found = [stack for name in modules for stack in importlib.import_module(f"stacks.{name}").STACKS]
    assert len({stack.id for stack in found}) == len(found), "two stacks of the same name and setting"
    return sorted(found, key=lambda stack: stack.name.lower())
