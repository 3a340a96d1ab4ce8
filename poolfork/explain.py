"""``python -m poolfork explain < traceback.txt``: which known symptoms of a shared connection are in a text?

The symptoms lie in ``symptoms.toml``; the box on the site reads the same data and does the same, so
a change here is a change in ``doc/_static/symptoms.js`` (a test compares the two).
"""

from __future__ import annotations

import argparse
import functools
import importlib.resources
import json
import pathlib
import re
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from typing import Any, NoReturn

LONGEST = 2_000_000  # characters; of a longer text the end is read
SURE = {3: "hardly anything else prints this", 2: "likely, on a stack that forks", 1: "possible"}
TRACEBACK = re.compile(r'Traceback \(most recent call last\)| File "')
_SPACE = re.compile("[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+")


@dataclass(frozen=True)
class Match:
    """A symptom found in a text: the entry of the data file, and the words that matched."""

    symptom: dict[str, Any]
    matched: str

    def as_json(self) -> dict[str, Any]:
        """The match as ``--json`` prints it."""
        one = self.symptom
        return {
            "id": one["id"], "title": one["title"], "page": page(one["id"]), "sure": one["sure"],
            "matched": self.matched, "drivers": one["drivers"], "hazards": one["hazard"],
            "fix": one["fix"], "sources": one["sources"],
        }  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a text says: ``matches`` ranked; ``others``, texts known to have another cause; forking ``stacks``."""

    matches: list[Match]
    others: list[dict[str, Any]]
    stacks: list[str]


@functools.cache
def symptoms() -> dict[str, Any]:
    """The data file."""
    return tomllib.loads((importlib.resources.files("poolfork") / "symptoms.toml").read_text("utf-8"))


def page(symptom: str) -> str:
    """Where the site explains a symptom."""
    return f"symptoms.html#{symptom}"


def normal(text: str) -> str:
    """The text as patterns expect it: one line of ASCII, its escapes and markup undone.

    Logs wrap a traceback in JSON, repr() or HTML, colour it, and number its lines.
    """
    text = text[-LONGEST:]
    text = re.sub("\x1b\\[[0-9;]*[A-Za-z]", "", text)
    text = re.sub("[\u2018\u2019\u02bc]", "'", text)
    text = re.sub("[\u201c\u201d]", '"', text)
    text = re.sub(r"&quot;|&#34;|&#x22;", '"', text)
    text = re.sub(r"&#39;|&#x27;|&apos;", "'", text)
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    text = re.sub(r"\\+[nrt]", " ", text)
    text = re.sub(r"\\+(?=[\"'])", "", text)
    text = re.sub(r"(^|\n)[ \t]*[>|][>| \t]*", r"\1", text)  # a quotation's margin, or a log viewer's
    text = re.sub("[\u2500-\u257f]+", " ", text)  # the frame that rich draws, and breaks lines for
    text = _SPACE.sub(" ", text)
    text = re.sub(r"[^\x00-\x7f]", "?", text)
    return text.strip(" ")


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.ASCII)


def explain(text: str) -> Answer:
    """Find the known symptoms in a text, surest first, then the one that stands first in it."""
    data, text = symptoms(), normal(text)
    stacks = [stack["name"] for stack in data["stack"] if _pattern(stack["pattern"]).search(text)]
    is_traceback = TRACEBACK.search(text) is not None
    whole, others = text, []
    for other in data["other"]:
        found = False
        for pattern in other["patterns"]:
            text, count = _pattern(pattern).subn("|", text)  # what it explains is explained
            found = found or count > 0
        if found:
            others.append(other)
    ranked: list[tuple[int, int, int, Match]] = []
    for number, symptom in enumerate(data["symptom"]):
        if is_traceback and "needs" in symptom and not _pattern(symptom["needs"]).search(whole):
            continue
        hits = [hit for pattern in symptom["patterns"] if (hit := _pattern(pattern).search(text))]
        if hits:
            first = min(hits, key=lambda hit: hit.start())
            ranked.append((-symptom["sure"], first.start(), number, Match(symptom, first.group()[:200])))
    return Answer([one[3] for one in sorted(ranked, key=lambda one: one[:3])], others, stacks)


# -- what people read ----------------------------------------------------------------------------


def as_text(answer: Answer) -> str:
    """The answer for a terminal."""
    parts: list[str] = []
    for number, match in enumerate(answer.matches):
        one = match.symptom
        parts.append(f"{number + 1}. {one['title']}\n   [{one['id']}; {SURE[one['sure']]}]")
        parts.append(_filled(f"you pasted: {match.matched}"))
        if number == 0:
            fix = symptoms()["fix"][one["fix"]]
            parts.append(_filled(f"on the wire: {one['wire']}"))
            parts.append(_filled(f"what to do: {fix['title']}. {fix['text']}"))
            parts += [_filled(f"not it, if: {cause}") for cause in one["lookalikes"]]
        parts.append(f"   more: {page(one['id'])}\n")
    if not answer.matches:
        parts.append(
            NO_MATCH if not answer.others else "This is not how a shared database connection fails.\n"
        )
    for other in answer.others:
        parts.append(f"Known, with another cause: {other['title']}  [{other['id']}]")
        parts.append(_filled(other["says"]) + "\n")
    if answer.stacks:
        parts.append(f"The text names what forks: {', '.join(answer.stacks)}.\n")
    if answer.matches:
        parts.append(PROOF)
    return "\n".join(parts).rstrip()


PROOF = """\
To prove it while the program runs: python -m poolfork scan
It lists each connection that two processes hold."""
NO_MATCH = """\
No known text of a shared connection is in this input. That does not rule one
out: its worst outcome, another process's row, has no error text, and a hang has
none either. To tell it from other causes:

  - python -m poolfork scan   lists the connections that two processes hold,
    while they run.
  - Run it with one worker process, or with start method spawn: a shared
    connection's errors are gone.
  - Log os.getpid() with the server's session id (SELECT pg_backend_pid(),
    SELECT connection_id()): one session id under two pids is a shared
    connection; two coroutines or threads have one pid.
  - Errors at the same statement every time, or in a single process, have
    another cause.
"""


def _filled(text: str) -> str:
    return textwrap.fill(text, 79, initial_indent="   ", subsequent_indent="     ", break_on_hyphens=False)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 if there is nothing to read."""
    parser = _Parser(
        prog="python -m poolfork explain",
        description="Read a traceback or log from standard input and say which symptoms of a connection that "
        "two processes share are in it, surest first.",
        epilog="Nothing leaves this machine. Exit code: 0, or 2 if there is no text.",
    )
    parser.add_argument("file", nargs="?", type=pathlib.Path, help="read this file, not standard input")
    parser.add_argument(
        "--json", action="store_true", help="print the ranked list as JSON ([] if nothing matches)"
    )
    try:
        options = parser.parse_args(argv)
        if options.file is None and sys.stdin.isatty():
            print("Paste the text, then press Ctrl-D:", file=sys.stderr)
        raw = sys.stdin.buffer.read() if options.file is None else options.file.read_bytes()
        text = raw.decode("utf-8-sig", errors="replace")
        if not text.strip():
            parser.error("there is no text to explain: give it on standard input, or name a file")
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    except OSError as error:
        print(f"{parser.prog}: cannot read {options.file}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    answer = explain(text)
    print(
        json.dumps([match.as_json() for match in answer.matches], indent=2)
        if options.json
        else as_text(answer)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
