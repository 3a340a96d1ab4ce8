"""Since Python 3.12 a fork warns of threads. Does it warn of connections?"""

import os
import sys
import threading
import warnings

from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"])
with engine.connect() as connection:  # back in the pool, and open, at both forks
    connection.execute(text("SELECT 1"))


def fork_and_listen():
    """The warnings that os.fork() gives in the parent."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not (child := os.fork()):
            os._exit(0)
        os.waitpid(child, 0)
    return [warning.category.__name__ for warning in caught]


enough = threading.Event()
thread = threading.Thread(target=enough.wait, args=(30,))
print("one thread, one idle connection:", *fork_and_listen() or ["no warning"])
thread.start()
print("two threads:", *fork_and_listen() or ["no warning"])
enough.set()
thread.join()
print(f"(Python {sys.version_info.major}.{sys.version_info.minor})")
engine.dispose()
