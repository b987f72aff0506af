"""One frame of a device in `gpusched top`: ten minutes of graphs, and below them all that is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpusched.client.drawing.box import SIGN, Box, detail_lines
from gpusched.client.drawing.details import device_details
from gpusched.client.drawing.devices import NAME, heat_share, power_share
from gpusched.client.drawing.graph import Share, by_time, graph, heat_style, load_style, memory_of, use_of
from gpusched.client.drawing.line import Drawn, Line, footer
from gpusched.client.drawing.rooms import BORDER
from gpusched.client.drawing.slot_times import slot_line
from gpusched.client.drawing.text import Glyphs, device_name
from gpusched.client.views.slots import SlotView
from gpusched.core.samples import RECENT, RECENT_S, Sample
from gpusched.core.wording import counted
from gpusched.protocol import DeviceStatus

KEYS = "d drain or open  j/k scroll  esc back  : commands  ? help  q quit"
#: cells of each of least, mean and most, behind a graph
_NUMBER = 5
#: lines of a graph at most
_HIGH = 6
#: slots that have a line at most
_SLOTS = 8


class _Shown(NamedTuple):
    """A graph; `most` of its unit is its greatest height."""

    name: str
    share: Share
    most: float
    unit: str
    #: the colour of a share
    style: Callable[[float], str] = load_style


class DeviceFrame(Drawn, frozen=True, kw_only=True):
    """A device at the Unix time `now`."""

    #: None: it is not known yet
    status: DeviceStatus | None
    samples: Sequence[Sample]
    #: its slots, whose ends are known since the Unix time `known_since`
    slots: Sequence[SlotView] = ()
    known_since: float = 0.0
    now: float
    #: lines of the details that are scrolled out
    above: int = 0
    #: an answer, instead of the keys
    message: str = ""

    def lines(self, width: int, height: int, draw: Glyphs) -> list[Line]:
        return _Drawing(self, draw, width).lines(height)


class _Drawing:
    def __init__(self, frame: DeviceFrame, draw: Glyphs, width: int) -> None:
        self._frame, self._draw, self._width = frame, draw, width
        self._inner = width - BORDER

    def lines(self, height: int) -> list[Line]:
        frame, draw = self._frame, self._draw
        keys = footer(frame.message, KEYS, self._width, draw)
        if frame.status is None:
            return [*(Line() for _ in range(height - 1)), keys]
        details = detail_lines(device_details(frame.status, frame.now), self._inner, draw)
        graphs = self._graphs(frame.status)
        # The details come first where there is little room, as far as they are the device's own.
        free = height - 1 - 2 * BORDER - min(len(details), max(8, height // 2))
        slots = max(0, min(_SLOTS, len(frame.slots), free - len(graphs)))
        high = max(1, min(_HIGH, (free - slots) // max(1, len(graphs))))
        drawn = self._history(graphs, high, slots) if height >= 2 * BORDER + len(graphs) + 4 else []
        room = height - 1 - len(drawn) - BORDER
        above = min(frame.above, max(0, len(details) - room))
        shown = details[above : above + max(0, room)]
        hidden = len(details) - len(shown)
        box = Box(
            title=draw.clean(device_name(frame.status.device.id, frame.status.device.host)),
            summary=draw.clean(frame.status.device.name),
            width=self._width,
            lines=shown,
            room=room,
            below=f"{hidden} more" if hidden else "",
            focused=True,
        )
        return [*[*drawn, *box.drawn(draw)][: height - 1], keys]

    def _graphs(self, status: DeviceStatus) -> list[_Shown]:
        """The graphs that the samples have values for."""
        samples = self._frame.samples
        limit = status.reading.power_limit_w if status.reading else None
        watts = limit or max((sample.power_w or 0.0 for sample in samples), default=0.0)
        graphs = (
            _Shown("use", use_of, 100.0, "%"),
            _Shown("mem", memory_of, 100.0, "%"),
            _Shown("pow", power_share(watts), watts, "W"),
            _Shown("temp", heat_share, 100.0, self._draw.degree, lambda share: heat_style(100 * share)),
        )
        return [shown for shown in graphs if any(shown.share(sample) is not None for sample in samples)]

    def _history(self, graphs: Sequence[_Shown], high: int, slots: int) -> list[Line]:
        """The graphs in a box, each with its least, mean and greatest value behind it, and `slots` slots below them."""
        draw, samples = self._draw, self._frame.samples
        numbers = 3 * (_NUMBER + 1) + 2
        cells = max(1, self._inner - SIGN - NAME - 1 - numbers)
        each = -(-RECENT // (2 * cells))
        lines = []
        for shown in graphs:
            dots = graph(by_time(samples, shown.share, 2 * cells, each), high, plain=draw.ascii_only, style=shown.style)
            for number, dotted in enumerate(dots):
                line = Line(f"{' ' * SIGN}{shown.name if number == 0 else '':<{NAME}} ", "dim").extend(dotted)
                if number == high - 1:
                    line.pad(self._inner - numbers).append(self._told(shown))
                lines.append(line)
        lines += self._slots(slots, cells, each, self._inner - numbers)
        words = "".join(f" {word:>{_NUMBER}}" for word in ("least", "mean", "most"))
        box = Box(
            title="ten minutes",
            width=self._width,
            lines=lines,
            headings=" " * (self._inner - numbers) + words,
            below=self._minutes(cells, each),
        )
        return box.drawn(draw)

    def _slots(self, count: int, cells: int, each: int, behind: int) -> list[Line]:
        """When the first `count` slots were at work; the rest are counted, `behind` cells from the left."""
        frame = self._frame
        latest = frame.samples[-1].at if frame.samples else frame.now
        lines = []
        for slot in frame.slots[:count]:
            line = Line(f"{' ' * SIGN}{f'#{slot.index}':<{NAME}} ", "dim")
            lines.append(line.extend(slot_line(slot, frame.known_since, latest, cells, each, self._draw)))
        if lines and (more := len(frame.slots) - count):
            lines[-1].pad(behind).append(f" {counted(more, 'more slot')}", "dim")
        return lines

    def _told(self, shown: _Shown) -> str:
        """Least, mean and most, in the unit of the graph."""
        values = [value for sample in self._frame.samples if (value := shown.share(sample)) is not None]
        if not values:
            return ""
        figures = (min(values), sum(values) / len(values), max(values))
        return "".join(f" {shown.most * value:>{_NUMBER}.0f}" for value in figures) + f" {shown.unit}"

    def _minutes(self, cells: int, each: int) -> str:
        """The minutes below the graphs, where they stand."""
        marks = [" "] * self._inner
        begin = SIGN + NAME + 1
        for minute in range(1, 10) if cells > 100 else range(2, 10, 2):
            at = begin + cells - round(minute * 60 / RECENT_S / each / 2)
            if at >= begin:
                marks[at : at + 2] = f"{minute}m"
        marks[begin + cells - 3 : begin + cells] = "now"
        return "".join(marks)[: self._inner]
