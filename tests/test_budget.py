"""From one machine to many: the budget as measured, PgBouncer, the calculator, the decision page.

What the pages say in words is asserted here against what `tools/measure_budget.py` measures; one
test each for what needs a browser or a PgBouncer, and skips visibly where there is none.
"""

from __future__ import annotations

import configparser
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from poolfork import servers

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "doc" / "_ext")]

import choosing  # noqa: E402
import measure_budget  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
with_pgbouncer = pytest.mark.skipif(
    servers.pgbouncer_program() is None, reason="no PgBouncer (Debian: apt-get install pgbouncer)"
)
pytestmark = pytest.mark.timeout(300)


def through(url: str, **settings: Any) -> sa.Engine:
    """An engine for psycopg on that server."""
    return sa.create_engine(measure_budget.url_for(url, "psycopg"), **settings)


def measured(part: Callable[[str], Any], max_connections: int = 100) -> Any:
    """What a part of the measurement finds on a server of its own."""
    with servers.postgres(max_connections=max_connections) as server:
        return part(server.url)


# -- the budget ---------------------------------------------------------------------------------


def test_workers_fill_the_slots_and_the_next_is_refused() -> None:
    """17 of 20 slots are the application's: 5 workers of 3, 2 for the sixth, then the two exact texts."""
    found = measured(measure_budget.refusal, measure_budget.MAX_CONNECTIONS)
    assert (found["slots"], found["granted"], found["workers_whole"], found["superusers"]) == (17, 17, 5, 3)
    reserved = "remaining connection slots are reserved for roles with the SUPERUSER attribute"
    assert all(one["text"].endswith(reserved) for one in found["refused"].values()), found["refused"]
    assert found["refused"]["psycopg"]["type"] == "OperationalError from OperationalError"
    assert found["refused"]["psycopg2"]["type"] == "OperationalError from OperationalError"
    assert found["refused"]["asyncpg"]["type"] == "DBAPIError from TooManyConnectionsError"
    assert found["too_many"] == "FATAL: sorry, too many clients already"
    assert found["own_limit"]["type"] == "TimeoutError"
    assert found["own_limit"]["text"].startswith("TimeoutError: QueuePool limit of size 2 overflow 1 reached")
    assert found["granted_again"] == 1, "what a worker gives back, another gets"
    assert found["open_after"] == found["idle_after"] == 12, "six idle workers keep pool_size each"
    assert found["threads"] == {"threads": 3, "opened": 3}
    assert found["tasks"] == {"tasks": 40, "opened": 15}


def test_killed_parents_sessions_stay_as_long_as_a_child_holds_their_sockets() -> None:
    """Only the recipes that leave no socket behind give the slots back: before the fork, or at the null device."""
    found = measured(measure_budget.killed_parents)
    assert {recipe for recipe, left in found.items() if left["while_child_lives"]} == {
        "nothing", "dispose(close=False)", "pid-event", "at-fork",
    }  # fmt: skip
    assert {left["after"] for left in found.values()} == {0}


# -- PgBouncer ----------------------------------------------------------------------------------


@with_pgbouncer
def test_pgbouncer_is_gone_with_whoever_started_it(postgres_server: servers.Server) -> None:
    """Killed with -9, its starter leaves no PgBouncer and no folder."""
    code = (
        "import os, sys; from poolfork.servers import start_pgbouncer\n"
        "print(start_pgbouncer(sys.argv[1]).folder, flush=True); os.kill(os.getpid(), 9)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, postgres_server.url],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    folder, end = pathlib.Path(told.stdout.strip()), time.monotonic() + 20
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert told.returncode == -9 and folder.name.startswith("poolfork-") and not folder.exists()


@with_pgbouncer
def test_pgbouncer_that_cannot_start_says_why(postgres_server: servers.Server) -> None:
    """A setting that it does not know is named in the error."""
    with pytest.raises(servers.ServerError, match="no_such_setting"):
        servers.start_pgbouncer(postgres_server.url, no_such_setting=1)


@with_pgbouncer
def test_pages_configuration_is_understood(postgres_server: servers.Server) -> None:
    """The lines of doc/examples/pgbouncer.ini start a PgBouncer that answers."""
    lines = configparser.ConfigParser()
    lines.read(ROOT / "doc" / "examples" / "pgbouncer.ini")
    with servers.pgbouncer(postgres_server.url, **lines["pgbouncer"]) as front:
        engine = through(front.url, connect_args={"prepare_threshold": None})
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1
        engine.dispose()


@with_pgbouncer
def test_transaction_mode_serves_many_and_session_mode_as_many_as_it_has_sessions() -> None:
    """18 idle clients share; in a transaction, and in session mode, five are served and the sixth waits in vain."""
    found = measured(measure_budget.multiplexing)
    assert found["transaction"]["idle"]["clients"] == 18
    assert found["transaction"]["idle"]["sessions"] < found["default_pool_size"]
    for full in (
        found["transaction"]["in_transaction"],
        *(found["session"][k] for k in ("idle", "in_transaction")),
    ):
        assert (full["clients"], full["sessions"], full["refused"]) == (5, 5, "query_wait_timeout")
    assert found["session"]["one_after_the_other"] == {"QueuePool": 5, "NullPool": 6}
    assert found["transaction"]["one_after_the_other"] == {"QueuePool": 6, "NullPool": 6}
    assert found["max_client_conn"] == "FATAL: no more connections allowed (max_client_conn)"
    keeps_track = [int(number) for number in measure_budget.versions()["pgbouncer"].split(".")] >= [1, 21]
    refused = "ERROR unknown parameter: pgbouncer/max_prepared_statements"
    assert found["max_prepared_statements"] == ("accepted" if keeps_track else refused)


@with_pgbouncer
def test_backend_pid_tells_clients_apart_in_session_mode_only() -> None:
    """In transaction mode one client has two, and two have one; the driver's own number is each client's."""
    found = measured(measure_budget.identity)
    assert (found["transaction"]["one_client"], found["transaction"]["two_clients"]) == (2, 1)
    assert (found["session"]["one_client"], found["session"]["two_clients"]) == (1, 2)
    assert all(found[mode]["numbers"] == 2 for mode in measure_budget.MODES)
    assert not any(found[mode]["number_is_the_backend"] for mode in measure_budget.MODES)
    assert found["scan"] == [{"kind": "postgresql", "processes": 2}]


@with_pgbouncer
def test_what_outlives_a_transaction_is_lost_and_leaks_in_transaction_mode() -> None:
    """But for what PgBouncer follows, and for what ends with the transaction; the reset query is session mode's."""
    found = measured(measure_budget.session_state)
    always = "transaction, server_reset_query_always"
    for name in measure_budget.STATE:
        follows = name == "SET TimeZone"
        here = {mode: (answer["owner"], answer["stranger"]) for mode, answer in found[name].items()}
        assert here["transaction"] == ((True, False) if follows else (False, True)), name
        assert here["session"] == (True, False), name
        assert here[always] == (follows, False), name
    assert {mode: found["LISTEN"][mode]["notified"] for mode in measure_budget.MODES} == {
        "transaction": False, "session": True,
    }  # fmt: skip
    for name in measure_budget.INSIDE:
        assert found[name]["transaction"] == {"inside": True, "stranger": False}, name


@with_pgbouncer
@pytest.mark.slow
def test_prepared_statements_need_what_the_page_says() -> None:
    """psycopg2 always, psycopg without threshold and asyncpg without caches pass; unique names do not save AUTOCOMMIT."""
    found = measured(measure_budget.prepared_statements)
    cases = ("transaction, moved", "transaction, met", "autocommit")
    good = {name for name, told in found.items() if {told[case] for case in cases} == {"ok"}}
    assert good == {"psycopg2", "psycopg, prepare_threshold=None", "asyncpg, caches 0"}
    assert found["psycopg"]["transaction, moved"] == 'prepared statement "_pg3_0" does not exist'
    assert found["psycopg"]["transaction, met"] == 'prepared statement "_pg3_0" already exists'
    for name in ("asyncpg, caches 0, unique names", "asyncpg, caches 0, unique names, NullPool"):
        assert {found[name][case] for case in cases[:2]} == {"ok"} and int(found[name]["left"]) > 0
        assert "does not exist" in found[name]["autocommit"]
    assert found["pg8000"]["autocommit"] in (  # which statement of another worker's is in its place by then
        "unnamed prepared statement does not exist",
        'bind message supplies 1 parameters, but prepared statement "" requires 0',
        'bind message supplies 0 parameters, but prepared statement "" requires 1',
    )
    assert {told[f"session, {case}"] for told in found.values() for case in ("moved", "met")} == {"ok"}


def is_as_the_page_says(cells: list[dict[str, str]]) -> None:
    """Crossed answers, goodbye and lost commits through PgBouncer are those without it; the guard passes all."""
    outcome = {(c["mode"], c["driver"], c["recipe"], c["hazard"]): c["outcome"] for c in cells}
    total, changed = choosing.differences({"recipes": cells})
    unlike = [cell for cell in cells if (cell["driver"], cell["recipe"], cell["hazard"]) in changed]
    assert 3 * total == len(cells)
    lost = {"parent-lost", "write-lost"}  # which of the two, without a recipe, is a matter of moments

    def by_chance(cell: dict[str, str]) -> bool:
        if cell["hazard"] == "goodbye-exit":
            return True  # what is torn down at an exit, and when, varies from run to run
        if (cell["driver"], cell["recipe"], cell["hazard"]) == ("asyncpg", "dispose", "held-use"):
            return cell["outcome"] in {
                "error",
                "parent-lost",
            }  # its own error may come before the lost session
        return False

    others = [cell for cell in unlike if not by_chance(cell)]
    assert all(c["recipe"] == "nothing" and c["outcome"] in lost for c in others), others
    assert {word for (_, _, recipe, _), word in outcome.items() if recipe == "guard"} == {"ok"}
    for mode in measure_budget.MODES:
        assert outcome[mode, "psycopg", "nothing", "crossed"] == "wrong-row"
        assert outcome[mode, "psycopg", "dispose", "goodbye-close"] == "parent-lost"
        assert outcome[mode, "psycopg", "at-fork", "held-finish"] == "write-lost"
        assert outcome[mode, "asyncpg", "at-fork", "goodbye-gc"] == "parent-lost"


@with_pgbouncer
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_recipes_come_out_as_without_pgbouncer_and_the_guard_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four recipes, both drivers, three ways."""
    monkeypatch.setattr(measure_budget, "RECIPES", ("nothing", "dispose", "at-fork", "guard"))
    is_as_the_page_says(measured(measure_budget.recipes_behind))


def test_published_measurement_says_what_the_page_says() -> None:
    """All recipes of what the site shows where nothing was measured."""
    file = ROOT / "doc" / "measured" / "budget.json"
    if not file.exists():
        pytest.skip("no budget was published: make measure publish-measurements ONLY=budget")
    data = json.loads(file.read_text())
    assert len(data["recipes"]) == 3 * 2 * len(measure_budget.RECIPES) * len(measure_budget.HAZARDS)
    is_as_the_page_says(data["recipes"])
    assert data["cost"]["through"] < data["cost"]["direct"], "PgBouncer makes NullPool dearer"


@with_pgbouncer
@pytest.mark.slow
def test_check_refuses_transaction_mode() -> None:
    """It goes by the backend's pid, which would accuse every recipe there; in session mode it measures."""
    assert measured(measure_budget.check_behind) == {
        "transaction": {"refused": "a pooler in transaction mode answers there"},
        "session": {"forkserver": "ok", "guard": "ok"},
    }


# -- the decision -------------------------------------------------------------------------------

IDLE = ("crossed", "goodbye-close", "goodbye-gc", "goodbye-exit", "grandchild", "tls")
SPEAK = {"mysqldb", "mysqlconnector", "asyncpg", "aiomysql"}
SILENT = {"psycopg", "psycopg2", "pg8000", "pymysql", "asyncmy", "mariadbconnector"}


def test_decision_is_what_the_truth_table_measured() -> None:
    """The drivers of question 3 fail the hook and pass dispose before the fork; those of question 4 pass the hook."""
    files = [ROOT / "build" / "table.json", ROOT / "doc" / "measured" / "table.json"]
    file = next((file for file in files if file.exists()), None)
    if file is None:
        pytest.skip("no truth table was measured or published: make measure ONLY=table")
    cells = json.loads(file.read_text())["cells"]

    def failing(recipe: str, hazards: tuple[str, ...], drivers: set[str]) -> set[str]:
        rows = choosing.evidence(cells, recipe, list(hazards), only=sorted(drivers))
        return {driver for *_, wrong in rows for driver in wrong}

    there = {cell["driver"] for cell in cells if cell["outcome"] != "not-run"}
    for recipe in ("at-fork", "dispose(close=False)"):
        assert failing(recipe, IDLE, SPEAK) == SPEAK & there, recipe
        assert failing(recipe, (*IDLE, "starved"), SILENT) == set(), recipe
    assert failing("dispose-before-fork", IDLE, SPEAK | SILENT) == set()
    assert failing("pid-event", IDLE, SILENT) == set()
    assert failing("pid-event", ("starved",), SILENT) == SILENT & there
    assert failing("guard", (*IDLE, "held-finish", "held-use", "thread-local", "c-fork"), there) == set()


# -- the calculator -----------------------------------------------------------------------------

PAGE = (
    '<!doctype html><title>calculator</title><link rel="stylesheet" href="budget.css">'
    '%s<script src="budget.js"></script>'
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's Chromium or Chrome, gone with this module."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(
                "no browser, and in CI the calculator has to be seen (Debian: apt-get install chromium)"
            )
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"], headless=True
        )
        yield chromium
        chromium.close()


@pytest.fixture
def calculator(tmp_path: pathlib.Path) -> str:
    """A page with nothing but the calculator, as a file's address."""
    for file in "budget.js", "budget.css":
        shutil.copy(ROOT / "doc" / "_static" / file, tmp_path)
    (tmp_path / "page.html").write_text(PAGE % choosing.calculator_html())
    return (tmp_path / "page.html").as_uri()


def test_calculator_says_what_the_server_did(browser: Any, calculator: str) -> None:
    """With the measured server's numbers it finds the measured refusal, typed by keyboard alone, on a phone."""
    page = browser.new_page(viewport={"width": 375, "height": 812})
    page.goto(calculator)
    typed = {
        "machines": 1, "workers": 6, "threads": 3, "pool_size": 2, "max_overflow": 1, "max_connections": 20, "reserved": 3,
    }  # fmt: skip
    for number in typed.values():
        page.keyboard.press("Tab")
        page.keyboard.press("Control+a")
        page.keyboard.type(str(number))
    verdict = page.get_by_role("status")
    page.wait_for_function("document.querySelector('[role=status]').textContent.startsWith('Does not fit')")
    assert verdict.inner_text() == "Does not fit: 18 wanted, 17 there. The server refuses 1."
    told = page.locator("#budget li").all_inner_texts()
    assert told[0] == "6 workers, up to 3 connections each: 18 at most, 12 kept open when idle."
    assert told[-1] == "What fits: pool_size + max_overflow of 2 in each worker."
    page.get_by_label("Worker processes on each").fill("5")
    page.wait_for_function("document.querySelector('[role=status]').textContent.startsWith('Fits')")
    assert verdict.inner_text() == "Fits: 15 of 17, 2 to spare."
    page.get_by_label("Old and new workers overlap in a restart").check()
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent.startsWith('Does not fit: 30')"
    )
    assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    page.close()


def test_calculator_names_the_field_that_is_wrong(browser: Any, calculator: str) -> None:
    """No number, a fraction, less than the least: the status says which field, the field is marked invalid."""
    page = browser.new_page()
    page.goto(calculator)
    field = page.get_by_label("Machines")
    for wrong in ("", "1.5", "0", "-3"):
        field.fill(wrong)
        page.wait_for_function(
            "document.querySelector('[name=machines]').getAttribute('aria-invalid') === 'true'"
        )
        page.wait_for_function("document.querySelector('[role=status]').textContent.startsWith('Machines')")
        field.fill("2")
        page.wait_for_function("!document.querySelector('[name=machines]').hasAttribute('aria-invalid')")
    assert page.get_by_role("status").inner_text().startswith("Fits")
    page.close()


def test_calculator_is_hidden_without_javascript(browser: Any, calculator: str) -> None:
    """There a form could calculate nothing; the formula is in the page's text."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(calculator)
    assert not page.locator("#budget").is_visible()
    context.close()
    assert (
        "machines x workers x (pool_size + max_overflow)"
        in (ROOT / "doc" / "stacks" / "many.rst").read_text()
    )
