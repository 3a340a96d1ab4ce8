"""The child says goodbye on the parent's wire: by closing, by garbage collection, by exiting."""

from __future__ import annotations

import gc

from poolfork.actors import Child, Parent
from poolfork.hazards import hazard
from poolfork.hazards.crossed import crossed

_SAME = "the parent's session answers, with the same backend id as before"


@hazard("goodbye-close", passes_when=_SAME)
def goodbye_close(parent: Parent, variant: str) -> None:
    """The child applies the recipe, nothing else, and leaves by ``os._exit``."""
    session = parent.has_idle()[0]
    with parent.judged():
        parent.fork(child_applies_recipe).leaves()
    parent.still_has(session)


def child_applies_recipe(child: Child) -> None:
    """Apply the recipe."""
    child.applies_recipe()


@hazard("goodbye-gc", passes_when=_SAME)
def goodbye_gc(parent: Parent, variant: str) -> None:
    """The child applies the recipe and collects garbage, then leaves by ``os._exit``."""
    session = parent.has_idle()[0]
    with parent.judged():
        parent.fork(child_collects_garbage).leaves()
    parent.still_has(session)


def child_collects_garbage(child: Child) -> None:
    """Apply the recipe, use the pool once as any child does, collect garbage."""
    child.applies_recipe()
    child.asks_backend()
    gc.collect()


@hazard("goodbye-exit", passes_when=_SAME)
def goodbye_exit(parent: Parent, variant: str) -> None:
    """The child applies the recipe and leaves by the interpreter's normal exit, with finalizers."""
    session = parent.has_idle()[0]
    with parent.judged():
        parent.fork(child_applies_recipe, leave="exit").leaves()
    parent.still_has(session)


@hazard(
    "tls",
    "crossed",
    "goodbye-gc",
    "goodbye-exit",
    passes_when="as crossed and goodbye-*, the connections being encrypted",
)
def tls(parent: Parent, variant: str) -> None:
    """The same steps over TLS, where the two copies of the encryption's state also drift apart.

    ``goodbye-gc`` begins with all that ``goodbye-close`` does, which has no variant of its own here.
    """
    steps = {"crossed": crossed, "goodbye-gc": goodbye_gc, "goodbye-exit": goodbye_exit}
    steps[variant](parent, variant)
