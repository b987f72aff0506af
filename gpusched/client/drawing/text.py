"""Text that fits: foreign text made harmless, cropped and padded to cells; numbers, times and metrics in few of them.

Everything that did not come from this package (symbols, messages of errors, names of devices) goes through
`plain.clean` before it is drawn: a terminal obeys control characters, and rich obeys markup unless it is given `Text`.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from gpusched.client.drawing.plain import clean
from gpusched.client.views.numbers import chief_metrics


class Glyphs(msgspec.Struct, frozen=True, kw_only=True):
    """The characters that frames are made of: all ASCII where the terminal may know nothing else."""

    ascii_only: bool
    ellipsis: str
    filled: str
    empty: str
    dot: str
    dash: str
    times: str
    plus_minus: str
    degree: str
    #: before a marked row
    mark: str
    #: corners of a box clockwise from the top left, then its horizontal and vertical line
    box: str

    def clean(self, text: str) -> str:
        """One line of text without anything that a terminal would obey."""
        return clean(text, ascii_only=self.ascii_only)

    def crop(self, text: str, cells: int) -> str:
        """The text in exactly `cells` cells: padded, or cropped at its end."""
        if text.isascii() and len(text) <= cells:  # most text is
            return text.ljust(cells)
        if cell_len(text) <= cells:
            return set_cell_size(text, cells)
        return set_cell_size(set_cell_size(text, max(0, cells - len(self.ellipsis))).rstrip() + self.ellipsis, cells)

    def crop_middle(self, text: str, cells: int) -> str:
        """The text in exactly `cells` cells: padded, or cropped in its middle, since a label's ends are telling."""
        room = cells - len(self.ellipsis)
        if text.isascii() and (len(text) <= cells or room >= 2):
            half = room // 2
            return text.ljust(cells) if len(text) <= cells else text[: room - half] + self.ellipsis + text[-half:]
        if cell_len(text) <= cells or room < 2:
            return set_cell_size(text, cells)
        tail, size = "", room // 2
        for character in reversed(text):
            size -= cell_len(character)
            if size < 0:
                break
            tail = character + tail
        return set_cell_size(text, room - cell_len(tail)) + self.ellipsis + tail


FANCY = Glyphs(ascii_only=False, ellipsis="…", filled="━", empty="─", dot="·", dash="–", times="×", plus_minus="±",
               degree="°", mark="●", box="╭╮╯╰─│")  # fmt: skip
ASCII = Glyphs(ascii_only=True, ellipsis="...", filled="#", empty="-", dot="|", dash="-", times="x", plus_minus="+-",
               degree="C", mark="*", box="++++-|")  # fmt: skip


def glyphs(*, ascii_only: bool) -> Glyphs:
    return ASCII if ascii_only else FANCY


def joined(parts: list[tuple[str, str]], separator: str) -> Text:
    """One line of styled parts."""
    line = Text(no_wrap=True, overflow="crop")
    for number, (part, style) in enumerate(parts):
        if number:
            line.append(separator, "dim")
        line.append(part, style)
    return line


def flowed(parts: list[tuple[str, str]], separator: str, width: int) -> list[Text]:
    """As few lines of styled parts as they fit on."""
    lines: list[list[tuple[str, str]]] = [[]]
    room = width
    for part in parts:
        room -= cell_len(part[0]) + (len(separator) if lines[-1] else 0)
        if room < 0 and lines[-1]:
            lines.append([])
            room = width - cell_len(part[0])
        lines[-1].append(part)
    return [joined(line, separator) for line in lines]


def duration(seconds: float) -> str:
    """`0.4s`, `59s`, `12m05s`, `3h07m`, `2d04h`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def per_second(rate: float) -> str:
    """Windows per second, or per minute or hour where those are the better numbers."""
    if rate >= 10 or rate == 0:
        return f"{rate:.0f}/s"
    if rate >= 1:
        return f"{rate:.1f}/s"
    if rate * 60 >= 1:
        return f"{rate * 60:.1f}/min"
    return f"{rate * 3600:.1f}/h"


def device_name(device_id: str, node: str = "") -> str:
    """The start of a UUID, which `nvidia-smi -L` shows as well, or another id; behind the node, unless it tells it."""
    if node and device_id.endswith(f"@{node}"):
        return device_id
    kind, dash, rest = device_id.partition("-")
    name = f"{kind}{dash}{rest[:8]}" if dash else device_id
    return f"{node}:{name}" if node else name


def key_metrics(metrics: dict[str, Any] | None, count: int) -> list[tuple[str, str]]:
    """The metrics that say most, at most `count`, as names and numbers."""
    return [(name, number(value)) for name, value in list(chief_metrics(metrics).items())[:count]]


def number(value: float | None) -> str:
    """Undefined metrics are a dash."""
    if value is None:
        return "–"
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"
