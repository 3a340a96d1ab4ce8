"""Out of what was told and what was heard on the wires: who did what, row by row.

A wire does not tell who wrote on it. A message that no statement of an actor's explains (a goodbye out of a
driver's destructor, the rollback of a closed connection) is an actor's if only that one was running: the others
waited for it, were stopped, or were gone. Else it stands in the server's lane.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

Event = dict[str, Any]


@dataclasses.dataclass
class Row:
    """One line of a picture, while it is made."""

    who: str
    does: str
    sees: str = ""
    event: Event = dataclasses.field(default_factory=dict)
    wire: str = ""  # the session on whose wire it was said


def skeleton(text: str) -> str:
    """What a statement has in common with its spelling on the wire."""
    return re.sub(r"[^A-Z_]", "", re.sub(r"'[^']*'|\$\d+|:\w+|\bAS \w+|%\(\w+\)s", "", text).upper())


def steps(events: Iterable[Event], wire: Iterable[Event], asked: dict[str, Any]) -> dict[str, Any]:
    """The picture of a recorded cell: ``steps``, what was ``found``, ``runs``."""
    told = sorted(events, key=lambda event: int(event["t"]))
    said = sorted(wire, key=lambda event: int(event["t"]))
    parent: int = told[0]["pid"]
    over = next((event for event in told if event["kind"] == "over"), {"runs": 1})
    if "not_run" in over:
        raise LookupError(f"{asked['spec']['hazard']} with {asked['spec']['recipe']}: {over['not_run']}")
    if asked["spec"]["hazard"] == "locked":
        told = _last_fork(told, parent)
    names = {parent: "parent"}
    for event in told:
        if event["kind"] == "born":
            names.setdefault(event["pid"], f"child {len(names)}")
    if len(names) == 2:
        names = {pid: name.removesuffix(" 1") for pid, name in names.items()}
    scene = Scene(names, parent, _sessions(told, said), bool(asked["port"]))
    _attribute(told, said, names, scene.sessions)
    ready = {
        scene.sessions.get(event["token"]): int(event["t"]) for event in told if event["kind"] == "connects"
    }
    forked = next((int(event["t"]) for event in told if event["kind"] == "forks"), 0)
    for event in sorted([*told, *said], key=lambda event: int(event["t"])):
        if event["kind"] == "over":
            break
        if "pid" in event:
            if "hidden" not in event:
                scene.actor(event)
        elif asked["spec"]["hazard"] != "locked" and event["t"] > ready.get(
            scene.sessions.get(event["session"]), forked
        ):
            scene.wire(event, event["t"] > forked)
    found = [event for event in told if event["kind"] == "found"]
    if not found:
        scene.rows.append(Row("parent", "finds", "ok", {"kind": "found"}))
    return {
        "steps": [
            {
                "who": row.who,
                "does": scene.named(row.does, asked),
                "sees": scene.named(scene.seen(row), asked),
            }
            for row in scene.tidied()
        ],
        "found": [{"outcome": e["outcome"], "detail": scene.named(e["text"], asked)} for e in found],
        "runs": over["runs"],
    }


def _last_fork(told: list[Event], parent: int) -> list[Event]:
    """Of many forks the last, which is the one that fails if any does; of the threads beside it a sum."""
    forks = [int(event["t"]) for event in told if event["kind"] == "forks"]
    asked = sum(
        event["kind"] == "sql" and event["t"] < forks[-1] for event in told if event["thread"] != parent
    )
    beside = (
        f"three threads of it use the pool without a pause ({asked} statement{'s' * (asked != 1)} so far)"
    )
    fork = {"t": forks[-1] - 1, "kind": "does", "pid": parent, "thread": parent, "text": beside}
    for event in told:
        of_parent = (event["pid"], event["thread"]) == (parent, parent)
        if forks[0] <= event["t"] < forks[-1] or (
            not of_parent and (event["pid"] == parent or event["t"] < forks[-1])
        ):
            event["hidden"] = True
    return sorted([*told, fork], key=lambda event: int(event["t"]))


def _sessions(told: list[Event], said: list[Event]) -> dict[Any, str]:
    """A name for each session of an actor's pool, by the wire's number and by the token that its record carries.

    A connection's first event on the wire comes just before its driver returns it to the pool.
    """
    opened = [event for event in said if event["kind"] == "opens"]
    names: dict[Any, str] = {}
    for event in told:
        if event["kind"] == "connects" or (event["kind"] == "referee" and event["text"] == "is there"):
            before = [o for o in opened if o["t"] < event["t"] and o["session"] not in names]
            number = (
                sum(name.startswith("session") for key, name in names.items() if isinstance(key, str)) + 1
            )
            name = f"session {number}" if event["kind"] == "connects" else "the referee's session"
            if event["kind"] == "connects":
                names[event["token"]] = name
            if before:
                names[before[-1]["session"]] = name
    return names


def _attribute(told: list[Event], said: list[Event], names: dict[int, str], sessions: dict[Any, str]) -> None:
    """Give each message of the wire the statement that it is (``of``), else the only actor that was running (``by``)."""
    waiting: dict[int, int] = {}
    stopped: set[int] = set()
    alive: list[int] = []
    open_statements: list[Event] = []
    for event in sorted([*told, *said], key=lambda event: int(event["t"])):
        pid = event.get("pid")
        match event["kind"]:
            case "waits":
                waiting[event["pid"]] = waiting.get(event["pid"], 0) + 1
            case "goes on":
                waiting[event["pid"]] -= 1
            case "stops":
                stopped.add(event["child"])
            case "lets go on":
                stopped.discard(event["child"])
            case "kills" | "gone":
                stopped.add(event["child"])
            case "sql":
                open_statements.append(event)
            case "says":
                for statement in reversed(open_statements):
                    if sessions.get(statement["token"]) != sessions.get(event["session"]):
                        continue
                    if skeleton(statement["text"]) in skeleton(event["text"]) or event["text"].startswith(
                        "encrypted"
                    ):
                        open_statements.remove(statement)
                        statement["on"] = event["session"]
                        event["of"] = statement
                        break
        if pid in names and pid not in alive:
            alive.append(pid)
        if event["kind"] in ("says", "ends"):
            running = [each for each in alive if not waiting.get(each) and each not in stopped]
            if len(running) == 1:
                event["by"] = names[running[0]]


class Scene:
    """The rows of a picture, as events come in."""

    def __init__(self, names: dict[int, str], parent: int, sessions: dict[Any, str], has_wire: bool) -> None:
        self.names, self.parent, self.sessions, self.has_wire = names, parent, sessions, has_wire
        self.rows: list[Row] = []
        self.last: dict[tuple[int, int], Row] = {}
        self.backends: dict[str, str] = {}
        self.openers = {
            sessions[token]: int(token.partition("-")[0]) for token in sessions if isinstance(token, str)
        }
        self.gone: set[int] = set()

    def wire(self, event: Event, forked: bool) -> None:
        """What was said on a wire and no statement explains: a goodbye, a rollback, a cursor's end."""
        name = self.sessions.get(event["session"], "")
        if not name.startswith("session"):
            return
        who = event.get("by", "server")
        if event["kind"] == "says" and "of" not in event:
            word = event["text"].strip(" ;").upper()
            if re.match(_ITS_OWN, word):
                return
            if forked or re.match("ROLLBACK|COMMIT|TERMINATE|QUIT|COPY", word):
                text = word if word in ("ROLLBACK", "COMMIT") else event["text"].strip(" ;")
                text = f"is told {text}" if who == "server" else text
                self.rows.append(Row(who, text, "", event, name))
        elif (
            event["kind"] == "ends"
            and who not in ("server", self.names.get(self.openers[name]))
            and self.openers[name] not in self.gone
            and not any(row.does in ("Terminate", "Quit") and row.wire == name for row in self.rows)
        ):
            self.rows.append(Row(who, "shuts the socket down", "", event, name))
        elif event["kind"] == "is ended" and self.openers.get(name) not in self.gone:
            self.rows.append(Row("server", f"ends {name}", "", event))

    def actor(self, event: Event) -> None:
        """What an actor told; what it read at once, and how it failed, is added to its last row."""
        who = self.names.get(event["pid"])
        if who is None:
            return
        key = event["pid"], event["thread"]
        last = self.last.get(key)
        at_once = bool(self.rows) and last is self.rows[-1]
        text = event.get("text", "")
        thread = " (another thread)" if who == "parent" and event["thread"] != self.parent else ""
        row: Row | None = None
        match event["kind"]:
            case "step":
                row = Row(who, re.sub(r"^the (parent|parent's) ", "", text), "", event)
            case "forks":
                row = Row(who, "forks from C" if event["how"] == "c" else "forks", "", event)
            case "born":
                number = event["sockets"]
                has = (
                    f"has {number} inherited socket{'s' * (number != 1)}"
                    if number
                    else "has no socket of the parent's"
                )
                row = Row(who, "begins", has if self.has_wire else "", event)
            case "connects":
                row = Row(
                    who, f"connects{thread}", self.sessions[event["token"]] if self.has_wire else "", event
                )
            case "sql":
                on = self.sessions.get(event.get("on"), "")
                row = Row(who, text + thread, "", event, on)
                if self.has_wire and not on:
                    row.sees = "reaches no server"
            case "reads" if last is not None and last.event["kind"] == "sql" and not last.event.get("read"):
                self._read(who, event, last, at_once)
                last.event["read"] = True
            case "fails" | "told":
                if last is not None and at_once and last.event["kind"] in ("sql", "does"):
                    last.sees = f"error: {text}" if event["kind"] == "fails" else text
                elif last is None or not last.sees.endswith(text):
                    row = Row(who, "gets an error", text, event)
            case "errs" | "found":
                told = f"{event['outcome']}: {text}"
                mine = [
                    each for each in self.rows if each.who == who and not each.does.startswith("ROLLBACK")
                ]
                before = mine[-1] if mine else None
                failed = before and (before.sees.startswith("error: ") or before.does == "gets an error")
                if before and failed and event["outcome"] != "hang":
                    before.sees = told
                elif not self.rows or plain(text).removeprefix("child: ") not in plain(self.rows[-1].sees):
                    row = Row(who, "finds" if event["kind"] == "found" else "gives up", told, event)
                if event["kind"] == "errs":
                    self.gone.add(event["pid"])
            case "does":
                row = Row(who, text + thread, "", event)
            case "referee" if text != "is there":
                row = Row(who, f"a referee {text}", "", event)
            case "stops":
                row = Row(who, f"stops the {self.names.get(event['child'], 'child')} (SIGSTOP)", "", event)
            case "lets go on":
                row = Row(who, f"lets the {self.names.get(event['child'], 'child')} go on", "", event)
            case "kills" | "gone":
                self.gone.add(event["child"])
            case "leaves":
                row = Row(
                    who, "leaves by os._exit()" if text == "_exit" else "leaves by normal exit", "", event
                )
                self.gone.add(event["pid"])
        if row:
            self.rows.append(row)
            self.last[key] = row

    def _read(self, who: str, event: Event, last: Row, at_once: bool) -> None:
        value = event["value"]
        if re.search(r"pg_backend_pid|CONNECTION_ID", last.does):
            name = self.sessions.get(last.event.get("on"), "")
            if name and str(value) not in self.backends and name not in self.backends.values():
                self.backends[str(value)] = name
            answer = self.backends.get(str(value), str(value))
            last.wire = "" if at_once else last.wire
        elif value in ("", None):
            return
        else:
            answer = repr(value)
        if at_once:
            last.sees += f"answer: {answer}"
        else:
            self.rows.append(Row(who, "reads", f"answer: {answer}", event))
            self.last[event["pid"], event["thread"]] = self.rows[-1]

    def tidied(self) -> list[Row]:
        """Without what explains nothing: a step's name before the step itself, the end of what only read."""
        kept: list[Row] = []
        for number, row in enumerate(self.rows):
            mine = next((each for each in self.rows[number + 1 :] if each.who == row.who), None)
            if (
                row.event["kind"] == "step"
                and mine is not None
                and mine.event["kind"] not in ("step", "found")
            ):
                continue
            if re.match("ROLLBACK|COMMIT", row.does) and not self._matters(row, kept):
                continue
            before = kept[-1] if kept else row
            if before is not row and (
                before.who,
                before.does.partition(" (×")[0],
                before.sees,
                before.wire,
            ) == (row.who, row.does, row.sees, row.wire):
                times = int(before.does.rpartition("× ")[2].rstrip(")")) if "(×" in before.does else 1
                before.does = f"{row.does} (× {times + 1})"
                continue
            kept.append(row)
        return kept

    def _matters(self, row: Row, before: list[Row]) -> bool:
        """Whether a COMMIT or ROLLBACK ends something that was written, or should have been one."""
        if row.sees == "reaches no server":
            token = str(row.event.get("token", ""))
            return bool(token) and not token.startswith(f"{row.event['pid']}-")
        if row.sees or not row.wire:
            return True
        of_whom = "who" if row.does.startswith("COMMIT") else "wire"
        for each in reversed(before):
            if getattr(each, of_whom) == getattr(row, of_whom):
                if re.match("ROLLBACK|COMMIT", each.does):
                    return False
                if _WRITES.match(each.does):
                    return True
        return False

    def seen(self, row: Row) -> str:
        """What the third column says: on which wire, if that is not the actor's own, and what came of it."""
        if not row.wire:
            return row.sees
        whose = self.names.get(self.openers.get(row.wire, 0), "")
        where = f"on {row.wire}" if whose == row.who or not whose else f"on {row.wire}, the {whose}'s"
        return f"{where}; {row.sees}" if row.sees else where

    def named(self, text: str, asked: dict[str, Any]) -> str:
        """Names for what differs from run to run."""
        spec = asked["spec"]
        text = plain(text).replace(spec["table"], "t")
        for number, name in self.backends.items():
            text = re.sub(rf"(?:session )?\b{re.escape(number)}\b", name, text)
        text = text.replace(str(1_000_000 + spec["key"]), "1").replace(str(2_000_000 + spec["key"]), "2")
        text = " ".join(re.sub(r"\bc_[0-9a-f]{8,}_\d+", "c", text).split()).rstrip(":")
        if len(text) > 130 and re.match("WITH|SELECT", text):
            text = f"{text[:60].rstrip()} ... {text[-30:].lstrip()}"
        return re.sub(r"\b\d{9,}\b", "n", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", text))


def plain(text: str) -> str:
    """An error without SQLAlchemy's link and libpq's guess, and with the driver's own class only."""
    text = re.sub(
        r" ?\(Background on this error at: \S+\)| ?This probably means the server .*?request\.", "", text
    )
    return re.sub(r"\w+: \(([\w.]+)\) ", r"\1: ", text).strip()


_ITS_OWN = r"$|BEGIN|START TRANSACTION|SET NAMES|SET AUTOCOMMIT|ENCRYPTED|(SAVEPOINT|RELEASE) .?_PG3|SELECT\s+TYPNAME"
"""What a driver says by itself, around statements and while it connects."""
_WRITES = re.compile(
    r"INSERT|UPDATE|DELETE|CREATE|SELECT pg_advisory|.*FOR UPDATE|PREPARE|SET|LISTEN|COPY|DECLARE", re.I
)
