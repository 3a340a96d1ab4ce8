"""The command ``table``: measure everything, write it down."""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import sys
import time

from poolfork.cli import BadInput, progress_bar


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m poolfork table",
        description="Measure every driver installed, on throw-away servers, and write the truth table.",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=pathlib.Path,
        help="where to write the JSON (default: standard output)",
    )
    parser.add_argument("--driver", action="append", metavar="D", help="only this driver (may be repeated)")
    parser.add_argument("--recipe", action="append", metavar="R", help="only this recipe (may be repeated)")
    parser.add_argument("--hazard", action="append", metavar="H", help="only this hazard (may be repeated)")
    parser.add_argument(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="measure every cell N times; the worst outcome counts",
    )
    parser.add_argument(
        "--every-cell",
        action="store_true",
        help="measure also the cells whose outcome follows from another's (left out unless --recipe or --hazard"
        " names what to measure)",
    )
    parser.add_argument("--no-cache", action="store_true", help="measure again what was measured before")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure and write; a summary goes to standard error. Returns the exit code; raises `BadInput`."""
    options = _arguments(arguments)
    from poolfork.drivers import DRIVERS
    from poolfork.hazards import all_hazards
    from poolfork.recipes import RECIPES
    from poolfork.servers import ServerError
    from poolfork.table import table

    for given, known, what in (
        (options.driver, DRIVERS, "driver"),
        (options.recipe, RECIPES, "recipe"),
        (options.hazard, all_hazards(), "hazard"),
    ):
        one_of(given, known, what)
    if options.repeat < 1:
        raise BadInput("--repeat takes a number from 1")
    if options.output and not options.output.absolute().parent.is_dir():
        raise BadInput(f"there is no folder {options.output.absolute().parent} to write to")
    if options.output:
        try:
            was_there = options.output.exists()
            options.output.open("a").close()
            if not was_there:
                options.output.unlink()
        except OSError as error:
            raise BadInput(f"{options.output} cannot be written: {error.strerror}") from None
    start = time.monotonic()
    try:
        measured = table(
            drivers=options.driver,
            recipes=options.recipe,
            hazards=options.hazard,
            repeat=options.repeat,
            every_cell=options.every_cell,
            cache=not options.no_cache,
            progress=progress_bar(sys.stderr),
        )
    except ServerError as error:
        raise BadInput(str(error)) from None
    text = json.dumps(measured, indent=1) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        sys.stdout.write(text)
    counts = collections.Counter(cell["outcome"] for cell in measured["cells"])
    summary = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    print(f"{len(measured['cells'])} cells in {time.monotonic() - start:.0f} s: {summary}", file=sys.stderr)
    if measured["told_elsewhere"]:
        print(
            f"{measured['told_elsewhere']} of those not run follow from another cell, which their detail names;"
            " to measure them: --every-cell",
            file=sys.stderr,
        )
    for missing in measured["not_run"]:
        print(
            f"not run: {missing['driver']}: {missing['reason']}; to run it: {missing['command']}",
            file=sys.stderr,
        )
    return 0


def one_of(given: list[str] | None, known: object, what: str) -> None:
    """Raise `BadInput` unless every given name is known."""
    for name in given or []:
        if name not in known:  # type: ignore[operator]
            raise BadInput(f"there is no {what} {name!r}; there are: {', '.join(known)}")  # type: ignore[arg-type]
