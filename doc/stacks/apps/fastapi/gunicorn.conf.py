import os

if os.environ.get("RECIPE") == "hook":

    def post_fork(server, worker):
        from app import engine

        engine.dispose(close=False)
