"""What Sphinx-Gallery generated becomes a page to read: downloads first, set-up folded, claims as index."""

from __future__ import annotations

import html
import pathlib
import re
import tomllib
from typing import Any

from claims import not_run
from docutils import nodes
from pictures import Fold, badge, bar, bars_html, lanes_of, rails, ratio, ratio_rails, step
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from throwaway import ROOT

SETUP = "# Set-up, the same in every demo"
FOLDED = "Set-up: a throw-away PostgreSQL and a forked child (the same in every demo)"
_HEAD = re.compile(r"^# /// script$\n((?:^#(?:| .*)$\n)+)^# ///$", re.MULTILINE)


def requirements(script: str) -> list[str]:
    """What the metadata block (PEP 723) of a script asks pip for."""
    if not (match := _HEAD.search(script)):
        return []
    lines = (line.removeprefix("#").removeprefix(" ") for line in match[1].splitlines())
    asked: list[str] = tomllib.loads("\n".join(lines)).get("dependencies", [])
    return asked


def _has_class(node: nodes.Element, classes: set[str]) -> bool:
    return any(classes & {*inner["classes"]} for inner in node.findall(nodes.Element))


def fold_setup(doctree: nodes.document) -> None:
    """Fold away the block that every demo and notebook shares."""
    for block in list(doctree.findall(nodes.literal_block)):
        if block.astext().lstrip().startswith(SETUP):
            cell = block.parent.parent
            if cell.get("hide_mode") == "input":  # MyST-NB's fold, in our words
                del cell["hide_mode"]
            fold = Fold("", summary=FOLDED)
            block.parent.replace(block, fold)
            fold += block


def downloads_first(app: Sphinx, doctree: nodes.document, demo: pathlib.Path) -> None:
    """Put the downloads, and how to run the demo alone, where its introduction ends."""
    for only in list(doctree.findall(addnodes.only)):
        if _has_class(only, {"sphx-glr-download-link-note", "sphx-glr-signature"}):
            only.parent.remove(only)
    links = {
        pathlib.PurePath(node["reftarget"]).suffix: node
        for node in doctree.findall(addnodes.download_reference)
    }
    get = nodes.paragraph("", "Download: ", classes=["downloads"])
    for suffix, what in {".py": demo.name, ".ipynb": "notebook", ".zip": "zip"}.items():
        if suffix in links:
            links[suffix].children = [nodes.Text(what)]
            get += [links[suffix], nodes.Text(" ")]
    install = " ".join(
        f'"{name}"' if re.search(r"[<>\[\]; ]", name) else name for name in requirements(demo.read_text())
    )
    run = nodes.paragraph("", "Run it alone: ")
    run += [nodes.literal("", f"uv run {demo.name}"), nodes.Text(", or ")]
    run += [nodes.literal("", f"pip install {install}"), nodes.Text(" and then ")]
    run += [nodes.literal("", f"python {demo.name}"), nodes.Text(".")]
    why = nodes.paragraph("", "What to do about it: ")
    why += addnodes.pending_xref(
        "",
        nodes.inline("", "Using Connection Pools with Multiprocessing"),
        refdomain="std",
        reftype="ref",
        reftarget="pooling_multiprocessing",
        refexplicit=True,
        refwarn=True,
        refdoc=app.env.current_document.docname,
    )
    for footer in list(doctree.findall(nodes.container)):
        if "sphx-glr-footer-example" in footer["classes"]:
            footer.children = []
            footer["classes"] = []
    title = next(iter(doctree.findall(nodes.title)))
    section = title.parent
    end = next(
        i for i, node in enumerate(section) if isinstance(node, Fold | nodes.literal_block | nodes.rubric)
    )
    section.insert(end, nodes.container("", get, run, why, classes=["run-it"]))
    if reason := not_run(demo):
        text = f"Not run here: {reason}. Nothing on this page was measured in this build."
        section.insert(1, nodes.warning("", nodes.paragraph("", text)))


def thumbnail(page: pathlib.Path) -> str:
    """What a demo's page shows, small: its bars or ratios, else its lanes, and the outcomes in words."""
    lines = [line.strip() for line in page.read_text().splitlines()]
    steps = [s for s in map(step, lines) if s]
    counts = [b for b in map(bar, lines) if b]
    ratios = [r for r in map(ratio, lines) if r]
    words = dict.fromkeys(s.outcome for s in steps if s.outcome)
    words |= dict.fromkeys(word for b in counts for word, count in b.cells if count)
    key = "".join(badge(word) for word in words)
    if counts:
        longest = max(b.total for b in counts) or 1
        drawn = "".join(
            f'<div class="bar" style="--share:{b.total / longest:.4f}">'
            + "".join(
                f'<i class="outcome-{word}" style="--n:{count}"></i>' for word, count in b.cells if count
            )
            + "</div>"
            for b in counts
        )
    elif ratios:
        drawn = f'<div class="ratios">{"".join(ratio_rails(ratios))}</div>'
    else:
        lanes = lanes_of(steps)
        rows = "".join(f"<div>{rails(s, lanes)}</div>" for s in steps)
        drawn = f'<div class="lanes" style="--lanes:{len(lanes)};--steps:{len(steps)}">{rows}</div>'
    return f'<div class="thumbnail" aria-hidden="true">{drawn}</div><div class="shows">{key}</div>'


def claims_as_index(app: Sphinx, doctree: nodes.document) -> None:
    """Turn a gallery's thumbnails into a list of claims, each with what its demo measured."""
    for section in list(doctree.findall(nodes.section)):
        introductions: list[str] = []
        links: list[addnodes.pending_xref] = []
        generated: list[nodes.Node] = []
        for node in section.children:
            if isinstance(node, nodes.raw):
                introductions += map(html.unescape, re.findall(r'tooltip="([^"]*)"', node.astext()))
                generated.append(node)
            elif isinstance(node, addnodes.only) and not _has_class(node, {"sphx-glr-footer"}):
                links += (x for x in node.findall(addnodes.pending_xref) if "/plot_" in x["reftarget"])
                generated.append(node)
        claims = nodes.bullet_list(classes=["claims"])
        for introduction, link in zip(introductions, links, strict=True):
            page = pathlib.Path(app.srcdir, link["reftarget"].lstrip("/") + ".rst")
            app.env.note_dependency(page)
            claims += nodes.list_item(
                "",
                nodes.paragraph("", "", link, classes=["claim"]),
                nodes.paragraph("", introduction),
                nodes.raw("", thumbnail(page), format="html"),
            )
        if links:
            section.insert(section.index(generated[0]), claims)
        for node in generated:
            section.remove(node)


class Counted(SphinxDirective):
    """``.. counted:: 1_corruption/plot_storm``: the bars of a demo's page, on another one; the content is the caption.

    Where the demo was not executed there are none, and nothing is shown.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The figure."""
        page = pathlib.Path(self.env.srcdir, "gallery", f"{self.arguments[0]}.rst")
        self.env.note_dependency(str(page))
        if not page.exists():
            raise self.error(f"there is no demo {self.arguments[0]}")
        counts = [b for line in page.read_text().splitlines() if (b := bar(line.strip()))]
        if not counts:
            return []
        drawn = bars_html(counts, html.escape(" ".join(self.content)))
        return [nodes.raw("", f'<figure class="picture">{drawn}</figure>', format="html")]


def arrange(app: Sphinx, doctree: nodes.document) -> None:
    """Arrange one page of the gallery."""
    docname = app.env.current_document.docname
    if docname.startswith("notebooks/"):
        fold_setup(doctree)
    elif not docname.startswith("gallery/"):
        return
    elif docname.endswith("index"):
        claims_as_index(app, doctree)
    else:
        fold_setup(doctree)
        downloads_first(
            app, doctree, ROOT / "demos" / f"{pathlib.PurePath(docname).relative_to('gallery')}.py"
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Arrange before Sphinx collects a page's images and downloads (priority 500)."""
    app.setup_extension("pictures")
    app.setup_extension("cost")
    app.add_directive("counted", Counted)
    app.connect("doctree-read", arrange, priority=110)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
