# /// script
# dependencies = ["apache-airflow", "psycopg[binary]", "sqlalchemy>=2.0"]
# ///
"""Airflow's LocalExecutor with tasks that use our own engine: ``python questions.py dag``, or ``plugin``.

The word says who imports the module with the engine: only the DAG file, or a plugin as well. One more word is Airflow's
setting ``mp_start_method``. DATABASE_URL names the database (postgresql+psycopg://...); Airflow's own is an SQLite
file in a temporary folder.
"""

import collections
import contextlib
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

words = ["right", "wrong-row", "error", "hang"]

# Waits until its standard input ends, as it does however we end; then it ends the program and all that this started.
KEEPER = """
import os, psutil, signal, sys
sys.stdin.read()
for _ in range(3):
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == int(sys.argv[1]):
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


def settings(home, port, start_method):
    chosen = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "CORE__MP_START_METHOD": start_method,
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__WORKERS": "1",
        "API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "WORKERS__EXECUTION_API_TIMEOUT": "60",  # a slow machine is not what we ask about
    }
    here = str(pathlib.Path.cwd())  # warehouse.py can be imported from everywhere, as if it were installed
    path = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {f"AIRFLOW__{name}": value for name, value in chosen.items()} | {
        "AIRFLOW_HOME": str(home), "ANSWERS": str(home), "PYTHONPATH": os.pathsep.join(path)
    }  # fmt: skip


@contextlib.contextmanager
def running(command, env, log):
    program = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    keep = [sys.executable, "-c", KEEPER, str(program.pid)]
    keeper = subprocess.Popen(keep, stdin=subprocess.PIPE, env={}, start_new_session=True)
    try:
        yield program
    finally:
        keeper.stdin.close()
        keeper.wait()
        program.wait()


def wait(ready, programs, bound):
    until = time.monotonic() + bound
    while not ready() and time.monotonic() < until and all(one.poll() is None for one in programs):
        time.sleep(0.1)
    return ready()


def answers_http(port):
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/version", timeout=30).close()
        return True
    return False


def measure(who, start_method, home, log):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name in ("dags", "plugins"):
        (home / name).mkdir()
    shutil.copy("dag.py", home / "dags")
    if who == "plugin":
        shutil.copy("plugin.py", home / "plugins")
    env, airflow = settings(home, port, start_method), [sys.executable, "-m", "airflow"]
    for command in (["db", "migrate"], ["dags", "reserialize"]):
        subprocess.run([*airflow, *command], env=env, stdout=log, stderr=log, timeout=120, check=True)
    answers = home / "answers"
    answers.touch()
    with running([*airflow, "api-server"], env, log) as server:
        if not wait(lambda: answers_http(port), [server], 120):
            raise RuntimeError("the API server did not answer")
        with running([*airflow, "scheduler", "--skip-serve-logs"], env, log) as scheduler:
            size = 0
            while size < 240 and wait(  # one silence of eight seconds is enough of a proof
                lambda: answers.stat().st_size > size,  # noqa: B023
                [server, scheduler],
                8 if size else 120,
            ):
                size = answers.stat().st_size
            if not size:
                raise RuntimeError("no task answered")
    found = answers.read_bytes()
    counts = collections.Counter(words[number] for number in found)
    counts["hang"] = int(len(found) < 240)
    return counts


if __name__ == "__main__":
    who, start_method = sys.argv[1], (*sys.argv[2:], "fork")[0]
    with tempfile.TemporaryDirectory(prefix="airflow-", ignore_cleanup_errors=True) as folder:
        log = pathlib.Path(folder, "log")
        try:
            with log.open("ab") as told:
                counts = measure(who, start_method, pathlib.Path(folder), told)
        except (RuntimeError, subprocess.SubprocessError) as error:
            sys.exit(f"{log.read_text()[-1500:]}\n{error}")
    print(" | ".join(f"{word} {counts[word]}" for word in words))
