"""Values over time in few cells: graphs of dots several lines high, and sparklines, in the colours of their load."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from gpusched.client.drawing.line import Line
from gpusched.core.samples import RECENT_S, Sample

#: shares from which a load is yellow, and red
WARM, HOT = 0.6, 0.85
#: °C likewise
WARM_C, HOT_C = 70.0, 83.0

#: dots of a cell of Braille that is filled from below, by height: those of its left and of its right column
_LEFT, _RIGHT = (0, 0x40, 0x44, 0x46, 0x47), (0, 0x80, 0xA0, 0xB0, 0xB8)
_BRAILLE = 0x2800
#: cells of ASCII by height
_PLAIN = " .:|#"
#: heights that a cell can have
_DOTS = 4
_SPARKS, _PLAIN_SPARKS = "▁▂▃▄▅▆▇█", "_.-=+*#@"

#: the part of a sample that a graph shows, 0..1; None where it was not reported
Share = Callable[[Sample], float | None]


def load_style(share: float) -> str:
    """The colour of a load of 0..1."""
    return "red" if share >= HOT else "yellow" if share >= WARM else "green"


def heat_style(celsius: float) -> str:
    """The colour of a temperature."""
    return "red" if celsius >= HOT_C else "yellow" if celsius >= WARM_C else "green"


def use_of(sample: Sample) -> float | None:
    return sample.utilisation


def memory_of(sample: Sample) -> float | None:
    used, total = sample.memory_used_bytes, sample.memory_total_bytes
    return used / total if used is not None and total else None


def by_time(samples: Iterable[Sample], share: Share, columns: int, each: int = 1) -> list[float | None]:
    """The last `columns` values up to the latest sample, each the highest of `each` samples of `RECENT_S` seconds.

    None where there is no reading.
    """
    samples = list(samples)[-columns * each :]
    values: list[float | None] = [None] * columns
    if samples:
        width = each * RECENT_S
        latest = samples[-1].at // width
        for sample in samples:
            place = columns - 1 - int(latest - sample.at // width)
            value = share(sample)
            if place >= 0 and value is not None:
                values[place] = max(value, values[place] or 0.0)
    for place in range(1, columns - 1):
        if values[place] is None and values[place + 1] is not None:
            values[place] = values[place - 1]  # one reading came late
    return values


def graph(
    values: Sequence[float | None], lines: int, *, plain: bool, style: Callable[[float], str] = load_style
) -> list[Line]:
    """Lines of dots, the top one first: two values a cell. `plain`: in ASCII, the higher one of two.

    `style` gives the colour of a share.
    """
    most = _DOTS * lines
    heights = [0 if value is None else max(1, min(most, round(value * most))) for value in values]
    pairs = list(zip(heights[::2], heights[1::2], strict=True))
    styles = [style(height / most) for height in range(most + 1)]
    runs, at = [], 0
    for colour, run in groupby(styles[max(pair)] for pair in pairs):
        begin, at = at, at + sum(1 for _ in run)
        runs.append((begin, at, colour))
    columns = [_column(left, right, lines, plain) for left, right in pairs]
    drawn = []
    for cells in map("".join, zip(*columns, strict=True)) if columns else [""] * lines:
        text = Line()
        for begin, end, colour in runs:
            text.append(cells[begin:end], colour)
        drawn.append(text)
    return drawn


@functools.lru_cache(maxsize=4096)  # few are different, and a screen has a thousand of them
def _column(left: int, right: int, lines: int, plain: bool) -> str:
    """The cells of two heights, the top one first."""
    floors = range(_DOTS * (lines - 1), -1, -_DOTS)
    return "".join(_cell(left - floor, right - floor, plain=plain) for floor in floors)


def _cell(left: int, right: int, *, plain: bool) -> str:
    left, right = max(0, min(_DOTS, left)), max(0, min(_DOTS, right))
    if plain:
        return _PLAIN[max(left, right)]
    return chr(_BRAILLE | _LEFT[left] | _RIGHT[right]) if left or right else " "


def sparkline(values: Sequence[float | None], *, plain: bool) -> str:
    """One line, a cell for each value."""
    sparks = _PLAIN_SPARKS if plain else _SPARKS
    return "".join(" " if v is None else sparks[min(len(sparks) - 1, int(v * len(sparks)))] for v in values)
