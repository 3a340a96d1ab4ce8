"""One function, three start methods: which of them gives the child its own session?"""

import multiprocessing
import os

from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"])  # spawn and forkserver run this line again


def backend():
    """The process id, on the server, of the session that a checkout talks to."""
    with engine.connect() as connection:
        return connection.scalar(text("SELECT pg_backend_pid()"))


def child(answer):
    answer.send(backend())


if __name__ == "__main__":  # without this line a spawned child would start children of its own
    parents = backend()
    for method in "fork", "spawn", "forkserver":
        context = multiprocessing.get_context(method)
        facts, answer = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(answer,))
        process.start()
        if not facts.poll(30):
            process.kill()
            raise SystemExit(f"{method}: the child said nothing for 30 s")
        whose = "the parent's session" if facts.recv() == parents else "a session of its own"
        process.join(30)
        print(f"{method:10} {whose}")
    print("parent     ", "unharmed" if backend() == parents else "harmed", sep="")
