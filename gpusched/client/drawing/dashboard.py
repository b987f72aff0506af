"""One frame of `gpusched top`: devices, batches, running and finished windows, in exactly the room there is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gpusched.client.connection import Connection
from gpusched.client.drawing.details import health
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.summary import failure_line
from gpusched.client.drawing.text import Glyphs, device_name, duration, glyphs, key_metrics, marked, per_second
from gpusched.client.views.batch import BatchView
from gpusched.client.views.overview import DeviceView, Overview
from gpusched.client.views.panels import PANELS, Cursor, Order, Panel, Row, rows
from gpusched.client.views.window import FinishedWindow, RunningWindow
from gpusched.core.statuses import FAILURES, words
from gpusched.protocol import DeviceStatus

KEYS = "tab panel  ⏎ open  c cancel  h hold  r retry  d drain  f filter  ? help  q quit"
_PLAIN_KEYS = "tab next  enter open  c cancel  h hold  r retry  d drain  f find  ? help  q quit"
#: rows of each panel that are shown at least, where there are so many
FEWEST = 3
#: rows of a panel that are shown at most, if others need the room
_MOST: dict[Panel, int] = {"devices": 6, "batches": 5, "running": 10**6, "failed": 4, "finished": 10**6}

_SPARKS, _PLAIN_SPARKS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
#: cells of bars and sparklines, by the width of the screen
WIDE, WIDE_BAR, NARROW_BAR = 110, 20, 8
#: from this width on, the history of a device's memory is as long as that of its use
WIDEST = 140
#: cells of a device's slots, at most
WIDE_SLOTS, NARROW_SLOTS = 24, 9
#: those of an ETA with its error and without, and those that outcomes get before an ETA gets its error
ETA, ETA_ALONE, OUTCOMES = 13, 6, 24
#: a slot that is free, and by the phase of the window that holds it
_SLOT_CELLS = {"": "□", "starting": "◪", "stopping": "▣"}
_PLAIN_SLOT_CELLS = {"": ".", "starting": "o", "stopping": "x"}


def title(daemon: Connection) -> str:
    """Who is shown."""
    return f"gpusched {daemon.daemon.version} at {daemon.path}"


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The overview at the instant `monotonic`."""

    overview: Overview
    monotonic: float
    #: who is shown: `gpusched 0.1.0 at /run/…`
    title: str
    #: the row that keys act upon; None: there are no keys
    cursor: Cursor | None = None
    #: only batches and windows with these words in their names are shown
    words: str = ""
    order: Order = "slot"
    #: an answer, instead of the keys
    message: str = ""
    #: the last line is that of the keys, at the foot of the screen
    fill: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.size.height
        draw = glyphs(ascii_only=options.ascii_only)
        yield from _Drawing(self, draw, options.max_width).lines(height)


class _Drawing:
    def __init__(self, frame: Frame, draw: Glyphs, width: int) -> None:
        self._frame = frame
        self._overview = frame.overview
        self._now = frame.monotonic
        self._draw = draw
        self._width = width
        self._wide = width >= WIDE
        self._bar, most = (WIDE_BAR, WIDE_SLOTS) if self._wide else (NARROW_BAR, NARROW_SLOTS)
        self._history = WIDE_BAR if width >= WIDEST else NARROW_BAR
        slots = [len(device.status.slots) for device in frame.overview.devices.values()]
        self._slots = min(most, max(5, *slots, 0))
        names = [cell_len(draw.clean(device_name(name))) for name in frame.overview.devices]
        self._device_width = min(14, max(6, *names, 0))
        #: by slot
        self._phases = {window.slot: window.phase for _, window in frame.overview.running}

    def lines(self, height: int) -> list[Text]:
        """At most `height` lines."""
        found = rows(self._overview, self._frame.words, self._frame.order)
        told = self._told(found)
        troubles = self._troubles()
        shares = _share(height - 2 - len(told) - len(troubles), [(len(found[panel]), _MOST[panel]) for panel in PANELS])
        drawn = [self._header(), *troubles]
        for panel, share in zip(PANELS, shares, strict=True):
            if share >= 2:
                drawn += self._panel(panel, found[panel], share)
        if not self._frame.fill:
            return drawn[: height - 1]
        drawn = drawn[: max(1, height - 1 - len(told))]
        drawn += [Text() for _ in range(height - 1 - len(told) - len(drawn))]
        return [*[*drawn, *told][: height - 1], self._footer()]

    def _troubles(self) -> list[Text]:
        """The daemon's troubles in a few lines: the oldest, and the number of others."""
        troubles = self._overview.troubles
        if not troubles:
            return []
        more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        lines = self._draw.told(f"Trouble: {troubles[0].text}{more}", self._width)
        for line in lines:
            line.stylize("bold red")
        return lines

    def _told(self, found: dict[Panel, list[Row]]) -> list[Text]:
        """Why the chosen row is as it is, which the row itself has no room for, in a few lines."""
        row = self._frame.cursor.row(found) if self._frame.cursor is not None else None
        match row.item if row is not None and not self._frame.message else None:
            case FinishedWindow(outcome=outcome) as window if outcome in FAILURES:
                told = failure_line(window, self._draw).plain
            case BatchView(held_reason=str(reason)) as batch:
                told = f"{batch.batch_id} is held: {reason}"
            case DeviceView(status=DeviceStatus(reason=reason, health=health, device=device)) if reason:
                told = f"{device.id} is {health}: {reason}"
            case _:
                return []
        return self._draw.told(told, self._width)

    def _panel(self, panel: Panel, found: list[Row], room: int) -> list[Text]:
        """Its heading and as many rows as there is room for, the chosen one among them."""
        cursor = self._frame.cursor
        here = cursor is not None and cursor.panel == panel
        chosen = cursor.number(panel, found) if cursor is not None else 0
        heading = self._line(self._heading(panel), "bold")
        if here:
            heading.stylize("cyan")
        first, shown = _around(chosen, len(found), room - 1)
        lines = []
        for number in range(first, first + shown):
            line = self._row(found[number])
            if here and number == chosen:
                line = marked(line, self._width, sign="" if panel == "devices" else ">")
            lines.append(line)
        if hidden := len(found) - shown:
            above = f", {first} of them above" if first else ""
            lines.append(self._line(f"  {self._draw.ellipsis} and {hidden} more{above}", "dim"))
        return [heading, *lines]

    def _heading(self, panel: Panel) -> str:
        match panel:
            case "devices":
                return self._heading_of_devices()
            case "batches":
                return self._heading_of_batches()
            case "running":
                return self._heading_of_running()
            case "failed":
                return "Failed last"
            case "finished":
                return "Finished last"

    def _row(self, row: Row) -> Text:
        match row.item:
            case DeviceView() as device:
                return self._device(device)
            case BatchView() as batch:
                return self._batch(row.batch_id, batch)
            case RunningWindow() as window:
                return self._running(row.batch_id, window)
            case FinishedWindow() as window:
                return self._finished(row.batch_id, window)

    def _line(self, text: str, style: str = "") -> Text:
        return Text(self._draw.crop(self._draw.clean(text), self._width).rstrip(), style, no_wrap=True, overflow="crop")

    # -- first and last ------------------------------------------------------------------------------------------------

    def _header(self) -> Text:
        overview, dot = self._overview, self._draw.dot
        busy = len(overview.running)
        title = (f"only {self._frame.words!r} {dot} " if self._frame.words else "") + self._frame.title
        numbers = f"{busy}/{overview.slots} slots busy {dot} {overview.waiting} waiting"
        room = self._width - len(numbers) - 1
        return Text(f"{self._draw.crop(self._draw.clean(title), room)} {numbers}", "reverse", no_wrap=True)

    def _footer(self) -> Text:
        if self._frame.message:
            return self._line(self._frame.message, "bold yellow")
        return self._line(_PLAIN_KEYS if self._draw.ascii_only else KEYS, "dim")

    # -- devices -------------------------------------------------------------------------------------------------------

    def _heading_of_devices(self) -> str:
        memory = f"{'memory':>13} {'':<{NARROW_BAR + self._history + 2}}" if self._wide else f"{'memory':>12} "
        slots = f"{'device':<{self._device_width}} {'slots':<{self._slots}}"
        return f"{slots} {'use':>4} {'':<{self._bar}} {memory}{'temp':>4} {'power':>5}  name"

    def _memory(self, device: DeviceView) -> Text:
        """How full it is: in numbers, and where there is room as a bar and over time."""
        used, total = device.memory_used_bytes, device.memory_total_bytes
        full = used is not None and bool(total) and used > 0.95 * (total or 0)
        style = "red" if full else "cyan"
        if not self._wide:
            share = "?" if used is None or not total else f"{100 * used / total:.0f}%"
            return Text("" if total is None else f"{share} of {total / 2**30:.0f}G", style if full else "")
        numbers = "" if total is None else f"{'?' if used is None else _gib(used)}/{_gib(total)} GiB"
        bar = " " * NARROW_BAR
        if used is not None and total:
            filled = min(NARROW_BAR, round(NARROW_BAR * used / total))
            bar = self._draw.filled * filled + self._draw.empty * (NARROW_BAR - filled)
        line = Text(f"{numbers:>13} ")
        line.append(bar, style)
        line.append(f" {self._sparkline(device.memory, self._history)}", style)
        return line

    def _device(self, device: DeviceView) -> Text:
        status, reading = device.status, device.status.reading
        signs, busy = (_PLAIN_SLOT_CELLS, "#") if self._draw.ascii_only else (_SLOT_CELLS, "■")
        idle_slots = [slot.index for slot in status.slots if slot.index not in device.busy]
        closed = set(idle_slots[max(0, status.width - len(device.busy)) :])
        cells = "".join(
            signs.get(self._phases.get(slot.index, "running") if slot.index in device.busy else "", busy)
            for slot in status.slots
            if slot.index not in closed
        )
        use = reading.utilisation if reading else None
        temperature = reading.temperature_c if reading else None
        power = reading.power_w if reading else None
        line = Text(no_wrap=True, overflow="crop")
        line.append(self._draw.crop(self._draw.clean(device_name(status.device.id)), self._device_width) + " ")
        line.append(self._draw.crop(cells, self._slots) + " ", "green")
        line.append(f"{'' if use is None else f'{100 * use:.0f}%':>4} ")
        line.append(self._sparkline(device.utilisation, self._bar), "cyan")
        memory = self._memory(device)
        line.append(" " * (0 if self._wide else 12 - memory.cell_len) + " ")
        line.append_text(memory)
        line.append(" ")
        line.append(f"{'' if temperature is None else f'{temperature:.0f}C':>4} ")
        line.append(f"{'' if power is None else f'{power:.0f}W':>5}  ")
        if status.health != "open":
            reason = f": {self._draw.clean(status.reason)}" if status.reason else ""
            line.append(f"{health(status, self._overview.unix(self._now))}{reason} ", "bold yellow")
        line.append(self._draw.clean(status.device.name))
        return self._draw.fitted(line, self._width)

    def _sparkline(self, values: Sequence[float | None], cells: int) -> str:
        sparks = _PLAIN_SPARKS if self._draw.ascii_only else _SPARKS
        shown = list(values)[-cells:]
        drawn = "".join(" " if v is None else sparks[min(len(sparks) - 1, int(v * len(sparks)))] for v in shown)
        return f"{drawn:>{cells}}"

    # -- batches -------------------------------------------------------------------------------------------------------

    def _heading_of_batches(self) -> str:
        name, bar = f"{'batch':<{self._name_width}}", " " * self._bar
        return f"  {name} {bar} {'done':>{self._done_width}}  {'rate':>7}  {'ETA':>{self._eta_width}}  outcomes"

    @cached_property
    def _name_width(self) -> int:
        longest = max((cell_len(self._draw.clean(name)) for name in self._overview.batches), default=0)
        return max(5, min(longest, 40, max(12, self._width - 60)))

    @cached_property
    def _done_width(self) -> int:
        return max((2 * len(str(view.total)) + 1 for view in self._overview.batches.values()), default=4)

    @cached_property
    def _eta_width(self) -> int:
        """With room for its error, unless that would be taken from the outcomes."""
        others = self._name_width + self._bar + self._done_width + 17
        return ETA if self._width - others - ETA >= OUTCOMES else ETA_ALONE

    def _batch(self, name: str, view: BatchView) -> Text:
        draw = self._draw
        filled = self._bar * view.done // max(1, view.total)
        eta = view.eta_s(self._now)
        line = Text("  ", no_wrap=True, overflow="crop")
        line.append(draw.crop_middle(draw.clean(name), self._name_width) + " ")
        line.append(draw.filled * filled, "green")
        line.append(draw.empty * (self._bar - filled), "dim")
        per_s = 0.0 if view.finished or view.held_reason is not None else view.rate(self._now)
        left = "done" if view.finished else "held" if view.held_reason is not None else duration(eta) if eta else ""
        error = view.eta_error_s(self._now) if self._eta_width == ETA else None
        left += f" {draw.plus_minus}{duration(error)}" if error is not None else ""
        done = f"{view.done}/{view.total}"
        rate = per_second(per_s) if per_s else ""
        line.append(f" {done:>{self._done_width}}  {rate:>7}  {left:>{self._eta_width}}  ")
        # The reason of a hold first, then failures: there may not be room for both.
        parts = [] if view.held_reason is None else [(draw.clean(view.held_reason), "yellow")]
        worst = sorted(filter(view.counts.get, view.counts), key=lambda name: name not in FAILURES)
        parts += [(f"{view.counts[name]} {words(name)}", STYLES[name]) for name in worst]
        return self._filled(line, parts, "  ", self._draw.ellipsis)

    # -- windows -------------------------------------------------------------------------------------------------------

    def _heading_of_running(self) -> str:
        taken = f"{'time':>6}" + (" of about" if self._wide else "")
        device = f"{'device':<{self._device_width}}  " if self._wide else ""
        return f"{'slot':>5}  {'window':<{self._label_width}} {'phase':<10} {'round':>9} {taken}  {device}batch"

    @property
    def _label_width(self) -> int:
        return max(20, min(44, self._width - (74 if self._wide else 49)))

    def _running(self, name: str, window: RunningWindow) -> Text:
        draw = self._draw
        rounds = f"{window.round}/{window.rounds}" if window.rounds else ""
        label = draw.clean(window.label) + (f" #{window.attempt}" if window.attempt > 1 else "")
        text = f"{window.slot:>5}  {draw.crop_middle(label, self._label_width)} "
        text += f"{draw.crop(draw.clean(window.phase), 10)} {rounds:>9} {duration(self._now - window.since):>6}"
        if self._wide:
            expected = self._overview.batches[name].expected_s
            text += f" {'' if expected is None else duration(expected):>8}"
            text += f"  {draw.crop(draw.clean(device_name(window.device)), self._device_width)}"
        text += f"  {draw.crop_middle(draw.clean(name), max(0, self._width - cell_len(text) - 2))}"
        return self._line(text, STYLES["stopping"] if window.phase == "stopping" else "")

    def _finished(self, name: str, window: FinishedWindow) -> Text:
        draw = self._draw
        line = Text("       ", no_wrap=True, overflow="crop")
        line.append(draw.crop_middle(draw.clean(window.label), self._label_width))
        line.append(f" {words(window.outcome):<10} ", STYLES[window.outcome])
        line.append(f"{duration(window.seconds):>6}  ")
        numbers = [(draw.clean(f"{metric} {number}"), "") for metric, number in key_metrics(window.metrics, 2)]
        line = self._filled(line, [(draw.clean(window.reason), "")] if window.reason else numbers, "  ")
        room = self._width - line.cell_len - cell_len(name) - 2
        if room > 0:
            line.append(" " * room + f"  {draw.clean(name)}", "dim")
        return line

    # -- fitting -----------------------------------------------------------------------------------------------------

    def _filled(self, line: Text, parts: list[tuple[str, str]], gap: str, more: str = "") -> Text:
        """The line and as many styled parts as fit whole, `more` if not all do. The first is cut if it does not fit."""
        for number, (part, style) in enumerate(parts):
            if number == 0:
                line.append(part, style)
                line = self._draw.fitted(line, self._width)
            elif line.cell_len + len(gap) + cell_len(part) <= self._width:
                line.append(gap).append(part, style)
            else:
                if line.cell_len + len(gap + more) <= self._width:
                    line.append(gap + more, "dim")
                break
        return self._draw.fitted(line, self._width)


def _around(chosen: int, count: int, room: int) -> tuple[int, int]:
    """Which rows to show of so many, the chosen one among them: the first, and their number."""
    if count <= room:
        return 0, count
    # One line says how many there are besides.
    shown = max(1, room - 1)
    return max(0, min(chosen - shown // 2, count - shown)), shown


def _share(room: int, parts: list[tuple[int, int]]) -> list[int]:
    """Lines for each part, its heading included: at first `FEWEST` for each, then more from the top on; 0 for none."""
    wanted = [min(count, most) + 1 if count else 0 for count, most in parts]
    shares = [min(want, FEWEST + 1) for want in wanted]
    while sum(shares) > room:
        last = max((number for number, share in enumerate(shares) if share), default=None)
        if last is None:
            return shares
        shares[last] = 0 if sum(shares) - shares[last] >= room else shares[last] - (sum(shares) - room)
        if shares[last] == 1:
            shares[last] = 0
    for number, want in enumerate(wanted):
        if shares[number]:
            shares[number] += min(want - shares[number], room - sum(shares))
    return shares


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"
