"""The built site in a real browser: quiet, readable on a phone, accessible in light and dark, whole.

Playwright drives the Chromium or Chrome of the machine and downloads no browser; axe-core comes
from the package axe-playwright-python, so that the lock pins both and no network is needed.
"""

from __future__ import annotations

import fcntl
import functools
import http.server
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = pathlib.Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
PHONE, DESK = (320, 375), (768, 1280)
SHOWN = (  # these are kept as pictures in build/screenshots, for people to look at
    *("index.html", "pooling.html", "truth-table.html", "search.html", "gallery/index.html"),
    *("gallery/1_corruption/plot_storm.html", "gallery/1_corruption/plot_wire.html"),
    *("gallery/1_corruption/plot_goodbye.html", "gallery/3_limits/plot_held_connection.html"),
    *("notebooks/reproduce.html",),
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
    """Every page of the site, by its path below it: those of the inventory, none that an older build left."""
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    documents = sorted(line.split(" ")[0] for line in inventory.splitlines() if " std:doc " in line)
    return [f"{name}.html" for name in (*documents, "genindex", "search")]


@pytest.fixture(scope="session")
def address(site: pathlib.Path) -> Iterator[str]:
    """The site served on the loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's Chromium or Chrome, headless, with a profile of its own.

    It must not outlive this module: Playwright keeps an event loop running in this thread, and
    other modules fork and run loops of their own.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        needed = f"no browser: none of {', '.join(BROWSERS)} is on the PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{needed}, and in CI the site has to be seen (Debian: apt-get install chromium)")
        pytest.skip(needed)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=list(FLAGS), headless=True)
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


@pytest.mark.parametrize("widths", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_quiet_fits_and_is_accessible(
    browser: Browser, address: str, pages: list[str], scheme: str, widths: tuple[int, int]
) -> None:
    """No console message, failed or foreign request, sideways scroll or axe violation on any page."""
    axe, problems = Axe(), list[str]()
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    said: list[str] = []
    watch(page, address, said)
    pictures = ROOT / "build" / "screenshots"
    for name in pages:
        page.set_viewport_size({"width": widths[-1], "height": 812})
        page.goto(address + name)
        found = list(said)
        said.clear()
        found += filter(None, [scrolls_sideways(page, width) for width in widths])
        for violation in axe.run(page).response["violations"]:
            places = "; ".join(node["html"][:120] for node in violation["nodes"][:3])
            found.append(f"axe {violation['id']}: {violation['help']} ({len(violation['nodes'])}: {places})")
        if name in SHOWN:
            title = name.removesuffix(".html").replace("/", "_")
            page.screenshot(path=pictures / f"{title}-{widths[-1]}-{scheme}.png", full_page=True)
        problems += [f"{name}: {what}" for what in found]
    context.close()
    assert not problems, "\n".join(problems)


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


def test_keyboard_skips_opens_and_closes(browser: Browser, address: str, pages: list[str]) -> None:
    """Tab reaches the skip link first and every fold later, with a visible focus; Enter opens it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address + next(name for name in pages if "plot_goodbye" in name))
    fold, reached = page.locator("details.fold"), set[str]()
    for _ in range(120):
        page.keyboard.press("Tab")
        tag, text, outline = page.evaluate(
            "[document.activeElement.tagName, document.activeElement.textContent.trim(),"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        reached.add(text)
        if tag == "SUMMARY" and text.startswith("Set-up"):
            break
    assert text.startswith("Set-up") and outline != "none"
    assert "Skip to content" in reached
    page.keyboard.press("Enter")
    assert fold.get_attribute("open") is not None
    page.close()


def test_internal_links_and_anchors_exist(site: pathlib.Path, pages: list[str]) -> None:
    """Every link within the site leads to a file that is there, and to an anchor on it."""
    soups = {name: BeautifulSoup((site / name).read_text(), "html.parser") for name in pages}
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
            assert claim.select(".thumbnail .mark, .thumbnail .bar"), f"{name}: {claim.get_text()[:80]}"
            assert claim.select(".shows .outcome"), f"{name}: {claim.get_text()[:80]}"
        assert not soup.select("article img")
