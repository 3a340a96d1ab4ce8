"""Granian in a program of one's own that imports the app: ``python serve.py 8000``."""

import multiprocessing
import sys

import app  # noqa: F401 (in the parent, before the workers: it may well be needed for something else)
from granian import Granian

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")  # what Granian takes on Linux up to Python 3.13, unless told
    Granian("app:app", address="127.0.0.1", port=int(sys.argv[1]), interface="asgi", workers=4).serve()
