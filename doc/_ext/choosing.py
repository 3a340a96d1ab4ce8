"""Which recipe, and how many connections: the tables of choose.rst and stacks/many.rst, and a calculator.

``.. evidence:: RECIPE`` takes its hazards (``:hazards:``) and drivers (``:drivers:``) from the truth
table; ``.. budget:: PART`` shows what ``tools/measure_budget.py`` found. Each says when it was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from docutils import nodes
from measured import load, note, paragraph
from pictures import badge
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from truth_table import raw, scroller

PAGES = {"choose": (), "stacks/many": ("budget.js",)}
FIELDS = (
    ("machines", "Machines", 2, 1),
    ("workers", "Worker processes on each", 8, 1),
    ("threads", "Threads in each (asyncio: tasks at once)", 4, 1),
    ("pool_size", "pool_size", 5, 0),
    ("max_overflow", "max_overflow", 10, 0),
    ("max_connections", "max_connections", 100, 1),
    ("reserved", "Reserved, and used by others", 3, 0),
)


def table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> nodes.raw:
    """A table whose cells are HTML; the first of a row is its head."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return raw(
        scroller(
            f'<table class="truth wraps"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>",
            caption,
        )
    )


def code(text: object) -> str:
    """A word of code."""
    return f"<code>{escape(str(text))}</code>"


def yes(answer: bool, good: bool = True) -> str:
    """Yes or no, with the mark of what it means."""
    return f'<span class="count-{"ok" if answer == good else "error"}">{"yes" if answer else "no"}</span>'


# -- the truth table, for one recipe ------------------------------------------------------------


def names(text: str) -> list[str]:
    """An option's words."""
    return text.replace(",", " ").split()


class Evidence(SphinxDirective):
    """``.. evidence:: RECIPE``: on how many drivers each hazard passes, and which do not."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"hazards": names, "drivers": names, "without": names}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """The table, where there is one; the page's ``choices`` say of which day."""
        found, recipe = load("table"), self.arguments[0]
        if found is None:
            return []
        rows = evidence(
            found.data["cells"], recipe, self.options["hazards"],
            only=self.options.get("drivers"), without=self.options.get("without", []),
        )  # fmt: skip
        if not rows:
            raise self.error(f"the truth table has no such cells: {recipe}")
        shown = [
            [
                f'<a href="truth-table.html#probe-{hazard}">{code(hazard)}</a>',
                f'<span class="count-{"error" if failing else "ok"}">{passed}/{measured}</span>',
                escape(", ".join(failing)) or "none",
            ]
            for hazard, passed, measured, failing in rows
        ]
        caption = f"{code(recipe)}: drivers that pass, of those measured"
        return [table(caption, ("hazard", "pass", "fail"), shown)]


def evidence(
    cells: Iterable[dict[str, Any]],
    recipe: str,
    hazards: list[str],
    only: list[str] | None = None,
    without: Iterable[str] = (),
) -> list[tuple[str, int, int, list[str]]]:
    """(hazard, drivers that pass all its cells, drivers measured, drivers that fail), in the given order."""
    outcomes: dict[str, dict[str, set[str]]] = {hazard: {} for hazard in hazards}
    for cell in cells:
        driver = cell["driver"]
        if cell["recipe"] != recipe or cell["hazard"] not in outcomes or cell["outcome"] == "not-run":
            continue
        if (only is None or driver in only) and driver not in without:
            outcomes[cell["hazard"]].setdefault(driver, set()).add(cell["outcome"])
    return [
        (hazard, sum(seen == {"ok"} for seen in drivers.values()), len(drivers),
         [driver for driver, seen in drivers.items() if seen != {"ok"}])
        for hazard, drivers in outcomes.items() if drivers
    ]  # fmt: skip


CHOICES = ("at-fork", "dispose(close=False)", "pid-event", "null-pool", "dispose-before-fork", "guard")


class Choices(SphinxDirective):
    """``.. choices:: HAZARD ...``: for each driver, which recipes pass all of these hazards."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The table and its date."""
        if (found := load("table")) is None:
            return note("table")
        cells, hazards = found.data["cells"], names(self.arguments[0])
        rows = []
        for driver in dict.fromkeys(cell["driver"] for cell in cells):
            row = [f'<a href="truth-table.html#driver-{driver}">{escape(driver)}</a>']
            for recipe in CHOICES:
                seen = evidence(cells, recipe, hazards, only=[driver])
                failing = [hazard for hazard, passed, measured, _ in seen if passed < measured]
                mark = f'<span class="count-{"error" if failing else "ok"}">'
                row.append(f"{mark}{escape(', '.join(failing)) or 'all'}</span>" if seen else "not run")
            rows.append(row)
        return [table("Passes these hazards", ("driver", *map(code, CHOICES)), rows), *note("table")]


# -- the budget -----------------------------------------------------------------------------------


def refusal(data: dict[str, Any]) -> nodes.raw:
    """Workers against slots."""
    found = data["budget"]
    each = found["pool_size"] + found["max_overflow"]
    rest = found["granted"] - found["workers_whole"] * each
    one = found["refused"]["psycopg"]
    rows = [
        ("the server", f"{code('max_connections')} {found['max_connections']}, of which "
         f"{found['superuser_reserved_connections']} are reserved: {found['slots']} for the application"),
        ("each worker", f"{code('pool_size')} {found['pool_size']} + {code('max_overflow')} "
         f"{found['max_overflow']}: up to {each}"),
        ("served", f"{found['workers_whole']} workers with {each} each, the next with {rest}: {found['granted']}"),
        ("refused", f"{badge('error')} {code(one['text'])}"),
        (f"a superuser, after {found['superusers']} more", f"{badge('error')} {code(found['too_many'])}"),
        ("a worker that wants one more than its own pool has", f"{badge('starved')} {code(found['own_limit']['text'])}"),
        ("after all connections came back", f"{found['open_after']} sessions stay open, {code('pool_size')} in each worker"),
    ]  # fmt: skip
    return table("To the point of refusal", ("who", "what was measured"), rows)


def killed(data: dict[str, Any]) -> nodes.raw:
    """Sessions that outlive their parent."""
    rows = [
        (code(recipe), str(found["while_child_lives"]), str(found["after"]))
        for recipe, found in data["killed"].items()
    ]
    return table(
        "A parent with two idle connections is killed: sessions left on the server",
        ("recipe", "while a child lives", "when it has gone"),
        rows,
    )


def multiplexing(data: dict[str, Any]) -> nodes.raw:
    """Clients against sessions."""
    found = data["multiplexing"]
    rows = []
    for mode in ("transaction", "session"):
        for what, says in (("idle", "checked out, no transaction"), ("in_transaction", "in a transaction")):
            one = found[mode][what]
            told = f"then {code(one['refused'])}" if "refused" in one else "all"
            rows.append((f"{mode} mode, {says}", f"{one['clients']}, {told}", str(one["sessions"])))
    return table(
        f"18 connections, of {found['workers']} workers with 2 + 1 each, through PgBouncer with {code('default_pool_size')} "
        f"{found['default_pool_size']}",
        ("clients", "served", "sessions on the server"),
        rows,
    )


def state(data: dict[str, Any]) -> nodes.raw:
    """What a session remembers, and who finds it."""
    rows = []
    for name, modes in data["state"].items():
        if "inside" not in modes["transaction"]:
            ways = ("transaction", "transaction, server_reset_query_always", "session")
            cells = [f"{yes(modes[way]['owner'])} / {yes(modes[way]['stranger'], False)}" for way in ways]
            rows.append((code(name) if name != "temporary table" else name, *cells))
    heads = ("what", "transaction", f"transaction, {code('server_reset_query_always')}", "session")
    return table("Found again by its owner in the next transaction / found by the next client", heads, rows)


def prepared(data: dict[str, Any]) -> nodes.raw:
    """Each driver's habit."""
    rows = []
    for name, cases in data["prepared"].items():
        in_transactions = [text for case, text in cases.items() if case.startswith("transaction")]
        session = [text for case, text in cases.items() if case.startswith("session")]
        rows.append(
            (escape(name), *map(how, (in_transactions, [cases["autocommit"]])), cases["left"], how(session))
        )
    heads = ("driver", "transaction mode", f"there with {code('AUTOCOMMIT')}", "left behind", "session mode")
    return table("One statement, again and again, behind PgBouncer", heads, rows)


def how(texts: Iterable[str]) -> str:
    """An outcome: the error texts, or ok."""
    bad = [text for text in dict.fromkeys(texts) if text != "ok"]
    return "<br>".join(f"{badge('error')} {code(text)}" for text in bad) or badge("ok")


def recipes(data: dict[str, Any]) -> nodes.raw:
    """Recipe x hazard in transaction mode, each driver's outcome."""
    cells = [cell for cell in data["recipes"] if cell["mode"] == "transaction"]
    hazards = list(dict.fromkeys(cell["hazard"] for cell in cells))
    drivers = list(dict.fromkeys(cell["driver"] for cell in cells))
    rows = []
    for recipe in dict.fromkeys(cell["recipe"] for cell in cells):
        for driver in drivers:
            seen = {
                c["hazard"]: c["outcome"] for c in cells if (c["recipe"], c["driver"]) == (recipe, driver)
            }
            rows.append((f"{code(recipe)}, {driver}", *(badge(seen[hazard]) for hazard in hazards)))
    return table("Through PgBouncer in transaction mode", ("recipe, driver", *map(code, hazards)), rows)


def differences(data: dict[str, Any]) -> tuple[int, list[tuple[str, str, str]]]:
    """How many cells of recipe x hazard x driver there are, and those that PgBouncer changes, in either mode."""
    by: dict[tuple[str, str, str], set[str]] = {}
    for cell in data["recipes"]:
        by.setdefault((cell["driver"], cell["recipe"], cell["hazard"]), set()).add(cell["outcome"])
    return len(by), [key for key, outcomes in by.items() if len(outcomes) > 1]


def same(data: dict[str, Any]) -> nodes.paragraph:
    """How far the recipes come out as without PgBouncer."""
    total, changed = differences(data)
    names = "; ".join(" ".join(key) for key in changed)
    says = f"Of {total} cells, {total - len(changed)} came out alike in three ways: without PgBouncer, in transaction mode, in session mode."
    return nodes.paragraph(
        "",
        says
        + (
            f" Not alike: {names}; what happens at an exit, and which of two losses it is, varies from run to run."
            if changed
            else ""
        ),
    )


def cost(data: dict[str, Any]) -> nodes.raw:
    """What a NullPool costs."""
    found = data["cost"]
    rows = [
        ("straight to PostgreSQL", f"{found['direct']:g} times"),
        ("through PgBouncer, on this machine", f"{found['through']:g} times"),
    ]
    return table(
        "A checkout and a SELECT with a NullPool, against a QueuePool (psycopg2, Unix socket, medians of one interleaved run)",
        ("way", "time"),
        rows,
    )


PARTS: dict[str, Callable[[dict[str, Any]], nodes.Node]] = {
    "refusal": refusal, "killed": killed, "multiplexing": multiplexing, "state": state,
    "prepared": prepared, "recipes": recipes, "same": same, "cost": cost,
}  # fmt: skip
NEEDS_NO_PGBOUNCER = {"refusal", "killed"}


def calculator_html() -> str:
    """The form; budget.js shows it, since without a program it could calculate nothing."""
    inputs = "".join(
        f'<div><label for="budget-{name}">{escape(label)}</label>'
        f'<input id="budget-{name}" name="{name}" type="number" inputmode="numeric" min="{least}" step="1" value="{value}" required></div>'
        for name, label, value, least in FIELDS
    )
    return (
        '<form id="budget" aria-label="Connection budget" novalidate>'
        f'<div class="budget-fields">{inputs}</div>'
        '<p><label><input type="checkbox" name="overlap"> Old and new workers overlap in a restart</label></p>'
        '<p id="budget-verdict" role="status"></p><ul></ul></form>'
    )


class Budget(SphinxDirective):
    """``.. budget:: calculator|versions|PART``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The part; a sentence where it was not measured."""
        part = self.arguments[0]
        if part == "calculator":
            return [raw(calculator_html())]
        found = load("budget")
        if part == "versions":
            if found is None:
                return note("budget")
            told = ", ".join(f"{name} {version}" for name, version in found.data["versions"].items())
            return [paragraph(f"{found.says} With {told}.", "budget")]
        if part not in PARTS:
            raise self.error(f"no such part of the budget: {part}")
        if found is None:
            return []
        if part not in NEEDS_NO_PGBOUNCER and "not_run" in found.data:
            return [nodes.paragraph("", "", badge_node("not-run"), nodes.Text(" " + found.data["not_run"]))]
        return [PARTS[part](found.data)]


def badge_node(outcome: str) -> nodes.raw:
    """An outcome within a sentence."""
    return nodes.raw("", badge(outcome), format="html")


def dress(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Only the pages that need them load the style and the program."""
    if pagename in PAGES:
        app.add_css_file("truth-table.css")
        app.add_css_file("budget.css")
        for program in PAGES[pagename]:
            app.add_js_file(program, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """The directives, and what their pages load."""
    app.add_directive("evidence", Evidence)
    app.add_directive("choices", Choices)
    app.add_directive("budget", Budget)
    app.connect("html-page-context", dress)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
