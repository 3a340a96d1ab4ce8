"""``python manage.py runserver``."""

import sys

import app  # noqa: F401 (settings, and the first use of the database)
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
