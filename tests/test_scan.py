"""`python -m poolfork scan`, on real servers whose connections are shared by real forks."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading

import psycopg
import pytest

from poolfork import scan
from poolfork.servers import mariadb, mariadb_home, postgres
from poolfork.sockets import look, look_with_lsof

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def server():
    """A throw-away PostgreSQL on a Unix socket and a random port."""
    with postgres(tcp=True) as server:
        yield server


@contextlib.contextmanager
def children(count=1, then=lambda: None):
    """Fork children that hold what they inherited until the block ends; `then` runs in each."""
    ready, go = os.pipe(), os.pipe()
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.close(go[1])
                then()
                os.write(ready[1], b".")
                os.read(go[0], 1)
            os._exit(0)
        pids.append(pid)
    os.close(ready[1])
    try:
        for _ in pids:
            assert os.read(ready[0], 1) == b".", "a child failed"
        yield pids
    finally:
        os.close(go[1])
        for pid in pids:
            os.waitpid(pid, 0)
        os.close(ready[0])
        os.close(go[0])


@contextlib.contextmanager
def redis(*arguments, prefix=(), **options):
    """A private redis-server."""
    process = subprocess.Popen(
        [*prefix, "redis-server", "--save", "", "--daemonize", "no", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **options,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if b"Ready to accept" in line or b"ready to accept" in line:
                break
        assert process.poll() is None, "redis-server did not start"
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def here(*pids, **options):
    """Scan this process and its children."""
    return scan.scan(pids or [os.getpid()], **options)


def the_one(report):
    """The only finding of a report, as JSON."""
    assert len(report.shared) == 1, scan.as_text(report)
    return report.shared[0].as_json()


def test_parent_and_children_sharing_postgres_over_tcp_are_found(server):
    """A random port, so the server's program tells the kind; the parent is the owner."""
    with psycopg.connect(server.tcp) as connection, children(2) as pids:
        found = the_one(here())
        assert found["pids"] == [os.getpid(), *pids]
        assert found["kind"] == "postgresql" and "postgres" in found["known_by"]
        assert found["peer"] == f"127.0.0.1:{connection.info.port}"
        assert found["owner"] == os.getpid()
        assert [one["relation"] for one in found["processes"]] == [None] + [f"child of {os.getpid()}"] * 2
        assert found["server"] == {"pid": connection.info.backend_pid, "name": "postgres"}
        assert connection.fileno() in found["processes"][0]["descriptors"]


def test_parent_and_child_sharing_postgres_over_its_unix_socket_are_found(server):
    """The peer is the socket's path, found through the kernel's socket diagnosis."""
    with psycopg.connect(server.url) as connection, children() as pids:
        found = the_one(here())
        assert found["pids"] == [os.getpid(), *pids]
        assert found["peer"] == f"{connection.info.host}/.s.PGSQL.{connection.info.port}"
        assert found["known_by"] == "name of the Unix socket"


def test_grandchild_is_told_from_child(server):
    """Each holder's relation names the nearest holder above it."""

    def forks_again():
        lives, dies = os.pipe()
        if os.fork() == 0:
            os.close(dies)
            os.read(lives, 1)  # until the child, its parent, has left
            os._exit(0)

    with psycopg.connect(server.url), children(then=forks_again) as (child,):
        relations = [one["relation"] for one in the_one(here())["processes"]]
    assert relations == [None, f"child of {os.getpid()}", f"child of {child}"]


def test_holders_without_their_parent_have_an_eldest_and_no_owner(server):
    """The parent let go of its copy: nobody is called the owner."""
    connection = psycopg.connect(server.url)
    with children(2) as pids:
        os.close(connection.fileno())
        found = the_one(here())
        assert found["pids"] == pids and found["owner"] == pids[0]
        assert found["owner_is"].startswith("eldest holder")


def test_nothing_is_shared_by_a_process_with_many_connections_or_after_the_children_left(server):
    """Connections of one process are its own, and copies of one descriptor too."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(server.tcp)) for _ in range(5)]
        copy = os.dup(connections[0].fileno())
        with children():
            assert len(here().shared) == 5
        assert here().shared == []
        os.close(copy)


def test_child_that_let_go_is_no_holder(server):
    """A child that put the null device over the inherited socket is no longer told."""
    with psycopg.connect(server.tcp) as connection:
        null = os.open(os.devnull, os.O_RDWR)
        with children(then=lambda: os.dup2(null, connection.fileno())):
            assert here().shared == []
        os.close(null)


@needs_redis
@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_redis_is_found_over_ipv4_ipv6_and_mapped_addresses(client):
    """The server's program tells the kind on a port that is nobody's default."""
    port = free_port()
    with redis("--port", str(port), "--bind", "127.0.0.1", "::1"):
        with socket.create_connection((client, port)), children():
            found = the_one(here())
            assert found["kind"] == "redis" and found["known_by"] == "the server is redis-server"
            address = client.removeprefix("::ffff:")
            assert found["peer"] == (f"[{address}]:{port}" if ":" in address else f"{address}:{port}")


@needs_redis
def test_redis_is_found_on_a_unix_socket_that_is_named_like_nothing(tmp_path):
    """The program at the other end tells the kind."""
    with redis("--port", "0", "--unixsocket", str(tmp_path / "box")), socket.socket(socket.AF_UNIX) as wire:
        wire.connect(str(tmp_path / "box"))
        with children():
            found = the_one(here())
            assert (found["kind"], found["peer"]) == ("redis", str(tmp_path / "box"))


@pytest.mark.skipif(mariadb_home() is None, reason="no mariadbd here")
def test_mariadb_is_found_by_tcp_and_by_unix_socket():
    """Both ways into one server, shared at once."""
    pymysql = pytest.importorskip("pymysql")
    import sqlalchemy as sa

    with mariadb() as server:
        url = sa.make_url(server.tcp)
        login = {"user": url.username, "password": url.password, "database": url.database}
        one = pymysql.connect(host="127.0.0.1", port=url.port, **login)
        two = pymysql.connect(unix_socket=str(server.folder / "mariadb.sock"), **login)
        with children():
            report = here()
        assert [held.kind for held in report.shared] == ["mysql", "mysql"]
        assert {held.peer for held in report.shared} == {
            f"127.0.0.1:{url.port}",
            f"{server.folder}/mariadb.sock",
        }
        one.close()
        two.close()


def test_what_is_shared_on_purpose_is_no_database_connection():
    """A prefork server's listener and its accepted connections, pipes, socket pairs, UDP."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        dual = stack.enter_context(
            socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("127.0.0.1", 0))
        pair = socket.socketpair()
        reader, writer = os.pipe()
        client = subprocess.Popen(
            [sys.executable, "-c", "import socket, sys; a = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
             "b = socket.create_connection(('127.0.0.1', int(sys.argv[2]))); sys.stdin.read()",
             str(listener.getsockname()[1]), str(dual.getsockname()[1])], stdin=subprocess.PIPE,
        )  # fmt: skip
        stack.callback(client.wait, 10)
        stack.callback(client.stdin.close)
        for one in listener, dual:
            one.settimeout(20)
            stack.enter_context(one.accept()[0])
        with children(4):
            report = here()
        assert (report.shared, report.unknown) == ([], [])
        for one in pair:
            one.close()
        os.close(reader)
        os.close(writer)


def test_gunicorns_workers_share_a_listener_and_no_database():
    """The real prefork server, where it is installed."""
    pytest.importorskip("gunicorn")
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-w", "3", "-b", "127.0.0.1:0", "wsgiref.simple_server:demo_app"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as master:  # fmt: skip
        try:
            booted = 0
            for line in master.stderr:
                booted += b"Booting worker" in line
                if booted == 3:
                    break
            report = here(master.pid)
            assert (report.shared, report.unknown) == ([], [])
        finally:
            master.terminate()


def test_postmaster_and_backends_are_no_finding(server):
    """A server's own processes hold its ends of the connections; only clients are told."""
    with psycopg.connect(server.tcp) as one, psycopg.connect(server.url), children():
        backend = one.info.backend_pid
        postmaster = int(pathlib.Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()[1])
        assert here(postmaster).shared == []


def test_children_on_their_way_to_exec_are_no_finding(server):
    """subprocess forks before it execs; for a moment the child holds everything."""
    with psycopg.connect(server.tcp):
        going = True

        def starts_programs():
            while going:
                subprocess.run(["/bin/true"], close_fds=True, check=True, preexec_fn=int)

        thread = threading.Thread(target=starts_programs)
        thread.start()
        try:
            assert [here().shared for _ in range(15)] == [[]] * 15
        finally:
            going = False
            thread.join(20)


def test_server_of_another_name_is_unknown_until_it_is_asked(server):
    """A proxy in front of PostgreSQL on a random port: named as unknown, exit code 0, known with --ask."""
    if server.front is None:
        pytest.skip("this server needs no front")
    import sqlalchemy as sa

    port = sa.make_url(server.tls).port
    with socket.create_connection(("127.0.0.1", port)), children():
        report = here()
        assert report.shared == [] and [held.peer for held in report.unknown] == [f"127.0.0.1:{port}"]
        found = the_one(here(ask=True))
        assert found["kind"] == "postgresql" and found["known_by"].startswith("protocol")


def test_port_that_docker_publishes_tells_the_kind(tmp_path):
    """By the arguments of docker-proxy, here a script of that name which listens and forwards nothing."""
    proxy, port = tmp_path / "docker-proxy", free_port()
    proxy.write_text(
        f"#!{sys.executable}\nimport socket, sys\n"
        f"listener = socket.create_server(('127.0.0.1', {port}))\nprint('up', flush=True)\nsys.stdin.read()\n"
    )
    proxy.chmod(0o755)
    arguments = [
        "-proto",
        "tcp",
        "-host-port",
        str(port),
        "-container-ip",
        "172.17.0.2",
        "-container-port",
        "5432",
    ]
    with subprocess.Popen([proxy, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        with socket.create_connection(("127.0.0.1", port)), children():
            found = the_one(here())
        assert (found["kind"], found["known_by"]) == ("postgresql", "port 5432 of a container")
        process.stdin.close()


@needs_redis
@needs_root
def test_connection_inside_another_network_namespace_is_found(tmp_path):
    """A container's sockets are in tables of their own: TCP and Unix."""
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    script = (
        "import os, socket, sys\n"
        "a = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "b = socket.socket(socket.AF_UNIX); b.connect(sys.argv[2])\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    sys.stdin.read(); os._exit(0)\n"
        "print(pid, flush=True); sys.stdin.read(); os.waitpid(pid, 0)\n"
    )
    port, path = free_port(), str(tmp_path / "redis.sock")
    up = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    with redis("--port", str(port), "--unixsocket", path, prefix=up) as process:
        inside = ["nsenter", "-t", str(process.pid), "-n", sys.executable, "-c", script, str(port), path]
        with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
            child = int(parent.stdout.readline())
            report = here(parent.pid)
            assert {held.peer for held in report.shared} == {f"127.0.0.1:{port}", path}
            assert all(held.pids == [parent.pid, child] for held in report.shared)
            parent.stdin.close()


@needs_root
@needs_redis
def test_user_without_root_sees_their_own_and_is_told_what_they_do_not_see(capfd):
    """A server of another user on an odd port: what else this user runs (nothing) tells the kind."""
    port = free_port()

    def shares_without_rights():
        os.setgroups([])
        os.setgid(61234)
        os.setuid(61234)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as if this program had been started so
        with socket.create_connection(("127.0.0.1", port)), children():
            os._exit(10 + scan.main(["--json", str(os.getpid())]))

    with redis("--port", str(port), user=61235, cwd="/"):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                shares_without_rights()
            os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11
    report = json.loads(capfd.readouterr().out)
    (found,) = report["shared"]
    assert found["kind"] == "redis" and found["known_by"] == "its server's user, 61235, runs nothing else"
    assert any("of other users" in what for what in report["not_seen"])


def test_command_says_1_and_json_names_pids_peer_and_kind(server):
    """The command's contract, as a program of its own."""
    with psycopg.connect(server.tcp), children() as pids:
        done = run("--json", str(os.getpid()))
        assert done.returncode == 1
        (found,) = json.loads(done.stdout)["shared"]
        assert set(found) >= {"pids", "peer", "kind", "owner", "processes"}
        assert found["pids"] == [os.getpid(), *pids]
        text = run(str(os.getpid()))
        assert text.returncode == 1 and "owner (ancestor of the others)" in text.stdout
    done = run(str(os.getpid()))
    assert done.returncode == 0 and done.stdout.startswith("No connection to a database is held by more")


@pytest.mark.parametrize("argument", ["abc", "0", "-1", "2147483646", "99999999999999999999", "--nonsense"])
def test_bad_input_gets_one_sentence_and_2(argument):
    """No traceback and no usage text."""
    done = run(argument)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("python -m poolfork scan: ") and done.stderr.count("\n") == 1


def test_watch_tells_each_change_and_ends_with_the_process(server):
    """It sees the child come and go, and its exit code remembers."""
    script = (
        "import os, psycopg, sys\n"
        "connection = psycopg.connect(sys.argv[1])\n"
        "print('up', flush=True)\n"
        "for line in sys.stdin:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n        sys.stdin.readline(); os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-uc", script, server.tcp], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    parent.stdout.readline()
    watch = subprocess.Popen(
        [sys.executable, "-m", "poolfork", "scan", "--watch", "--json", str(parent.pid)],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        changes = []
        for act in b"fork\n", b"leave\n", None:
            changes.append(json.loads(watch.stdout.readline()))
            if act:
                parent.stdin.write(act)
        parent.stdin.close()
        assert [len(change["shared"]) for change in changes] == [0, 1, 0]
        parent.wait(20)
        assert watch.wait(20) == 1
    finally:
        for process in parent, watch:
            process.kill()
            process.wait(10)
            process.stdout.close()


def test_watch_ends_at_ctrl_c_without_a_word(server):
    """Exit code 1 if anything was shared."""
    with psycopg.connect(server.tcp), children():
        watch = subprocess.Popen(
            [sys.executable, "-m", "poolfork", "scan", "--watch", "--json", str(os.getpid())],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert json.loads(watch.stdout.readline())["shared"]
        watch.send_signal(signal.SIGINT)
        assert (watch.wait(20), watch.stderr.read()) == (1, "")
        watch.stdout.close()
        watch.stderr.close()


def test_no_password_of_a_command_line_is_printed(server, tmp_path):
    """Only the program and its script or module are told."""
    (tmp_path / "app.py").write_text(
        "import os, psycopg, sys\nc = psycopg.connect(sys.argv[1])\npid = os.fork()\n"
        "if pid: print('up', flush=True)\nsys.stdin.read()\nif pid: os.waitpid(pid, 0)\n"
    )
    secret = server.tcp.split(":")[2].split("@")[0]
    with subprocess.Popen(
        [sys.executable, tmp_path / "app.py", server.tcp], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        parent.stdout.readline()
        for arguments in [], ["--json"]:
            done = run(*arguments, str(parent.pid))
            assert done.returncode == 1 and "app.py" in done.stdout
            assert secret not in done.stdout + done.stderr
        parent.stdin.close()


def test_ten_thousand_descriptors_take_less_than_a_second(server, tmp_path):
    """As a program of its own, interpreter start included; processor time, since the machine may be busy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 11_000:
        pytest.skip("this machine allows fewer descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (11_000, hard))
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    sockets = [listener]
    try:
        while len(sockets) < 10_000:
            sockets.append(socket.create_connection(listener.getsockname()))
            sockets.append(listener.accept()[0])
        with psycopg.connect(server.tcp), children():
            seconds = []
            caching = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}  # as installed
            for _ in range(3):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                done = run("--json", str(os.getpid()), environment=caching)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        report = json.loads(done.stdout)
        assert report["looked_at"]["descriptors"] > 20_000
        assert len(report["shared"]) == 1
        assert min(seconds) < 1, f"took {min(seconds):.2f} s"
    finally:
        for one in sockets:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(shutil.which("lsof") is None, reason="no lsof here")
def test_lsof_tells_the_same_holders_as_proc(server):
    """The way of systems without /proc, compared on TCP (Linux's lsof does not name Unix peers)."""
    with psycopg.connect(server.tcp) as connection, children() as pids:
        mine = os.fstat(connection.fileno()).st_ino
        by_proc, by_lsof = look(), look_with_lsof()
        assert by_proc.holders[mine].keys() == {os.getpid(), *pids}
        theirs = by_lsof.holders[str(mine)]
        assert theirs == by_proc.holders[mine]
        one, other = by_proc.sockets[mine], by_lsof.sockets[str(mine)]
        assert (one.local, one.remote, one.state) == (other.local, other.remote, other.state)


def run(*arguments, environment={}):  # noqa: B006
    """Run the command as a program of its own."""
    return subprocess.run(
        [sys.executable, "-m", "poolfork", "scan", *arguments],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        env=os.environ | environment,
    )  # fmt: skip
