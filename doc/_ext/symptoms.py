"""The symptoms' page: poolfork/symptoms.toml as an index, and as data for the box to paste into.

``.. symptom-box::`` is the box; ``.. symptom-proof::`` says how many texts were produced, and when;
``.. symptom-index::`` has one section for each symptom, by what it means, each text marked as reproduced
(`measured.load("symptoms")`) or reported; ``.. reproductions::`` shows how each text was forced;
``.. other-causes::`` has the texts that are known to mean something else.
"""

from __future__ import annotations

import inspect
import json
import pathlib
from html import escape
from typing import Any

import measured
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from poolfork.explain import SURE, symptoms
from poolfork.reproduce import all_reproductions, shape

Seen = dict[str, Any]  # one text that was produced: name, text, driver, version, server, tls
GROUPS = {
    "tls": (
        "Over TLS",
        "Two processes that share a connection also share its cipher state, and each goes on from there.",
    ),
    "crossed": ("Two speak at once", "Answers reach the wrong process, whole or in parts."),
    "goodbye": ("Somebody said goodbye", "One process ended the session that another was still using."),
    "state": (
        "State of the session",
        "The session's state belongs to the server; each process keeps its own idea of it.",
    ),
    "pool": (
        "Pools and locks",
        "What is copied is a pool without its threads, or with the parent's connections counted in.",
    ),
    "files": ("Databases in a file", "No server: what a fork breaks is locks and threads."),
    "redis": ("Redis, for contrast", "Its client looks at the pid; where it does not, it errs as others do."),
    "log": ("In the server's log", "The other end's view of the same."),
    "hidden": ("What hides the error", "The text is of something that happened on the way."),
}
BOX = """\
<section id="symptom-box" aria-label="Paste an error">
<form>
<label for="symptom-text">Paste a traceback or log lines. Nothing leaves this page.</label>
<textarea id="symptom-text" rows="8" spellcheck="false" autocomplete="off"></textarea>
<p><button type="submit">Explain</button> <button type="reset">Clear</button></p>
</form>
<p role="status" class="symptom-summary"></p>
<div></div>
</section>
<script type="application/json" id="symptom-data">%s</script>
"""


def quoted(text: str) -> str:
    """A text as an RST literal; backquotes and white space within it would end or mar one."""
    text = " ".join(text.replace("`", "'").split())
    return f"``{''.join(c if c.isprintable() else f'{chr(92)}x{ord(c):02x}' for c in text)}``"


def source_link(url: str) -> str:
    """A source as an RST link, short where it is a GitHub thread."""
    short = url.removeprefix("https://").removeprefix("http://").removeprefix("www.")
    parts = short.split("/")
    if parts[0] == "github.com" and len(parts) == 5:
        short = f"{parts[1]}/{parts[2]} {'pull request' if parts[3] == 'pull' else 'issue'} {parts[4]}"
    return f"`{short} <{url}>`__"


class SymptomBox(SphinxDirective):
    """The box; its style hides it where no program runs."""

    def run(self) -> list[nodes.Node]:
        data = symptoms()
        fields = ("id", "title", "sure", "patterns", "needs", "fix")
        kept = data | {
            "symptom": [{name: one[name] for name in fields if name in one} for one in data["symptom"]],
            "other": [
                {name: one[name] for name in ("id", "title", "says", "patterns")} for one in data["other"]
            ],
        }
        text = json.dumps(kept, separators=(",", ":")).replace("<", "\\u003c")
        return [nodes.raw("", BOX % text, format="html")]


def produced() -> dict[str, list[Seen]]:
    """The texts that were produced, by symptom."""
    found = measured.load("symptoms")
    return found.data["symptoms"] if found else {}


def step(name: str) -> str:
    """The anchor of a reproduction's function; its name without the driver."""
    return "forced-" + name.partition("[")[0].replace("_", "-")


def where(shown: str, seen: list[Seen]) -> str:
    """With which drivers and servers a text was seen, the text itself if it is not the one shown, as RST."""
    told: dict[str, None] = {}
    for one in seen:
        function = one["name"].partition("[")[0]
        tls = " over TLS" if one["tls"] else ""
        actual = "" if quoted(shown).strip("`") in quoted(one["text"]) else f": {quoted(one['text'][:300])}"
        link = f"`{function} <#{step(one['name'])}>`__"
        server = "" if one["driver"] == "Python" else f" on {one['server']}{tls}"
        told[f"{one['driver']} {one['version']}{server} ({link}){actual}"] = None
    return "; ".join(told)


class SymptomProof(SphinxDirective):
    """How many texts were produced, on what, and when."""

    def run(self) -> list[nodes.Node]:
        for file in measured.files("symptoms"):
            self.env.note_dependency(str(file))
        seen = [one for several in produced().values() for one in several]
        if not seen:
            return measured.note("symptoms")
        drivers, servers = {one["driver"] for one in seen}, {one["server"] for one in seen}
        shapes = {shape(one["text"]) for one in seen}
        says = f"{len(shapes)} different texts were produced, by {len(drivers)} drivers on {', '.join(sorted(servers))}."
        return [nodes.paragraph("", says), *measured.note("symptoms")]


class SymptomIndex(SphinxDirective):
    """Every symptom, by what it means."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(pathlib.Path(__file__)))
        seen = produced()
        lines: list[str] = []
        for group, (title, says) in GROUPS.items():
            lines += [title, "-" * len(title), "", says, ""]
            for symptom in symptoms()["symptom"]:
                if symptom["group"] == group:
                    lines += self.entry(symptom, seen.get(symptom["id"], []))
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)

    def entry(self, symptom: dict[str, Any], seen: list[Seen]) -> list[str]:
        """One symptom as RST."""
        fix = symptoms()["fix"][symptom["fix"]]
        shown = [self.link(demo) for demo in symptom["demo"]]
        cells = ", ".join(f":ref:`{name} <probe-{name}>`" for name in symptom["hazard"])
        lines = [f".. _{symptom['id']}:", "", symptom["title"], "~" * len(symptom["title"]), ""]
        left = list(seen)
        for text in symptom["texts"]:
            same = [one for one in seen if shape(text["text"]) in shape(one["text"])]
            left = [one for one in left if one not in same]
            mark = f"✔ reproduced: {where(text['text'], same)}" if same else ""
            if "url" in text:
                mark += f"{'; ' if mark else '○ '}reported: {source_link(text['url'])}"
            lines += [f"- {quoted(text['text'])}", "", f"  {mark or '○ not produced here'}", ""]
        for text in dict.fromkeys(one["text"] for one in left):
            same = [one for one in left if one["text"] == text]
            lines += [f"- {quoted(text[:300])}", "", f"  ✔ reproduced: {where(text, same)}", ""]
        return [
            *lines,
            f":Drivers: {', '.join(symptom['drivers'])}",
            f":How sure: {SURE[symptom['sure']]}",
            f":On the wire: {symptom['wire']}",
            f":Produced by: {'; '.join(['cells ' + cells, *filter(None, shown)])}",
            f":Fix: **{fix['title']}.** {fix['text']}",
            f":Not it, if: {' '.join(symptom['lookalikes'])}",
            f":Sources: {', '.join(map(source_link, symptom['sources']))}", "",
        ]  # fmt: skip

    def link(self, demo: str) -> str:
        """A link to a demo's page, if this build has it."""
        section, name = demo.split("/")
        page = f"gallery/{section}/plot_{name}"
        return f":doc:`/{page}`" if pathlib.Path(self.env.srcdir, f"{page}.rst").exists() else ""


class Reproductions(SphinxDirective):
    """How each text was forced: what happens on the wire, and the steps."""

    def run(self) -> list[nodes.Node]:
        shown: dict[str, list[nodes.Node]] = {}
        for name, one in all_reproductions().items():
            self.env.note_dependency(inspect.getsourcefile(one.steps) or "")
            function = one.steps.__name__
            if function in shown:
                continue
            title = (inspect.getdoc(one.steps) or "").partition("\n")[0]
            head = f'<details id="{step(name)}" class="forced"><summary><code>{function}</code> {escape(title)}</summary>'
            code = nodes.literal_block(one.source, one.source, language="python")
            shown[function] = [
                nodes.raw("", head, format="html"), code, nodes.raw("", "</details>", format="html"),
            ]  # fmt: skip
        return [node for several in shown.values() for node in several]


class OtherCauses(SphinxDirective):
    """The texts that mean something else."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for other in symptoms()["other"]:
            sources = ", ".join(map(source_link, other.get("sources", [])))
            lines += [f".. _{other['id']}:", "", f"**{other['title']}.** {other['says']}", ""]
            lines += [f"Sources: {sources}", ""] if sources else []
        return self.parse_text_to_nodes("\n".join(lines))


def add_program(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the box's page its program and style, and no other page."""
    if doctree is not None and any("symptom-box" in raw.astext() for raw in doctree.findall(nodes.raw)):
        app.add_js_file("symptoms.js", loading_method="defer")
        app.add_css_file("symptoms.css")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("symptom-box", SymptomBox)
    app.add_directive("symptom-proof", SymptomProof)
    app.add_directive("symptom-index", SymptomIndex)
    app.add_directive("reproductions", Reproductions)
    app.add_directive("other-causes", OtherCauses)
    app.connect("html-page-context", add_program)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
