"""Transcripts and counts become pictures."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Nothing yet."""
    return {"parallel_read_safe": True, "parallel_write_safe": True}
