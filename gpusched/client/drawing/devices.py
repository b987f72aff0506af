"""Devices on a screen of `top`: a line of numbers each, and below it whose processes are there and its last minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from gpusched.client.drawing.box import SIGN, Cell, Column, row
from gpusched.client.drawing.details import health
from gpusched.client.drawing.graph import (
    Share,
    by_time,
    graph,
    heat_style,
    load_style,
    memory_of,
    sparkline,
    use_of,
)
from gpusched.client.drawing.line import Line
from gpusched.client.drawing.text import Glyphs, device_name
from gpusched.client.views.overview import DeviceView, Overview
from gpusched.core.model import ForeignProcess
from gpusched.core.samples import RECENT_S, Sample

#: cells of a bar of memory, of a sparkline, and of slots at most
BAR, SPARK, SLOTS = 6, 8, 9
#: cells for everything beside a graph in the line of a device, where there is room
BESIDE_SPARK = 92
WIDE_SLOTS = 24
#: inner width from which there are graphs, and the lines of graphs of a device at most
GRAPHS_FROM, MOST_GRAPHS = 98, 6
#: processes of others that a device shows below its line
SHOWN_STRANGERS = 2
#: cells of a graph's name
NAME = 4
#: a slot that is free, and by the phase of the window that holds it
_SLOT_CELLS = {"": "□", "starting": "◪", "stopping": "▣", "running": "■"}
_PLAIN_SLOT_CELLS = {"": ".", "starting": "o", "stopping": "x", "running": "#"}


class Graph(NamedTuple):
    """A graph and its part of a sample."""

    name: str
    share: Share


def power_share(limit_w: float | None) -> Share:
    """Power as a share of the limit; None where there is none."""

    def share(sample: Sample) -> float | None:
        return sample.power_w / limit_w if sample.power_w is not None and limit_w else None

    return share


def heat_share(sample: Sample) -> float | None:
    """Temperature, of 100 °C."""
    return None if sample.temperature_c is None else sample.temperature_c / 100


def stranger(process: ForeignProcess, draw: Glyphs) -> str:
    """A process of somebody else: `pid 4711 bob 2.1G python train.py`."""
    who = draw.clean(process.user) or "?"
    return f"pid {process.pid} {who} {gib(process.memory_bytes)}G {draw.clean(process.command)}".rstrip()


def graphs_of(device: DeviceView) -> list[Graph]:
    """The graphs that a device has values for."""
    reading = device.status.reading
    graphs = [Graph("use", use_of), Graph("mem", memory_of)]
    if reading is not None and reading.power_w is not None and reading.power_limit_w:
        graphs.append(Graph("pow", power_share(reading.power_limit_w)))
    return graphs


class Graphs:
    """Draws the graphs of devices, each anew only when there is another reading: most frames have none."""

    def __init__(self) -> None:
        #: by device and room: the latest sample that is drawn, and the lines
        self._drawn: dict[tuple[str, int, int, int], tuple[Sample, list[Line]]] = {}

    def lines(
        self, samples: Sequence[Sample], graphs: Sequence[Graph], high: int, width: int, draw: Glyphs
    ) -> list[Line]:
        """`high` lines shared by the graphs, the first of them the highest; `width` cells with the names before."""
        if not samples:
            return _graph_lines(samples, graphs, high, width, draw)
        latest = samples[-1]
        key = latest.device_id, len(graphs), high, width
        drawn = self._drawn.get(key)
        if drawn is None or drawn[0] is not latest:
            if drawn is None:
                self._drawn = {kept: lines for kept, lines in self._drawn.items() if kept[0] != latest.device_id}
            drawn = self._drawn[key] = latest, _graph_lines(samples, graphs, high, width, draw)
        return drawn[1]


def _graph_lines(
    samples: Sequence[Sample], graphs: Sequence[Graph], lines: int, width: int, draw: Glyphs
) -> list[Line]:
    cells = width - SIGN - NAME
    drawn = []
    for number, (name, share) in enumerate(graphs):
        high = lines // len(graphs) + (number < lines % len(graphs))
        if high and cells > 0:
            dots = graph(by_time(samples, share, 2 * cells), high, plain=draw.ascii_only)
            for place, dotted in enumerate(dots):
                drawn.append(Line(f"{' ' * SIGN}{name if place == 0 else '':<{NAME}}", "dim").extend(dotted))
    return drawn


def minutes(width: int) -> str:
    """The time below graphs of `width` cells: `2m` stands two minutes before the right end."""
    cells = width - SIGN - NAME
    marks = [" "] * width
    a_minute = int(60 / RECENT_S / 2)
    for number in range(1, cells // a_minute + 1):
        at = width - number * a_minute
        marks[at : at + 2 + (number > 9)] = f"{number}m"
    marks[width - 4 : width - 1] = "now"
    return "".join(marks)[:width]


class DeviceLines:
    """The lines of the devices of an overview, all with the same columns, `width` cells wide."""

    def __init__(self, overview: Overview, width: int, now: float, draw: Glyphs, *, graphed: bool = False) -> None:
        """`now`: monotonic. `graphed`: there are graphs below the lines, so that these have none."""
        self._overview, self._now, self._draw = overview, now, draw
        self._width = width
        roomy = width >= GRAPHS_FROM
        slots = [len(device.status.slots) for device in overview.devices.values()]
        names = [cell_len(draw.clean(_name(device))) for device in overview.devices.values()]
        self._slots = min(WIDE_SLOTS if roomy else SLOTS, max(5, *slots, 0))
        self._spark = 0 if graphed else max(SPARK, width - BESIDE_SPARK) if roomy else SPARK
        self.columns = [
            Column("", min(14, max(6, *names, 0))),
            Column("slots", self._slots),
            *([Column("", self._spark)] if self._spark else []),
            Column("use", 4, right=True),
            Column("memory", 10, right=True),
            Column("", BAR),
            Column("temp", 4, right=True),
            Column("power", 8, right=True),
            *([Column("fan", 4, right=True)] if roomy else []),
            Column("", 0),
        ]
        #: by slot
        self._phases = {window.slot: window.phase for _, window in overview.running}

    def line(self, device: DeviceView) -> Line:
        """The line of a device."""
        draw, status, reading = self._draw, device.status, device.status.reading
        use = reading.utilisation if reading else None
        celsius = reading.temperature_c if reading else None
        fan = reading.fan if reading else None
        cells: list[Cell] = [
            (draw.clean(_name(device)), "bold"),
            (self._held(device), "cyan"),
        ]
        if self._spark:
            cells.append(self._history(status.device.id, "" if use is None else load_style(use)))
        cells += [
            ("", "") if use is None else (f"{100 * use:.0f}%", load_style(use)),
            *self._memory(device),
            ("", "") if celsius is None else (f"{celsius:.0f}{draw.degree}", heat_style(celsius)),
            (power(device), ""),
        ]
        if self._width >= GRAPHS_FROM:
            cells.append(("" if fan is None else f"{100 * fan:.0f}%", ""))
        description = Line()
        if status.health != "open":
            reason = f": {draw.clean(status.reason)}" if status.reason else ""
            description.append(f"{health(status, self._overview.unix(self._now))}{reason} ", "bold yellow")
        description.append(draw.clean(status.device.name), "dim")
        return row(self.columns, [*cells, description], draw)

    def _history(self, device_id: str, style: str) -> Cell:
        """Its use in one line: of dots where there is room, or else a value a cell in the colour of the last one."""
        samples, plain = self._overview.history.of(device_id), self._draw.ascii_only
        if self._spark > SPARK:
            return graph(by_time(samples, use_of, 2 * self._spark), 1, plain=plain)[0]
        shares = [use_of(sample) for sample in list(samples)[-SPARK:]]
        return sparkline([*[None] * (SPARK - len(shares)), *shares], plain=plain), style

    def strangers(self, device: DeviceView) -> list[Line]:
        """Lines on the largest processes of others."""
        reading = device.status.reading
        processes = reading.foreign if reading else ()
        lines = [
            Line(f"{' ' * (SIGN + NAME)}{stranger(process, self._draw)}", "yellow")
            for process in processes[:SHOWN_STRANGERS]
        ]
        if len(processes) > SHOWN_STRANGERS:
            lines[-1].append(f"  {self._draw.ellipsis} and {len(processes) - SHOWN_STRANGERS} more")
        return lines

    def _held(self, device: DeviceView) -> str:
        """A sign for each slot in use."""
        signs = _PLAIN_SLOT_CELLS if self._draw.ascii_only else _SLOT_CELLS
        status = device.status
        idle = [slot.index for slot in status.slots if slot.index not in device.busy]
        closed = set(idle[max(0, status.width - len(device.busy)) :])
        return "".join(
            signs.get(self._phases.get(slot.index, "running") if slot.index in device.busy else "", signs["running"])
            for slot in status.slots
            if slot.index not in closed
        )

    def _memory(self, device: DeviceView) -> list[Cell]:
        """How full it is: in numbers, and as a bar."""
        used, total = device.memory_used_bytes, device.memory_total_bytes
        if used is None or not total:
            return [("" if not total else f"?/{gib(total)}G", ""), ("", "")]
        style = load_style(used / total)
        filled = min(BAR, round(BAR * used / total))
        bar = Line(self._draw.filled * filled, style)
        bar.append(self._draw.empty * (BAR - filled), "dim")
        return [(f"{gib(used)}/{gib(total)}G", style), bar]


def _name(device: DeviceView) -> str:
    return device_name(device.status.device.id, device.status.device.host)


def power(device: DeviceView) -> str:
    """`240/300W`, or the one of the two that is reported."""
    reading = device.status.reading
    if reading is None or reading.power_w is None:
        return ""
    limit = f"/{reading.power_limit_w:.0f}" if reading.power_limit_w else ""
    return f"{reading.power_w:.0f}{limit}W"


def gib(count: int) -> str:
    """GiB in at most four cells."""
    return f"{count / 2**30:.1f}" if count < 100 << 30 else f"{count / 2**30:.0f}"
