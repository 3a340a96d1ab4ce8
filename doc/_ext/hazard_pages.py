"""The hazards one by one: what each is, and time lines of it, recorded (`tools/measure_timelines.py`)."""

from __future__ import annotations

import inspect
from html import escape
from typing import Any

from docutils import nodes
from measured import labelled, link_to, load, note
from pictures import Step, badge, lanes_html, lanes_of, step
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from throwaway import ROOT

DEMOS = {
    "crossed": ("1_corruption/plot_crossed_answers", "1_corruption/plot_storm"),
    "goodbye-close": ("1_corruption/plot_goodbye", "1_corruption/plot_wire"),
    "goodbye-gc": ("3_limits/plot_garbage_collector",),
    "goodbye-exit": ("3_limits/plot_normal_exit",),
    "held-finish": ("1_corruption/plot_lost_commit", "3_limits/plot_held_connection"),
    "held-use": ("3_limits/plot_held_connection",),
    "starved": ("3_limits/plot_starved_child",),
    "locked": ("3_limits/plot_locked_pool",),
    "thread-local": ("3_limits/plot_thread_local",),
    "c-fork": ("3_limits/plot_c_fork",),
}
"""The demos that tell a hazard's story, where there are any."""

CLAIMS = {
    "crossed": "each process reads the other's answer",
    "goodbye-close": "the child's recipe ends the parent's session",
    "goodbye-gc": "the child's garbage collector ends it",
    "goodbye-exit": "the child's exit ends it",
    "held-finish": "the child ends the parent's transaction",
    "held-use": "the child writes in the parent's transaction",
    "starved": "the child's pool counts what the parent holds",
    "locked": "the child waits for a lock that nobody will release",
    "thread-local": "what another thread held dies in the child",
    "grandchild": "every generation inherits",
    "state": "the child finds what the parent left in its session",
    "c-fork": "no hook of Python's runs",
    "event-loop": "the child collects the transports of the parent's loop",
    "tls": "two copies of one cipher's state drift apart",
    "temp-table": "with the session goes the temporary table",
    "cursor": "the child closes the parent's cursor",
    "advisory-lock": "both are told that they hold one lock",
    "notify": "the child takes what the parent waits for",
    "copy": "the child's exit ends the parent's COPY",
    "first-connect": "the child inherits half a dialect",
    "thread-cursor": "the child reads the rest of another thread's rows",
    "reused-number": "the descriptor is another socket's by now",
    "loop-closed": "the child closes a loop that is the parent's too",
    "file-lock": "the child rolls back pages that the parent wrote",
    "file-log": "the parent's close deletes the log that the child writes to",
    "file-goodbye": "a collected copy breaks the parent's transaction",
}
"""What a hazard comes to, in its heading."""


def steps_of(take: dict[str, Any]) -> list[Step]:
    """A recorded take's steps, as those that a demo prints."""
    told = (
        step(f"{row['who']} | {row['does'].replace('|', chr(0x2016))} | {row['sees']}")
        for row in take["steps"]
    )
    return [each for each in told if each]


def picture(take: dict[str, Any]) -> str:
    """A take as lanes, in a figure."""
    steps = steps_of(take)
    lanes = lanes_of(steps)
    if not any("server" in (each.who, *(each.way or ())) for each in steps):
        lanes.remove("server")
    runs = f", the last of {take['runs']} forks" if take["runs"] > 1 else ""
    caption = f"With <code>{escape(take['recipe'])}</code>, on {escape(take['driver'])}: {badge(take['outcome'])}{runs}"
    return f'<figure class="picture">{lanes_html(steps, lanes, caption)}</figure>'


def links(hazard: str) -> nodes.paragraph:
    """Where to read on: the demos, the drivers, the probe."""
    said = nodes.paragraph("", "", classes=["measured"])
    for number, demo in enumerate(DEMOS.get(hazard, ())):
        link = link_to(f"sphx_glr_gallery_{demo.replace('/', '_')}.py")
        said += [nodes.Text("; " if number else "Executed and explained: "), link]
    if hazard in DEMOS:
        said += nodes.Text(". ")
    said += [link_to(f"probe-{hazard}", "Recipe by recipe, and the probe's source"), nodes.Text(".")]
    return said


class Hazards(SphinxDirective):
    """``.. hazards::``: a section for each hazard; its anchor is ``hazard-NAME``."""

    def run(self) -> list[nodes.Node]:
        """What the hazard is, what passes, and its pictures."""
        from poolfork.hazards import all_hazards

        found = load("timelines")
        takes: dict[str, list[dict[str, Any]]] = found.data["timelines"] if found else {}
        parts: list[nodes.Node] = note("timelines")
        for hazard in all_hazards().values():
            self.env.note_dependency(str(ROOT / (hazard.source[0].replace(".", "/") + ".py")))
            section = labelled(self.env, f"hazard-{hazard.name}", f"{hazard.name}: {CLAIMS[hazard.name]}")
            section += self.parse_text_to_nodes(inspect.cleandoc(hazard.probe.__doc__ or ""))
            section += nodes.paragraph("", f"Passes when {hazard.passes_when}.".replace("..", "."))
            for number, take in enumerate(takes.get(hazard.name, ())):
                drawn = picture(take)
                if number:
                    drawn = f'<details class="fold"><summary>The same with <code>{take["recipe"]}</code>: {badge(take["outcome"])}</summary>{drawn}</details>'
                section += nodes.raw("", drawn, format="html")
            section += links(hazard.name)
            parts.append(section)
        return parts


def setup(app: Sphinx) -> dict[str, Any]:
    """The directive."""
    app.add_directive("hazards", Hazards)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
