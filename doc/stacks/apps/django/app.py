# /// script
# dependencies = ["django", "gunicorn", "psycopg[binary,pool]"]
# ///
"""A Django project in one file that uses its database while it is imported; it answers ``/?n=7`` with 7."""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from psycopg.conninfo import conninfo_to_dict

url = conninfo_to_dict(os.environ["DATABASE_URL"].replace("postgresql+psycopg:", "postgresql:"))
names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["127.0.0.1"],
        DEBUG=True,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "OPTIONS": {"pool": True} if os.environ.get("POOL") else {},
                "CONN_MAX_AGE": None if os.environ.get("PERSISTENT") else 0,
                **{setting: url.get(name, "") for setting, name in names.items()},
            }
        },
    )
    django.setup()

from django.db import connection, connections  # noqa: E402

recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork; hook: in gunicorn.conf.py


def close_all():
    connections.close_all()
    for one in connections.all():
        if hasattr(one, "close_pool"):  # PostgreSQL, with the option "pool"
            one.close_pool()


if recipe == "at-fork":
    os.register_at_fork(before=close_all)

with connection.cursor() as cursor:  # the first use, wherever this module is imported
    cursor.execute("SELECT 1")


def answer(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT CAST(%s AS text)", [request.GET["n"]])
        return HttpResponse(cursor.fetchone()[0], content_type="text/plain")


urlpatterns = [path("", answer)]
application = get_wsgi_application()
