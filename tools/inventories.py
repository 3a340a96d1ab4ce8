"""The inventories that intersphinx reads: kept as text, small, so that a build needs no network.

`build` is called by conf.py; ``python tools/inventories.py refresh`` (``make inventories``) writes
the text again from what each project publishes. A text file is a Sphinx inventory, version 2,
uncompressed, with only the objects that our pages name.
"""

from __future__ import annotations

import pathlib
import re
import sys
import urllib.request
import zlib
from collections.abc import Iterable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "doc" / "_inventories"
SOURCES = "doc/**/*.rst", "doc/**/*.md", "demos/**/*.rst", "demos/**/*.py", "notebooks/*.ipynb"
GENERATED = ROOT / "doc" / "gallery", ROOT / "doc" / "notebooks"

_HEAD = re.compile(
    r"# Sphinx inventory version 2\n# Project: (?P<project>.*)\n# Version: (?P<version>.*)\n"
    r"# URL: (?P<url>\S+)\n(?P<objects>.*)",
    re.DOTALL,
)
# reStructuredText's :role:`target` and MyST's {role}`target`, the target alone or as "title <target>"
_ROLE = re.compile(r"(?<!`)(?::[\w:+-]+:|\{[\w:+-]+\})`(?:[^`<]*<)?[~!]?([^`<>]+?)(?:\(\))?>?`(?!`)")
_OBJECT = re.compile(r"(?P<name>.+?) \S+:\S+ -?\d+ \S* .*")


class InventoryError(RuntimeError):
    """An inventory that cannot be read or had; the message says which and why."""


def build(text_folder: pathlib.Path, out_folder: pathlib.Path) -> dict[str, tuple[str, pathlib.Path]]:
    """Turn every ``NAME.txt`` into ``NAME.inv``; return ``{NAME: (url, file)}`` for intersphinx.

    A file that is already right is left alone, so that its time does not change.
    Raises `InventoryError` for a text that is no inventory.
    """
    out_folder.mkdir(parents=True, exist_ok=True)
    built = {}
    for text in sorted(text_folder.glob("*.txt")):
        if not (parts := _HEAD.fullmatch(text.read_text(encoding="utf-8"))):
            raise InventoryError(
                f"{text.name} does not begin as an inventory: version, project, version, URL"
            )
        packed = pack(parts["project"], parts["version"], parts["objects"])
        file = out_folder / f"{text.stem}.inv"
        if not file.exists() or file.read_bytes() != packed:
            file.write_bytes(packed)
        built[text.stem] = parts["url"], file
    return built


def pack(project: str, version: str, objects: str) -> bytes:
    """The bytes of an ``objects.inv``: four lines, then the objects, one a line, compressed."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: {version}\n"
    return f"{head}# The remainder of this file is compressed using zlib.\n".encode() + zlib.compress(
        objects.encode(), 9
    )


def unpack(packed: bytes) -> tuple[str, str, list[str]]:
    """Project, version and object lines of an ``objects.inv``; raises `InventoryError`."""
    parts = packed.split(b"\n", 4)
    if len(parts) != 5 or parts[0] != b"# Sphinx inventory version 2":
        raise InventoryError("not a Sphinx inventory of version 2")
    try:
        lines = zlib.decompress(parts[4]).decode().splitlines()
    except zlib.error as error:
        raise InventoryError(f"its compressed part is damaged ({error})") from error
    return parts[1].decode().removeprefix("# Project: "), parts[2].decode().removeprefix("# Version: "), lines


def names_used(texts: Iterable[str]) -> set[str]:
    """Every target of a role in these texts, without ``~`` and ``()``."""
    return {name for text in texts for name in _ROLE.findall(text)}


def wanted(objects: Iterable[str], names: set[str]) -> list[str]:
    """The object lines that define one of these names, sorted. Labels match in lower case, as in Sphinx."""
    known = names | {name.lower() for name in names}
    return sorted(line for line in objects if (parts := _OBJECT.fullmatch(line)) and parts["name"] in known)


def sources(root: pathlib.Path = ROOT) -> Iterator[str]:
    """The text of every page, demo and notebook, without what a build generated."""
    for pattern in SOURCES:
        for path in sorted(root.glob(pattern)):
            if not any(path.is_relative_to(folder) for folder in GENERATED):
                yield path.read_text(encoding="utf-8")


def refresh(folder: pathlib.Path = FOLDER) -> None:
    """Rewrite every text from its project's own inventory; raises `InventoryError`.

    Nothing is written until every project has answered.
    """
    names, fresh = names_used(sources()), {}
    for text in sorted(folder.glob("*.txt")):
        if not (parts := _HEAD.fullmatch(text.read_text(encoding="utf-8"))):
            raise InventoryError(
                f"{text.name} does not begin as an inventory: version, project, version, URL"
            )
        address = parts["url"] + "objects.inv"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                project, version, objects = unpack(answer.read())
        except (OSError, InventoryError) as error:
            raise InventoryError(f"{address} could not be read: {error}") from error
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: {version}\n# URL: {parts['url']}\n"
        fresh[text] = head + "".join(f"{line}\n" for line in wanted(objects, names))
    for text, content in fresh.items():
        text.write_text(content, encoding="utf-8")
        print(f"{text.relative_to(ROOT)}: {content.count(chr(10)) - 4} objects")


def main(arguments: list[str]) -> int:
    """``refresh`` is the only word it knows; exit code 2 and one sentence when it cannot."""
    if arguments != ["refresh"]:
        print("usage: python tools/inventories.py refresh", file=sys.stderr)
        return 2
    try:
        refresh()
    except InventoryError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
