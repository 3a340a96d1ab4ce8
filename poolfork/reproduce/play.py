"""Run reproductions, each in a process of its own, forked from a server process that has loaded the drivers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

from poolfork.reproduce import Reproduction, all_reproductions
from poolfork.reproduce.stage import LIFETIME, NotShown, Place, Stage

PRELOAD = "poolfork.reproduce.loaded"


def text(reproduction: Reproduction, place: Place) -> str:
    """What a reproduction's driver or server says today; raises `NotShown` where its steps fail."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_play, args=(reproduction.name, place, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(LIFETIME + 20):  # the first one waits for the drivers to be loaded
            raise NotShown("its steps come to no end")
        shown, said = ours.recv()
    except EOFError:
        raise NotShown("its process ended without a word") from None
    finally:
        ours.close()
        with contextlib.suppress(OSError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join(10)
    if not shown:
        raise NotShown(said)
    return str(said)


def _play(name: str, place: Place, answer: Connection) -> None:
    """In a process and a session of its own: run one, tell the text."""
    os.setsid()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIFETIME)
    reproduction = all_reproductions()[name]
    try:
        said = reproduction.steps(Stage(place, reproduction.tls, reproduction.driver))
        answer.send((True, said.strip()))
    except Exception as error:  # noqa: BLE001 - the caller raises it as NotShown
        answer.send((False, "".join(traceback.format_exception(error))[-800:]))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)  # what its connections would say at their end is nobody's business
