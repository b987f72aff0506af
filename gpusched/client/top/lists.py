"""The listing pages of `top`: everything at a glance, and the windows of a batch."""

from __future__ import annotations

from functools import partial

from gpusched.client.connection import connect
from gpusched.client.drawing.dashboard import Frame
from gpusched.client.drawing.windows import WindowsFrame
from gpusched.client.top.details import DevicePage, WindowPage
from gpusched.client.top.page import Page
from gpusched.client.top.verbs import drain, resume
from gpusched.client.views.batch import BatchView
from gpusched.client.views.overview import DeviceView
from gpusched.client.views.panels import ORDERS, Cursor, Panel, Row, rows
from gpusched.client.views.window import FinishedWindow, RunningWindow
from gpusched.client.views.windows import WindowList
from gpusched.core.events import WindowMoved
from gpusched.errors import GpuschedError
from gpusched.protocol import Delta, Snapshot


class Dashboard(Page):
    """Devices, batches, running and finished windows."""

    def __init__(self) -> None:
        super().__init__()
        self._cursor = Cursor()
        self._words = ""
        self._order = 0

    def frame(self) -> Frame:
        return Frame(
            overview=self.top.overview,
            monotonic=self.top.monotonic,
            title=self.top.words,
            cursor=self._cursor,
            words=self._words,
            order=ORDERS[self._order],
            message=self.top.message,
        )

    def _rows(self) -> dict[Panel, list[Row]]:
        return rows(self.top.overview, self._words, ORDERS[self._order])

    def _row(self) -> Row | None:
        return self._cursor.row(self._rows())

    def target(self) -> tuple[str, str | None] | None:
        row = self._row()
        return (row.batch_id, row.label) if row is not None and row.batch_id else None

    def statuses(self) -> set[str]:
        match row.item if (row := self._row()) is not None else None:
            case BatchView() as view:
                unfinished = {"queued": view.total - view.done}
                return {name for name, count in (view.counts | unfinished).items() if count}
            case RunningWindow():
                return {"running"}
            case FinishedWindow(outcome=outcome):
                return {outcome}
            case _:
                return set()

    def step(self, rows: int) -> None:
        self._cursor.move(self._rows(), rows)

    def find(self, words: str) -> None:
        self._words = words

    def action_turn(self, step: int) -> None:
        self._cursor.turn(self._rows(), step)
        self.top.say("")

    def action_back(self) -> None:
        self.top.say("")
        self._end_search()

    def action_sort(self) -> None:
        self._order = (self._order + 1) % len(ORDERS)
        self.top.say(f"Windows that run are sorted by {ORDERS[self._order]}")

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
        elif row.item.status.health == "open":
            self.top.ask(f"Place nothing more on {row.key}?", partial(drain, row.key))
        else:
            self.top.do(partial(resume, row.key))


class WindowsPage(Page):
    """All windows of a batch."""

    def __init__(self, batch_id: str) -> None:
        super().__init__()
        self._windows = WindowList(batch_id)

    def on_mount(self) -> None:
        self._reload()

    def _reload(self) -> None:
        self.run_worker(self._load, thread=True, exclusive=True)

    def _load(self) -> None:
        try:
            with connect(self.top.socket) as link:
                found = list(link.windows(self._windows.batch_id))
        except GpuschedError as error:
            self.app.call_from_thread(self.top.say, error.sentence)
        else:
            self.app.call_from_thread(self._windows.load, found)
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
            monotonic=self.top.monotonic,
            wall=self.top.overview.unix(self.top.monotonic),
            message=self.top.message,
        )

    def target(self) -> tuple[str, str | None] | None:
        chosen = self._windows.chosen(self.top.monotonic)
        return None if chosen is None else (self._windows.batch_id, chosen[1].key.label)

    def statuses(self) -> set[str]:
        chosen = self._windows.chosen(self.top.monotonic)
        return set() if chosen is None else {chosen[1].status}

    def step(self, rows: int) -> None:
        self._windows.move(rows, self.top.monotonic)

    def find(self, words: str) -> None:
        self._windows.look_for(words)

    def action_sort(self) -> None:
        self._windows.next_order()
        self.top.say("")

    def action_open(self) -> None:
        if (target := self.target()) is not None and target[1] is not None:
            self.top.open(WindowPage(target[0], target[1]))
