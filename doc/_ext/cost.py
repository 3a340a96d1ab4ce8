"""What the recipes cost, as tools/measure_cost.py measured it: ``.. cost-table:: checkout|recipes|forks``."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import measured
from docutils import nodes
from pictures import Picture, Ratio, figure, ratios_html
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from truth_table import raw, scroller

Found = dict[str, Any]
COLUMNS = {
    "a checkout": ("checkout", "alone"),
    "a checkout and a SELECT": ("checkout", "around a SELECT"),
    "a child's first row": ("first_row",),
    "memory of an engine": ("memory", "engine"),
    "of a held connection": ("memory", "connection"),
}


def spread(found: Iterable[float]) -> str:
    """A ratio with its quartiles, as a table's cell has it."""
    low, middle, high = found
    between = f'<br><span class="quartiles">{figure(low)} to {figure(high)}</span>' if low != high else ""
    return f"<b>{figure(middle)}</b>{between}"


def table(
    caption: str, heads: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]], label: str
) -> nodes.raw:
    """A table in a frame that scrolls; the first column names the row."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    return raw(
        scroller(
            f'<table class="truth summary cost"><caption>{caption}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
            label,
        )
    )


def checkout_picture(found: Found) -> Picture:
    """A checkout with each recipe that acts there, against a bare pool."""
    told = [Ratio(name, *quartiles) for name, quartiles in found["checkout"]["alone"].items()]
    ratios = [r for r in told if r.middle < 10]
    printed = "\n".join(f"{r.name}: {figure(r.middle)} ({figure(r.low)} to {figure(r.high)})" for r in ratios)
    caption = (
        "A checkout and its return, in times of a bare pool's: medians and quartiles. "
        "The upright line is 1; the scale is logarithmic."
    ) + "".join(f" Far off this scale: {r.name}, {figure(r.middle)} times." for r in told if r not in ratios)
    return Picture("", nodes.literal_block(printed, printed), html=ratios_html(ratios, caption))


def recipe_table(found: Found) -> nodes.raw:
    """Recipe x what it costs; empty where a recipe does nothing."""
    names: dict[str, None] = {}
    for path in COLUMNS.values():
        names |= dict.fromkeys(under(found, path))

    def cells(name: str) -> Iterable[str]:
        return (
            spread(told[name]) if name in (told := under(found, path)) else "" for path in COLUMNS.values()
        )

    return table(
        "In times of a bare pool's; for the child's first row, of a child's that makes an engine of its own. "
        "Medians, and under them quartiles. Empty: the recipe does nothing there.",
        ["recipe", *COLUMNS],
        ((name, cells(name)) for name in names),
        "Cost of each recipe",
    )


def under(found: Found, path: Iterable[str]) -> dict[str, list[float]]:
    """The part of what was found that lies under these keys."""
    part: Any = found
    for key in path:
        part = part[key]
    return dict(part)


def fork_table(found: Found) -> nodes.raw:
    """Pooled connections x what the guard's hooks add to a fork."""

    def microseconds(quartiles: list[float]) -> str:
        return f'<b>{quartiles[1]:.0f}</b><br><span class="quartiles">{quartiles[0]:.0f} to {quartiles[2]:.0f}</span>'

    rows = (
        (
            f"{many} ({driver})",
            (spread(told["forks"]), microseconds(told["parent"]), microseconds(told["child"])),
        )
        for driver, cells in found["fork"].items()
        for many, told in cells.items()
    )
    heads = (
        "pooled connections",
        "fork, in times of one without the hooks",
        "hooks in the parent, µs",
        "in the child, µs",
    )
    return table(
        "What the guard adds to a fork, in processor time. Medians, and under them quartiles. "
        "(A pool of SQLite in memory is the child's own already, and not replaced.)",
        heads,
        rows,
        "Cost of a fork",
    )


def further_connection(found: Found) -> str:
    """What each further pooled connection adds in the parent, and with what to compare the child's part."""
    of = found["fork"]["sqlite in memory"]
    few, many = (int(number) for number in (min(of, key=int), max(of, key=int)))
    each = (of[str(many)]["parent"][1] - of[str(few)]["parent"][1]) / (many - few)
    return (
        f"From {few} to {many} pooled connections, each adds {each:.1f} µs to a fork in the parent. "
        f"In the child dispose(close=False) alone takes {found['new_pool'][1]:.0f} µs, since it makes a new pool too."
    )


def circumstances(found: Found) -> str:
    """What it was measured with, as a sentence."""
    versions = ", ".join(
        f"{name} {version}" for name, version in found["versions"].items() if name != "machine"
    )
    load = found["load"]
    busy = f", on a machine that was busy with other work (load {load:.1f} a core)" if load > 1 else ""
    return f"{versions}; {found['versions']['machine']}{busy}."


class CostTable(SphinxDirective):
    """``.. cost-table:: checkout|recipes|forks``: a part of what was measured, or a sentence that nothing was."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The part's nodes; the first part says of which day they are."""
        part = self.arguments[0]
        if part not in ("checkout", "recipes", "forks"):
            raise self.error(f"no such part of the cost table: {part}")
        measurement = measured.load("cost")
        if measurement is None:
            return measured.note("cost") if part == "checkout" else []
        found = measurement.data
        if part == "checkout":
            said = measured.paragraph(f"{measurement.says} {circumstances(found)}", "cost")
            return [said, checkout_picture(found)]
        if part == "recipes":
            return [recipe_table(found)]
        return [nodes.paragraph("", further_connection(found)), fork_table(found)]


def setup(app: Sphinx) -> dict[str, Any]:
    """The directive."""
    app.add_directive("cost-table", CostTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
