"""What several test modules share: one throw-away PostgreSQL a session."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from poolfork.servers import Server, postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A throw-away PostgreSQL, started once for all tests of this process."""
    with postgres() as server:
        yield server


@pytest.fixture
def garbage_free() -> None:
    """No engine of an earlier test is forked with this one's, and no descriptor falls free in its middle."""
    gc.collect()
