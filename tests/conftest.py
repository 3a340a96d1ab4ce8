"""What several test modules share: one throw-away PostgreSQL a session."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest

from poolfork.servers import Server, postgres

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # as a shell's background job: what we start would inherit that, and Ctrl-C is a thing that we test
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A throw-away PostgreSQL, started once for all tests of this process."""
    with postgres() as server:
        yield server


@pytest.fixture
def garbage_free() -> Iterator[None]:
    """No engine of an earlier test is forked with this one's, and no descriptor falls free in its middle.

    What is alive before the test is no garbage of its: children that collect need not walk through it,
    which takes them seconds in a process that has run a thousand tests, a page of memory copied at a time.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
