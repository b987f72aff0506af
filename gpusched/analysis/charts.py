"""Charts as SVG: they need no script, scale with the page, and their words can be found and copied.

Coordinates are in pixels of the drawing; a chart fills the width that the page gives it. Numbers are rounded to tenths
of a pixel, which keeps a page of thousands of marks small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from gpusched.analysis.markup import text

INK, FAINT, GRID = "#3a424d", "#8a93a0", "#e4e7eb"
#: below one half, and above
BELOW, ABOVE = "#d9822b", "#2f7fc1"
#: pixels for words at the left and below
LEFT, BELOW_AXIS = 34, 22


class Axis(msgspec.Struct, frozen=True):
    """Values from `low` to `high`, drawn from the pixel `start` to the pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within it, at most `most` + 1."""
        span = (self.high - self.low) or 1.0
        step = 10 ** math.floor(math.log10(span / most))
        step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= most)
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 10) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def svg(width: float, height: float, marks: Iterable[str], label: str) -> str:
    """A drawing of that size; `label` says to a screen reader what it shows."""
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{text(label)}">{"".join(marks)}</svg>'


def words(x: float, y: float, shown: str, *, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}" font-size="11">{text(shown)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = GRID, more: str = "") -> str:
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{colour}" {more}/>'


def path(points: Iterable[tuple[float, float]], colour: str, width: float = 1.6) -> str:
    drawn = "L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="M{drawn}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>' if drawn else ""


def dot(x: float, y: float, colour: str, radius: float = 3, title: str = "") -> str:
    tip = f"<title>{text(title)}</title>" if title else ""
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{colour}">{tip}</circle>'


def bar(x: float, y: float, width: float, height: float, colour: str, title: str = "") -> str:
    tip = f"<title>{text(title)}</title>" if title else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{max(0, width):g}" height="{max(0, height):g}" fill="{colour}">{tip}</rect>'
    )


def number(value: float) -> str:
    """A value as a tick shows it: `0.5`."""
    return f"{value:.6g}"


def histogram(
    values: Sequence[float], flat: Sequence[float], marked: tuple[float, str], name: str, *, centre: float | None
) -> str:
    """How many values are in each range, those of `flat` in grey on top.

    `marked` is a value with a line and words of its own; `centre` parts the colours.
    """
    width, height = 560, 220
    low, high = min([*values, *flat]), max([*values, *flat])
    if centre is not None and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    bins = 40 if centre is not None else min(40, max(8, round(math.sqrt(len(values) + len(flat)))))
    step = (high - low) / bins or 1.0

    def counted(numbers: Sequence[float]) -> list[int]:
        counts = [0] * bins
        for value in numbers:
            counts[min(bins - 1, int((value - low) / step))] += 1
        return counts

    counts, grey = counted(values), counted(flat)
    most = max(a + b for a, b in zip(counts, grey, strict=True))
    across, up = Axis(low, low + bins * step, LEFT, width - 8), Axis(0, most, height - BELOW_AXIS, 22)
    marks = [line(LEFT, up(tick), width - 8, up(tick)) for tick in up.ticks(4)]
    marks += [words(LEFT - 4, up(tick) + 4, number(tick), anchor="end", colour=FAINT) for tick in up.ticks(4)]
    for place, (count, above) in enumerate(zip(counts, grey, strict=True)):
        begins, ends = low + place * step, low + (place + 1) * step
        colour = BELOW if centre is not None and (begins + ends) / 2 < centre else ABOVE
        left, wide = across(begins) + 0.5, across(ends) - across(begins) - 1
        tip = f"{count + above} from {begins:.3f} to {ends:.3f}"
        marks += [bar(left, up(count), wide, up(0) - up(count), colour, tip)] if count else []
        marks += [bar(left, up(count + above), wide, up(count) - up(count + above), FAINT, tip)] if above else []
    marks += [words(across(tick), height - 6, number(tick), anchor="middle", colour=FAINT) for tick in across.ticks(8)]
    if centre is not None:
        marks.append(line(across(centre), 18, across(centre), up(0), FAINT, 'stroke-dasharray="2 3"'))
    value, label = marked
    marks.append(line(across(value), 16, across(value), up(0), INK, 'stroke-dasharray="4 3"'))
    marks.append(words(across(value), 12, label, anchor="middle"))
    return svg(width, height, marks, f"histogram of {name}")


def ranges(rows: Sequence[tuple[str, Sequence[float], str]], centre: float | None, name: str) -> str:
    """For each row, its name, (least, quartile, median, quartile, greatest), and words at its end."""
    width, room = 560, 96
    low, high = min(values[0] for _, values, _ in rows), max(values[-1] for _, values, _ in rows)
    if centre is not None:
        low, high = min(low, centre), max(high, centre)
    across, height = Axis(low, high, room, width - 60), 18 * len(rows) + 24
    marks = [line(across(tick), 4, across(tick), height - 18) for tick in across.ticks()]
    marks += [words(across(tick), height - 4, number(tick), anchor="middle", colour=FAINT) for tick in across.ticks()]
    if centre is not None:
        marks.append(line(across(centre), 2, across(centre), height - 18, INK, 'stroke-dasharray="4 3"'))
    for place, (label, (least, lower, middle, upper, greatest), caption) in enumerate(rows):
        y = 18 * place + 12
        colour = BELOW if centre is not None and middle < centre else ABOVE
        marks.append(words(room - 6, y + 4, label if len(label) <= 14 else label[:13] + "…", anchor="end"))
        marks.append(line(across(least), y, across(greatest), y, FAINT))
        marks.append(bar(across(lower), y - 4, across(upper) - across(lower), 8, colour + "55"))
        marks.append(
            dot(across(middle), y, colour, 3.5, f"{label}: median {middle:.4f}, {least:.4f} to {greatest:.4f}")
        )
        marks.append(words(width - 54, y + 4, caption, colour=FAINT))
    return svg(width, height, marks, name)


def course(values: Sequence[tuple[str, float]], low: float, high: float, centre: float | None, name: str) -> str:
    """A small chart of values one after the other, each with its name, on an axis that others share."""
    width, height = 180, 62
    across, up = Axis(0, max(1, len(values) - 1), 6, width - 6), Axis(low, high, height - 6, 18)
    marks = [words(6, 11, name)]
    if centre is not None:
        marks.append(line(6, up(centre), width - 6, up(centre), FAINT, 'stroke-dasharray="3 3"'))
    places = [(across(place), up(value)) for place, (_, value) in enumerate(values)]
    marks.append(path(places, FAINT, 1.2))
    for (label, value), (x, y) in zip(values, places, strict=True):
        colour = BELOW if centre is not None and value < centre else ABOVE
        marks.append(dot(x, y, colour, 2.2, f"{label}: {value:.4f}"))
    return svg(width, height, marks, f"{name} over time")


def square(
    curves: Sequence[tuple[Sequence[tuple[float, float]], str]], marks: Iterable[str], across: str, up: str
) -> str:
    """Curves over the unit square with its diagonal, and more marks in the pixels of `unit`."""
    x, y = unit()
    drawn = [line(x(0), y(tick), x(1), y(tick)) for tick in (0, 0.25, 0.5, 0.75, 1)]
    drawn += [line(x(0), y(0), x(1), y(1), FAINT, 'stroke-dasharray="4 3"')]
    drawn += [words(x(0) - 4, y(tick) + 4, number(tick), anchor="end", colour=FAINT) for tick in (0, 0.5, 1)]
    drawn += [words(x(tick), y(0) + 14, number(tick), anchor="middle", colour=FAINT) for tick in (0, 0.5, 1)]
    drawn += [path([(x(a), y(b)) for a, b in points], colour, 2) for points, colour in curves]
    drawn += [words(x(0.5), y(0) + 28, across, anchor="middle"), words(x(0), y(1) - 8, up)]
    return svg(360, 300, [*drawn, *marks], f"{up} by {across}")


def unit() -> tuple[Axis, Axis]:
    """The axes of `square`."""
    return Axis(0, 1, LEFT, 350), Axis(0, 1, 264, 22)


def shares(rows: Sequence[tuple[str, float, float]], name: str) -> str:
    """For each row, its name, its mean share as a bar and its standard deviation as a line."""
    width, room = 560, 110
    most = max(mean + spread for _, mean, spread in rows)
    across, height = Axis(0, most, room, width - 48), 18 * len(rows) + 24
    marks = [line(across(tick), 4, across(tick), height - 18) for tick in across.ticks()]
    marks += [words(across(tick), height - 4, f"{tick:.0%}", anchor="middle", colour=FAINT) for tick in across.ticks()]
    for place, (label, mean, spread) in enumerate(rows):
        y = 18 * place + 4
        marks.append(words(room - 6, y + 11, label, anchor="end"))
        marks.append(bar(room, y + 2, across(mean) - room, 12, ABOVE, f"{label}: {mean:.1%} ± {spread:.1%}"))
        marks.append(line(across(max(0, mean - spread)), y + 8, across(mean + spread), y + 8, INK))
        marks.append(words(width - 42, y + 11, f"{mean:.1%}", colour=FAINT))
    return svg(width, height, marks, name)
