"""One frame of `gpusched top`: devices, batches, what runs and what has finished, in exactly the room that there is."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gpusched.client.cells import STYLES, Glyphs, device_name, duration, glyphs, key_metrics, per_second
from gpusched.client.overview import DeviceView, Overview
from gpusched.client.view import FAILURES, BatchView, FinishedWindow, RunningWindow

KEYS = "↑↓ select   c cancel   h hold/release   r retry   d drain/resume all   q quit"
_PLAIN_KEYS = "j/k select   c cancel   h hold/release   r retry   d drain/resume all   q quit"
#: devices and batches that are listed at least, where there are so many
FEWEST = 3

_SPARKS, _PLAIN_SPARKS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
#: cells of bars and sparklines, by the width of the screen
WIDE, WIDE_BAR, NARROW_BAR = 110, 20, 8
#: those of a device's slots
WIDE_SLOTS, NARROW_SLOTS = 24, 9


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The overview at the instant `monotonic`."""

    overview: Overview
    monotonic: float
    #: who is shown: `gpusched 0.1.0 at /run/…`
    title: str
    #: id of the batch that keys act upon
    selected: str | None = None
    #: a question or an answer, instead of the keys
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
        self._bar, self._slots = (WIDE_BAR, WIDE_SLOTS) if width >= WIDE else (NARROW_BAR, NARROW_SLOTS)

    def lines(self, height: int) -> list[Text]:
        """At most `height` lines."""
        overview = self._overview
        devices = [self._device(device) for device in overview.devices.values()]
        batches = self._batches()
        running = [self._running(name, window) for name, window in overview.running]
        failures = [self._finished(name, window) for name, window in reversed(overview.failures)]
        recent = [self._finished(name, window) for name, window in reversed(overview.recent)]
        room = height - 2
        parts: list[tuple[str, list[Text], int]] = [
            (self._heading_of_devices(), devices, 6),
            (self._heading_of_batches(), batches, 5),
            (self._heading_of_running(), running, 10**6),
            ("Failed last", failures, 4),
            ("Finished last", recent, 10**6),
        ]
        shares = _share(room, [(len(lines), most) for _, lines, most in parts])
        drawn = [self._header()]
        for (heading, lines, _), share in zip(parts, shares, strict=True):
            if share >= 2:
                drawn.append(self._line(heading, "bold"))
                drawn += self._cut(lines, share - 1)
        drawn = drawn[: height - 1]
        if not self._frame.fill:
            return drawn
        drawn += [Text() for _ in range(height - 1 - len(drawn))]
        return [*drawn, self._footer()]

    def _cut(self, lines: list[Text], room: int) -> list[Text]:
        if len(lines) <= room:
            return lines
        return [*lines[: room - 1], self._line(f"  {self._draw.ellipsis} and {len(lines) - room + 1} more", "dim")]

    def _line(self, text: str, style: str = "") -> Text:
        return Text(self._draw.crop(self._draw.clean(text), self._width).rstrip(), style, no_wrap=True, overflow="crop")

    # -- first and last ------------------------------------------------------------------------------------------------

    def _header(self) -> Text:
        overview, dot = self._overview, self._draw.dot
        busy = len(overview.running)
        numbers = f"{busy}/{overview.slots} slots busy {dot} {overview.waiting} waiting"
        room = self._width - len(numbers) - 1
        return Text(f"{self._draw.crop(self._draw.clean(self._frame.title), room)} {numbers}", "reverse", no_wrap=True)

    def _footer(self) -> Text:
        if self._frame.message:
            return self._line(self._frame.message, "bold yellow")
        return self._line(_PLAIN_KEYS if self._draw.ascii_only else KEYS, "dim")

    # -- devices -------------------------------------------------------------------------------------------------------

    def _heading_of_devices(self) -> str:
        return (
            f"{'device':<14} {'slots':<16} {'use':>4} {'':<{self._bar}} {'memory':>13}  {'temp':>4} {'power':>6}  name"
        )

    def _device(self, device: DeviceView) -> Text:
        status, reading = device.status, device.status.reading
        busy, idle = "#." if self._draw.ascii_only else "■□"
        idle_slots = [slot.index for slot in status.slots if slot.index not in device.busy]
        closed = set(idle_slots[max(0, status.width - len(device.busy)) :])
        cells = "".join(
            busy if slot.index in device.busy else idle for slot in status.slots if slot.index not in closed
        )
        use = reading.utilisation if reading else None
        total = (reading.memory_total_bytes if reading else None) or status.device.memory_total_bytes
        free = reading.memory_free_bytes if reading else None
        memory = "" if total is None else f"{_gib(total - free) if free is not None else '?'}/{_gib(total)} GiB"
        temperature = reading.temperature_c if reading else None
        power = reading.power_w if reading else None
        line = Text(no_wrap=True, overflow="crop")
        line.append(self._draw.crop(self._draw.clean(device_name(status.device.id)), 14) + " ")
        line.append(self._draw.crop(cells, self._slots) + " ", "green")
        line.append(f"{'' if use is None else f'{100 * use:.0f}%':>4} ")
        line.append(self._sparkline(device.utilisation), "cyan")
        line.append(f" {memory:>13} {'' if temperature is None else f'{temperature:.0f}C':>4} ")
        line.append(f"{'' if power is None else f'{power:.0f}W':>5}  ")
        if status.health != "open":
            line.append(f"{status.health}: {self._draw.clean(status.reason)} ", "bold yellow")
        line.append(self._draw.clean(status.device.name))
        line.truncate(self._width)
        return line

    def _sparkline(self, values: Sequence[float | None]) -> str:
        sparks = _PLAIN_SPARKS if self._draw.ascii_only else _SPARKS
        shown = list(values)[-self._bar :]
        drawn = "".join(" " if v is None else sparks[min(len(sparks) - 1, int(v * len(sparks)))] for v in shown)
        return f"{drawn:>{self._bar}}"

    # -- batches -------------------------------------------------------------------------------------------------------

    def _heading_of_batches(self) -> str:
        return f"  {'batch':<{self._name_width}} {'':<{self._bar}} {'done':>13}  {'rate':>7}  {'ETA':>6}  outcomes"

    @property
    def _name_width(self) -> int:
        return max(12, min(40, self._width - 60))

    def _batches(self) -> list[Text]:
        """The selected one first to be seen, then those at work, then those that ended, the latest first."""
        selected = self._frame.selected
        batches = list(reversed(self._overview.batches.items()))
        batches.sort(key=lambda item: (item[1].finished, item[0] != selected))
        return [self._batch(name, view, chosen=name == selected) for name, view in batches]

    def _batch(self, name: str, view: BatchView, *, chosen: bool) -> Text:
        draw = self._draw
        filled = self._bar * view.done // max(1, view.total)
        eta = view.eta_s(self._now)
        line = Text(no_wrap=True, overflow="crop", style="bold" if chosen else "")
        line.append("> " if chosen else "  ")
        line.append(draw.crop_middle(draw.clean(name), self._name_width) + " ")
        line.append(draw.filled * filled, "green")
        line.append(draw.empty * (self._bar - filled), "dim")
        per_s = 0.0 if view.finished or view.held_reason is not None else view.rate(self._now)
        left = "done" if view.finished else "held" if view.held_reason is not None else duration(eta) if eta else ""
        line.append(f" {f'{view.done}/{view.total}':>13}  {per_second(per_s) if per_s else '':>7}  {left:>6}  ")
        # What went wrong first: there may not be room for all of it.
        for outcome in sorted(filter(view.counts.get, view.counts), key=lambda name: name not in FAILURES):
            line.append(f"{view.counts[outcome]} {outcome.replace('_', ' ')} ", STYLES[outcome])
        if view.held_reason is not None:
            line.append(draw.clean(view.held_reason), "yellow")
        line.truncate(self._width)
        return line

    # -- windows -------------------------------------------------------------------------------------------------------

    def _heading_of_running(self) -> str:
        return f"{'slot':>4}  {'window':<{self._label_width}} {'phase':<10} {'round':>9} {'time':>6}  batch"

    @property
    def _label_width(self) -> int:
        return max(20, min(44, self._width - 48))

    def _running(self, name: str, window: RunningWindow) -> Text:
        draw = self._draw
        rounds = f"{window.round}/{window.rounds}" if window.rounds else ""
        label = draw.clean(window.label) + (f" #{window.attempt}" if window.attempt > 1 else "")
        text = f"{window.slot:>4}  {draw.crop_middle(label, self._label_width)} "
        text += f"{draw.crop(draw.clean(window.phase), 10)} {rounds:>9} {duration(self._now - window.since):>6}  {name}"
        return self._line(text, "yellow" if window.phase == "stopping" else "")

    def _finished(self, name: str, window: FinishedWindow) -> Text:
        draw = self._draw
        line = Text("      ", no_wrap=True, overflow="crop")
        line.append(draw.crop_middle(draw.clean(window.label), self._label_width))
        line.append(f" {window.outcome.replace('_', ' '):<10} ", STYLES[window.outcome])
        numbers = "  ".join(f"{metric} {number}" for metric, number in key_metrics(window.metrics, 2))
        line.append(f"{duration(window.seconds):>6}  ")
        line.append(draw.clean(window.reason or numbers))
        room = self._width - line.cell_len - cell_len(name) - 2
        if room > 0:
            line.append(" " * room + f"  {draw.clean(name)}", "dim")
        line.truncate(self._width)
        return line


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
