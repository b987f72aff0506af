"""One frame of `gpusched top`: panels of devices, batches and windows, in exactly the room there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from rich.cells import cell_len

from gpusched.client.connection import Connection
from gpusched.client.drawing.box import Box, around, heading, signed
from gpusched.client.drawing.devices import (
    GRAPHS_FROM,
    MOST_GRAPHS,
    SHOWN_STRANGERS,
    DeviceLines,
    Graphs,
    gib,
    graphs_of,
    minutes,
)
from gpusched.client.drawing.graph import load_style
from gpusched.client.drawing.line import Drawn, Line, footer, told
from gpusched.client.drawing.rooms import BORDER, Area, Want, areas
from gpusched.client.drawing.summary import failure_line
from gpusched.client.drawing.text import Glyphs, glyphs
from gpusched.client.drawing.work import WorkLines
from gpusched.client.views.batch import BatchView
from gpusched.client.views.failures import FailureGroup
from gpusched.client.views.host import HostView
from gpusched.client.views.overview import DeviceView, Overview
from gpusched.client.views.panels import ALL, Cursor, Lens, Panel, Row, rows
from gpusched.client.views.window import FinishedWindow, RunningWindow
from gpusched.core.statuses import FAILURES
from gpusched.core.wording import counted
from gpusched.protocol import DeviceStatus

KEYS = "tab panel  ⏎ open  space mark  c cancel  h hold  r retry  / find  : commands  ? help  q quit"
_PLAIN_KEYS = "tab panel  enter open  space mark  c cancel  r retry  / find  : commands  ? help  q quit"
_SHORT_KEYS = "tab ⏎ open  space mark  c cancel  r retry  / find  : commands  ? help  q quit"
_PLAIN_SHORT_KEYS = "tab  enter  space mark  c cancel  r retry  / find  : commands  ? help  q quit"


def title(daemon: Connection) -> str:
    """Who is shown."""
    return f"gpusched {daemon.daemon.version} at {daemon.path}"


class Spot(NamedTuple):
    """The row of a panel that stands in some cells of a line of the screen."""

    y: int
    x: int
    width: int
    panel: Panel
    key: str


class _Content(NamedTuple):
    """The inside of a panel."""

    lines: list[Line]
    #: the key of the row that each line belongs to
    keys: list[str]
    headings: str
    #: words for the lower border
    below: str = ""


class Frame(Drawn, frozen=True, kw_only=True):
    """The overview at the instant `monotonic`."""

    overview: Overview
    monotonic: float
    #: who is shown: `gpusched 0.1.0 at /run/…`
    title: str
    #: time of day; empty: not shown
    clock: str = ""
    host: HostView | None = None
    #: the row that keys act upon; None: there are no keys
    cursor: Cursor | None = None
    lens: Lens = ALL
    #: keeps drawn lines from one frame to the next
    graphs: Graphs = msgspec.field(default_factory=Graphs)
    #: an answer, instead of the keys
    message: str = ""
    #: the last line is that of the keys, at the foot of the screen
    fill: bool = True

    def lines(self, width: int, height: int, draw: Glyphs) -> list[Line]:
        return _Drawing(self, draw, width).lines(height)

    def spots(self, width: int, height: int) -> list[Spot]:
        """Where rows stand on the screen, for the mouse."""
        drawing = _Drawing(self, glyphs(ascii_only=False), width)
        drawing.lines(height)
        return drawing.spots


class _Drawing:
    def __init__(self, frame: Frame, draw: Glyphs, width: int) -> None:
        self._frame, self._overview, self._now = frame, frame.overview, frame.monotonic
        self._draw, self._width = draw, width
        self._rows = rows(frame.overview, frame.lens)
        self.spots: list[Spot] = []

    def lines(self, height: int) -> list[Line]:
        """At most `height` lines."""
        frame = self._frame
        explained = self._told()
        top = [self._header(), *self._troubles()]
        room = height - 1 - len(top) - len(explained)
        focused = frame.cursor.panel if frame.cursor is not None else None
        panel_areas = areas(self._wants(), focused, len(top), self._width, max(0, room))
        drawn = [*top, *self._panels(panel_areas)]
        if not frame.fill:
            return drawn[: height - 1]
        drawn = drawn[: max(1, height - 1 - len(explained))]
        drawn += [Line() for _ in range(height - 1 - len(explained) - len(drawn))]
        return [*[*drawn, *explained][: height - 1], self._footer()]

    def _panels(self, panel_areas: Sequence[Area]) -> list[Line]:
        """The boxes, side by side where they begin at the same height or overlap."""
        columns: dict[int, list[Line]] = {}
        widths: dict[int, int] = {}
        for area in panel_areas:
            columns.setdefault(area.x, []).extend(self._panel(area))
            widths[area.x] = area.width
        if not columns:
            return []
        lines = [Line() for _ in range(max(map(len, columns.values())))]
        for x, column in columns.items():
            for number, line in enumerate(lines):
                line.pad(x)
                if number < len(column):
                    line.extend(column[number])
        return lines

    def _wants(self) -> dict[Panel, Want]:
        wants = {panel: Want(lines=len(panel_rows)) for panel, panel_rows in self._rows.items()}
        if self._width - BORDER >= GRAPHS_FROM:
            shown = [row.item for row in self._rows["devices"] if isinstance(row.item, DeviceView)]
            strangers = sum(
                min(SHOWN_STRANGERS, len(device.status.reading.foreign)) for device in shown if device.status.reading
            )
            least = sum(len(graphs_of(device)) for device in shown)
            wants["devices"] = Want(
                lines=len(shown) + strangers, some=least, most=MOST_GRAPHS * len(shown), lot=max(1, len(shown))
            )
        return wants

    # -- first and last ------------------------------------------------------------------------------------------------

    def _troubles(self) -> list[Line]:
        """The daemon's troubles in a few lines: the oldest, and the number of others."""
        troubles = self._overview.troubles
        if not troubles:
            return []
        more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        return told(f"Trouble: {troubles[0].text}{more}", self._width, self._draw, "bold red")

    def _told(self) -> list[Line]:
        """Why the chosen row is as it is, which the row itself has no room for, in a few lines."""
        cursor = self._frame.cursor
        row = cursor.row(self._rows) if cursor is not None else None
        match row.item if row is not None and not self._frame.message else None:
            case FinishedWindow(outcome=outcome) as window if outcome in FAILURES:
                reason_told = failure_line(window, self._draw).plain
            case FailureGroup(example=latest):
                reason_told = failure_line(latest, self._draw).plain
            case BatchView(held_reason=str(reason), finished=False) as batch:
                reason_told = f"{batch.batch_id} is held: {reason}"
            case BatchView(waits=str(until)) as batch if until:
                reason_told = f"{batch.batch_id} waits {until}"
            case DeviceView(status=DeviceStatus(reason=reason, health=health, device=device)) if reason:
                reason_told = f"{device.id} is {health}: {reason}"
            case _:
                return []
        return told(reason_told, self._width, self._draw)

    def _header(self) -> Line:
        """What is shown, and at the right end the host and the time where there is room for them."""
        frame, draw = self._frame, self._draw
        only = f"only {frame.lens.words!r} {draw.dot} " if frame.lens.words else ""
        name = draw.clean(only + frame.title)
        parts = _host_parts(frame.host, self._overview) + ([(frame.clock, "bold")] if frame.clock else [])
        while parts and sum(cell_len(part) + 2 for part, _ in parts) + min(cell_len(name), 24) > self._width:
            parts.pop(0)
        room = self._width - sum(cell_len(part) + 2 for part, _ in parts)
        line = Line(draw.crop(name, max(0, room)), "bold")
        for part, style in parts:
            line.append("  ").append(part, style)
        return line.fit(self._width, draw)

    def _footer(self) -> Line:
        plain = self._draw.ascii_only
        keys = _PLAIN_KEYS if plain else KEYS
        if cell_len(keys) > self._width:
            keys = _PLAIN_SHORT_KEYS if plain else _SHORT_KEYS
        return footer(self._frame.message, keys, self._width, self._draw)

    # -- panels --------------------------------------------------------------------------------------------------------

    def _panel(self, area: Area) -> list[Line]:
        panel, panel_rows = area.panel, self._rows[area.panel]
        inner, room = area.width - BORDER, area.height - BORDER
        content = (
            self._devices(panel_rows, inner, room)
            if panel == "devices"
            else self._listed(panel, panel_rows, inner, room)
        )
        cursor = self._frame.cursor
        for number, key in enumerate(content.keys):
            self.spots.append(Spot(area.y + 1 + number, area.x, area.width, panel, key))
        box = Box(
            title=panel,
            summary=self._summary(panel),
            width=area.width,
            lines=content.lines,
            room=room,
            headings=content.headings,
            below=content.below,
            focused=cursor is not None and cursor.panel == panel,
        )
        return box.drawn(self._draw)

    def _summary(self, panel: Panel) -> str:
        overview = self._overview
        match panel:
            case "devices":
                return f"{min(len(overview.running), overview.slots)}/{overview.slots} busy"
            case "batches":
                return f"{overview.waiting} waiting" if overview.waiting else ""
            case "running":
                return ""
            case "failed":
                count = sum(len(row.targets) for row in self._rows["failed"])
                return f"{count} lately, {counted(len(self._rows['failed']), 'reason')}"
            case "finished":
                return "" if self._frame.lens.ranking == "latest" else f"{self._frame.lens.ranking} first"

    def _listed(self, panel: Panel, panel_rows: list[Row], inner: int, room: int) -> _Content:
        """As many rows as there is room for, the chosen one among them."""
        work = WorkLines(self._overview, self._frame.lens, inner, self._now, self._draw)
        headings = self._headings(panel, work)
        first, shown = around(self._chosen(panel), len(panel_rows), room)
        lines = [
            self._sign(panel, number, self._row(work, panel_rows[number]), inner)
            for number in range(first, first + shown)
        ]
        keys = [row.key for row in panel_rows[first : first + shown]]
        return _Content(lines, keys, headings, _more(first, len(panel_rows) - shown))

    def _headings(self, panel: Panel, work: WorkLines) -> str:
        match panel:
            case "batches":
                return heading(work.batch_columns)
            case "running":
                return heading(work.running_columns)
            case "finished":
                return heading(work.finished_columns)
            case _:
                return ""

    def _row(self, work: WorkLines, row: Row) -> Line:
        match row.item:
            case BatchView() as batch:
                return work.batch(row.batch_id, batch)
            case RunningWindow() as window:
                return work.running(row.batch_id, window)
            case FailureGroup() as group:
                return work.failed(group)
            case FinishedWindow() as finished:
                return work.finished(row.batch_id, finished)
            case DeviceView():
                raise TypeError("devices have lines of their own")

    def _devices(self, panel_rows: list[Row], inner: int, room: int) -> _Content:
        """Devices around the chosen one with the processes of others, and with graphs in the lines that are left."""
        first, shown = around(self._chosen("devices"), len(panel_rows), room)
        devices = [row.item for row in panel_rows[first : first + shown] if isinstance(row.item, DeviceView)]
        lines = DeviceLines(self._overview, inner, self._now, self._draw)
        strangers = [lines.strangers(device) if inner >= GRAPHS_FROM else [] for device in devices]
        left = room - shown - sum(map(len, strangers))
        if left < 0:
            strangers, left = [[] for _ in devices], 0
        high = min(MOST_GRAPHS, left // max(1, shown)) if inner >= GRAPHS_FROM else 0
        if high:
            lines = DeviceLines(self._overview, inner, self._now, self._draw, graphed=True)
        drawn, keys = [], []
        for place, device in enumerate(devices):
            row = panel_rows[first + place]
            block = [self._sign("devices", first + place, lines.line(device), inner), *strangers[place]]
            if high:
                samples = self._overview.history.of(row.key)
                block += self._frame.graphs.lines(samples, graphs_of(device), high, inner, self._draw)
            drawn += block
            keys += [row.key] * len(block)
        below = _more(first, len(panel_rows) - shown) or (minutes(inner) if high else "")
        return _Content(drawn, keys, heading(lines.columns), below)

    def _chosen(self, panel: Panel) -> int:
        cursor = self._frame.cursor
        return cursor.number(panel, self._rows[panel]) if cursor is not None else 0

    def _sign(self, panel: Panel, number: int, line: Line, inner: int) -> Line:
        """A row with the sign of being chosen or marked."""
        cursor = self._frame.cursor
        if cursor is None or cursor.panel != panel:
            return line
        marked = self._rows[panel][number].mark in cursor.marked
        return signed(line, inner, self._draw, chosen=number == self._chosen(panel), marked=marked)


def _more(above: int, hidden: int) -> str:
    """Words on the rows that there is no room for."""
    if not hidden:
        return ""
    return f"{hidden} more, {above} of them above" if above else f"{hidden} more"


def _host_parts(host: HostView | None, overview: Overview) -> list[tuple[str, str]]:
    """Words and styles, those that can be spared first."""
    if host is None:
        return []
    parts: list[tuple[str, str]] = [(host.name, "dim")]
    if host.disk_used_bytes is not None and host.disk_total_bytes:
        share = host.disk_used_bytes / host.disk_total_bytes
        parts.append((f"disk {100 * share:.0f}%", load_style(share)))
    if overview.processors is not None and (use := overview.processors.utilisation) is not None:
        parts.append((f"cpu {100 * use:.0f}%", load_style(use)))
    if host.load is not None:
        parts.append((f"load {host.load:.1f}/{host.cores}", load_style(host.load / host.cores)))
    if host.memory_used_bytes is not None and host.memory_total_bytes:
        style = load_style(host.memory_used_bytes / host.memory_total_bytes)
        parts.append((f"mem {gib(host.memory_used_bytes)}/{gib(host.memory_total_bytes)}G", style))
    return parts
