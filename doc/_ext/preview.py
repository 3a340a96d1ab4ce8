"""The picture that a link to a page shows elsewhere (Open Graph): its title, and what its demo measured.

Drawn with Pillow, which Sphinx-Gallery brings, and the font in it; the words, symbols and colours are the
site's own (`pictures`, poolfork.css).
"""

from __future__ import annotations

import functools
import math
import pathlib

from pictures import Bar, Ratio, Step, bar, figure, lanes_of, ratio, step
from PIL import Image, ImageDraw, ImageFont

SIZE = (1200, 630)
EDGE, TEXT = 72, "#16181d"
PALE, RAIL, PAPER = "#5b6068", "#a9afb8", "#ffffff"
_GREEN, _PURPLE, _RED, _AMBER, _GREY = "#0b5a26", "#81138a", "#951e24", "#774800", "#5b6068"
COLOURS = {
    "right": _GREEN, "ok": _GREEN, "wrong-row": _PURPLE, "write-lost": _PURPLE, "error": _RED,
    "parent-lost": _RED, "hang": _AMBER, "starved": _AMBER, "not-run": _GREY,
    "parent": "#2150b8", "server": _GREY, "child": "#006666",
}  # fmt: skip
SYMBOLS: dict[str, list[list[tuple[float, float]]]] = {  # lines on a grid of 16, as poolfork.css has them
    "ok": [[(2.5, 8.5), (6.5, 12.5), (13.5, 4)]],
    "wrong-row": [
        [(1.5, 4), (4, 4), (11, 12), (14.5, 12), (12.3, 9.8)],
        [(1.5, 12), (4, 12), (11, 4), (14.5, 4), (12.3, 6.2)],
    ],
    "write-lost": [[(2, 3), (14, 3), (14, 13), (2, 13), (2, 3)], [(5, 8), (11, 8)]],
    "error": [[(3.5, 3.5), (12.5, 12.5)], [(12.5, 3.5), (3.5, 12.5)]],
    "parent-lost": [[(3, 3), (13, 13)], [(8, 2), (14, 8), (8, 14), (2, 8), (8, 2)]],
    "hang": [[(3, 1.5), (13, 1.5), (3, 14.5), (13, 14.5), (3, 1.5)]],
    "starved": [[(1.5, 7), (14.5, 7), (11, 13), (5, 13), (1.5, 7)]],
    "not-run": [[(3.5, 8), (12.5, 8)]],
}
SYMBOLS["right"] = SYMBOLS["ok"]


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font."""
    return ImageFont.load_default(size)


@functools.cache
def mark(kind: str, size: int, disc: bool) -> Image.Image:
    """An outcome's symbol, white on a disc of its colour or in that colour; an actor is a small disc."""
    big = 4 * size
    tile = Image.new("RGBA", (big, big), COLOURS[kind] + "00")
    pen = ImageDraw.Draw(tile)
    if disc:
        inset = 0 if kind in SYMBOLS else big // 4
        pen.ellipse((inset, inset, big - inset, big - inset), fill=COLOURS[kind])
    scale = big / 16 * (0.62 if disc else 1)
    start = (big - 16 * scale) / 2
    for line in SYMBOLS.get(kind, []):
        points = [(start + x * scale, start + y * scale) for x, y in line]
        pen.line(points, fill=PAPER if disc else COLOURS[kind], width=round(2.2 * scale), joint="curve")
    return tile.resize((size, size), Image.Resampling.LANCZOS)


def wrapped(pen: ImageDraw.ImageDraw, text: str, size: int, width: int) -> list[str]:
    """A text in lines that are no wider than `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font(size)) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def draw_lanes(image: Image.Image, steps: list[Step], box: tuple[int, int, int, int]) -> None:
    """The transcript as lanes, time running from left to right; at most as many steps as fit."""
    left, top, right, bottom = box
    pen, lanes = ImageDraw.Draw(image), lanes_of(steps)
    rows = {lane: top + (2 * i + 1) * (bottom - top) // (2 * len(lanes)) for i, lane in enumerate(lanes)}
    begin = left + 130
    for lane, y in rows.items():
        pen.text((left, y), lane, COLOURS[lane.split()[0]], font(28), anchor="lm")
        pen.line((begin, y, right, y), COLOURS[lane.split()[0]], 3)
    shown = steps[: (right - begin) // 44]
    for i, one in enumerate(shown):
        x = begin + (2 * i + 1) * (right - begin) // (2 * len(shown))
        if one.way and one.way[1] in rows:
            start, end = rows[one.way[0]], rows[one.way[1]]
            tip = 1 if end > start else -1
            pen.line((x, start, x, end), TEXT, 3)
            pen.polygon([(x, end), (x - 8, end - 14 * tip), (x + 8, end - 14 * tip)], TEXT)
        tile = mark(one.outcome or one.who.split()[0], 40, True)
        image.paste(tile, (x - 20, rows[one.who] - 20), tile)


def draw_bars(image: Image.Image, bars: list[Bar], box: tuple[int, int, int, int]) -> None:
    """The counts as stacked bars on one scale, each with its name."""
    left, top, right, bottom = box
    pen, longest = ImageDraw.Draw(image), max(one.total for one in bars) or 1
    shown = bars[:4]
    height = min(90, (bottom - top) // len(shown))
    for i, one in enumerate(shown):
        y, x = top + i * height, float(left)
        pen.text((left, y), one.name, PALE, font(26))
        for word, count in one.cells:
            wide = (right - left) * count / longest
            if count:
                pen.rectangle((x, y + 34, x + max(wide - 3, 2), y + height - 12), COLOURS.get(word, PALE))
            x += wide


def draw_ratios(image: Image.Image, ratios: list[Ratio], box: tuple[int, int, int, int]) -> None:
    """The ratios as bars on a logarithmic scale, each with its name and figure."""
    left, top, right, bottom = box
    pen, shown = ImageDraw.Draw(image), ratios[:6]
    begin, end, height = left + 400, right - 200, min(64, (bottom - top) // len(shown))
    longest = max(math.log(max(one.middle, 1.2)) for one in shown)
    for i, one in enumerate(shown):
        y = top + i * height + height // 2
        pen.text((left, y), one.name, PALE, font(28), anchor="lm")
        wide = (end - begin) * max(math.log(max(one.middle, 1)) / longest, 0.006)
        pen.rectangle((begin, y - height // 4, begin + wide, y + height // 4), COLOURS["parent"])
        pen.text((begin + wide + 16, y), f"{figure(one.middle)} times", TEXT, font(28), anchor="lm")


def draw(file: pathlib.Path, title: str, about: str, site: str, printed: str = "") -> None:
    """Write a picture of 1200 x 630 pixels (PNG): `printed` is text with the lines that a demo told."""
    image = Image.new("RGB", SIZE, PAPER)
    pen, width = ImageDraw.Draw(image), SIZE[0] - 2 * EDGE
    pen.rectangle((0, 0, 14, SIZE[1]), "#2150b8")
    size = next((s for s in (68, 58, 50) if len(wrapped(pen, title, s, width)) <= 2), 44)
    y = EDGE - 8
    for line in wrapped(pen, title, size, width)[:3]:
        pen.text((EDGE, y), line, TEXT, font(size), stroke_width=1, stroke_fill=TEXT)
        y += round(size * 1.25)
    y += 14
    lines = [line.strip() for line in printed.splitlines()]
    steps, bars = [s for s in map(step, lines) if s], [b for b in map(bar, lines) if b]
    ratios, foot = [r for r in map(ratio, lines) if r], SIZE[1] - EDGE - 20
    if ratios:
        draw_ratios(image, ratios, (EDGE, y, SIZE[0] - EDGE, foot - 10))
    elif bars or steps:
        words = dict.fromkeys(s.outcome for s in steps if s.outcome)
        words |= dict.fromkeys(word for b in bars for word, count in b.cells if count and word in SYMBOLS)
        box = (EDGE, y, SIZE[0] - EDGE, foot - 60)
        draw_bars(image, bars, box) if bars else draw_lanes(image, steps, box)
        x = EDGE
        for word in words:
            tile = mark(word, 28, False)
            image.paste(tile, (x, foot - 42), tile)
            pen.text((x + 38, foot - 28), word, COLOURS[word], font(30), anchor="lm")
            x += 80 + round(pen.textlength(word, font(30)))
    else:
        for line in wrapped(pen, about, 34, width)[: (foot - y) // 48]:
            pen.text((EDGE, y), line, PALE, font(34))
            y += 48
    pen.text((EDGE, foot + 34), site, PALE, font(30), anchor="lm")
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
