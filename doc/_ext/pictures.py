"""Transcripts become lanes and counts become bars: what a demo or notebook printed, as a picture.

An output whose lines read ``who | does | sees`` is drawn as one lane for each actor, time running
down; lines that read ``name | word 3 | word 4`` become stacked bars on one scale, and lines that
read ``name | 1.10 times | 1.07 to 1.16`` (a ratio and its quartiles) bars on a logarithmic one,
which begin at 1. The printed text stays on the page, folded. Outcomes (the words of the truth table) look the same wherever they
appear: a symbol, the word, a colour. In prose, ``:outcome:`wrong-row``` gives the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx.application import Sphinx

OUTCOMES = ("ok", "wrong-row", "error", "hang", "parent-lost", "write-lost", "starved", "not-run")
_STEP = re.compile(r"(parent|server|child(?: \d+)?) *\| *([^|]*?) *(?:\| *(.*?))? *$")
_BAR = re.compile(r"([^|]*?) *((?:\| *[a-z-]+ \d+ *)+)$")
_RATIO = re.compile(r"([^|]*?) *\| *(\d+\.\d+) times *\| *(\d+\.\d+) to (\d+\.\d+)$")
_OUTCOME = re.compile(rf"({'|'.join(OUTCOMES)})(?![\w-])[:,]? *(.*)$")
_SAYS = re.compile(  # SQL, or a message of PostgreSQL's protocol as libpq's trace names it
    r"(BEGIN|CLOSE|COMMIT|COPY|CREATE|DECLARE|DELETE|DROP|EXECUTE|FETCH|INSERT|LISTEN|LOCK|NOTIFY|PREPARE|ROLLBACK"
    r"|SAVEPOINT|SELECT|SET|SHOW|UPDATE|WITH|Bind|Close|CopyDone|CopyFail|Describe|Execute|Flush|Parse|Query|Quit|Sync|Terminate)\b"
)
_READ = re.compile(r"read by (?:the )?(parent|child(?: \d+)?)\b")


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of a transcript; `outcome` is empty where `sees` does not begin with one."""

    who: str
    does: str
    outcome: str
    sees: str

    @property
    def way(self) -> tuple[str, str] | None:
        """From whom to whom something went on a wire, where the line itself says so."""
        if self.who != "server":
            if self.sees == "reaches no server":
                return None
            return (self.who, "server") if _SAYS.match(self.does) else None
        return ("server", read[1]) if (read := _READ.match(self.sees)) else None


@dataclasses.dataclass(frozen=True)
class Bar:
    """One line of counts: its name, and (word, count) in the order printed."""

    name: str
    cells: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """The sum of the counts."""
        return sum(count for _, count in self.cells)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """One line of ratios: how many times as much as what the caption names, with its quartiles."""

    name: str
    low: float
    middle: float
    high: float


def step(line: str) -> Step | None:
    """The step that a printed line tells, or None."""
    if not (match := _STEP.match(line)):
        return None
    who, does, sees = match[1], match[2], match[3] or ""
    outcome = _OUTCOME.match(sees)
    return Step(who, does, outcome[1], outcome[2]) if outcome else Step(who, does, "", sees)


def bar(line: str) -> Bar | None:
    """The counts that a printed line gives, or None."""
    if not (match := _BAR.match(line)):
        return None
    cells = (cell.split() for cell in match[2].strip(" |").split("|"))
    return Bar(match[1], tuple((word, int(count)) for word, count in cells))


def ratio(line: str) -> Ratio | None:
    """The ratio that a printed line gives, or None."""
    if not (match := _RATIO.match(line)):
        return None
    return Ratio(match[1], float(match[3]), float(match[2]), float(match[4]))


def parts(text: str) -> list[tuple[type | None, str]]:
    """Cut an output into runs of steps (Step), of counts (Bar), of ratios (Ratio) and of other lines (None)."""

    def kind(line: str) -> type | None:
        return Step if step(line) else Bar if bar(line) else Ratio if ratio(line) else None

    runs = itertools.groupby((line.rstrip() for line in text.splitlines()), kind)
    cut = [(kind, "\n".join(lines).strip("\n")) for kind, lines in runs]
    return [(kind, run) for kind, run in cut if run]


def badge(word: str) -> str:
    """An outcome as HTML: the stylesheet puts symbol and colour to the word."""
    return f'<span class="outcome outcome-{word}">{word}</span>'


def lanes_of(steps: Iterable[Step]) -> list[str]:
    """The actors in the order of their lanes: the server between the parent and its children."""
    return ["parent", "server", *sorted({step.who for step in steps} - {"parent", "server"} or {"child"})]


def rails(step: Step, lanes: Sequence[str]) -> str:
    """The drawn part of one step, an SVG as high as the row: every lane, a dot on the actor's, the arrow to the other's.

    Its colours are the theme's, and its text is the row. An outcome is a badge in the dot's place.
    """

    def at(lane: str) -> str:
        return f"{100 * (lanes.index(lane) + 0.5) / len(lanes):.5g}%"

    drawn = "".join(
        f'<line class="{lane.split()[0]}" x1="{at(lane)}" x2="{at(lane)}" y2="100%"/>' for lane in lanes
    )
    said = mark = ""
    if step.way and step.way[1] in lanes:
        start, end = step.way
        back = "-" if lanes.index(end) > lanes.index(start) else ""
        tip = f'<svg x="{at(end)}"><path d="M{back}7-5 0 0{back or " "}7 5"/></svg>'
        said = f'<line x1="{at(start)}" x2="{at(end)}"/>{tip}'
    if step.outcome:
        mark = f'<i class="mark outcome-{step.outcome}" style="--at:{lanes.index(step.who)}"></i>'
    else:
        said += f'<circle class="{step.who.split()[0]}" cx="{at(step.who)}" r="5.6"/>'
    svg = f'<svg focusable="false">{drawn}<g>{said}</g></svg>'
    return f'<span class="rails" aria-hidden="true">{svg}{mark}</span>'


def caption_of(steps: Sequence[Step], first: int) -> str:
    """Which steps of its page a part of a transcript shows; `first` is the number of the first of them."""
    last = first + len(steps) - 1
    caption = f"Step {first}" if first == last else f"Steps {first} and {last}"
    if last - first > 1:
        caption = f"Steps {first} to {last}"
    if first == 1:
        ran = all(step.outcome != "not-run" for step in steps)
        caption += f", {'as measured' if ran else 'not run'} in this build. Time runs down"
        caption += "; an arrow is something said on a wire." if any(s.way for s in steps) else "."
    return caption


def lanes_html(steps: Sequence[Step], lanes: Sequence[str], caption: str) -> str:
    """Steps as a table that is drawn as lanes, under a caption in HTML."""
    heads = "".join(f'<i style="--at:{i}">{lane}</i>' for i, lane in enumerate(lanes))
    rows = "".join(
        f'<tr role="row"><th role="rowheader" scope="row">{rails(step, lanes)}{step.who}</th>'
        f'<td role="cell" class="does">{escape(step.does)}</td>'
        f'<td role="cell" class="sees">{badge(step.outcome) if step.outcome else ""} {escape(step.sees)}</td></tr>'
        for step in steps
    )
    return (
        f'<table class="lanes" role="table" style="--lanes:{len(lanes)}"><caption>{caption}</caption>'
        f'<thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">'
        f'<span class="rails" aria-hidden="true">{heads}</span><span class="visually-hidden">who</span></th>'
        f'<th role="columnheader" scope="col">does</th><th role="columnheader" scope="col">sees</th></tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>'
    )


def bars_html(bars: Sequence[Bar], caption: str = "Counted in this build; all bars have one scale.") -> str:
    """Counts as stacked bars, each with its words and numbers under it."""
    longest = max(bar.total for bar in bars) or 1
    drawn = "".join(
        f'<div class="bar-name">{escape(bar.name)}</div>'
        f'<div class="bar" aria-hidden="true" style="--share:{bar.total / longest:.4f}">'
        + "".join(f'<i class="outcome-{word}" style="--n:{count}"></i>' for word, count in bar.cells if count)
        + '</div><ul class="bar-key">'
        + "".join(
            f"<li{'' if count else ' class=none'}>{badge(word)} <b>{count}</b></li>"
            for word, count in bar.cells
        )
        + "</ul>"
        for bar in bars
    )
    return f'<figcaption>{caption}</figcaption><div class="bars">{drawn}</div>'


def ratio_rails(ratios: Sequence[Ratio]) -> list[str]:
    """The drawn part of each ratio: a bar from 1 to its median, a line over its quartiles, all on one scale."""
    ends = [end for r in ratios for end in (r.low, r.high) if end > 0]
    low, high = min([0.9, *ends]), max([1.25, *ends])

    def at(value: float) -> float:
        return math.log(max(value, low) / low) / math.log(high / low)

    return [
        f'<div class="ratio" aria-hidden="true"><i class="one" style="--from:{at(1):.4f};--to:{at(1):.4f}"></i>'
        f'<i class="value" style="--from:{min(at(1), at(r.middle)):.4f};--to:{max(at(1), at(r.middle)):.4f}"></i>'
        f'<i class="spread" style="--from:{at(r.low):.4f};--to:{at(r.high):.4f}"></i></div>'
        for r in ratios
    ]


def figure(value: float) -> str:
    """A ratio with as many digits as mean something."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def ratios_html(ratios: Sequence[Ratio], caption: str = "") -> str:
    """Ratios as bars from 1, each with its figure and its quartiles."""
    caption = (
        caption or "Medians and quartiles of this build. The upright line is 1; the scale is logarithmic."
    )
    drawn = "".join(
        f'<div class="ratio-row"><div class="bar-name">{escape(r.name)}</div>{rail}<div class="figure"><b>{figure(r.middle)}</b> times '
        f"<span>{figure(r.low)} to {figure(r.high)}</span></div></div>"
        for r, rail in zip(ratios, ratio_rails(ratios), strict=True)
    )
    return f'<figcaption>{caption}</figcaption><div class="ratios">{drawn}</div>'


class Picture(nodes.General, nodes.Element):
    """What an output shows (attribute ``html``), with the output itself as its child."""


class Fold(nodes.General, nodes.Element):
    """A part of a page that is there when wanted (attribute ``summary``)."""


def visit_picture(self: Any, node: Picture) -> None:
    """Open the figure."""
    self.body.append(f'<figure class="picture">{node["html"]}<details><summary>As printed</summary>')


def depart_picture(self: Any, node: Picture) -> None:
    """Close the figure."""
    self.body.append("</details></figure>")


def visit_fold(self: Any, node: Fold) -> None:
    """Open the fold."""
    self.body.append(f'<details class="fold"><summary>{escape(node["summary"])}</summary>')


def depart_fold(self: Any, node: Fold) -> None:
    """Close the fold."""
    self.body.append("</details>")


def nothing(self: Any, node: nodes.Element) -> None:
    """Elsewhere than in HTML the printed text stands as it is."""


def draw(app: Sphinx, doctree: nodes.document) -> None:
    """Put a picture in the place of each output of a demo or notebook that can be drawn."""
    outputs = [
        block
        for block in doctree.findall(nodes.literal_block)
        if {"sphx-glr-script-out", "output"} & {*block["classes"], *block.parent.get("classes", ())}
    ]
    cut = {id(block): parts(block.astext()) for block in outputs}
    told = [
        s
        for runs in cut.values()
        for kind, run in runs
        if kind is Step
        for s in map(step, run.splitlines())
        if s
    ]
    lanes, number = lanes_of(told), 1
    for block in outputs:
        runs = cut[id(block)]
        if not any(kind for kind, _ in runs):
            continue
        drawn: list[nodes.Element] = []
        for kind, run in runs:
            part = block.deepcopy()
            part.children.clear()
            part.rawsource = run
            part += nodes.Text(run)
            if kind is Step:
                steps = [s for s in map(step, run.splitlines()) if s]
                drawn.append(Picture("", part, html=lanes_html(steps, lanes, caption_of(steps, number))))
                number += len(steps)
            elif kind is Bar:
                counts = [b for b in map(bar, run.splitlines()) if b]
                drawn.append(Picture("", part, html=bars_html(counts)))
            elif kind is Ratio:
                ratios = [r for r in map(ratio, run.splitlines()) if r]
                drawn.append(Picture("", part, html=ratios_html(ratios)))
            else:
                drawn.append(part)
        block.parent.replace(block, drawn)


def outcome_role(
    name: str,
    rawtext: str,
    text: str,
    lineno: int,
    inliner: Inliner,
    options: Any = None,
    content: Any = None,
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """``:outcome:`hang```: an outcome in prose, with its symbol and colour."""
    if text in OUTCOMES:
        return [nodes.inline(rawtext, text, classes=["outcome", f"outcome-{text}"])], []
    problem = inliner.reporter.error(
        f"{text!r} is no outcome; the outcomes are {', '.join(OUTCOMES)}", line=lineno
    )
    return [inliner.problematic(rawtext, rawtext, problem)], [problem]


def setup(app: Sphinx) -> dict[str, Any]:
    """Draw before Sphinx collects a page's images and downloads (priority 500)."""
    others: dict[str, Any] = dict.fromkeys(("latex", "text", "man", "texinfo"), (nothing, nothing))
    app.add_node(Picture, html=(visit_picture, depart_picture), **others)
    app.add_node(Fold, html=(visit_fold, depart_fold), **others)
    app.add_role("outcome", outcome_role)
    app.connect("doctree-read", draw, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
