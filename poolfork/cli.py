"""The command line. A command is a module with a `main(arguments)`, imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import TextIO

COMMANDS = {
    "check": ("poolfork.check", "measure your driver, against your server, with every recipe"),
    "table": (
        "poolfork.write_table",
        "measure every driver installed, on throw-away servers, and write the truth table",
    ),
    "scan": ("poolfork.scan", "find database connections that several running processes share"),
    "explain": ("poolfork.explain", "say what an error text means"),
}


class BadInput(Exception):
    """Something the user gave cannot be used; the message is one sentence for them."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code (2 for bad input, said in one sentence on standard error)."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] not in COMMANDS:
        return _usage(words)
    name = words[0]
    try:
        code: int = importlib.import_module(COMMANDS[name][0]).main(words[1:])
    except BadInput as error:
        print(f"python -m poolfork {name}: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"python -m poolfork {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\npython -m poolfork {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141  # as a shell says of who was ended by SIGPIPE: nobody heard the answer
    return code


def _usage(words: list[str]) -> int:
    there = {name: text for name, (module, text) in COMMANDS.items() if importlib.util.find_spec(module)}
    lines = ["usage: python -m poolfork COMMAND ...  (COMMAND --help says more)", ""]
    lines += [f"  {name:8} {text}" for name, text in there.items()]
    asked = words and words[0] in ("-h", "--help")
    if words and not asked:
        lines = [f"poolfork: there is no command {words[0]!r}; there are {', '.join(there)}"]
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def progress_bar(stream: TextIO) -> Callable[[int, int, int], None]:
    """A function that draws how far we are, on a terminal; elsewhere it says nothing."""

    def draw(done: int, total: int, bad: int) -> None:
        filled = 30 * done // max(total, 1)
        end = "\r\033[K" if done == total else ""
        stream.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{total} cells, {bad} not ok {end}")
        stream.flush()

    return draw if stream.isatty() else lambda done, total, bad: None
