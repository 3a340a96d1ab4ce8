"""The symptoms' page: poolfork/symptoms.toml as an index, and as data for the box to paste into.

``.. symptom-box::`` is the box; ``.. symptom-index::`` one section for each symptom, by what it
means; ``.. other-causes::`` the texts that are known to mean something else. A symptom is marked
as reproduced when the build has left its proof in ``build/symptoms-reproduced.json``
(``{id: "with which versions"}``), else as reported.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from poolfork.explain import SURE, symptoms

PROOF = pathlib.Path(__file__).parent.parent.parent / "build" / "symptoms-reproduced.json"
GROUPS = {
    "tls": (
        "Over TLS",
        "Two processes that share a connection also share its cipher state, and each goes on from there.",
    ),
    "crossed": ("Two speak at once", "Answers reach the wrong process, whole or in parts."),
    "goodbye": ("Somebody said goodbye", "One process ended the session that another was still using."),
    "state": (
        "Prepared statements",
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
<section id="symptom-box" aria-label="Paste an error" hidden>
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
    return f"``{' '.join(text.replace('`', chr(39)).split())}``"


def source_link(url: str) -> str:
    """A source as an RST link, short where it is a GitHub thread."""
    short = url.removeprefix("https://").removeprefix("http://").removeprefix("www.")
    parts = short.split("/")
    if parts[0] == "github.com" and len(parts) == 5:
        short = f"{parts[1]}/{parts[2]} {'pull request' if parts[3] == 'pull' else 'issue'} {parts[4]}"
    return f"`{short} <{url}>`__"


class SymptomBox(SphinxDirective):
    """The box, hidden until its program runs."""

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


class SymptomIndex(SphinxDirective):
    """Every symptom, by what it means."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(pathlib.Path(__file__)))
        proof = json.loads(PROOF.read_text()) if PROOF.exists() else {}
        lines: list[str] = []
        for group, (title, says) in GROUPS.items():
            lines += [title, "-" * len(title), "", says, ""]
            for symptom in symptoms()["symptom"]:
                if symptom["group"] == group:
                    lines += self.entry(symptom, proof.get(symptom["id"]))
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)

    def entry(self, symptom: dict[str, Any], proof: str | None) -> list[str]:
        """One symptom as RST."""
        fix = symptoms()["fix"][symptom["fix"]]
        mark = f"✔ reproduced in this build ({proof})" if proof else "○ reported"
        shown = [self.link(demo) for demo in symptom["demo"]]
        return [
            f".. _{symptom['id']}:", "", symptom["title"], "~" * len(symptom["title"]), "",
            *(f"| {quoted(text)}" for text in symptom["texts"]), "",
            f":Drivers: {', '.join(symptom['drivers'])}",
            f":How sure: {SURE[symptom['sure']]}",
            f":Mark: {mark}",
            f":On the wire: {symptom['wire']}",
            f":Produced by: hazard {', '.join(f'``{hazard}``' for hazard in symptom['hazard'])}"
            + "".join(f"; {demo}" for demo in shown if demo),
            f":Fix: **{fix['title']}.** {fix['text']}",
            f":Not it, if: {' '.join(symptom['lookalikes'])}",
            f":Sources: {', '.join(map(source_link, symptom['sources']))}", "",
        ]  # fmt: skip

    def link(self, demo: str) -> str:
        """A link to a demo's page, if this build has it."""
        section, name = demo.split("/")
        page = f"gallery/{section}/plot_{name}"
        return f":doc:`/{page}`" if pathlib.Path(self.env.srcdir, f"{page}.rst").exists() else ""


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
    app.add_directive("symptom-index", SymptomIndex)
    app.add_directive("other-causes", OtherCauses)
    app.connect("html-page-context", add_program)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
