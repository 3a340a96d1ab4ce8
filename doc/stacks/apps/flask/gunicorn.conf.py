import os

if os.environ.get("RECIPE") == "hook":

    def post_fork(server, worker):
        from app import app, db

        with app.app_context():
            db.engine.dispose(close=False)
