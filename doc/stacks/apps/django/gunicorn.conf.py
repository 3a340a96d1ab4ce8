import os

if os.environ.get("RECIPE") == "hook":

    def pre_fork(server, worker):
        from django.db import connections

        connections.close_all()
        for one in connections.all():
            if hasattr(one, "close_pool"):  # PostgreSQL, with the option "pool"
                one.close_pool()
