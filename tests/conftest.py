"""What several test modules share: one throw-away PostgreSQL a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poolfork.servers import Server, postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A throw-away PostgreSQL, started once for all tests of this process."""
    with postgres() as server:
        yield server
