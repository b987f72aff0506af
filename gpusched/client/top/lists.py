"""The listing pages of `top`: everything at a glance, and the windows of a batch."""

from __future__ import annotations

import msgspec

from gpusched.client.connection import connect
from gpusched.client.drawing.dashboard import Frame
from gpusched.client.drawing.devices import Graphs
from gpusched.client.drawing.windows import WindowsFrame
from gpusched.client.top.details import DevicePage, WindowPage
from gpusched.client.top.page import Page
from gpusched.client.top.verbs import Target, drain_or_open
from gpusched.client.views.batch import BatchView
from gpusched.client.views.failures import FailureGroup
from gpusched.client.views.overview import DeviceView
from gpusched.client.views.panels import (
    ORDERS,
    RANKINGS,
    Cursor,
    Lens,
    Panel,
    Row,
    after,
    metric_names,
    rows,
)
from gpusched.client.views.window import FinishedWindow, RunningWindow
from gpusched.client.views.windows import TABS, Tab, WindowList
from gpusched.core.events import WindowMoved
from gpusched.errors import GpuschedError
from gpusched.protocol import Delta, Snapshot

#: windows of a batch whose metrics are asked for
MOST_MEASURED = 20_000


class Dashboard(Page):
    """Devices, batches, running and finished windows."""

    def __init__(self) -> None:
        super().__init__()
        self._cursor = Cursor()
        self._lens = Lens()
        self._graphs = Graphs()

    def frame(self) -> Frame:
        return Frame(
            overview=self.top.overview,
            monotonic=self.top.monotonic,
            title=self.top.words,
            clock=self.top.clock,
            host=self.top.host,
            cursor=self._cursor,
            lens=self._lens,
            graphs=self._graphs,
            message=self.top.message,
        )

    def _rows(self) -> dict[Panel, list[Row]]:
        return rows(self.top.overview, self._lens)

    def _row(self) -> Row | None:
        return self._cursor.row(self._rows())

    def targets(self) -> list[Target]:
        return [target for row in self._cursor.rows(self._rows()) for target in row.targets]

    def statuses(self) -> set[str]:
        return {status for row in self._cursor.rows(self._rows()) for status in _statuses(row)}

    def action_mark(self) -> None:
        self._cursor.mark(self._rows())
        self.top.say("")

    def click(self, x: int, y: int, *, twice: bool) -> None:
        for spot in self.frame().spots(*self.canvas.size):
            if spot.y == y and spot.x <= x < spot.x + spot.width:
                self._cursor.go_to(spot.panel, spot.key)
                if twice:
                    self.action_open()

    def step(self, rows: int) -> None:
        self._cursor.move(self._rows(), rows)

    def find(self, words: str) -> None:
        self._lens = msgspec.structs.replace(self._lens, words=words)

    def action_turn(self, step: int) -> None:
        self._cursor.turn(self._rows(), step)
        self.top.say("")

    def action_back(self) -> None:
        self.top.say("")
        if not self._end_search():
            self._cursor.marked.clear()

    def action_sort(self) -> None:
        lens = self._lens
        if self._cursor.panel == "finished":
            self._lens = msgspec.structs.replace(lens, ranking=after(RANKINGS, lens.ranking))
            self.top.say(f"Windows that finished: the {self._lens.ranking} first")
        else:
            self._lens = msgspec.structs.replace(lens, order=after(ORDERS, lens.order))
            self.top.say(f"Windows that run are sorted by {self._lens.order}")

    def action_metric(self) -> None:
        names = ["", *metric_names(self.top.overview)]
        self._lens = msgspec.structs.replace(self._lens, metric=after(names, self._lens.metric))
        self.top.say(f"Windows that finished show {self._lens.metric or 'the first of their metrics'}")

    def action_open(self) -> None:
        row = self._row()
        if row is None:
            return
        if isinstance(row.item, DeviceView):
            self.top.open(DevicePage(row.key))
        elif row.label is None:
            self.top.open(WindowsPage(row.batch_id))
        else:
            self.top.open(WindowPage(row.batch_id, row.label))

    def action_drain(self) -> None:
        row = self._row()
        if row is None or not isinstance(row.item, DeviceView):
            self.top.say("d drains a device: choose one with tab and the arrows")
        else:
            drain_or_open(self.top, row.key, is_open=row.item.status.health == "open")


def _statuses(row: Row) -> set[str]:
    """States and outcomes of the windows that a row stands for."""
    match row.item:
        case BatchView() as view:
            unfinished = {"queued": 1 if view.waits else view.total - view.done}
            return {name for name, count in (view.counts | unfinished).items() if count}
        case RunningWindow():
            return {"running"}
        case FinishedWindow(outcome=outcome):
            return {outcome}
        case FailureGroup(windows=windows):
            return {window.outcome for _, window in windows}
        case DeviceView():
            return set()


class WindowsPage(Page):
    """A batch: its windows, its failures by reason, its symbols by a metric, its settings."""

    def __init__(self, batch_id: str) -> None:
        super().__init__()
        self._windows = WindowList(batch_id)
        self._tab: Tab = "windows"
        #: the chosen row of the tabs that are no list of windows
        self._place = 0

    def on_mount(self) -> None:
        self._reload()

    def _reload(self) -> None:
        self.run_worker(self._load, thread=True, exclusive=True)

    def _load(self) -> None:
        """Load the windows first, then their metrics, unless those take long because there are many windows."""
        batch_id = self._windows.batch_id
        try:
            with connect(self.top.socket) as link:
                lines = list(link.windows(batch_id))
                self.app.call_from_thread(self._windows.load, lines)
                self.app.call_from_thread(self._windows.describe, link.batch(batch_id).spec)
                self.top.changed = True
                if len(lines) <= MOST_MEASURED:
                    self.app.call_from_thread(self._windows.learn, list(link.results(batch_id)))
        except GpuschedError as error:
            self.top.lack(error)
        self.top.changed = True

    def learn(self, delta: Delta | Snapshot) -> None:
        if isinstance(delta, WindowMoved):
            self._windows.apply(delta)
        elif isinstance(delta, Snapshot):
            self._reload()

    def frame(self) -> WindowsFrame:
        return WindowsFrame(
            windows=self._windows,
            view=self.top.overview.batches.get(self._windows.batch_id),
            tab=self._tab,
            place=self._row_number(),
            monotonic=self.top.monotonic,
            wall=self.top.overview.unix(self.top.monotonic),
            message=self.top.message,
        )

    def _labels(self) -> list[str]:
        """The windows that keys act upon: the marked ones, or else those of the chosen row."""
        return sorted(self._windows.marked) or self._chosen_labels()

    def _chosen_labels(self) -> list[str]:
        now = self.top.monotonic
        match self._tab:
            case "windows":
                chosen = self._windows.chosen(now)
                return [] if chosen is None else [chosen[1].key.label]
            case "failures":
                groups = self._windows.failures(now)
                return groups[self._row_number()].labels if groups else []
            case "settings":
                return []
            case "symbols":
                symbols = self._windows.symbols(now)
                symbol = symbols[self._row_number()].symbol if symbols else ""
                return [line.key.label for line in self._windows.of_symbol(symbol)]

    def targets(self) -> list[Target]:
        return [(self._windows.batch_id, label) for label in self._labels()]

    def statuses(self) -> set[str]:
        return self._windows.statuses(self._labels())

    def step(self, rows: int) -> None:
        if self._tab == "windows":
            self._windows.move(rows, self.top.monotonic)
        else:
            self._place = max(0, min(self._count() - 1, self._row_number() + rows))

    def _row_number(self) -> int:
        """The chosen row of a tab that is no list of windows: the last one where those after it are gone."""
        return 0 if self._tab == "windows" else max(0, min(self._count() - 1, self._place))

    def _count(self) -> int:
        """Rows of a tab that is no list of windows."""
        match self._tab:
            case "failures":
                return len(self._windows.failures(self.top.monotonic))
            case "settings":
                return len(self._windows.settings)
            case _:
                return len(self._windows.symbols(self.top.monotonic))

    def click(self, x: int, y: int, *, twice: bool) -> None:
        frame = self.frame()
        place = frame.place_at(y, *self.canvas.size)
        if place is not None:
            self.step(place - frame.chosen())
            if twice:
                self.action_open()

    def find(self, words: str) -> None:
        self._windows.look_for(words)

    def action_mark(self) -> None:
        self._windows.mark(self._chosen_labels())
        self.action_move(1)

    def action_turn(self, step: int) -> None:
        self._tab = TABS[(TABS.index(self._tab) + step) % len(TABS)]
        self._place = 0
        self.top.say("")

    def action_back(self) -> None:
        if self._windows.marked:
            self._windows.marked.clear()
            self.top.say("")
        else:
            super().action_back()

    def action_sort(self) -> None:
        self._windows.next_order()
        self.top.say("")

    def action_metric(self) -> None:
        self._windows.next_metric()
        self.top.say("")

    def action_status(self) -> None:
        self._windows.next_status()
        self.top.say("")

    def action_open(self) -> None:
        """The window, the latest of a group, or the windows of a symbol."""
        labels = self._chosen_labels()
        if labels and self._tab == "symbols":
            self._tab = "windows"
            self.look_for(self._windows.symbols(self.top.monotonic)[self._row_number()].symbol)
        elif labels:
            self.top.open(WindowPage(self._windows.batch_id, labels[0]))
