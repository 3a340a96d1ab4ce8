"""Dramatiq's workers, started by a program that has imported the actors: ``python serve.py tasks``."""

import sys

import tasks  # noqa: F401
from dramatiq.cli import main

sys.exit(main())
