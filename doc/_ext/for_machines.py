"""What programs read: descriptions, previews for links, sitemap, llms.txt, a feed, the search's index, lost pages.

Every absolute address comes from one setting, ``html_baseurl``. The sitemap and the index for language
models list all pages that there are, also those that an incremental build did not write anew.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any
from xml.etree import ElementTree

import preview
from bs4 import BeautifulSoup
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.search import js_index

FEED = "truth-table.atom"
FEED_TITLE = "The truth table of connection pools across fork(): what changed"
CHANGES = pathlib.Path(__file__).parent.parent / "measured" / "changes.json"
LENGTH = 190  # characters of a description that search engines show
ATOM = "http://www.w3.org/2005/Atom"
SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"
ASIDES = (nodes.Admonition, nodes.table, nodes.list_item, nodes.footnote, nodes.topic, nodes.figure)
OF_NO_DOCUMENT = {
    "genindex": "Every label, option and API name of the site, in the order of the alphabet.",
    "search": "Search the site for an error's text, a word or a name of the API, without a server.",
}
MOVED = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Moved</title><meta name="robots" content="noindex">
<link rel="canonical" href="{canonical}"><meta http-equiv="refresh" content="0; url={target}">
<script>location.replace("{target}" + location.hash)</script>
<p>This page is now <a href="{target}">{target}</a>.</p></html>
"""

NOT_FOUND = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex"><meta name="color-scheme" content="light dark"><title>No such page: {project}</title>
<style>body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 10vh auto; padding: 0 1rem }}</style>
<main><h1>There is no page at this address</h1>
<p>It may have been renamed. The site's <a href="{base}index.html">first page</a> leads to every other one;
<a href="{base}symptoms.html">the error texts</a> and <a href="{base}search.html">the search</a> find a place by its words.</p>
</main></html>
"""


# -- descriptions ------------------------------------------------------------------


def shortened(text: str, length: int = LENGTH) -> str:
    """A text cut after its last whole sentence that fits, else after a word; at most `length` characters."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    sentences = [end.end() for end in re.finditer(r"[.?!](?= )", text[: length + 1])]
    if sentences and sentences[-1] > length / 3:
        return text[: sentences[-1]]
    return text[: text.rindex(" ", 0, length - 1)].rstrip(" ,;:") + "…"


def description(doctree: nodes.document) -> str:
    """What a page says of itself: its meta description, else the first paragraph of its text."""
    for meta in doctree.findall(nodes.meta):
        if meta.get("name") == "description":
            return str(meta["content"])

    def aside(node: nodes.Node) -> bool:
        return isinstance(node, ASIDES) or (isinstance(node, nodes.Element) and "run-it" in node["classes"])

    for paragraph in doctree.findall(nodes.paragraph):
        parents, node = [], paragraph.parent
        while node is not None:
            parents.append(node)
            node = node.parent
        if not any(map(aside, parents)):
            text = paragraph.deepcopy()
            for link in list(text.findall(addnodes.pending_xref)):
                if link.get("reftype") == "ref" and not link.get("refexplicit"):
                    link.parent.replace(link, nodes.Text(f"{{{link['reftarget']}}}"))
            return re.sub(":$", ".", shortened(text.astext()))
    return ""


def about(app: Sphinx, docname: str) -> str:
    """A page's description, with the titles of what it refers to by label."""
    labels = app.env.domains.standard_domain.labels

    def title(label: re.Match[str]) -> str:
        return str(labels[label[1]][2]) if label[1] in labels else label[0]

    text = app.env.metadata[docname].get("description", "") if docname in app.env.found_docs else ""
    return re.sub(r"\{([\w-]+)\}", title, text) or OF_NO_DOCUMENT.get(docname, "")


def note_description(app: Sphinx, doctree: nodes.document) -> None:
    """Keep a page's description with its metadata, where a later, incremental build finds it."""
    app.env.metadata[app.env.current_document.docname]["description"] = description(doctree)


def address(app: Sphinx, docname: str) -> str:
    """The absolute address of a page."""
    return posixpath.join(app.config.html_baseurl, app.builder.get_target_uri(docname))


def for_book(html: str) -> str:
    """A page's HTML as the XML that an EPUB needs, without what needs a browser; its pages end in .xhtml."""
    soup = BeautifulSoup(html, "html.parser")
    for part in soup.select("form, #symptom-box, .rails > svg"):
        part.decompose()
    for link in soup.select("a[href]"):
        link["href"] = re.sub(r"^([\w./-]+)\.html(?=#|$)", r"\1.xhtml", str(link["href"]))
    return str(soup)


def head(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Tell a page's head what it is about: description, Open Graph, the feed."""
    if app.builder.name == "epub":
        context["body"] = for_book(context.get("body", ""))
        return
    title = re.sub(r"<[^>]*>", "", context.get("title", "")) or app.config.project
    told, metatags = about(app, pagename), context.get("metatags", "")
    tags = "" if 'name="description"' in metatags else f'<meta name="description" content="{escape(told)}">\n'
    facts = {
        "og:title": title,
        "og:description": told,
        "og:type": "website" if pagename == "index" else "article",
        "og:site_name": app.config.project,
    }
    if doctree is not None or pagename in OF_NO_DOCUMENT:
        facts["og:url"] = address(app, pagename)
        source = pathlib.Path(app.srcdir, f"{pagename}.rst")
        printed = source.read_text() if pagename.startswith("gallery/") and source.exists() else ""
        picture = pathlib.Path(app.outdir, "_images", "preview", f"{pagename.replace('/', '-')}.png")
        preview.draw(picture, title, told, app.config.project, printed)
        facts |= {
            "og:image": f"{app.config.html_baseurl}_images/preview/{picture.name}",
            "og:image:width": str(preview.SIZE[0]),
            "og:image:height": str(preview.SIZE[1]),
            "og:image:alt": f"{title} ({app.config.project})",
        }
    tags += "".join(
        f'<meta property="{name}" content="{escape(fact)}">\n' for name, fact in facts.items() if fact
    )
    tags += '<meta name="twitter:card" content="summary_large_image">\n'
    up = "../" * pagename.count("/")
    tags += f'<link rel="alternate" type="application/atom+xml" title="{FEED_TITLE}" href="{up}{FEED}">\n'
    context["metatags"] = metatags + tags


# -- lists of pages ------------------------------------------------------------------


def pages(app: Sphinx) -> list[str]:
    """Every page of the site in the order of its tables of contents; those in none at the end."""

    def walk(docname: str) -> Iterator[str]:
        yield docname
        for child in app.env.toctree_includes.get(docname, []):
            yield from walk(child)

    found = dict.fromkeys(walk(app.config.root_doc))
    return [name for name in (*found, *sorted(app.env.found_docs - found.keys())) if name in app.env.titles]


def sitemap(app: Sphinx) -> bytes:
    """The pages' addresses, as search engines want them."""
    root = ElementTree.Element("urlset", xmlns=SITEMAP)
    for docname in pages(app):
        ElementTree.SubElement(ElementTree.SubElement(root, "url"), "loc").text = address(app, docname)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def chapters(app: Sphinx) -> dict[str, list[str]]:
    """The pages below each caption of the first page's tables of contents."""
    found: dict[str, list[str]] = defaultdict(list)

    def add(caption: str, docname: str) -> None:
        found[caption].append(docname)
        for child in app.env.toctree_includes.get(docname, []):
            add(caption, child)

    for toctree in app.env.get_doctree(app.config.root_doc).findall(addnodes.toctree):
        for _, docname in toctree["entries"]:
            if docname in app.env.titles:
                add(toctree.get("caption") or "Pages", docname)
    return found


def llms(app: Sphinx) -> str:
    """The site in one text, for language models (https://llmstxt.org): each page with what it is about."""
    lines = [f"# {app.config.project}", "", f"> {about(app, app.config.root_doc)}"]
    for caption, docnames in chapters(app).items():
        lines += ["", f"## {caption}", ""]
        for docname in docnames:
            title = app.env.titles[docname].astext()
            lines.append(f"- [{title}]({address(app, docname)}): {about(app, docname)}".removesuffix(": "))
    return "\n".join(lines) + "\n"


# -- the search ------------------------------------------------------------------------------


def keep_index_entries(app: Sphinx) -> list[Any]:
    """Give the search's index the entries (labels, names of the API) of the pages that were not written anew.

    Sphinx 9.0 keeps them with an environment that it has saved before they are there, so a build that writes
    some pages loses those of all others; the index that is replaced has them yet.
    """
    entries = getattr(getattr(app.builder, "indexer", None), "_index_entries", None)
    file = pathlib.Path(app.outdir, "searchindex.js")
    if entries is None or not file.exists():
        return []
    before, kept = js_index.loads(file.read_text()), defaultdict(list)
    for entry, places in before.get("indexentries", {}).items():
        for number, anchor, main in places:
            kept[before["docnames"][number]].append((entry, anchor, "main" if main else ""))
    for docname in kept.keys() & app.env.all_docs.keys():
        entries.setdefault(docname, kept[docname])
    return []


# -- the truth table's changes ---------------------------------------------------------


def _named(table: dict[str, Any]) -> dict[str, str]:
    """Outcome of each cell that was measured, by the cell's name."""
    return {
        f"{cell['driver']}: {cell['hazard']}"
        + (f" ({cell['variant']})" if cell.get("variant") else "")
        + f" with {cell['recipe']}": cell["outcome"]
        for cell in table["cells"]
        if cell["outcome"] != "not-run"
    }


def _left_to_chance(name: str) -> bool:
    """Whether the order of events in a cell is not forced (truth-table.rst says so of these); the guard's must pass."""
    driver, _, cell = name.partition(": ")
    return not cell.endswith(" with guard") and (
        cell.startswith("locked ")
        or (cell.startswith("cursor ") and driver in ("asyncmy", "aiomysql"))
        or (cell.startswith(("event-loop (wakes)", "event-loop (collected)")) and driver == "aiosqlite")
    )


def _several(names: Iterable[str], said: str) -> list[str]:
    """One sentence a driver on cells of which only the number matters."""
    count: dict[str, int] = defaultdict(int)
    for name in names:
        count[name.partition(":")[0]] += 1
    return [f"{driver}: {number} cell{'s' * (number > 1)} {said}" for driver, number in count.items()]


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What is different between two measurements of the truth table, one sentence each; outcomes first.

    A cell is named when it begins or ceases to be ok. How a failing one fails is often a matter of who comes
    first, and a race comes out now so, now so; those cells are counted.

    `old` and `new` are what ``tools/measure.py`` writes: ``cells`` (driver, hazard, variant, recipe,
    outcome) and ``versions``. Empty where every outcome and every version is the same.
    """
    before, after = _named(old), _named(new)
    both = [name for name in after if name in before and after[name] != before[name]]
    races = [name for name in both if _left_to_chance(name)]
    turned = [name for name in both if "ok" in (before[name], after[name]) and name not in races]
    told = [f"{name} is {after[name]}, was {before[name]}" for name in turned]
    told += _several(
        [name for name in both if name not in turned + races], "failing in another way than before"
    )
    told += _several(races, "left to chance, with another outcome than before")
    told += _several([name for name in after if name not in before], "newly measured")
    told += _several([name for name in before if name not in after], "not measured any more")
    was, now = old.get("versions", {}), new.get("versions", {})
    for kind, words in {"drivers": now.get("drivers", {}), "servers": now.get("servers", {})}.items():
        earlier = was.get(kind, {})
        told += [
            f"{name}: measured with {_version(version)}, before with {_version(earlier[name])}"
            for name, version in words.items()
            if name in earlier and earlier[name] != version
        ]
    for name, key in {"SQLAlchemy": "sqlalchemy", "Python": "python"}.items():
        if was.get(key) and now.get(key) and was[key] != now[key]:
            told.append(f"measured with {name} {now[key]}, before with {was[key]}")
    return told


def _version(version: str | dict[str, str]) -> str:
    """A version as text: a server's is one already, a driver's names its packages."""
    return version if isinstance(version, str) else ", ".join(f"{k} {v}" for k, v in version.items())


def record(old: dict[str, Any] | None, new: dict[str, Any], file: pathlib.Path = CHANGES) -> list[str]:
    """Write what publishing a measurement changes to the top of the list that the feed shows; returns it."""
    cells = [cell for cell in new["cells"] if cell["outcome"] != "not-run"]
    told = changes(old, new) if old else []
    if old is None:
        good = sum(cell["outcome"] == "ok" for cell in cells)
        drivers = len({cell["driver"] for cell in cells})
        told = [
            f"First published: {len(cells)} cell{'s' * (len(cells) > 1)}, {good} of them ok, of {drivers} driver{'s' * (drivers > 1)}"
        ]
    if told:
        entries = json.loads(file.read_text()) if file.exists() else []
        day = new.get("measured") or f"{datetime.date.today():%Y-%m-%d}"
        entries.insert(0, {"measured": day, "changes": told})
        file.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    return told


def feed(app: Sphinx) -> bytes:
    """The changes to the truth table, as Atom."""
    entries = json.loads(CHANGES.read_text()) if CHANGES.exists() else []
    page, base = address(app, "truth-table"), app.config.html_baseurl

    def element(parent: ElementTree.Element, name: str, text: str = "", **attributes: str) -> None:
        ElementTree.SubElement(parent, name, attributes).text = text or None

    root = ElementTree.Element("feed", xmlns=ATOM)
    element(root, "title", FEED_TITLE)
    element(root, "id", base + FEED)
    element(root, "link", rel="self", href=base + FEED)
    element(root, "link", href=page)
    element(root, "updated", f"{entries[0]['measured'] if entries else '2026-01-01'}T00:00:00Z")
    element(ElementTree.SubElement(root, "author"), "name", app.config.author)
    for number, entry in enumerate(reversed(entries)):
        told = entry["changes"]
        one = ElementTree.SubElement(root, "entry")
        element(one, "title", told[0] if len(told) == 1 else f"{told[0]}, and {len(told) - 1} more")
        element(one, "id", f"{page}#change-{number}")
        element(one, "link", href=page)
        element(one, "updated", f"{entry['measured']}T00:00:00Z")
        items = "".join(f"<li>{escape(what)}</li>" for what in told)
        element(one, "content", f"<ul>{items}</ul>", type="html")
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


# -- pages that moved --------------------------------------------------------------------


def moved(app: Sphinx) -> Iterator[tuple[str, str]]:
    """For each page that moved its old file and a page that leads to the new one, anchors kept."""
    for old, new in app.config.poolfork_moved.items():
        if old in app.env.found_docs:
            raise ValueError(f"poolfork_moved: {old} has not moved, it is a page")
        if new not in app.env.found_docs:
            raise ValueError(f"poolfork_moved: {old} cannot lead to {new}, which is no page")
        target = posixpath.relpath(app.builder.get_target_uri(new), posixpath.dirname(old) or ".")
        yield app.builder.get_target_uri(old), MOVED.format(target=target, canonical=address(app, new))


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write what belongs to no single page."""
    if exception is not None or app.builder.name not in {"html", "dirhtml"}:
        return
    out = pathlib.Path(app.outdir)
    (out / "sitemap.xml").write_bytes(sitemap(app))
    (out / "robots.txt").write_text(
        f"User-agent: *\nAllow: /\nSitemap: {app.config.html_baseurl}sitemap.xml\n"
    )
    (out / "llms.txt").write_text(llms(app))
    (out / FEED).write_bytes(feed(app))
    (out / "404.html").write_text(
        NOT_FOUND.format(project=escape(app.config.project), base=app.config.html_baseurl)
    )
    for file, page in moved(app):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_text(page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Describe after the gallery's pages are arranged (priority 110)."""
    app.add_config_value("poolfork_moved", {}, "html", types={dict})
    app.connect("doctree-read", note_description, priority=400)
    app.connect("html-page-context", head, priority=800)
    app.connect("html-collect-pages", keep_index_entries)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
