"""One frame of a running batch, laid out for the screen it is drawn on.

The height changes only when a slot, an outcome or a finished window appears for the first time: nothing jumps about.
"""

from __future__ import annotations

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.text import (
    Glyphs,
    device_name,
    duration,
    flowed,
    glyphs,
    joined,
    key_metrics,
    per_second,
)
from gpusched.client.views.batch import BatchView
from gpusched.client.views.window import FinishedWindow, RunningWindow
from gpusched.core.statuses import OUTCOMES, words

#: finished windows shown at most, and at least where there is little room
RECENT_ROWS = (3, 10)
#: from this width on, slots that do not fit below each other are shown in two columns
TWO_COLUMNS = 160
#: most cells of a label, and of the bar that gets the remaining room
LABEL_CELLS = 48
BAR_CELLS = 60
#: cells between columns
_GAP = 2
_PHASE, _ROUND, _TIME = 10, 9, 6
_SLOT_HEADING = ("slot", "device", "window", "phase", "round", "time")


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The view as it is at `monotonic`, seconds after `began`."""

    view: BatchView
    began: float
    monotonic: float
    #: shown as long as the batch has not been accepted
    waiting: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        draw = glyphs(ascii_only=options.ascii_only)
        if not self.view.total:
            yield Text(draw.crop(draw.clean(self.waiting), options.max_width).rstrip(), no_wrap=True)
            return
        height = options.height or console.size.height
        # One row stays free: on some terminals a full screen scrolls by one.
        yield from _Layout(self, draw, options.max_width, height - 1).lines()


class _Layout:
    def __init__(self, frame: Frame, draw: Glyphs, width: int, height: int) -> None:
        self._view = frame.view
        self._now = frame.monotonic
        self._elapsed = frame.monotonic - frame.began
        self._draw = draw
        self._width = width
        self._height = height

    def lines(self) -> list[Text]:
        view = self._view
        top = [self._bar(), *self._counts()]
        if view.held_reason is not None:
            held = self._draw.crop(f"Held: {self._draw.clean(view.held_reason)}", self._width)
            top.append(Text(held, "bold yellow", no_wrap=True))
        recent = list(view.recent)
        # The rows below the top: slots with their heading, finished windows with theirs.
        room = self._height - len(top) - 1
        kept = min(len(recent), RECENT_ROWS[0]) + 1 if recent else 0
        slots = self._slots(max(1, room - kept))
        shown = min(len(recent), RECENT_ROWS[1], room - len(slots) - 1)
        lines = [*top, *slots]
        if shown > 0:
            lines += self._recent(recent[-shown:])
        return lines[: max(1, self._height)]

    def _bar(self) -> Text:
        view, draw = self._view, self._draw
        done, total = view.done, max(1, view.total)
        eta = view.eta_s(self._now)
        numbers = f"  {done}/{view.total}  {100 * done // total}%  {per_second(view.rate(self._now))}"
        numbers += f"  {duration(self._elapsed)}"
        error = view.eta_error_s(self._now)
        numbers += f"  ETA {duration(eta) if eta is not None else draw.dash}"
        numbers += f" {draw.plus_minus}{duration(error)}" if error is not None else ""
        name = draw.clean(view.batch_id)
        room = self._width - len(numbers) - 2
        name = draw.crop_middle(name, max(0, min(cell_len(name), room - 10)))
        cells = max(0, room - cell_len(name))
        filled = cells * done // total
        line = Text(name, "bold", no_wrap=True, overflow="crop")
        line.append("  ")
        line.append(draw.filled * filled, "green")
        line.append(draw.empty * (cells - filled), "dim")
        line.append(numbers, "not bold")
        return line

    def _counts(self) -> list[Text]:
        view = self._view
        parts = [
            (f"{view.counts[name]} {words(name)}", STYLES[name])
            for name in OUTCOMES
            if view.counts[name] or name in ("succeeded", "failed")
        ]
        # Nothing is red as long as there is nothing to be alarmed by.
        parts = [(text, "dim" if text.startswith("0 ") else style) for text, style in parts]
        parts.append((f"{len(view.running)} running", "bold"))
        if waiting := view.total - view.done - len(view.running) - view.held:
            parts.append((f"{waiting} waiting", ""))
        if view.held:
            parts.append((f"{view.held} held", STYLES["held"]))
        if view.retries:
            parts.append((f"{view.retries} retried", "yellow"))
        return flowed(parts, f" {self._draw.dot} ", self._width)

    # -- slots ---------------------------------------------------------------------------------------------------------

    def _slots(self, rows: int) -> list[Text]:
        """The table of slots in at most `rows` rows, the heading included."""
        view = self._view
        indexes = range(view.slots)
        running = dict(view.running)
        if not indexes or rows < 2:
            return [self._summarised(len(indexes), len(running), "")] if indexes and rows else []
        columns = 2 if self._width >= TWO_COLUMNS and len(indexes) > rows - 1 else 1
        room = (rows - 1) * columns
        shown = len(indexes) if len(indexes) <= room else (rows - 2) * columns
        width = (self._width - _GAP * (columns - 1)) // columns
        names = {index: self._draw.clean(device_name(*device)) for index, device in view.devices.items()}
        device_width = min(16, max([6, *(cell_len(name) for name in names.values())]))
        per_column = -(-shown // columns)
        lines = []
        for row in range(-1, per_column):
            cells: list[tuple[str, str]] = []
            for column in range(columns):
                index = column * per_column + row
                if row < 0:
                    cells.append((self._slot_row(_SLOT_HEADING, device_width, width), "bold"))
                elif index < shown:
                    cells.append(self._slot(index, running.get(index), names.get(index, ""), device_width, width))
            lines.append(joined(cells, " " * _GAP))
        if shown < len(indexes):
            busy = sum(index >= shown for index in running)
            lines.append(self._summarised(len(indexes) - shown, busy, f"{self._draw.ellipsis} and "))
        return lines

    def _slot(
        self, index: int, running: RunningWindow | None, device: str, device_width: int, width: int
    ) -> tuple[str, str]:
        if running is None:
            return self._slot_row((str(index), device, "idle", "", "", ""), device_width, width), "dim"
        label = self._draw.clean(running.label)
        if running.attempt > 1:
            label = f"{label} #{running.attempt}"
        phase, rounds = self._draw.clean(running.phase), ""
        if running.rounds:
            rounds = f"{running.round}/{running.rounds}"
        elapsed = duration(self._now - running.since)
        style = STYLES["stopping"] if running.phase == "stopping" else ""
        row = self._slot_row((str(index), device, label, phase, rounds, elapsed), device_width, width)
        bar = min(BAR_CELLS, width - cell_len(row.rstrip()) - _GAP)
        if running.rounds > 0 and bar > 4:
            filled = bar * min(running.round, running.rounds) // running.rounds
            row = row.rstrip() + " " * _GAP + self._draw.filled * filled + self._draw.empty * (bar - filled)
            row = self._draw.crop(row, width)
        return row, style

    def _slot_row(self, texts: tuple[str, str, str, str, str, str], device_width: int, width: int) -> str:
        """The texts below those of `_SLOT_HEADING`."""
        draw, (slot, device, label, phase, rounds, elapsed) = self._draw, texts
        fixed = 4 + device_width + _PHASE + _ROUND + _TIME + 5 * _GAP
        gap = " " * _GAP
        row = gap.join(
            (
                f"{slot:>4}",
                draw.crop(device, device_width),
                draw.crop_middle(label, max(4, min(LABEL_CELLS, width - fixed))),
                draw.crop(phase, _PHASE),
                f"{rounds:>{_ROUND}}"[:_ROUND],
                f"{elapsed:>{_TIME}}",
            )
        )
        return draw.crop(row, width)

    def _summarised(self, slots: int, busy: int, lead: str) -> Text:
        text = f"{lead}{slots} {'more ' if lead else ''}slots: {busy} running, {slots - busy} idle"
        return Text(f"      {text}", "dim", no_wrap=True, overflow="crop")

    # -- finished windows ----------------------------------------------------------------------------------------------

    def _recent(self, windows: list[FinishedWindow]) -> list[Text]:
        """A heading, then the windows, the latest first."""
        wide = self._width >= 120
        width = min(max(cell_len(self._draw.clean(window.label)) for window in windows), 60 if wide else 33)
        lines = [Text("Finished last", "bold", no_wrap=True)]
        for window in reversed(windows):
            line = Text("  ", no_wrap=True, overflow="crop")
            line.append(self._draw.crop_middle(self._draw.clean(window.label), width))
            line.append(f"  {duration(window.seconds):>6}  ")
            if window.outcome == "succeeded":
                numbers = key_metrics(window.metrics, 5 if wide else 2)
                rest = "  ".join(f"{name} {number}" for name, number in numbers)
            else:
                line.append(words(window.outcome), STYLES[window.outcome])
                rest = f"  {window.reason}" if window.reason else ""
            room = max(0, self._width - line.cell_len)
            line.append(self._draw.crop(self._draw.clean(rest), room).rstrip())
            lines.append(line)
        return lines
