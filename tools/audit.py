"""Measure the built site against its budgets: ``audit.py [PART_OF_A_NAME]``; exit code 1 where one is missed.

For every page: what a first visit weighs over the wire with gzip, axe-core's findings in light and dark
at 375 and 1280 px, and Lighthouse's mobile figures, where npm's npx is on the PATH. A page that misses a
figure of Lighthouse is measured twice more, and the median counts, since its timing is an estimate
from a machine that does other things too.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gzip
import http.server
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import psutil

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIGHTHOUSE = "lighthouse@13.5.0"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
KB = 1024
SCORES = {"performance": 98, "accessibility": 100, "best-practices": 100, "seo": 100}
LARGEST_PAINT, LAYOUT_SHIFT = 1800, 0.0  # milliseconds; Lighthouse's unit


class AuditError(RuntimeError):
    """Nothing can be measured; the message is one sentence."""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder as a web server on the internet would: compressed, and without a word."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with the file, in gzip where that is text."""
        file = pathlib.Path(self.translate_path(self.path))
        file = file / "index.html" if file.is_dir() else file
        if not file.is_file():
            self.send_error(404)
            return
        kind, body = self.guess_type(file), file.read_bytes()
        packed = "gzip" in self.headers.get("Accept-Encoding", "") and not kind.startswith("image/png")
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if "text" in kind else kind)
        if packed:
            body = gzip.compress(body, mtime=0)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=31536000")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)


@contextlib.contextmanager
def serve(site: pathlib.Path) -> Iterator[str]:
    """The site on a free port of the loopback; yields its address, which ends with a slash."""
    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def pages_of(site: pathlib.Path) -> list[str]:
    """Every page of the site, by its path below it: those of the inventory, none that an older build left."""
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    documents = sorted(line.split(" ")[0] for line in inventory.splitlines() if " std:doc " in line)
    return [f"{name}.html" for name in (*documents, "genindex", "search")]


def budget(page: str) -> int:
    """How many bytes a first visit to a page may move: the demos have pictures."""
    return (250 if page.startswith("gallery/") else 150) * KB


def weigh(page: Any) -> list[int]:
    """A list to which the sizes of what a page of Playwright loads from now on are added, cache off."""
    sizes: list[int] = []
    tools = page.context.new_cdp_session(page)
    tools.send("Network.enable")
    tools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    tools.on("Network.loadingFinished", lambda event: sizes.append(int(event["encodedDataLength"])))
    return sizes


def axe_findings(axe: Any, page: Any, context: dict[str, Any] | None = None) -> list[str]:
    """What axe-core objects to on a page of Playwright, or in the part that `context` says, one line a kind."""
    return [
        f"axe {found['id']}: {found['help']} ({len(found['nodes'])}: "
        + "; ".join(node["html"][:120] for node in found["nodes"][:3])
        + ")"
        for found in axe.run(page, context=context).response["violations"]
    ]


@dataclasses.dataclass
class Figures:
    """One page's Lighthouse result; scores of 0 to 100, largest paint in milliseconds."""

    scores: dict[str, float]
    largest_paint: float
    layout_shift: float
    failing: list[str]

    def misses(self) -> list[str]:
        """The budgets that these figures miss, each with the figure."""
        missed = [
            f"{name} {self.scores[name]:.0f}" for name, least in SCORES.items() if self.scores[name] < least
        ]
        if self.largest_paint > LARGEST_PAINT:
            missed.append(f"largest paint {self.largest_paint / 1000:.2f} s")
        if self.layout_shift > LAYOUT_SHIFT:
            missed.append(f"layout shift {self.layout_shift:.3f}")
        return missed


def run_to_its_end(command: list[str], environment: dict[str, str], seconds: float) -> str:
    """Run a command and end with it all that it started; returns what went wrong ("" if nothing)."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=seconds)
        return said[-400:].strip() or f"exit code {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        return f"no end after {seconds:g} s"
    finally:
        # Not by their group: Lighthouse gives its browser one of its own.
        with contextlib.suppress(psutil.NoSuchProcess):
            for started in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    started.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def lighthouse(command: list[str], chromium: str, url: str) -> Figures:
    """Run Lighthouse once, mobile, with simulated throttling."""
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder, "report.json")
        failed = run_to_its_end(
            [
                *(*command, url, "--quiet", "--output=json", f"--output-path={output}"),
                *("--form-factor=mobile", "--throttling-method=simulate"),
                f"--only-categories={','.join(SCORES)}",
                f"--chrome-flags=--headless {' '.join(FLAGS)}",
            ],
            os.environ | {"CHROME_PATH": chromium, "TMPDIR": folder},
            240,
        )
        if failed or not output.exists():
            raise AuditError(f"Lighthouse did not run on {url}: {failed}")
        report = json.loads(output.read_text())
    audits = report["audits"]
    weighed = {
        ref["id"]
        for category in report["categories"].values()
        for ref in category["auditRefs"]
        if ref["weight"]
    }
    return Figures(
        {name: 100 * (found["score"] or 0) for name, found in report["categories"].items()},
        audits["largest-contentful-paint"]["numericValue"],
        audits["cumulative-layout-shift"]["numericValue"],
        [name for name, found in audits.items() if name in weighed and found["score"] not in (None, 1)],
    )


def median(runs: list[Figures]) -> Figures:
    """The middle of several runs, figure by figure."""
    return Figures(
        {name: statistics.median(run.scores[name] for run in runs) for name in SCORES},
        statistics.median(run.largest_paint for run in runs),
        statistics.median(run.layout_shift for run in runs),
        runs[-1].failing,
    )


def measured(command: list[str], chromium: str, url: str) -> Figures:
    """Lighthouse's figures for a page: one run that meets every budget, else the median of three."""
    runs = [lighthouse(command, chromium, url)]
    if runs[0].misses():
        runs += [lighthouse(command, chromium, url) for _ in range(2)]
    return median(runs)


def look(
    site: pathlib.Path, address: str, chromium: str, pages: list[str]
) -> dict[str, tuple[int, list[str]]]:
    """Each page's weight in bytes, and what axe-core finds on it."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    axe, found = Axe(), dict[str, tuple[int, list[str]]]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS), headless=True)
        for name in pages:
            page = browser.new_page(viewport={"width": 375, "height": 812})
            sizes = weigh(page)
            page.goto(address + name, wait_until="networkidle")
            weight, problems = sum(sizes), list[str]()
            for scheme in "light", "dark":
                page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                for width in 375, 1280:
                    page.set_viewport_size({"width": width, "height": 812})
                    problems += [f"{scheme}, {width} px: {what}" for what in axe_findings(axe, page)]
            found[name] = weight, problems
            page.close()
        browser.close()
    return found


def audit(site: pathlib.Path, only: str, run_lighthouse: bool) -> int:
    """Measure and print a table; returns how many pages miss a budget."""
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        raise AuditError(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    pages = [page for page in pages_of(site) if only in page]
    if not pages:
        raise AuditError(f"no page has {only!r} in its name")
    npx = shutil.which("npx") if run_lighthouse else None
    if run_lighthouse and npx is None:
        print("Lighthouse is left out: npm's npx is not on the PATH", file=sys.stderr)
    command = [npx, "--yes", LIGHTHOUSE] if npx else []
    wide, missing = max(map(len, pages)), 0
    print(f"{'page':{wide}}    KB  axe  perf  acc  best  seo  paint  shift")
    with serve(site) as address:
        looked = look(site, address, chromium, pages)
        for name in pages:
            weight, problems = looked[name]
            row = f"{name:{wide}} {weight / KB:5.0f} {len(problems):4}"
            missed = [f"{weight / KB:.0f} KB"] * (weight > budget(name)) + problems
            if command:
                figures = measured(command, chromium, address + name)
                perf, acc, best, seo = (f"{figures.scores[kind]:.0f}" for kind in SCORES)
                row += f" {perf:>5} {acc:>4} {best:>5} {seo:>4}"
                row += f" {figures.largest_paint / 1000:5.2f}s {figures.layout_shift:6.3f}"
                if missing_here := figures.misses():
                    missed += [f"{', '.join(missing_here)} (see {', '.join(figures.failing)})"]
            print(row, flush=True)
            for what in missed:
                print(f"    {what}", flush=True)
            missing += bool(missed)
    return missing


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("only", nargs="?", default="", help="measure the pages with this in their name")
    parser.add_argument("--site", type=pathlib.Path, default=ROOT / "build" / "html")
    parser.add_argument("--no-lighthouse", action="store_true", help="only weigh and run axe-core")
    asked = parser.parse_args()
    if not (asked.site / "objects.inv").exists():
        print(f"there is no site in {asked.site}: make html", file=sys.stderr)
        return 2
    try:
        missing = audit(asked.site, asked.only, not asked.no_lighthouse)
    except AuditError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{missing} pages miss a budget." if missing else "\nEvery page meets every budget.")
    return int(bool(missing))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
