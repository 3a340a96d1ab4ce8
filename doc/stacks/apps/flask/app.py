# /// script
# dependencies = ["flask", "flask-sqlalchemy", "gunicorn", "psycopg[binary]"]
# ///
"""A Flask app with Flask-SQLAlchemy that uses its pool while it is imported; it answers ``/?n=7`` with 7."""

import os
from functools import partial

import flask
from flask_sqlalchemy import SQLAlchemy

app = flask.Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)
recipe = os.environ.get("RECIPE", "nothing")  # nothing, at-fork, guard; hook: in gunicorn.conf.py
if recipe == "at-fork":
    with app.app_context():
        os.register_at_fork(after_in_child=partial(db.engine.dispose, close=False))
if recipe == "guard":
    from guard import guard

    with app.app_context():
        guard(db.engine)

with app.app_context():  # the first use, wherever this module is imported: db.create_all(), say
    db.session.scalar(db.text("SELECT 1"))


@app.get("/")
def answer():
    number = int(flask.request.args["n"])
    return str(db.session.scalar(db.text("SELECT CAST(:n AS integer)"), {"n": number}))
