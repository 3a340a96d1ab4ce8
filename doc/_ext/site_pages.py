"""What every page gets: code that wraps, only the styles it uses, what it was executed with, who refers to it."""

from __future__ import annotations

import datetime
import json
import platform
import re
from importlib import metadata
from typing import Any

import sqlalchemy as sa
from docutils import nodes
from pictures import Fold
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from throwaway import GALLERY, database_url

EXECUTED = GALLERY / ".executed.json"
UNUSED = ("sg_gallery", "sg-tags", "mystnb")  # what our pages show of these, poolfork.css styles
_CODE = re.compile(r'(<div class="highlight"><pre>)(?:<span></span>)?(.*?)(</pre>)', re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_OPTION = re.compile(r"(?<![\w-])--[A-Za-z][\w-]*(?![^<]*>)")  # an option of a command, not in a tag


def record_versions(app: Sphinx) -> None:
    """Note what this build executes with; a build that executes nothing keeps the last note."""
    if not app.config.poolfork_execute:
        return
    if not (app.config.poolfork_demos_run or app.config.poolfork_notebooks_run):
        return
    engine = sa.create_engine(database_url())
    with engine.connect() as connection:
        server = str(connection.scalar(sa.text("SELECT current_setting('server_version')"))).partition(" ")[0]
    engine.dispose()
    note = {
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "versions": {
            "SQLAlchemy": metadata.version("sqlalchemy"),
            "psycopg": metadata.version("psycopg"),
            "PostgreSQL": server,
            "Python": platform.python_version(),
        },
        "platform": platform.system(),
    }
    EXECUTED.write_text(json.dumps(note))


def note_references(app: Sphinx, doctree: nodes.document) -> None:
    """Keep with a page's metadata which demos it refers to, each with the section that does."""
    found: dict[str, tuple[str, str]] = {}
    for link in doctree.findall(addnodes.pending_xref):
        if link.get("reftype") == "ref" and link["reftarget"].startswith("sphx_glr_gallery_"):
            section: nodes.Node | None = link.parent
            while section is not None and not isinstance(section, nodes.section):
                section = section.parent
            top = section is None or not isinstance(section.parent, nodes.section)
            anchor = "" if section is None or top else f"#{section['ids'][0]}"
            title = section.next_node(nodes.title) if section is not None else None
            found.setdefault(link["reftarget"], (anchor, title.astext() if title else ""))
    app.env.metadata[app.env.current_document.docname]["refers"] = found


def leave_out_of_search(app: Sphinx, doctree: nodes.document) -> None:
    """Whoever searches for a name does not mean the set-up that all demos share."""
    for fold in doctree.findall(Fold):
        fold["classes"].append("no-search")


def referring(app: Sphinx, pagename: str) -> list[dict[str, str]]:
    """The pages that refer to a demo, in the site's order: address of the place, page, section."""
    label = f"sphx_glr_{pagename.replace('/', '_')}.py"
    found = []
    for docname in sorted(app.env.found_docs):
        refers = app.env.metadata[docname].get("refers", {})
        if label in refers and not docname.startswith("gallery/"):
            anchor, section = refers[label]
            page = app.env.titles[docname].astext()
            link = app.builder.get_relative_uri(pagename, docname) + anchor
            found.append({"link": link, "page": page, "section": section if section != page else ""})
    return found


def demos_again(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """The demos to write anew since other pages refer to them than before."""
    demos = [name for name in sorted(env.found_docs) if "/plot_" in name]
    before, now = getattr(env, "poolfork_referring", {}), {name: referring(app, name) for name in demos}
    setattr(env, "poolfork_referring", now)  # noqa: B010 - mypy knows no such attribute
    return [name for name in demos if before.get(name) != now[name]]


def by_line(html: str) -> str:
    """Highlighted code with each line in a span that knows its indentation, so that it can wrap under it."""

    def block(match: re.Match[str]) -> str:
        lines, opened, filled = list[str](), list[str](), 0
        for text in match[2].rstrip("\n").split("\n"):
            bare, begun = _TAG.sub("", text), "".join(opened)
            for tag in _TAG.findall(
                text
            ):  # a tag may span lines: end it with this one, begin it with the next
                if tag.startswith("</"):
                    opened.pop()
                else:
                    opened.append(tag)
            ended = "".join(f"</{re.split('[ >]', tag[1:])[0]}>" for tag in reversed(opened))
            indentation = len(bare) - len(bare.lstrip(" "))
            endless = (
                " endless" if bare.strip() and indentation + len(bare.split()[0]) > 34 else ""
            )  # break it, not before it
            text = _OPTION.sub(r'<span class="whole">\g<0></span>', text)
            lines.append(
                f'<span class="line{endless}" style="--in:{indentation}">{begun}{text}{ended}\n</span>'
            )
            filled = len(lines) if bare.strip() else filled
        return match[1] + re.sub(r'<span class="\w+"></span>', "", "".join(lines[:filled])) + match[3]

    return _CODE.sub(block, html)


def finish_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the templates their facts."""
    if context.get("body"):
        context["body"] = by_line(context["body"])
    for kind in "css_files", "script_files":
        context[kind] = [
            file for file in context[kind] if not any(name in str(file.filename) for name in UNUSED)
        ]
    context["referring"] = referring(app, pagename) if "/plot_" in pagename else []
    context["built"] = f"{datetime.date.today():%Y-%m-%d}"
    context["executed"] = json.loads(EXECUTED.read_text()) if EXECUTED.exists() else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Note the versions once it is known what will be executed (priority 200)."""
    app.connect("builder-inited", record_versions, priority=250)
    app.connect("doctree-read", note_references, priority=400)
    app.connect("doctree-read", leave_out_of_search, priority=400)
    app.connect("env-updated", demos_again)
    app.connect("html-page-context", finish_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
