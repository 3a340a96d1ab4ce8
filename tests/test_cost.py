"""What the recipes cost: the measurement gives every part that the guard's page shows, for every recipe."""

from __future__ import annotations

import pathlib
import sys
import tempfile
from typing import Any

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from docutils import nodes

from poolfork.recipes import RECIPES
from poolfork.servers import Server

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "doc" / "_ext"), str(ROOT / "tools")]

import cost  # noqa: E402
import measure_cost  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def found(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every part, measured twice and on few connections: enough for its form, too little for its figures."""
    url = sa.make_url(postgres_server.url).set(drivername="postgresql+psycopg")
    told = url.render_as_string(hide_password=False)
    sa.create_engine(told).connect().close()
    with pytest.MonkeyPatch.context() as few:
        few.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("c")))  # for the folders of forkservers
        few.setattr(measure_cost, "POOLED", {"psycopg": (1, 3), "sqlite in memory": (1, 30)})
        return {
            "checkout": measure_cost.checkouts(told, range(2)),
            "first_row": measure_cost.first_rows(told, range(2), range(2)),
            "fork": measure_cost.forks(told, range(2)),
            "new_pool": measure_cost.quartiles([measure_cost.one_new_pool(told) for _ in range(2)]),
            "memory": measure_cost.memory(told, range(2)),
            "load": 3.0,
            "versions": {"Python": "3", "machine": "a machine"},
        }


def cells(node: nodes.raw) -> dict[str, list[str]]:
    """A rendered table as text: row name -> cells."""
    rows = BeautifulSoup(node.astext(), "html.parser").select("tbody tr")
    return {row.th.get_text(): [cell.get_text(" ") for cell in row.select("td")] for row in rows if row.th}


def test_every_recipe_has_its_row(found: dict[str, Any]) -> None:
    """All of the truth table's recipes, the second bare pool, and the engine that a child makes for itself."""
    rows = cells(cost.recipe_table(found))
    assert set(rows) == {*RECIPES, measure_cost.AGAIN, measure_cost.FRESH}
    assert {len(row) for row in rows.values()} == {len(cost.COLUMNS)}
    assert rows["spawn"][0] == "" and rows["spawn"][2] != "", "a recipe has figures where it does something"


def test_null_pool_is_dear_and_far_off_the_picture(found: dict[str, Any]) -> None:
    """The measurement tells the dear recipe from the others, and the picture keeps a scale on which these differ."""
    times = {name: quartiles[1] for name, quartiles in found["checkout"]["alone"].items()}
    assert times["null-pool"] > 10 > max(times[name] for name in times if name != "null-pool")
    html = BeautifulSoup(cost.checkout_picture(found)["html"], "html.parser")
    names = [name.get_text() for name in html.select(".bar-name")]
    assert "guard" in names and "null-pool" not in names
    assert html.figcaption and "Far off this scale: null-pool" in html.figcaption.get_text()


def test_fork_table_says_what_each_connection_adds(found: dict[str, Any]) -> None:
    """One row a number of pooled connections; the sentence above it speaks of the fewest and the most."""
    assert set(cells(cost.fork_table(found))) == {
        *("1 (psycopg)", "3 (psycopg)", "1 (sqlite in memory)", "30 (sqlite in memory)"),
    }
    assert cost.further_connection(found).startswith("From 1 to 30 pooled connections, each adds ")


def test_busy_machine_is_told(found: dict[str, Any]) -> None:
    """Who reads the figures hears whether other work was going on."""
    assert "busy with other work (load 3.0 a core)" in cost.circumstances(found)
    assert "busy" not in cost.circumstances(found | {"load": 0.4})


def test_work_that_fails_is_an_error_and_not_a_figure() -> None:
    """A child that dies gives no answer, and the measurement ends with that."""
    with pytest.raises(EOFError):
        measure_cost.apart(int, "no number")
