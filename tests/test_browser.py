"""The built site in a real browser: quiet, readable on a phone, accessible in light and dark, whole.

Playwright drives the Chromium or Chrome of the machine and downloads no browser; axe-core comes
from the package axe-playwright-python, so that the lock pins both and no network is needed.
Pages are found in the site's own inventory, so that a new page is looked at like the others.
Code is not shown to axe-core, which would look at each of ten thousand coloured words: its colours
have a test of their own. ``make audit`` shows it everything, and asks Lighthouse too.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import audit  # noqa: E402 - found by the line above

WIDTHS, LOOKED_AT = (320, 375, 768, 1280), (375, 1280)
CODE = {"exclude": [[".highlight pre"]]}
SHOWN = (  # these are kept as pictures in build/screenshots, for people to look at
    *("index.html", "pooling.html", "choose.html", "symptoms.html", "truth-table.html", "guard.html"),
    *("gallery/index.html", "gallery/1_corruption/plot_storm.html", "gallery/1_corruption/plot_wire.html"),
    "notebooks/reproduce.html",
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def is_fresh(index: pathlib.Path) -> bool:
    """Whether no source of the site is younger than its first page."""
    folders = (ROOT / name for name in ("doc", "demos", "notebooks", "tools", "poolfork", "conf.py"))
    files = (file for folder in folders for file in (folder.rglob("*") if folder.is_dir() else [folder]))
    made = (ROOT / "doc" / "gallery", ROOT / "doc" / "notebooks")
    sources = (
        f for f in files if f.is_file() and not any(m in f.parents for m in made) and f.suffix != ".pyc"
    )
    return index.exists() and max(file.stat().st_mtime for file in sources) < index.stat().st_mtime


@pytest.fixture(scope="session")
def site() -> pathlib.Path:
    """build/html, built if it is not there or older than its sources; one process builds at a time."""
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / ".site.lock", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        html = ROOT / "build" / "html"
        if not is_fresh(html / "index.html"):
            made = subprocess.run(
                [sys.executable, "tools/build.py", "html"],
                cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900,
            )  # fmt: skip
            assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
            (html / "index.html").touch()  # Sphinx does not write a page anew that comes out the same
        return html


@pytest.fixture(scope="session")
def pages(site: pathlib.Path) -> list[str]:
    """Every page of the site, by its path below it."""
    return audit.pages_of(site)


@pytest.fixture(scope="session")
def demos(pages: list[str]) -> list[str]:
    """Every demo's page."""
    return [page for page in pages if "/plot_" in page]


@pytest.fixture(scope="module")
def soups(site: pathlib.Path, pages: list[str]) -> dict[str, BeautifulSoup]:
    """Every page, parsed: hundreds of megabytes, which go with this module, since later tests fork."""
    return {page: BeautifulSoup((site / page).read_text(), "html.parser") for page in pages}


@pytest.fixture(scope="session")
def address(site: pathlib.Path) -> Iterator[str]:
    """The site served on the loopback, compressed."""
    with audit.serve(site) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's Chromium or Chrome, headless, with a profile of its own.

    It must not outlive this module: Playwright keeps an event loop running in this thread, and
    other modules fork and run loops of their own.
    """
    found = next(filter(None, map(shutil.which, audit.BROWSERS)), None)
    if found is None:
        needed = f"no browser: none of {', '.join(audit.BROWSERS)} is on the PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{needed}, and in CI the site has to be seen (Debian: apt-get install chromium)")
        pytest.skip(needed)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=list(audit.FLAGS), headless=True)
        yield chromium
        chromium.close()


def watch(page: Page, address: str, said: list[str]) -> None:
    """Note in `said` what a page complains of, what it fails to load, and whom else it asks."""
    page.on(
        "console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None
    )
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    page.on(
        "response",
        lambda answer: said.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None,
    )

    def asks(url: str) -> None:
        if not url.startswith((address, "data:")):
            said.append(f"third party: {url}")

    page.on("request", lambda request: asks(request.url))


def scrolls_sideways(page: Page, width: int) -> str:
    """The widest element if the page is wider than the window, else nothing."""
    page.set_viewport_size({"width": width, "height": 812})
    wider = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return f"scrolls sideways at {width} px" if wider else ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_quiet_light_fits_and_is_accessible(
    browser: Browser, address: str, pages: list[str], scheme: str
) -> None:
    """No console message, failed or foreign request, overweight, sideways scroll or axe violation on any page."""
    axe, problems = Axe(), list[str]()
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    sizes, said = audit.weigh(page), list[str]()
    watch(page, address, said)
    pictures = ROOT / "build" / "screenshots"
    for name in pages:
        sizes.clear()
        page.set_viewport_size({"width": LOOKED_AT[0], "height": 812})
        page.goto(address + name, wait_until="load")
        found = list(said)
        said.clear()
        if sum(sizes) > audit.budget(name):
            found.append(f"weighs {sum(sizes) // 1024} KB, may weigh {audit.budget(name) // 1024}")
        for width in WIDTHS:
            found += filter(None, [scrolls_sideways(page, width)])
            if width in LOOKED_AT:
                found += [f"at {width} px: {what}" for what in audit.axe_findings(axe, page, CODE)]
                if name in SHOWN:
                    title = name.removesuffix(".html").replace("/", "_")
                    page.screenshot(path=pictures / f"{title}-{width}-{scheme}.png", full_page=True)
        problems += [f"{name}: {what}" for what in found]
    context.close()
    assert not problems, "\n".join(problems)


COLOURS = """(classes) => {
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colour) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data] };
  const behind = (node) => { for (; node; node = node.parentElement) {
    const colour = rgb(getComputedStyle(node).backgroundColor); if (colour[3] == 255) return colour } return [255, 255, 255] };
  return classes.map(([outer, inner, property]) => {
    const box = document.createElement('div'), part = document.createElement('span');
    box.className = outer; part.className = inner; part.textContent = 'x';
    const pre = box.appendChild(document.createElement('pre')); pre.appendChild(part);
    document.querySelector('article').appendChild(box);
    const seen = [rgb(getComputedStyle(part)[property]), behind(property == 'color' ? part : box)]; box.remove();
    return seen }) }"""


def contrast(one: list[int], other: list[int]) -> float:
    """The contrast ratio of two sRGB colours, by WCAG 2.2."""

    def luminance(colour: list[int]) -> float:
        parts = [c / 255 for c in colour[:3]]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_code_and_pictures_can_be_read_in_every_scheme(
    browser: Browser, address: str, soups: dict[str, BeautifulSoup], scheme: str
) -> None:
    """Each kind of word that code is coloured by has AA's contrast of 4.5, each part of a picture 3."""
    words = sorted(
        {" ".join(span["class"]) for soup in soups.values() for span in soup.select(".highlight span[class]")}
    )
    words.remove("w")  # white space
    assert len(words) > 10
    parts = sorted(
        {
            " ".join(i["class"])
            for soup in soups.values()
            for i in soup.select(".bar i, .lanes .mark[class*=outcome]")
        }
    )
    assert len(parts) > 3
    asked = [("highlight", word, "color") for word in words]
    asked += [
        ("picture", part.replace("mark ", "bar "), "backgroundColor")
        for part in parts
        if part.startswith("outcome")
    ]
    page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(address + "pooling.html")
    page.add_style_tag(content=".picture span { background-color: var(--kind) }")
    seen = page.evaluate(COLOURS, asked)
    page.close()
    pale = [
        f"{inner} in {outer}: {contrast(*colours):.2f}"
        for (outer, inner, property), colours in zip(asked, seen, strict=True)
        if contrast(*colours) < (4.5 if property == "color" else 3)
    ]
    assert not pale, "\n".join(pale)


@pytest.mark.parametrize(
    ("place", "answer"),
    [
        ("index.html", "after_in_child=partial(engine.dispose, close=False)"),
        ("pooling.html", "Using Connection Pools with Multiprocessing"),
        ("pooling.html#pooling-multiprocessing", "close=False"),
    ],
)
def test_a_phone_shows_the_answer_on_the_first_screen(
    browser: Browser, address: str, place: str, answer: str
) -> None:
    """Who arrives with the error in production sees what to do without scrolling."""
    page = browser.new_page(viewport={"width": 375, "height": 812}, reduced_motion="reduce")
    page.goto(address + place)
    seen = page.evaluate(
        """() => { const words = document.createTreeWalker(document.querySelector('article'), NodeFilter.SHOW_TEXT);
        let seen = ''; const range = document.createRange();
        while (words.nextNode()) { range.selectNode(words.currentNode); const box = range.getBoundingClientRect();
        if (box.bottom > 0 && box.bottom <= innerHeight) seen += words.currentNode.data; } return seen }"""
    )
    page.close()
    assert "".join(answer.split()) in "".join(seen.split())


def test_front_page_shows_what_the_storm_brought(browser: Browser, address: str) -> None:
    """The same counts as on the demo's page, and more than right answers only where nothing was done."""
    page = browser.new_page()
    page.goto(address + "gallery/2_fixes/plot_fixes_under_storm.html")
    counted = page.locator(".bars").inner_text()
    page.goto(address + "index.html")
    assert page.locator(".bars").inner_text() == counted
    names = page.locator(".bar-name").all_inner_texts()
    assert names == ["nothing", "dispose(close=False)", "pid-event"]
    page.close()


def test_pages_work_without_javascript(browser: Browser, address: str, pages: list[str]) -> None:
    """Text and pictures are all there, the set-up unfolds and the menu opens, with scripts off."""
    context = browser.new_context(java_script_enabled=False, viewport={"width": 375, "height": 812})
    page = context.new_page()
    page.goto(address + next(name for name in pages if "plot_goodbye" in name))
    assert page.locator("table.lanes").first.is_visible()
    fold = page.locator("details.fold")
    assert not fold.locator("pre").is_visible()
    fold.locator("summary").click()
    assert fold.locator("pre").is_visible()
    page.locator("label.nav-overlay-icon").click()
    page.get_by_role("link", name="Demos", exact=True).first.click()
    assert page.url.endswith("gallery/index.html")
    context.close()


@pytest.mark.parametrize("name", ["index.html", "symptoms.html", "gallery/1_corruption/plot_goodbye.html"])
def test_keyboard_reaches_everything_and_the_focus_is_seen(browser: Browser, address: str, name: str) -> None:
    """Tab goes through the page from the skip link to its end, and each place that it stops at is outlined."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address + name)
    stops, unseen = list[str](), list[str]()
    for _ in range(300):
        page.keyboard.press("Tab")
        tag, text, outline = page.evaluate(
            "[document.activeElement.tagName, document.activeElement.outerHTML.slice(0, 90),"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        if tag == "BODY":
            break
        stops.append(text)
        unseen += [text] * (outline == "none")
    page.close()
    assert "skip-to-content" in stops[0]
    assert tag == "BODY" or len(stops) == 300, "the keyboard is caught"
    assert not unseen, "\n".join(unseen)


def test_keyboard_opens_and_closes_a_fold(browser: Browser, address: str) -> None:
    """Enter on a fold's summary opens it, and closes it again."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address + "gallery/1_corruption/plot_goodbye.html")
    fold = page.locator("details.fold").first
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.get_attribute("open") is not None
    page.keyboard.press("Enter")
    assert fold.get_attribute("open") is None
    page.close()


def test_keyboard_alone_explains_a_pasted_error(browser: Browser, address: str) -> None:
    """Who pastes a line and presses the button by keyboard is told what it means."""
    page = browser.new_page(viewport={"width": 375, "height": 812})
    page.goto(address + "symptoms.html")
    page.locator("#symptom-box textarea").focus()
    page.keyboard.insert_text("psycopg2.OperationalError: SSL error: decryption failed or bad record mac")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent.trim()") == "Explain"
    page.keyboard.press("Enter")
    page.locator("#symptom-box a[href*='#']").first.wait_for(timeout=10_000)
    page.close()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("decryption failed or bad record mac", "symptoms.html"),
        ("register_at_fork", "pooling.html"),
        ("lost synchronization with server", "symptoms.html"),
        ("pool_pre_ping", "pooling.html"),
    ],
)
def test_search_finds_error_texts_and_names_of_the_api(
    browser: Browser, address: str, words: str, expected: str
) -> None:
    """The search, which asks nobody else, has the page that answers among its first three results."""
    page = browser.new_page(viewport={"width": 375, "height": 812})
    said: list[str] = []
    watch(page, address, said)
    page.goto(f"{address}search.html?q={words.replace(' ', '+')}")
    page.locator("ul.search li a").first.wait_for(timeout=20_000)
    page.wait_for_function("!document.querySelector('#search-progress')?.textContent.includes('...')")
    links = page.locator("ul.search > li > a").evaluate_all("links => links.map(link => link.pathname)")
    page.close()
    assert any(link.endswith(expected) for link in links[:3]), links[:8]
    assert not said


def test_copy_button_copies_what_can_be_run(browser: Browser, address: str) -> None:
    """Every block of code has a button; what it copies has neither prompts nor output, and its indentation."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(address + "pooling.html")
    page.locator("button.copybtn").first.wait_for(state="attached")
    assert page.locator("button.copybtn").count() == page.locator("div.highlight pre").count()
    block = page.locator("div.highlight", has_text="def backend(engine):").first
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    context.close()
    compile(copied, "copied", "exec")
    assert "\n    with engine.connect() as connection:\n" in copied


def test_nothing_moves_for_who_asks_for_it(browser: Browser, address: str, demos: list[str]) -> None:
    """With reduced motion asked for, no element has a transition or an animation."""
    page = browser.new_page(reduced_motion="reduce")
    page.goto(address + demos[0])
    moving = page.evaluate(
        """() => [...document.querySelectorAll('*')].filter((node) => { const style = getComputedStyle(node);
        return style.animationName != 'none' || !/^(0s,? ?)+$/.test(style.transitionDuration)
          || style.scrollBehavior == 'smooth' }).map((node) => node.outerHTML.slice(0, 80))"""
    )
    page.close()
    assert not moving


def test_paper_is_white_and_shows_the_page_alone(browser: Browser, address: str, demos: list[str]) -> None:
    """Printed from the dark scheme, a demo is dark on white, without menus, and with its pictures."""
    page = browser.new_page(color_scheme="dark", viewport={"width": 794, "height": 1123})
    page.goto(address + demos[0])
    page.emulate_media(media="print", color_scheme="dark")
    ink, paper = page.evaluate(
        "[getComputedStyle(document.querySelector('article p')).color, getComputedStyle(document.body).backgroundColor]"
    )
    shown = page.locator(".lanes").first.is_visible()
    menus = [what for what in (".sidebar-drawer", ".mobile-header", ".copybtn", ".theme-toggle-content", ".run-it")
             if page.locator(what).first.is_visible()]  # fmt: skip
    wide = scrolls_sideways(page, 794)
    page.close()
    numbers = [[int(float(n)) for n in re.findall(r"[\d.]+", colour)] for colour in (ink, paper)]
    assert contrast(numbers[0], [255, 255, 255]) > 7, ink
    assert paper in {"rgba(0, 0, 0, 0)", "rgb(255, 255, 255)"}
    assert shown and not menus and not wide


def test_link_into_a_long_page_arrives(browser: Browser, address: str) -> None:
    """The truth table is laid out as it comes near; who follows a link into it is at the right place all the same."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    top = "name => Math.round(document.getElementById(name).getBoundingClientRect().top)"
    for name in "driver-aiosqlite", "probe-file-goodbye", "psycopg2-1":
        page.goto("about:blank")
        page.goto(f"{address}truth-table.html#{name}", wait_until="load")
        page.wait_for_timeout(300)
        assert 0 <= page.evaluate(top, name) < 800, name
    page.goto(f"{address}truth-table.html")
    page.click('table.summary a[href="#probe-locked"]')
    page.wait_for_timeout(300)
    assert 0 <= page.evaluate(top, "probe-locked") < 150
    page.close()


def test_internal_links_and_anchors_exist(site: pathlib.Path, soups: dict[str, BeautifulSoup]) -> None:
    """Every link within the site leads to a file that is there, and to an anchor on it."""
    anchors = {name: {tag["id"] for tag in soup.find_all(id=True)} for name, soup in soups.items()}
    dead = []
    for name, soup in soups.items():
        for tag in soup.find_all(["a", "link", "script", "img"]):
            link = tag.get("href") or tag.get("src")
            if not link or urlsplit(link).scheme or link.startswith("//"):
                continue
            target, anchor = urldefrag(urljoin(f"/{name}", link))
            target = unquote(urlsplit(target).path).lstrip("/") or "index.html"
            if not (site / target).is_file():
                dead.append(f"{name}: {link}")
            elif anchor and target in anchors and unquote(anchor) not in anchors[target]:
                dead.append(f"{name}: {link} (no such anchor)")
    assert not dead, "\n".join(dead)


def test_no_placeholder_picture_is_shown(site: pathlib.Path, pages: list[str]) -> None:
    """Every demo in the gallery's index has lanes or bars of its own, and every picture is told in words."""
    for name in (page for page in pages if page.startswith("gallery/") and page.endswith("index.html")):
        soup = BeautifulSoup((site / name).read_text(), "html.parser")
        claims = soup.select("ul.claims > li")
        assert claims, f"{name} lists no demo"
        for claim in claims:
            assert claim.select(".thumbnail .mark, .thumbnail .bar, .thumbnail .ratio"), (
                f"{name}: {claim.get_text()[:80]}"
            )
            assert claim.select(".shows .outcome, .thumbnail .ratio"), f"{name}: {claim.get_text()[:80]}"
        assert not soup.select("article img")


def test_demos_offer_their_downloads_first_and_say_where_they_are_needed(
    soups: dict[str, BeautifulSoup], demos: list[str]
) -> None:
    """A demo's files stand before its code; it leads to the page on what to do, and such a page to it."""
    wrong = []
    for name in demos:
        article = soups[name].article
        head = article.select_one(".run-it")
        files = {pathlib.PurePosixPath(link["href"]).suffix for link in head.select("a.download")}
        if files != {".py", ".ipynb", ".zip"} or head.find_previous("pre") in article.find_all("pre"):
            wrong.append(f"{name}: downloads {files}")
        if not head.select("a[href*='pooling.html#pooling-multiprocessing']"):
            wrong.append(f"{name} does not lead to what to do about it")
        if not article.select(".referring a"):
            wrong.append(f"no page leads to {name}")
    assert not wrong, "\n".join(wrong)


def test_tables_have_captions_and_headers(soups: dict[str, BeautifulSoup]) -> None:
    """A table says what it shows, and which of its cells are headers."""
    bare = [
        f"{name}: {table.get_text(' ', strip=True)[:60]}"
        for name, soup in soups.items()
        for table in soup.select("article table:not(.indextable)")
        if not (table.caption and table.caption.get_text(strip=True) and table.th)
    ]
    assert not bare, "\n".join(bare)


def test_footer_says_versions_and_day_and_pages_lead_on(soups: dict[str, BeautifulSoup]) -> None:
    """Every page says when and with what it was made; every page of a chapter leads to the next and the last."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, soup in soups.items():
        said = " ".join(soup.select_one("footer .executed").get_text().split())
        assert re.search(rf"poolfork {re.escape(version)}, site built on \d{{4}}-\d\d-\d\d", said), name
        assert re.search(r"executed on \d{4}-\d\d-\d\d with SQLAlchemy [\d.]+", said), name
    alone = [name for name, soup in soups.items() if not soup.select(".prev-page, .next-page")]
    assert set(alone) <= {"genindex.html", "search.html"}


def test_machines_find_every_page(
    site: pathlib.Path, pages: list[str], soups: dict[str, BeautifulSoup]
) -> None:
    """Sitemap, canonical addresses, llms.txt and link previews name each page by its one address."""
    documents = [name for name in pages if name not in {"genindex.html", "search.html"}]
    listed = re.findall(r"<loc>(.*?)</loc>", (site / "sitemap.xml").read_text())
    canonical = {name: soups[name].select_one("link[rel=canonical]")["href"] for name in pages}
    assert sorted(listed) == sorted(canonical[name] for name in documents)
    base = canonical["index.html"].removesuffix("index.html")
    assert base.startswith("https://") and f"Sitemap: {base}sitemap.xml" in (site / "robots.txt").read_text()
    told = (site / "llms.txt").read_text()
    assert told.startswith("# Connection pools across fork()\n\n> ")
    said: dict[str, str] = {}
    for name in documents:
        if name != "index.html":
            assert f"]({canonical[name]}): " in told, name
        meta = {
            tag.get("property") or tag.get("name"): tag["content"]
            for tag in soups[name].select("meta[content]")
        }
        assert 40 <= len(meta["description"]) <= 200 and meta["og:title"], (
            f"{name}: {meta.get('description')}"
        )
        assert meta["description"] not in said, f"{name} is described as {said.get(meta['description'])} is"
        said[meta["description"]] = name
        assert meta["og:url"] == canonical[name]
        picture = (site / meta["og:image"].removeprefix(base)).read_bytes()
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
        assert [int.from_bytes(picture[i : i + 4], "big") for i in (16, 20)] == [1200, 630]
        assert soups[name].select_one("link[type='application/atom+xml']")


def test_inventory_offers_our_labels(site: pathlib.Path) -> None:
    """Other projects can link to the sections by name (intersphinx)."""
    import zlib

    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    labels = {line.split(" ")[0] for line in inventory.splitlines() if " std:label " in line}
    assert {"pooling_multiprocessing", "pooling_fix_dispose", "truth_table", "probes", "learn"} <= labels
    assert {"probe-crossed", "hazard-crossed"} <= labels
