"""`python -m poolfork explain`: reported and measured texts, wrapped and varied, and unrelated ones."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from collected_texts import COLLECTED, COLLECTED_OTHERS, COLLECTED_UNRELATED
from hypothesis import given, settings
from hypothesis import strategies as st
from symptom_texts import (
    FURTHER,
    MEASURED,
    REPORTED,
    TRANSLATED,
    UNRELATED_LINES,
    WRAPPINGS,
    unrelated,
    varied,
)  # fmt: skip

from poolfork.explain import explain, normal, symptoms
from poolfork.hazards import all_hazards
from poolfork.reproduce import shape

ROOT = pathlib.Path(__file__).parent.parent
KNOWN = [(text, entry) for text, entry, _ in REPORTED] + MEASURED
PRODUCED = [
    (one["text"], entry)
    for entry, several in json.loads((ROOT / "doc/measured/symptoms.json").read_text())["symptoms"].items()
    for one in several
]
# what is vague in itself has to name a forking stack, where it stands in a traceback
VAGUE = {one["id"] for one in symptoms()["symptom"] if "ForkPoolWorker" in one.get("needs", "")}
NAMES = ["orders", "user", "t", "billing_2", "Ärzte", "a" * 40]


def first(text):
    """The id that is ranked first, or None."""
    matches = explain(text).matches
    return matches[0].symptom["id"] if matches else None


@pytest.mark.parametrize(("text", "entry"), KNOWN + TRANSLATED + PRODUCED + FURTHER)
def test_known_text_finds_its_entry_first(text, entry):
    """Every reported, every translated and every produced text, as it stands."""
    assert first(text) == entry


@pytest.mark.parametrize(("text", "entry", "url"), COLLECTED)
def test_text_as_it_was_pasted_finds_its_entry_first(text, entry, url):
    """With what its log, its forum or its author's mail program added."""
    assert first(text) == entry, url


@pytest.mark.parametrize(("text", "other", "url"), COLLECTED_OTHERS)
def test_text_with_another_cause_as_it_was_pasted_is_told_as_such(text, other, url):
    """Sharing inside of one process, mostly, which needs no fork."""
    answer = explain(text)
    assert answer.matches == [] and other in [one["id"] for one in answer.others], url


@pytest.mark.parametrize("symptom", symptoms()["symptom"], ids=lambda symptom: symptom["id"])
def test_entry_matches_its_own_texts_and_is_complete(symptom):
    """What the page shows is what the patterns find; a text is reported by somebody, or produced here."""
    shapes = {shape(text) for text, entry in PRODUCED if entry == symptom["id"]}
    for one in symptom["texts"]:
        assert symptom["id"] in {match.symptom["id"] for match in explain(one["text"]).matches}, one
        assert "url" in one or any(shape(one["text"]) in seen for seen in shapes), one
        assert one.get("url", "https://").startswith("http")
    for field in "title", "drivers", "wire", "hazard", "lookalikes", "sources":
        assert symptom[field], field
    assert symptom["demo"] or shapes
    for demo in symptom["demo"]:
        section, name = demo.split("/")
        assert (ROOT / "demos" / section / f"plot_{name}.py").exists(), demo
    assert set(symptom["hazard"]) <= set(all_hazards())
    assert symptom["fix"] in symptoms()["fix"] and symptom["sure"] in (1, 2, 3)
    assert all(source.startswith("http") for source in symptom["sources"])


def test_thirty_different_texts_were_produced():
    """Of those that the page shows, on at least ten drivers, with and without TLS."""
    data = json.loads((ROOT / "doc/measured/symptoms.json").read_text())
    seen = [one for several in data["symptoms"].values() for one in several]
    assert len({shape(one["text"]) for one in seen}) >= 30
    assert len({one["driver"] for one in seen}) >= 10 and {one["tls"] for one in seen} == {True, False}
    assert all(one["found"] == [entry] for entry, several in data["symptoms"].items() for one in several)


def test_ids_are_unique_and_fit_for_a_link():
    """The page's anchors are the ids."""
    ids = [one["id"] for one in symptoms()["symptom"] + symptoms()["other"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-z][a-z0-9-]+", one) for one in ids)


def mutated():
    """Every known text that tells on its own, in every wrapping, with other numbers and names."""
    telling = [(text, entry) for text, entry in KNOWN + TRANSLATED + PRODUCED if entry not in VAGUE]
    for at, (text, entry) in enumerate(telling):
        for turn, wrapping in enumerate(WRAPPINGS):
            number, name = 7919 * (at + 1) + 104729 * turn, NAMES[(at + turn) % len(NAMES)]
            yield wrapping(varied(text, number, name), entry, number, name), entry


def test_of_mutated_texts_at_least_95_in_100_find_their_entry_first():
    """Other numbers, names and wrappings; tells which do not."""
    cases = list(mutated())
    missed = [(entry, first(text), text) for text, entry in cases if first(text) != entry]
    assert len(missed) <= 0.05 * len(cases), "\n\n".join(map(str, missed[:5]))


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(KNOWN), st.sampled_from(WRAPPINGS), st.integers(0, 2**31), st.sampled_from(NAMES),
    st.text(max_size=80), st.text(max_size=80),
)  # fmt: skip
def test_known_text_is_found_in_any_wrapping_with_anything_around_it(
    known, wrapping, number, name, before, after
):
    """Among other lines, whatever they hold (property)."""
    text, entry = known
    wrapped = f"{before}\n{wrapping(varied(text, number, name), entry, number, name)}\n{after}"
    assert entry in {match.symptom["id"] for match in explain(wrapped).matches}


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=400))
def test_any_text_is_explained_without_an_error_and_normal_is_stable(text):
    """Nonsense matches nothing by accident, and normalising twice changes no more white space (property)."""
    assert explain(text).matches == []
    assert "\n" not in normal(text) and "  " not in normal(text)


@pytest.mark.parametrize("text", unrelated(), ids=lambda text: text.strip().splitlines()[-1][:60])
def test_unrelated_traceback_matches_nothing(text):
    """More than a hundred tracebacks with another cause."""
    assert len(unrelated()) >= 100
    assert [match.symptom["id"] for match in explain(text).matches] == []


@pytest.mark.parametrize("text", UNRELATED_LINES + COLLECTED_UNRELATED)
def test_unrelated_line_matches_nothing(text):
    """Words that a driver's error shares with other programs."""
    assert [match.symptom["id"] for match in explain(text).matches] == []


def test_texts_with_another_cause_are_told_as_such():
    """A look-alike gets an answer too, but no match."""
    answer = explain("InterfaceError: cannot perform operation: another operation is in progress")
    assert answer.matches == [] and [other["id"] for other in answer.others] == ["asyncpg-concurrent-use"]
    restart = (
        "psycopg2.errors.AdminShutdown: terminating connection due to administrator command\n"
        "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally"
    )
    answer = explain(restart)
    assert answer.matches == [] and [other["id"] for other in answer.others] == ["server-ended-it"]


def test_several_errors_are_ranked_by_how_sure_they_are_then_by_place():
    """A log with three symptoms, the vaguest first."""
    log = (
        "server closed the connection unexpectedly\n"
        "ResourceClosedError: This result object does not return rows. It has been closed automatically.\n"
        "psycopg2.DatabaseError: error with status PGRES_TUPLES_OK and no message from the libpq\n"
    )
    assert [match.symptom["id"] for match in explain(log).matches] == [
        "libpq-no-message", "result-closed", "pg-server-closed",
    ]  # fmt: skip


def test_forking_stack_in_the_text_is_named():
    """Celery's log prefix."""
    assert explain("[2026-01-01 ERROR/ForkPoolWorker-3] SSL SYSCALL error: EOF detected").stacks == [
        "Celery's prefork pool"
    ]


def run(*arguments, text=b""):
    """Run the command as a program of its own."""
    return subprocess.run(
        [sys.executable, "-m", "poolfork", "explain", *arguments],
        cwd=ROOT, input=text, capture_output=True, timeout=60,
    )  # fmt: skip


def test_command_prints_a_ranked_list_as_json():
    """id, title and page of each match."""
    done = run("--json", text=b"OperationalError: SSL error: decryption failed or bad record mac")
    (match,) = json.loads(done.stdout)
    assert done.returncode == 0
    assert match["id"] == "tls-bad-record-mac" and match["title"]
    assert match["page"] == "symptoms.html#tls-bad-record-mac"


def test_command_says_honestly_that_nothing_matches(tmp_path):
    """And how to tell a shared connection from other causes; bytes that are no text do not hurt."""
    done = run(text=b"\xff\xfe KeyError: 'x'")
    assert done.returncode == 0 and done.stdout.startswith(b"No known text of a shared connection")
    assert b"poolfork scan" in done.stdout
    (tmp_path / "log").write_text("KeyError")
    assert json.loads(run("--json", str(tmp_path / "log")).stdout) == []


@pytest.mark.parametrize("arguments", [[], ["/nonexistent/log"], ["--nonsense"], ["."]])
def test_bad_input_gets_one_sentence_and_2(arguments):
    """Nothing to read, no such file, no such option, a folder."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"python -m poolfork explain: ") and done.stderr.count(b"\n") == 1


def test_two_megabytes_take_less_than_five_seconds():
    """A long log; no pattern runs away."""
    log = "\n".join(text for text, _ in mutated())
    answer = explain((log * (2_000_000 // len(log) + 1))[-2_000_000:])
    assert answer.matches


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here")
def test_box_on_the_page_ranks_as_the_terminal_does(tmp_path):
    """The same data, the same texts, JavaScript against Python."""
    texts = [text for text, _ in [*mutated(), *FURTHER]] + unrelated() + UNRELATED_LINES
    texts += [text for text, *_ in COLLECTED + COLLECTED_OTHERS] + COLLECTED_UNRELATED
    texts += [
        "\u2028\x85\u3000x\ud83d\ude00'\\\\n\\\\\"",
        "This result object does\u00a0not return rows. It has been closed automatically",
    ]
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16") for text in texts]
    (tmp_path / "in.json").write_text(json.dumps({"texts": texts, "data": symptoms()}))
    script = (
        "const {explain, normal} = require(process.argv[1]);"
        "const given = JSON.parse(require('fs').readFileSync(process.argv[2], 'utf8'));"
        "console.log(JSON.stringify(given.texts.map((text) => { const a = explain(text, given.data); return ["
        "a.matches.map((m) => [m.symptom.id, m.matched]), a.others.map((o) => o.id), a.stacks, normal(text)]; })))"
    )
    done = subprocess.run(
        ["node", "-e", script, str(ROOT / "doc" / "_static" / "symptoms.js"), str(tmp_path / "in.json")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    for text, box in zip(texts, json.loads(done.stdout), strict=True):
        answer = explain(text)
        matches = [[match.symptom["id"], match.matched] for match in answer.matches]
        assert box == [matches, [other["id"] for other in answer.others], answer.stacks, normal(text)], text
