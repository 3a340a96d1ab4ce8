"""What programs read of the site: descriptions, the truth table's feed, pages that moved, the book."""

from __future__ import annotations

import json
import pathlib
import re
import sys
from typing import Any
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "doc" / "_ext")]

import for_machines  # noqa: E402 - found by the line above

CONF = """
import sys
sys.path.insert(0, {extensions!r})
project, author, html_theme = "A site", "somebody", "alabaster"
html_baseurl = "https://example.org/docs/"
extensions = ["for_machines"]
poolfork_moved = {moved!r}
"""


def cell(driver: str, outcome: str, **more: Any) -> dict[str, Any]:
    """A cell of the truth table."""
    return {
        "driver": driver,
        "hazard": "crossed",
        "variant": "",
        "recipe": "at-fork",
        "outcome": outcome,
    } | more


def table(*cells: dict[str, Any], drivers: dict[str, Any] | None = None, **versions: str) -> dict[str, Any]:
    """A measurement of the truth table."""
    return {
        "cells": list(cells),
        "versions": {"drivers": drivers or {}, **versions},
        "measured": "2026-01-02",
    }


def test_changes_name_what_turned_and_count_what_fails_in_another_way() -> None:
    """A cell that begins or ceases to be ok is named with both outcomes; a failure of another kind is counted."""
    other = {"hazard": "tls", "variant": "crossed"}
    old = table(cell("psycopg", "hang"), cell("pg8000", "wrong-row", **other), cell("asyncpg", "ok"))
    new = table(cell("psycopg", "error"), cell("pg8000", "ok", **other), cell("asyncpg", "hang"))
    assert for_machines.changes(old, new) == [
        "pg8000: tls (crossed) with at-fork is ok, was wrong-row",
        "asyncpg: crossed with at-fork is hang, was ok",
        "psycopg: 1 cell failing in another way than before",
    ]
    assert for_machines.changes(new, new) == []


def test_changes_count_what_is_left_to_chance() -> None:
    """A race that comes out otherwise is no news; one that the guard loses is."""
    race = {"hazard": "locked"}
    old = table(cell("psycopg", "hang", **race), cell("psycopg", "ok", **race, recipe="guard"))
    new = table(cell("psycopg", "ok", **race), cell("psycopg", "hang", **race, recipe="guard"))
    assert for_machines.changes(old, new) == [
        "psycopg: locked with guard is hang, was ok",
        "psycopg: 1 cell left to chance, with another outcome than before",
    ]


def test_changes_tell_cells_and_versions_that_come_and_go() -> None:
    """Cells that are newly measured, or not any more, are counted by driver; other versions are named."""
    old = table(
        cell("psycopg", "ok"),
        cell("mysqldb", "ok"),
        cell("pg8000", "not-run"),
        cell("asyncpg", "ok"),
        drivers={"psycopg": {"psycopg": "3.2"}},
        python="3.11.1",
    )
    new = table(
        cell("psycopg", "ok"),
        cell("psycopg", "ok", recipe="guard"),
        cell("pg8000", "ok"),
        cell("asyncpg", "not-run"),
        drivers={"psycopg": {"psycopg": "3.3"}},
        python="3.11.2",
    )
    assert for_machines.changes(old, new) == [
        "psycopg: 1 cell newly measured",
        "pg8000: 1 cell newly measured",
        "mysqldb: 1 cell not measured any more",
        "asyncpg: 1 cell not measured any more",
        "psycopg: measured with psycopg 3.3, before with psycopg 3.2",
        "measured with Python 3.11.2, before with 3.11.1",
    ]


def test_publishing_the_same_twice_records_one_change(tmp_path: pathlib.Path) -> None:
    """The list begins with a first publication and grows at its top, only by what changed."""
    file = tmp_path / "changes.json"
    first, second = table(cell("psycopg", "ok"), cell("pg8000", "not-run")), table(cell("psycopg", "hang"))
    assert for_machines.record(None, first, file) == ["First published: 1 cell, 1 of them ok, of 1 driver"]
    assert for_machines.record(first, first, file) == []
    for_machines.record(first, second, file)
    entries = json.loads(file.read_text())
    assert [entry["measured"] for entry in entries] == ["2026-01-02", "2026-01-02"]
    assert entries[0]["changes"][0] == "psycopg: crossed with at-fork is hang, was ok"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("Few words.", "Few words."),
        ("A sentence that fits. And one that does not fit at all.", "A sentence that fits."),
        (
            "One endless sentence, without any end that would come in time",
            "One endless sentence, without any…",
        ),
    ],
)
def test_descriptions_end_where_a_sentence_or_a_word_ends(text: str, short: str) -> None:
    """A description is cut after a sentence, else after a word, and is never longer than asked for."""
    assert for_machines.shortened(text, 38) == short


def build(folder: pathlib.Path, moved: dict[str, str], builder: str = "html") -> pathlib.Path:
    """A site of two pages, built with our extension; returns its folder."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    source = folder / "source"
    (source / "new").mkdir(parents=True, exist_ok=True)
    files = {
        "conf.py": CONF.format(extensions=str(ROOT / "doc" / "_ext"), moved=moved),
        "index.rst": "Home\n====\n\nWhat the site is for.\n\n.. toctree::\n\n   new/page\n",
        "new/page.rst": ".. index:: sharing\n\n.. _here:\n\nA page & more\n=============\n\nSee :ref:`here`: it is here.\n",
    }
    for name, text in files.items():
        if not (source / name).exists() or (source / name).read_text() != text:
            (source / name).write_text(text)
    with docutils_namespace():
        app = Sphinx(
            source, source, folder / builder, folder / "doctrees", builder, status=None, warningiserror=True
        )
        app.build()
        assert app.statuscode == 0
    return folder / builder


def test_a_page_that_moved_leads_to_its_new_place(tmp_path: pathlib.Path) -> None:
    """The old address has a page that sends readers on, anchor included, and search engines to the new one."""
    site = build(tmp_path, {"old/name": "new/page"})
    left = (site / "old" / "name.html").read_text()
    assert 'http-equiv="refresh" content="0; url=../new/page.html"' in left
    assert 'location.replace("../new/page.html" + location.hash)' in left
    assert '<link rel="canonical" href="https://example.org/docs/new/page.html">' in left
    assert "old/name" not in (site / "sitemap.xml").read_text()


@pytest.mark.parametrize("moved", [{"index": "new/page"}, {"old": "nowhere"}])
def test_a_move_that_cannot_be_fails_the_build(tmp_path: pathlib.Path, moved: dict[str, str]) -> None:
    """A page that is still there cannot have moved, and none can move to where no page is."""
    with pytest.raises(Exception, match="poolfork_moved"):
        build(tmp_path, moved)


def test_an_incremental_build_keeps_every_page_in_its_lists(tmp_path: pathlib.Path) -> None:
    """Built again after one page changed, sitemap and llms.txt still have all, with titles for labels."""
    build(tmp_path, {})
    page = tmp_path / "source" / "index.rst"
    page.write_text(page.read_text() + "\nMore.\n")
    site = build(tmp_path, {})
    assert (site / "sitemap.xml").read_text().count("<loc>https://example.org/docs/") == 2
    assert (site / "llms.txt").read_text().splitlines() == [
        "# A site", "", "> What the site is for.", "", "## Pages", "",
        "- [A page & more](https://example.org/docs/new/page.html): See A page & more: it is here.",
    ]  # fmt: skip


def test_an_incremental_build_keeps_every_page_in_the_searchs_index(tmp_path: pathlib.Path) -> None:
    """Built again after another page changed, the search still finds a page by its index entries, once each."""
    first = (build(tmp_path, {}) / "searchindex.js").read_text()
    page = tmp_path / "source" / "index.rst"
    page.write_text(page.read_text() + "\nMore.\n")
    again = (build(tmp_path, {}) / "searchindex.js").read_text()
    entries = re.search(r'"indexentries":\{(.*?)\}', first)
    assert entries and '"sharing":[[1,' in entries[0]
    assert entries[0] in again


def test_a_lost_reader_is_led_home(tmp_path: pathlib.Path) -> None:
    """A server shows the page for a wrong address at any depth, so its links are whole addresses."""
    soup = BeautifulSoup((build(tmp_path, {}) / "404.html").read_text(), "html.parser")
    links = [link["href"] for link in soup.select("a[href]")]
    assert "https://example.org/docs/index.html" in links
    assert all(link.startswith("https://example.org/docs/") for link in links)
    assert soup.select_one("meta[name=robots][content=noindex]")


def test_the_feed_is_atom(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of feeds gets one entry for each publication that changed something, with its changes."""
    monkeypatch.setattr(for_machines, "CHANGES", tmp_path / "changes.json")
    for_machines.record(None, table(cell("psycopg", "ok")), tmp_path / "changes.json")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "truth-table.rst").write_text(":orphan:\n\nTable\n=====\n\nWhat was measured.\n")
    feed = ElementTree.parse(build(tmp_path, {}) / for_machines.FEED).getroot()
    atom = f"{{{for_machines.ATOM}}}"
    assert feed.tag == f"{atom}feed" and feed.findtext(f"{atom}updated") == "2026-01-02T00:00:00Z"
    assert [entry.findtext(f"{atom}title") for entry in feed.iter(f"{atom}entry")] == [
        "First published: 1 cell, 1 of them ok, of 1 driver"
    ]
    ids = [node.text for node in feed.iter(f"{atom}id")]
    assert len(set(ids)) == 2 and all(str(text).startswith("https://example.org/docs/") for text in ids)


def test_a_page_of_the_book_is_xml() -> None:
    """Attributes without a value or quotes, tags without an end and forms do not reach a reader of books."""
    page = "<ul><li class=none hidden>a &amp; b<br>c</ul><form><input disabled></form>"
    assert ElementTree.fromstring(f"<div>{for_machines.for_book(page)}</div>").findtext("ul/li") == "a & b"
    assert "form" not in for_machines.for_book(page)


def test_a_link_in_the_book_leads_into_the_book() -> None:
    """Its pages end in .xhtml; other sites' do not."""
    page = '<a href="../truth-table.html#probe-tls">a</a><a href="https://x.org/a.html">b</a><a href="#c.html">c</a>'
    links = [a["href"] for a in BeautifulSoup(for_machines.for_book(page), "html.parser").select("a")]
    assert links == ["../truth-table.xhtml#probe-tls", "https://x.org/a.html", "#c.html"]
