"""What every page gets: code that wraps line by line, only the styles it uses, what it was executed with."""

from __future__ import annotations

import datetime
import json
import platform
import re
from importlib import metadata
from typing import Any

import sqlalchemy as sa
from docutils import nodes
from sphinx.application import Sphinx
from throwaway import GALLERY, database_url

EXECUTED = GALLERY / ".executed.json"
UNUSED = ("sg_gallery", "sg-tags", "mystnb")  # what our pages show of these, poolfork.css styles
_CODE = re.compile(r'(<div class="highlight"><pre>)(?:<span></span>)?(.*?)(</pre>)', re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


def record_versions(app: Sphinx) -> None:
    """Note what this build executes with; a build that executes nothing keeps the last note."""
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
                " endless" if bare.strip() and len(bare.split()[0]) > 24 else ""
            )  # break it, not before it
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
    context["executed"] = json.loads(EXECUTED.read_text()) if EXECUTED.exists() else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Note the versions once it is known what will be executed (priority 200)."""
    app.connect("builder-inited", record_versions, priority=250)
    app.connect("html-page-context", finish_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
