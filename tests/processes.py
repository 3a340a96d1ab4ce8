"""Which processes are at work: what the tests ask of a command that was stopped."""

from __future__ import annotations

import contextlib
import pathlib

import psutil


def alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and was not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def below(pid: int) -> set[psutil.Process]:
    """The children of a process, and theirs."""
    return set(psutil.Process(pid).children(recursive=True))


def in_folder(folder: pathlib.Path) -> set[psutil.Process]:
    """The processes at work in a folder: servers, whose parent has left them to init."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd().startswith(f"{folder}/"):
                found.add(process)
    return found
