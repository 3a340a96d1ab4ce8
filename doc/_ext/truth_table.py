"""Renders the truth table and the guard's ablation: summary, one table a driver, probes.

``make table`` measures them (`tools/measure.py`); each says when and with what (`measured`).
"""

from __future__ import annotations

import csv
import json
import pathlib
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from typing import Any

from docutils import nodes
from measured import labelled, link_to, load, note
from pictures import badge
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from throwaway import ROOT

PAGES = {"truth-table", "guard"}  # those that load the stylesheet and the filters
Cell = dict[str, Any]


def row_name(cell: Cell) -> str:
    """A hazard with its variant, as a row is called."""
    variant = cell.get("variant")
    return f"{cell['hazard']} ({variant})" if variant else str(cell["hazard"])


def names(cells: Iterable[Cell], key: str) -> list[str]:
    """The distinct values of a key, in the order in which the table has them."""
    return list(dict.fromkeys(str(cell[key]) for cell in cells))


def passes(cells: Iterable[Cell]) -> tuple[int, int]:
    """(drivers of which every measured cell is ok, drivers of which a cell was measured)."""
    outcomes: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        if cell["outcome"] != "not-run":
            outcomes[cell["driver"]].add(cell["outcome"])
    return sum(found == {"ok"} for found in outcomes.values()), len(outcomes)


def scroller(table: str, label: str) -> str:
    """A wide table in a frame of its own that scrolls sideways, also by keyboard."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{table}</div>'


def summary_html(cells: list[Cell]) -> str:
    """Recipe x hazard: how many drivers pass."""
    recipes, hazards = names(cells, "recipe"), names(cells, "hazard")
    by: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        by[cell["recipe"], cell["hazard"]].append(cell)
    heads = "".join(
        f'<th scope="col" data-sort>{escape(recipe).replace("(", "(<wbr>").replace("=", "=<wbr>")}</th>'
        for recipe in recipes
    )
    rows = []
    for hazard in hazards:
        row = [f'<th scope="row"><a href="#probe-{hazard}">{escape(hazard)}</a></th>']
        for recipe in recipes:
            good, measured = passes(by[recipe, hazard])
            kind = "not-run" if not measured else "ok" if good == measured else "error"
            text = f"{good}/{measured}" if measured else "not run"
            row.append(
                f'<td class="count-{kind}" data-value="{good / measured if measured else -1:.3f}" '
                f'data-recipe="{escape(recipe)}">{text}</td>'
            )
        rows.append(f'<tr data-hazard="{hazard}">{"".join(row)}</tr>')
    total = "".join(
        f'<td data-recipe="{escape(recipe)}"><b>{sum(c["outcome"] == "ok" for c in chosen)}</b>/'
        f"{sum(c['outcome'] != 'not-run' for c in chosen)}</td>"
        for recipe in recipes
        for chosen in [[cell for cell in cells if cell["recipe"] == recipe]]
    )
    return scroller(
        f'<table class="truth summary"><caption>Drivers that pass / drivers measured. A driver passes '
        f'when every measured cell of the hazard is ok.</caption><thead><tr><th scope="col" data-sort>hazard</th>{heads}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody><tfoot><tr><th scope="row">cells ok</th>{total}</tr></tfoot></table>',
        "Summary of the truth table",
    )


def driver_html(driver: str, cells: list[Cell], versions: dict[str, Any]) -> str:
    """One driver's table, and under it the texts that were seen."""
    recipes = names(cells, "recipe")
    rows: dict[str, dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        rows[row_name(cell)][cell["recipe"]] = cell
    seen: dict[str, int] = {}
    body = []
    for name, found in rows.items():
        hazard = next(iter(found.values()))["hazard"]
        row = [f'<th scope="row"><a href="#probe-{hazard}">{escape(name)}</a></th>']
        for recipe in recipes:
            if recipe not in found:
                row.append(f'<td data-recipe="{escape(recipe)}"></td>')
                continue
            cell = found[recipe]
            mark = badge(cell["outcome"])
            if cell["detail"]:
                number = seen.setdefault(cell["detail"], len(seen) + 1)
                mark = f'<a href="#{driver}-{number}">{mark}</a>'
            row.append(f'<td data-recipe="{escape(recipe)}" data-outcome="{cell["outcome"]}">{mark}</td>')
        body.append(f'<tr data-hazard="{hazard}">{"".join(row)}</tr>')
    good = sum(cell["outcome"] == "ok" for cell in cells)
    measured = sum(cell["outcome"] != "not-run" for cell in cells)
    told = ", ".join(f"{name} {version}" for name, version in versions.items()) if versions else ""
    heads = "".join(
        f'<th scope="col" data-recipe="{escape(recipe)}">{escape(recipe)}</th>' for recipe in recipes
    )
    table = scroller(
        f'<table class="truth driver"><caption>{escape(driver)}: {good} of {measured} cells ok. {escape(told)}</caption>'
        f'<thead><tr><th scope="col">hazard</th>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>',
        f"Truth table of {driver}",
    )
    texts = "".join(
        f'<li id="{driver}-{number}"><code>{escape(text)}</code></li>' for text, number in seen.items()
    )
    details = (
        f"<details><summary>What was seen: {len(seen)} texts</summary><ol>{texts}</ol></details>"
        if seen
        else ""
    )
    return f'<div class="of-driver" data-driver="{escape(driver)}">{table}{details}</div>'


def filters_html(cells: list[Cell]) -> str:
    """The filter form; its style hides it where no script runs, since without one it could do nothing."""

    def choice(key: str) -> str:
        options = "".join(f"<option>{escape(name)}</option>" for name in names(cells, key))
        return f'<label>{key} <select name="{key}"><option value="">all</option>{options}</select></label>'

    return (
        f'<form class="truth-filter">{"".join(map(choice, ("driver", "hazard", "recipe")))}'
        '<label><input type="checkbox" name="failing"> only rows where something fails</label>'
        '<output aria-live="polite"></output></form>'
    )


def raw(html: str) -> nodes.raw:
    """HTML as it stands."""
    return nodes.raw("", html, format="html")


class TruthTable(SphinxDirective):
    """``.. truth-table:: summary|drivers|versions|not-run``: a part of the measured table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The part's nodes; a sentence where nothing was measured."""
        part, found = self.arguments[0], load("table")
        if found is None:
            return note("table") if part == "versions" else []
        table = found.data
        cells: list[Cell] = table["cells"]
        if part == "summary":
            return [raw(summary_html(cells))]
        if part == "drivers":
            parts: list[nodes.Node] = [raw(filters_html(cells))]
            versions = table["versions"].get("drivers", {})
            for driver in names(cells, "driver"):
                section = nodes.section(ids=[f"driver-{driver}"], names=[f"driver-{driver}"])
                section += nodes.title("", driver)
                section += raw(
                    driver_html(driver, [c for c in cells if c["driver"] == driver], versions.get(driver, {}))
                )
                parts.append(section)
            return parts
        if part == "versions":
            return [*note("table"), raw(versions_html(table))]
        if part == "not-run":
            return [raw(not_run_html(table))]
        raise self.error(f"no such part of the truth table: {part}")


def versions_html(table: dict[str, Any]) -> str:
    """When and with what the cells were measured."""
    cells = [cell for cell in table["cells"] if cell["outcome"] != "not-run"]
    days = sorted({str(cell["measured"])[:10] for cell in cells if cell.get("measured")})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}" if days else "never"
    versions = table["versions"]
    items = {
        "cells measured": f"{len(cells)}, in {sum(cell['runs'] for cell in cells)} runs",
        "measured": when,
        "Python": versions["python"],
        "SQLAlchemy": versions["sqlalchemy"],
        "machine": versions.get("machine", ""),
        "servers": "; ".join(dict.fromkeys(versions.get("servers", {}).values())),
    }
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in items.items())
        + '</dl><p>Download: <a href="truth-table.json">truth-table.json</a>, <a href="truth-table.csv">truth-table.csv</a>.</p>'
    )


def not_run_html(table: dict[str, Any]) -> str:
    """What was not run, why, and the command that would make it run."""
    rows = [(entry["driver"], entry["reason"], entry.get("command", "")) for entry in table["not_run"]]
    reasons: dict[tuple[str, str], int] = defaultdict(int)
    for cell in table["cells"]:
        if cell["outcome"] == "not-run":
            reasons[f"{cell['driver']}: {row_name(cell)}, {cell['recipe']}", cell["detail"]] += 1
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in reasons:
        by_reason[reason].append(name)
    rows += [
        (f"{len(found)} cells ({found[0]}, ...)" if len(found) > 1 else found[0], reason, "")
        for reason, found in by_reason.items()
    ]
    if not rows:
        return "<p>Everything that the table knows was run.</p>"
    body = "".join(
        f'<tr><th scope="row">{escape(what)}</th><td>{escape(why)}</td><td>{f"<code>{escape(how)}</code>" if how else ""}</td></tr>'
        for what, why, how in rows
    )
    return scroller(
        '<table class="truth not-run"><caption>Not run.</caption><thead><tr><th scope="col">what</th>'
        f'<th scope="col">why</th><th scope="col">what would make it run</th></tr></thead><tbody>{body}</tbody></table>',
        "What was not run",
    )


class Ablation(SphinxDirective):
    """``.. ablation:: NAME``: the cells that fail when the guard does without a mechanism."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A sentence with the count, and the cells; all mechanisms at once for ``summary``."""
        measured = load("ablation")
        if measured is None:
            return note("ablation") if self.arguments[0] == "summary" else []
        mechanisms: dict[str, list[Cell]] = measured.data["mechanisms"]
        if self.arguments[0] == "summary":
            return [*note("ablation"), raw(ablation_html(mechanisms, measured.data["cells"]))]
        if self.arguments[0] not in mechanisms:
            raise self.error(f"the guard has no mechanism {self.arguments[0]}")
        return [raw(failing_html(self.arguments[0], mechanisms[self.arguments[0]]))]


def ablation_html(mechanisms: dict[str, list[Cell]], measured: int) -> str:
    """Mechanism x driver: how many cells fail without it."""
    drivers = sorted({cell["driver"] for cells in mechanisms.values() for cell in cells})
    rows = "".join(
        f'<tr><th scope="row"><a href="#guard-{name}">{name}</a></th>'
        + "".join(f"<td>{sum(cell['driver'] == driver for cell in cells)}</td>" for driver in drivers)
        + f"<td>{escape(', '.join(names(cells, 'hazard')) or 'none')}</td></tr>"
        for name, cells in mechanisms.items()
    )
    heads = "".join(f'<th scope="col">{escape(driver)}</th>' for driver in drivers)
    return scroller(
        f'<table class="truth"><caption>Cells that fail when one mechanism is switched off ({measured} cells measured).</caption>'
        f'<thead><tr><th scope="col">without</th>{heads}<th scope="col">hazards that fail</th></tr></thead><tbody>{rows}</tbody></table>',
        "Ablation of the guard",
    )


def failing_html(mechanism: str, cells: list[Cell]) -> str:
    """Which cells fail without a mechanism, each with its outcome."""
    if not cells:
        return f"<p><b>Without {mechanism}:</b> no cell measured fails.</p>"
    items = "".join(
        f"<li>{badge(cell['outcome'])} {escape(row_name(cell))}, {escape(cell['driver'])}</li>"
        for cell in cells
    )
    number = f"{len(cells)} cell{'s' * (len(cells) > 1)}"
    return f"<details><summary><b>Without {mechanism}:</b> {number} fail{'s' * (len(cells) == 1)}.</summary><ul>{items}</ul></details>"


class Probes(SphinxDirective):
    """``.. probes::``: every hazard with its criterion and the source of its probe."""

    def run(self) -> list[nodes.Node]:
        """A section a hazard; its anchor is ``probe-NAME``."""
        from poolfork.hazards import all_hazards

        found: list[nodes.Node] = []
        for hazard in all_hazards().values():
            self.env.note_dependency(str(ROOT / (hazard.source[0].replace(".", "/") + ".py")))
            section = labelled(self.env, f"probe-{hazard.name}", hazard.name)
            said = nodes.paragraph("", f"Passes when {hazard.passes_when}. ".replace("..", "."))
            said += [link_to(f"hazard-{hazard.name}", "As a time line"), nodes.Text(".")]
            section += said
            code = hazard.listing
            block = nodes.literal_block(code, code, language="python")
            section += nodes.container("", block, classes=["probe"])
            found.append(section)
        return found


def offer_downloads(app: Sphinx, exception: Exception | None) -> None:
    """Put the JSON, and the cells as CSV, beside the page."""
    if exception is not None or app.builder.format != "html" or (found := load("table")) is None:
        return
    table = found.data
    folder = pathlib.Path(app.outdir)
    (folder / "truth-table.json").write_text(json.dumps(table, indent=1))
    columns = ["driver", "hazard", "variant", "recipe", "outcome", "runs", "detail", "seconds", "measured"]
    with open(folder / "truth-table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table["cells"])


def dress(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Only the pages that show a table load what a table needs."""
    if pagename in PAGES:
        app.add_css_file("truth-table.css")
        app.add_js_file("truth-table.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """The directives, the downloads, and what the pages load."""
    app.add_directive("truth-table", TruthTable)
    app.add_directive("probes", Probes)
    app.add_directive("ablation", Ablation)
    app.connect("build-finished", offer_downloads)
    app.connect("html-page-context", dress)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
