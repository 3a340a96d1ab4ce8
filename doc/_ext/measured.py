"""What was measured: by this checkout (build/NAME.json, `tools/measure.py`), else as published (doc/measured/).

A page shows whichever there is and says which: a figure of another day, or of other code, is never shown
as this build's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
import sys
from typing import Any

import measure
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

HOW = {
    "ablation": "measured_ablation",
    "budget": "measured_budget",
    "cost": "sphx_glr_gallery_5_cost_plot_checkout_cost.py",
    "stacks": "measured_stacks",
    "symptoms": "forced",
    "table": "measured_table",
    "timelines": "measured_timelines",
}
"""The label of the place that tells how a measurement is made."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a measurement found: ``data``, whether this checkout measured it (``fresh``), and a sentence on that."""

    data: dict[str, Any]
    fresh: bool
    says: str


def files(name: str) -> list[pathlib.Path]:
    """Where a measurement can be: this checkout's own, then the published one."""
    return [folder / f"{name}.json" for folder in (measure.BUILD, measure.PUBLISHED)]


def load(name: str) -> Measurement | None:
    """The measurement of that name; None where it was neither made here nor published."""
    own, published = files(name)
    code, again = measure.fingerprint(name), f"make measure ONLY={name}"
    if own.exists():
        data = json.loads(own.read_text())
        if data["fingerprint"] == code and data["python"] == sys.version:
            return Measurement(data, True, f"Measured by this checkout on {data['measured']}.")
    if not published.exists():
        return None
    data = json.loads(published.read_text())
    how = "with this code" if data["fingerprint"] == code else "with earlier code"
    says = f"Measured on {data['measured']}, {how}, on another machine; to measure on yours: {again}, then make html."
    return Measurement(data, False, says)


def note(name: str) -> list[nodes.Node]:
    """The sentence on where the figures come from, as a node for the page."""
    found = load(name)
    if found is None:
        return [nodes.note("", paragraph(f"Not measured yet: make measure ONLY={name}, then make html."))]
    return [paragraph(found.says, name)]


def paragraph(text: str, name: str = "") -> nodes.paragraph:
    """A sentence on a measurement, its commands set as such; with the measurement's name, a link to how it is made."""
    parts = re.split(r"(make [a-z]+(?: ONLY=\w+)?)", text)
    inlines = [nodes.literal("", part) if index % 2 else nodes.Text(part) for index, part in enumerate(parts)]
    said = nodes.paragraph("", "", *inlines, classes=["measured"])
    if name:
        said += [nodes.Text(" "), link_to(HOW[name], "How it is measured"), nodes.Text(".")]
    return said


def link_to(label: str, text: str = "") -> pending_xref:
    """A link to a label, with the title that stands there unless it has a text."""
    link = pending_xref(refdomain="std", reftype="ref", reftarget=label, refexplicit=bool(text), refwarn=True)
    link += nodes.inline("", text or label, classes=["std", "std-ref"])
    return link


def labelled(env: BuildEnvironment, label: str, title: str) -> nodes.section:
    """A section that ``:ref:`` finds by its label, here and (intersphinx) in other projects."""
    section = nodes.section(ids=[label], names=[label])
    section += nodes.title("", title)
    env.domains.standard_domain.note_hyperlink_target(label, env.current_document.docname, label, title)
    return section


def note_measured(app: Sphinx, config: Any) -> None:
    """Have all pages read again when something was measured, or published, or these extensions changed."""
    stamps = [
        f"{f.name}{f.stat().st_mtime_ns}" for n in measure.measurements() for f in files(n) if f.exists()
    ]
    code = b"".join(file.read_bytes() for file in sorted(pathlib.Path(__file__).parent.glob("*.py")))
    config.poolfork_measured = " ".join([*stamps, hashlib.sha256(code).hexdigest()])


def setup(app: Sphinx) -> dict[str, Any]:
    """One value that changes when a measurement does."""
    app.add_config_value("poolfork_measured", "", "env")
    app.connect("config-inited", note_measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
