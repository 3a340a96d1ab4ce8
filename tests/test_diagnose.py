"""What doc/diagnose.rst shows is what the commands print today; `python tests/test_diagnose.py` writes it anew."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import sqlalchemy as sa

from poolfork.servers import mariadb, mariadb_home, postgres

ROOT = pathlib.Path(__file__).parent.parent
SHOWN = ROOT / "doc" / "examples" / "diagnose"


@contextlib.contextmanager
def shop(url):
    """The page's example, running with two workers; gives the pids of the parent and its children."""
    with subprocess.Popen(
        [sys.executable, SHOWN / "shop.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"DATABASE_URL": url},
    ) as parent:  # fmt: skip
        try:
            assert parent.stdout.readline() == b"ready\n"
            children = pathlib.Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            yield [parent.pid, *map(int, children)]
        finally:
            parent.stdin.close()
            try:
                parent.wait(30)
            finally:
                parent.kill()


def output(*words, text=None):
    """What a command prints, whatever its exit code."""
    done = subprocess.run(
        words,
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=None if text else subprocess.DEVNULL,
    )
    return done.stdout


def named(text, names):
    """Pids, ports and sessions become names; columns are set anew, for their widths vary."""
    for value, name in sorted(names.items(), key=lambda item: -len(str(item[0]))):
        text = re.sub(rf"(?<![\d.]){value}(?!\d)", name, text)
    return re.sub(r"[ \t]+\n", "\n", text)


def columns(rows):
    """Rows of words, in columns."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return (
        "\n".join(
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )
        + "\n"
    )


def with_postgres():
    """What the page shows, from a real PostgreSQL: file name to text."""
    shown = {}
    with postgres(tcp=True) as server:
        url = (
            sa.make_url(server.tcp)
            .set(drivername="postgresql+psycopg")
            .update_query_dict({"application_name": "shop"})
        )
        with shop(url.render_as_string(hide_password=False)) as pids:
            names = dict(zip(pids, ["PARENT", "CHILD-1", "CHILD-2"], strict=True)) | {url.port: "PORT"}
            engine = sa.create_engine(url.update_query_dict({"application_name": "me"}))
            with engine.connect() as connection:
                sessions = "SELECT pid, client_port, state, query FROM pg_stat_activity WHERE application_name = 'shop'"
                result = connection.execute(sa.text(sessions))
                keys, (row,) = list(result.keys()), result.all()  # one session for three processes
                names |= {row.pid: "SESSION", row.client_port: "CLIENT"}
                shown["pg_stat_activity.txt"] = columns([keys, [named(str(value), names) for value in row]])
            engine.dispose()
            text = output(sys.executable, "-m", "poolfork", "scan", str(pids[0]))
            text = re.sub(r"Looked at \d+ processes, \d+ descriptors\.\n(Could not see .*\n)*", "", text)
            text = named(text, names).rstrip() + "\n"
            rows = [re.split(r"  +", line.strip()) for line in text.splitlines() if line.startswith("  ")]
            for line, new in zip(
                [line for line in text.splitlines() if line.startswith("  ")],
                columns(rows).splitlines(),
                strict=True,
            ):
                text = text.replace(line, "  " + new)
            shown["scan.txt"] = text
            if shutil.which("ss"):
                lines = output(
                    "ss", "-tnpH", "dport", "=", f":{url.port}", "and", "sport", "=", f":{row.client_port}"
                )
                words = lines.split()
                holders = sorted(
                    re.findall(r'\("[^"]+",pid=\d+,fd=\d+\)', words[5]),
                    key=lambda one: [str(pid) in one for pid in pids],
                    reverse=True,
                )
                shown["ss.txt"] = named(
                    " ".join(words[:5]) + "\n    users:(" + ",\n           ".join(holders) + ")\n", names
                )
            if shutil.which("lsof"):
                lines = output("lsof", "-nP", "-a", "-p", ",".join(map(str, pids)), f"-iTCP:{url.port}")
                rows = [line.split(None, 8) for line in lines.splitlines()]
                names |= {rows[1][5]: "SOCKET", rows[1][2]: "me"}
                rows = [[*row[:2], *row[3:6], *row[7:]] for row in rows]  # without user and size
                shown["lsof.txt"] = columns([[named(word, names) for word in row] for row in rows])
    return shown


def with_mariadb():
    """The same from a real MariaDB."""
    with mariadb() as server:
        url = sa.make_url(server.tcp).set(drivername="mysql+pymysql")
        with shop(url.render_as_string(hide_password=False)):
            engine = sa.create_engine(url)
            with engine.connect() as connection:
                rows = connection.execute(sa.text("SHOW PROCESSLIST")).mappings().all()
                mine = connection.scalar(sa.text("SELECT CONNECTION_ID()"))
            engine.dispose()
    keys = ["Id", "User", "Host", "db", "Command"]
    (theirs,) = [row for row in rows if row["Id"] != mine and row["User"] == "poolfork"]
    shown = [str(theirs[key]) for key in keys]
    shown[0], shown[1], shown[2], shown[3] = "SESSION", "shop", re.sub(r":\d+$", ":CLIENT", shown[2]), "shop"
    return {"processlist.txt": columns([keys, shown])}


def explained():
    """What explain says to the page's traceback."""
    return {"explain.txt": output(sys.executable, "-m", "poolfork", "explain", str(SHOWN / "traceback.txt"))}


needs_proc = pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="needs Linux's /proc")


@needs_proc
def test_page_shows_what_scan_ss_lsof_and_postgres_print():
    """One connection, three processes, one session."""
    shown = with_postgres()
    assert {name: (SHOWN / name).read_text() for name in shown} == shown


@needs_proc
@pytest.mark.skipif(mariadb_home() is None, reason="no mariadbd here")
def test_page_shows_what_mariadb_prints():
    """SHOW PROCESSLIST has one row for three processes."""
    pytest.importorskip("pymysql")
    shown = with_mariadb()
    assert {name: (SHOWN / name).read_text() for name in shown} == shown


def test_page_shows_what_explain_prints():
    """The traceback on the page, and the answer to it."""
    shown = explained()
    assert {name: (SHOWN / name).read_text() for name in shown} == shown


if __name__ == "__main__":
    for name, text in (with_postgres() | with_mariadb() | explained()).items():
        (SHOWN / name).write_text(text)
        print(f"-- {name}\n{text}")
