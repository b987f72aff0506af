"""Batches and windows on the first page of `top`: one line each, in the columns of its panel."""

from __future__ import annotations

from rich.cells import cell_len

from gpusched.client.drawing.box import SIGN, Cell, Column, row
from gpusched.client.drawing.line import Line
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.text import Glyphs, device_name, duration, key_metrics, number, per_second
from gpusched.client.views.batch import BatchView
from gpusched.client.views.failures import FailureGroup
from gpusched.client.views.overview import Overview
from gpusched.client.views.panels import Lens
from gpusched.client.views.window import FinishedWindow, RunningWindow
from gpusched.core.statuses import FAILURES, words
from gpusched.users import user_name

#: inner width from which there are more columns, and longer bars
WIDE = 98
WIDE_BAR, NARROW_BAR = 20, 8
#: cells of an ETA with its error and without, and those that outcomes get before an ETA gets its error
ETA, ETA_ALONE, OUTCOMES = 13, 6, 20
#: cells of a window's label: at most, and where its symbol has five letters and it is at its second attempt
MOST_LABEL, COMMON_LABEL = 44, 32
#: cells of the label of an example, of an owner, and at least of a batch's name beside its windows
EXAMPLE, OWNER, LEAST_NAME = 24, 10, 5


class WorkLines:
    """The lines of batches and windows of an overview at the instant `now`, `width` cells wide."""

    def __init__(self, overview: Overview, lens: Lens, width: int, now: float, draw: Glyphs) -> None:
        self._overview, self._lens, self._now, self._draw = overview, lens, now, draw
        self._width = width
        self._wide = width >= WIDE
        names = [device_name(id_, view.status.device.host) for id_, view in overview.devices.items()]
        devices = max(map(cell_len, names), default=6)
        self._device = min(14, max(6, devices))
        self._longest = max(map(cell_len, map(draw.clean, overview.batches)), default=0)
        self._owners = max((cell_len(self._owner(view)) for view in overview.batches.values()), default=0)
        self.batch_columns = self._columns_of_batches()
        self.running_columns = self._columns_of_running()
        self.finished_columns = self._columns_of_finished()

    # -- batches -------------------------------------------------------------------------------------------------------

    def _owner(self, view: BatchView) -> str:
        return self._draw.clean(user_name(view.owner))[:OWNER]

    def _columns_of_batches(self) -> list[Column]:
        batches = self._overview.batches
        name = max(5, min(self._longest, 40, max(12, self._width - 62)))
        bar = WIDE_BAR if self._wide else NARROW_BAR
        done = max((2 * len(str(view.total)) + 1 for view in batches.values()), default=4)
        others = SIGN + name + bar + done + 8 + 5 + (self._owners + 1 if self._owners else 0)
        eta = ETA if self._width - others - ETA >= OUTCOMES else ETA_ALONE
        return [
            Column("", name, middle=True),
            Column("", bar),
            Column("done", done, right=True),
            Column("rate", 8, right=True),
            Column("ETA", eta, right=True),
            Column("outcomes", 0),
        ]

    def batch(self, name: str, view: BatchView) -> Line:
        draw, (_, bar, _, _, eta_column, _) = self._draw, self.batch_columns
        filled = bar.width * view.done // max(1, view.total)
        drawn = Line(draw.filled * filled, "green").append(draw.empty * (bar.width - filled), "dim")
        eta = view.eta_s(self._now)
        per_s = 0.0 if view.finished or view.held_reason is not None else view.rate(self._now)
        stands = "done" if view.finished else "held" if view.held_reason is not None else "waits" if view.waits else ""
        left = stands or (duration(eta) if eta else "")
        error = view.eta_error_s(self._now) if eta_column.width == ETA else None
        left += f" {draw.plus_minus}{duration(error)}" if error is not None else ""
        style = STYLES["finished" if view.finished else "held"] if stands else ""
        cells: list[Cell] = [
            (draw.clean(name), "bold"),
            drawn,
            (f"{view.done}/{view.total}" if view.total else "", ""),
            (per_second(per_s) if per_s else "", "cyan"),
            (left, style),
            ("", ""),
        ]
        # The reason of a hold or a wait first, then failures: there may not be room for both.
        why = "" if view.finished else view.held_reason or view.waits
        parts = [(draw.clean(why), STYLES["held"])] if why else []
        worst = sorted(filter(view.counts.get, view.counts), key=lambda name: name not in FAILURES)
        parts += [(f"{view.counts[name]} {words(name)}", STYLES[name]) for name in worst]
        owner = self._owner(view)
        room = self._width - (self._owners + 1 if self._owners else 0)
        line = self._filled(row(self.batch_columns, cells, draw), parts, "  ", room, self._draw.ellipsis)
        if owner:
            line.pad(self._width - cell_len(owner)).append(owner, "dim")
        return line

    # -- windows -------------------------------------------------------------------------------------------------------

    @property
    def _label(self) -> int:
        """Cells of a window's label: a common one is whole where the names of the batches leave room for it."""
        beside, name = (52 + self._device, 10) if self._wide else (35, 16)
        room = self._width - beside
        needed = min(name, max(LEAST_NAME, self._longest))
        return max(20, min(MOST_LABEL, room - name), min(COMMON_LABEL, room - needed))

    def _columns_of_running(self) -> list[Column]:
        bar = [Column("", NARROW_BAR)] if self._wide else []
        where = [Column("device", self._device)] if self._wide else []
        return [
            Column("", 4, right=True),
            Column("", self._label, middle=True),
            Column("phase", 10),
            *bar,
            Column("round", 9, right=True),
            Column("time", 6, right=True),
            *([Column("of", 6, right=True)] if self._wide else []),
            *where,
            Column("batch", 0),
        ]

    def running(self, name: str, window: RunningWindow) -> Line:
        draw = self._draw
        style = STYLES["stopping"] if window.phase == "stopping" else ""
        label = draw.clean(window.label) + (f" #{window.attempt}" if window.attempt > 1 else "")
        cells: list[Cell] = [
            (str(window.slot) if window.slot >= 0 else "", style),
            (label, style),
            (draw.clean(window.phase), style or "cyan"),
        ]
        if self._wide:
            filled = round(NARROW_BAR * window.round / window.rounds) if window.rounds else 0
            bar = Line(draw.filled * filled, "cyan")
            cells.append(bar.append(draw.empty * (NARROW_BAR - filled), "dim"))
        cells += [
            (f"{window.round}/{window.rounds}" if window.rounds else "", style),
            (duration(self._now - window.since), style),
        ]
        if self._wide:
            expected = self._overview.batches[name].expected_s
            cells.append(("" if expected is None else duration(expected), "dim"))
            cells.append((draw.clean(device_name(window.device, window.node)), style))
        cells.append((self._batch_name(name, self.running_columns), "dim"))
        return row(self.running_columns, cells, draw)

    def _batch_name(self, name: str, columns: list[Column]) -> str:
        room = self._width - SIGN - sum(column.width + 1 for column in columns)
        return self._draw.crop_middle(self._draw.clean(name), room).rstrip() if room >= LEAST_NAME else ""

    def failed(self, group: FailureGroup) -> Line:
        """The number of windows, their reason, and the latest of them."""
        draw, latest = self._draw, group.example
        label = draw.clean(latest.label)
        line = Line(f"{' ' * SIGN}{len(group.windows):>4} {draw.times} ")
        reason = draw.clean(group.reason or words(latest.kind or "failed"))
        room = self._width - line.cells - EXAMPLE - 2
        line.append(draw.crop(reason, max(0, room)), STYLES["failed"])
        return line.append(f"  {draw.crop_middle(label, EXAMPLE).rstrip()}", "dim")

    def _columns_of_finished(self) -> list[Column]:
        return [
            Column("", self._label, middle=True),
            Column("outcome", 9),
            Column("time", 6, right=True),
            Column(self._lens.metric or "metric", 12 if self._wide or self._lens.metric else 16, right=True),
            Column("batch", 0),
        ]

    def finished(self, name: str, window: FinishedWindow) -> Line:
        draw, columns = self._draw, self.finished_columns
        cells: list[Cell] = [
            (draw.clean(window.label), ""),
            (words(window.outcome), STYLES[window.outcome]),
            (duration(window.seconds), ""),
        ]
        if window.reason:
            return row([*columns[:3], Column("", 0)], [*cells, (draw.clean(window.reason), "")], draw)
        metric = ""
        if self._lens.metric:
            metric = "" if (value := self._lens.value(window)) is None else number(value[1])
        elif metrics := key_metrics(window.metrics, 1):
            metric = draw.clean(" ".join(metrics[0]))
        return row(columns, [*cells, (metric, ""), (self._batch_name(name, columns), "dim")], draw)

    # -- fitting -------------------------------------------------------------------------------------------------------

    def _filled(self, line: Line, parts: list[tuple[str, str]], gap: str, room: int, more: str) -> Line:
        """The line and as many styled parts as fit whole, `more` if not all do. The first is cut if it does not fit."""
        for place, (part, style) in enumerate(parts):
            if place == 0:
                line.append(part, style)
                line.fit(room, self._draw)
            elif line.cells + len(gap) + cell_len(part) <= room:
                line.append(gap).append(part, style)
            else:
                if line.cells + len(gap + more) <= room:
                    line.append(gap + more, "dim")
                break
        return line.fit(room, self._draw)
