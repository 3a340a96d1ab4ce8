"""The child that the pages' blocks fork: it runs one function and sends back what it saw."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

fork = multiprocessing.get_context("fork")  # by name: since Python 3.14 the default is another


def in_child(work: Callable[[], Any], bound: float = 20) -> Any:
    """Fork, run ``work()`` in the child, return its answer, or its error as one line of text.

    The child leaves without running finalizers (``os._exit``, as `multiprocessing` always does).
    One that overstays ``bound`` seconds is killed, and `TimeoutError` raised.
    """
    facts, answer = fork.Pipe(duplex=False)

    def run() -> None:
        try:
            answer.send(work())
        except Exception as error:  # noqa: BLE001
            answer.send(f"{type(error).__name__}: {error}".partition("\n")[0])

    child = fork.Process(target=run)
    child.start()
    answer.close()
    try:
        if not facts.poll(bound):
            raise TimeoutError(f"the child overstayed its {bound} s and was killed")
        return facts.recv()
    finally:
        facts.close()
        child.join(1)
        if child.is_alive():
            child.kill()
            child.join()
