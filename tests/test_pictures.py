"""Transcripts and counts become pictures that say no more than what was printed."""

from __future__ import annotations

import pathlib
import sys

import pytest
from bs4 import BeautifulSoup

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "doc" / "_ext"))

import gallery_pages  # noqa: E402
import pictures  # noqa: E402
import site_pages  # noqa: E402


def told(who: str, does: str, sees: str = "") -> str:
    """A line as the demos print it."""
    return f"{who:8}| {does:44}| {sees}".rstrip(" |")


def test_a_line_of_a_transcript_is_a_step() -> None:
    """Actor, deed and outcome are told apart; what follows the outcome is kept."""
    assert pictures.step(told("child 2", "SELECT 1", "ok: its own backend")) == pictures.Step(
        "child 2", "SELECT 1", "ok", "its own backend"
    )
    assert pictures.step(told("parent", "forks")) == pictures.Step("parent", "forks", "", "")
    assert pictures.step(told("parent", "COMMIT", "write-lost")) == pictures.Step(
        "parent", "COMMIT", "write-lost", ""
    )


@pytest.mark.parametrize(
    "line", ["The parent's error: it closed", "parents | are | many", "x = parent | child", ""]
)
def test_other_lines_are_no_steps(line: str) -> None:
    """Only the three actors tell steps."""
    assert pictures.step(line) is None


@pytest.mark.parametrize("sees", ["okay", "errors out", "hanging", "not-running", "the row is ok"])
def test_a_word_that_only_looks_like_an_outcome_is_none(sees: str) -> None:
    """An outcome is a whole word at the beginning."""
    step = pictures.step(told("parent", "waits", sees))
    assert step and (step.outcome, step.sees) == ("", sees)


def test_counts_are_a_bar() -> None:
    """A name and `word number` cells, in the order printed."""
    bar = pictures.bar("one inherited connection | right 112 | wrong-row 171 | error 117 | hang 0")
    assert bar and bar.name == "one inherited connection"
    assert bar.cells == (("right", 112), ("wrong-row", 171), ("error", 117), ("hang", 0)) and bar.total == 400
    assert pictures.bar(told("parent", "sees 3", "ok")) is None


def test_an_output_is_cut_where_its_kind_changes() -> None:
    """Steps, counts and other lines become parts; nothing is lost, blank lines between parts aside."""
    text = f"{told('parent', 'BEGIN', 'ok')}\n{told('child', 'close()')}\n\nThe error: x\nmore\n\nall | right 3 | error 1\n"
    assert pictures.parts(text) == [
        (pictures.Step, f"{told('parent', 'BEGIN', 'ok')}\n{told('child', 'close()')}"),
        (None, "The error: x\nmore"),
        (pictures.Bar, "all | right 3 | error 1"),
    ]


@pytest.mark.parametrize(
    ("line", "way"),
    [
        (told("child", "ROLLBACK, in the parent's session"), ("child", "server")),
        (told("parent", 'Query "BEGIN"'), ("parent", "server")),
        (told("server", "ReadyForQuery I", "read by the child 2"), ("server", "child 2")),
        (told("child", "engine.dispose()", "ok"), None),
        (told("server", "closes the session"), None),
        (told("child", "ROLLBACK", "reaches no server"), None),
        (told("child", "Quit", "on session 1, the parent's"), ("child", "server")),
    ],
)
def test_an_arrow_is_drawn_only_where_the_line_says_so(line: str, way: tuple[str, str] | None) -> None:
    """A call may or may not speak; SQL, a named message and `read by` do."""
    step = pictures.step(line)
    assert step and step.way == way


def test_lanes_say_the_transcript_as_a_table() -> None:
    """Row by row the table reads as printed, under headings, with one mark each and the words of outcomes."""
    lines = [
        told("parent", "SELECT 1", "ok"),
        told("child 1", "<b>", "hang: & waits"),
        told("server", "is idle"),
    ]
    steps = [step for step in map(pictures.step, lines) if step]
    lanes = pictures.lanes_of(steps)
    assert lanes == ["parent", "server", "child 1"]
    table = BeautifulSoup(pictures.lanes_html(steps, lanes, pictures.caption_of(steps, 1)), "html.parser")
    for drawn in table.select("[aria-hidden]"):
        drawn.extract()
    rows = [[cell.get_text(" ", strip=True) for cell in row.select("th,td")] for row in table.select("tr")]
    assert rows == [
        ["who", "does", "sees"],
        ["parent", "SELECT 1", "ok"],
        ["child 1", "<b>", "hang & waits"],
        ["server", "is idle", ""],
    ]
    assert table.caption and table.caption.get_text().startswith("Steps 1 to 3")
    assert [tag.get_text() for tag in table.select(".outcome")] == ["ok", "hang"]


def test_the_drawn_part_of_a_step_is_an_svg_of_its_lanes() -> None:
    """A line for each lane, an arrow from who speaks to who hears, a dot or an outcome's badge on who acts."""
    lanes = ["parent", "server", "child 1"]

    def drawn(line: str) -> BeautifulSoup:
        step = pictures.step(line)
        assert step
        return BeautifulSoup(pictures.rails(step, lanes), "html.parser")

    soup = drawn(told("child 1", "ROLLBACK"))
    assert [line["x1"] for line in soup.select("svg > line")] == ["16.667%", "50%", "83.333%"]
    arrow = soup.select_one("g line")
    assert arrow and (arrow["x1"], arrow["x2"]) == ("83.333%", "50%")
    assert soup.circle and (soup.circle["class"], soup.circle["cx"]) == (["child"], "83.333%")
    assert not soup.select(".mark")
    soup = drawn(told("parent", "waits", "hang"))
    assert not soup.select("g line, circle") and [i["class"] for i in soup.select("i")] == [
        ["mark", "outcome-hang"]
    ]


def test_lanes_do_not_call_measured_what_was_not_run() -> None:
    """The caption of a demo that was not run says so."""
    steps = [pictures.Step("server", "starts", "not-run", "no server")]
    assert "not run in this build" in pictures.caption_of(steps, 1)


def test_bars_share_one_scale_and_say_every_number() -> None:
    """The longest bar fills the width; a count of zero has a word and no segment."""
    bars = [bar for bar in map(pictures.bar, ["a | right 4 | hang 0", "b | right 1 | error 1"]) if bar]
    html = BeautifulSoup(pictures.bars_html(bars), "html.parser")
    assert [tag["style"] for tag in html.select(".bar")] == ["--share:1.0000", "--share:0.5000"]
    assert [len(tag.select("i")) for tag in html.select(".bar")] == [1, 2]
    assert [tag.get_text(" ", strip=True) for tag in html.select(".bar-key")] == [
        "right 4 hang 0",
        "right 1 error 1",
    ]


def test_ratios_begin_at_one_on_a_common_scale() -> None:
    """What costs more reaches right of the line at 1, what costs less reaches left of it, and the figures are text."""
    printed = "a | 1.00 times | 0.98 to 1.02\nb | 2.00 times | 1.90 to 4.00\nc | 0.50 times | 0.25 to 0.60"
    assert pictures.parts(f"before\n{printed}") == [(None, "before"), (pictures.Ratio, printed)]
    html = BeautifulSoup(
        pictures.ratios_html([r for r in map(pictures.ratio, printed.splitlines()) if r]), "html.parser"
    )
    assert {tag["style"] for tag in html.select(".one")} == {"--from:0.5000;--to:0.5000"}
    assert [tag["style"] for tag in html.select(".value")] == [
        "--from:0.5000;--to:0.5000",
        "--from:0.5000;--to:0.7500",
        "--from:0.2500;--to:0.5000",
    ]
    assert html.select(".spread")[1]["style"].endswith("--to:1.0000")
    assert [tag.get_text(" ", strip=True) for tag in html.select(".figure")][1] == "2.00 times 1.90 to 4.00"


def test_every_outcome_has_a_symbol_and_a_colour() -> None:
    """The stylesheet knows the words of the truth table."""
    style = (ROOT / "doc" / "_static" / "poolfork.css").read_text()
    for word in pictures.OUTCOMES:
        assert f".outcome-{word} {{ --kind" in style or f".outcome-{word}, " in style
        assert f"--{word}: url(" in style


def test_a_demo_says_what_to_install_from_its_own_head() -> None:
    """The line to paste comes from the script metadata block."""
    assert gallery_pages.requirements('# /// script\n# dependencies = ["a>=1", "b[c]"]\n# ///\n') == [
        "a>=1",
        "b[c]",
    ]
    assert gallery_pages.requirements("print()") == []
    for demo in (ROOT / "demos").glob("*/plot_*.py"):
        assert any(name.startswith("sqlalchemy") for name in gallery_pages.requirements(demo.read_text())), (
            demo
        )


def test_code_is_cut_into_lines_that_close_what_they_open() -> None:
    """The text stays; every line is well formed alone and knows its indentation."""
    code = '<span></span><span class="k">if</span> x:<span class="w">\n    </span><a href="#"><span class="s">"y\nz"</span></a>\n'
    done = site_pages.by_line(f'<div class="highlight"><pre>{code}</pre></div>')
    soup = BeautifulSoup(done, "html.parser")
    assert soup.pre and soup.pre.get_text() == 'if x:\n    "y\nz"\n'
    lines = soup.select(".line")
    assert [line["style"] for line in lines] == ["--in:0", "--in:4", "--in:0"]
    assert [len(line.select("a")) for line in lines] == [0, 1, 1]
