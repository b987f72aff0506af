"""One frame of a batch in `gpusched top`: its windows, failures by reason, symbols by a metric, or settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.cells import cell_len

from gpusched.client.drawing.box import SIGN, Box, Cell, Column, around, heading, row, signed
from gpusched.client.drawing.line import Drawn, Line, footer, told
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.rooms import BORDER
from gpusched.client.drawing.text import Glyphs, device_name, duration, glyphs, number, per_second
from gpusched.client.views.batch import BatchView
from gpusched.client.views.failures import FailureGroup
from gpusched.client.views.window import RunningWindow
from gpusched.client.views.windows import TABS, SymbolLine, Tab, WindowList, seconds
from gpusched.core.statuses import FAILURES, words
from gpusched.core.wording import counted
from gpusched.protocol import WindowLine

KEYS = "tab view  ⏎ open  space mark  c cancel  r retry  / find  v status  m metric  s sort  esc back  ? help"
_PLAIN_KEYS = "tab view  enter open  space mark  c cancel  r retry  / find  v status  m metric  s sort  ? help"
_SHORT_KEYS = "tab view  ⏎ open  space mark  c r  / find  v status  m metric  s sort  esc back"
_PLAIN_SHORT_KEYS = "tab view  enter  space mark  c r  / find  v status  m metric  s sort  esc back"


#: cells of a metric, metrics of a window at most, and cells for everything beside them
METRIC, MOST_METRICS, BESIDE_METRICS = 9, 5, 106


class WindowsFrame(Drawn, frozen=True, kw_only=True):
    """The list at the instant `monotonic`, `wall` as Unix time."""

    windows: WindowList
    #: None: the daemon has not told of the batch
    view: BatchView | None
    tab: Tab = "windows"
    #: the chosen row of the other tabs
    place: int = 0
    monotonic: float
    wall: float
    #: an answer, instead of the keys
    message: str = ""

    def lines(self, width: int, height: int, draw: Glyphs) -> list[Line]:
        return _Drawing(self, draw, width).lines(height)

    def place_at(self, y: int, width: int, height: int) -> int | None:
        """The number of the row in a line of the screen, for the mouse."""
        drawing = _Drawing(self, glyphs(ascii_only=False), width)
        drawing.lines(height)
        return drawing.places.get(y)

    def chosen(self) -> int:
        """The number of the chosen row."""
        if self.tab != "windows":
            return self.place
        chosen = self.windows.chosen(self.monotonic)
        return 0 if chosen is None else chosen[0]


class _Listed(NamedTuple):
    """The rows of a tab: their columns, their number, and the drawing of one by its number."""

    columns: Sequence[Column]
    size: int
    line: Callable[[int], Line]
    marked: Callable[[int], bool]


class _Drawing:
    def __init__(self, frame: WindowsFrame, draw: Glyphs, width: int) -> None:
        self._frame, self._draw, self._width = frame, draw, width
        self._inner = width - BORDER
        #: the number of the row in each line of the screen
        self.places: dict[int, int] = {}
        label = max(20, min(44, self._inner - 52))
        #: the metrics that have a column: as many as leave room for a reason
        self._metrics = frame.windows.metrics(max(1, min(MOST_METRICS, (self._inner - BESIDE_METRICS) // (METRIC + 1))))
        self._columns = [
            Column("window", label, middle=True),
            Column("status", 10),
            Column("tries", 5, right=True),
            Column("slot", 4, right=True),
            Column("time", 6, right=True),
            *(Column(self._named(name), METRIC, right=True) for name in self._metrics or ["metric"]),
            Column("why", 0),
        ]

    def lines(self, height: int) -> list[Line]:
        frame, windows = self._frame, self._frame.windows
        listed = self._listed()
        chosen = frame.chosen()
        reason = self._reason()
        explained = told(reason, self._width, self._draw)[: max(0, height - 7)] if reason else []
        top = [self._header(), self._pace()]
        room = height - 1 - len(top) - BORDER - len(explained)
        rows: list[Line] = []
        if not windows.loaded:
            rows.append(Line("  Loading", "dim"))
        elif not listed.size:
            rows.append(Line(f"  {_EMPTY[frame.tab]}", "dim"))
        elif room > 0:
            first, shown = around(chosen, listed.size, room)
            for place in range(first, first + shown):
                line, marked = listed.line(place), listed.marked(place)
                self.places[len(top) + 1 + len(rows)] = place
                rows.append(signed(line, self._inner, self._draw, chosen=place == chosen, marked=marked))
        drawn = top
        if room > 0:
            box = Box(
                title=frame.tab,
                below=self._below(listed.size),
                width=self._width,
                lines=rows,
                room=room,
                headings=heading(listed.columns),
                focused=True,
            )
            drawn = [*top, *box.drawn(self._draw)]
        drawn = drawn[: max(0, height - 1 - len(explained))]
        return [*drawn, *explained, footer(frame.message, self._keys(), self._width, self._draw)]

    def _keys(self) -> str:
        plain = self._draw.ascii_only
        return (
            (_PLAIN_KEYS if plain else KEYS)
            if self._width >= len(_PLAIN_KEYS)
            else (_PLAIN_SHORT_KEYS if plain else _SHORT_KEYS)
        )

    def _named(self, metric: str) -> str:
        """The name of a metric in its column."""
        return self._draw.crop_middle(self._draw.clean(metric), METRIC).rstrip()

    # -- above the list ------------------------------------------------------------------------------------------------

    def _header(self) -> Line:
        """The batch, and the tabs."""
        frame, draw = self._frame, self._draw
        tabs = Line()
        for tab in TABS:
            tabs.append("  ").append(tab, "bold reverse" if tab == frame.tab else "dim")
        name = draw.crop_middle(draw.clean(frame.windows.batch_id), max(8, self._width - tabs.cells))
        return Line(name, "bold").extend(tabs).fit(self._width, draw)

    def _pace(self) -> Line:
        """Numbers of windows by outcome, rate and time left."""
        view, line = self._frame.view, Line()
        if view is None:
            return line
        line.append(f"{view.done}/{view.total}", "bold")
        if view.held_reason is not None and not view.finished:
            line.append("  held", STYLES["held"])
        for name, count in sorted(view.counts.items(), key=lambda item: item[0] not in FAILURES):
            if count:
                line.append("  ").append(f"{count} {words(name)}", STYLES[name])
        if not view.finished and (rate := view.rate(self._frame.monotonic)):
            line.append("  ").append(per_second(rate), "cyan")
            if eta := view.eta_s(self._frame.monotonic):
                line.append(f"  {duration(eta)} left")
        return line.fit(self._width, self._draw)

    def _below(self, count: int) -> str:
        windows = self._frame.windows
        if self._frame.tab == "failures":
            return counted(count, "reason")
        if self._frame.tab == "symbols":
            return f"{counted(count, 'symbol')} by {windows.shown_metric or 'name'}"
        if self._frame.tab == "settings":
            return f"{count} settings"
        parts = [f"{count} of {len(windows)} windows", f"by {windows.order}"]
        parts += [f"only {words(windows.status)}"] if windows.status else []
        parts += [f"only {windows.words!r}"] if windows.words else []
        parts += [f"{len(windows.marked)} marked"] if windows.marked else []
        return self._draw.clean(f" {self._draw.dot} ".join(parts))

    def _reason(self) -> str:
        """The reason of the chosen row, in full."""
        frame = self._frame
        if frame.message or frame.tab == "symbols":
            return ""
        if frame.tab == "settings":
            name, value = [*frame.windows.settings[frame.place : frame.place + 1], ("", "")][0]
            return value if cell_len(value) > self._inner - cell_len(name) - 4 else ""
        if frame.tab == "failures":
            groups = frame.windows.failures(frame.monotonic)
            example = groups[frame.place].example if frame.place < len(groups) else None
            return (
                f"{example.label}  {words(example.kind or example.outcome)}: {example.reason}"
                if example is not None
                else ""
            )
        chosen = frame.windows.chosen(frame.monotonic)
        return f"{chosen[1].key.label}  {chosen[1].reason}" if chosen is not None and chosen[1].reason else ""

    # -- the list ------------------------------------------------------------------------------------------------------

    def _listed(self) -> _Listed:
        frame = self._frame
        marked = frame.windows.marked
        if frame.tab == "windows":
            shown = frame.windows.shown(frame.monotonic)
            running = {window.label: window for window in frame.view.running.values()} if frame.view else {}

            def window(place: int) -> Line:
                (line,) = frame.windows.lines(place, 1)
                return self._window(line, running.get(line.key.label))

            return _Listed(self._columns, len(shown), window, lambda place: shown[place] in marked)
        if frame.tab == "failures":
            groups = frame.windows.failures(frame.monotonic)

            def is_marked(place: int) -> bool:
                return bool(marked) and marked.issuperset(groups[place].labels)

            return _Listed((), len(groups), lambda place: self._group(groups[place]), is_marked)
        if frame.tab == "settings":
            rows = frame.windows.settings
            named = Column("setting", min(30, max((cell_len(name) for name, _ in rows), default=0)) + 1)
            columns = [named, Column("value", 0)]

            def setting(place: int) -> Line:
                name, value = map(self._draw.clean, rows[place])
                return row(columns, [(name, "dim"), (value, "")], self._draw)

            return _Listed(columns, len(rows), setting, lambda place: False)
        symbols, columns = frame.windows.symbols(frame.monotonic), self._symbol_columns()
        return _Listed(columns, len(symbols), lambda place: self._symbol(columns, symbols[place]), lambda place: False)

    def _window(self, window: WindowLine, running: RunningWindow | None) -> Line:
        draw = self._draw
        taken = seconds(window, self._frame.wall)
        windows = self._frame.windows
        values = [windows.value(window.key.label, name) for name in self._metrics or [""]]
        why, style = draw.clean(window.reason or ""), ""
        if running is not None:
            rounds = f" {running.round}/{running.rounds}" if running.rounds else ""
            why = f"{draw.clean(running.phase)}{rounds} on {draw.clean(device_name(running.device, running.node))}"
            style = "cyan"
        cells: list[Cell] = [
            (draw.clean(window.key.label), ""),
            (words(window.status), STYLES.get(window.status, "")),
            (str(window.attempts or ""), ""),
            ("" if window.slot is None or window.slot.waits else str(window.slot.index), ""),
            ("" if taken is None else duration(taken), ""),
            *(("" if value is None else number(value), "") for value in values),
            (why, style),
        ]
        return row(self._columns, cells, draw)

    def _group(self, group: FailureGroup) -> Line:
        draw, window = self._draw, group.example
        kind = words(window.kind or window.outcome)
        text = Line(f"{' ' * SIGN}{len(group.windows):>5} {draw.times} ")
        return text.append(f"{kind}: ", "dim").append(draw.clean(group.reason), STYLES["failed"])

    def _symbol_columns(self) -> list[Column]:
        return [
            Column("symbol", max(12, min(30, self._inner - 66)), middle=True),
            Column("windows", 8, right=True),
            Column("failed", 6, right=True),
            Column("measured", 8, right=True),
            Column("median", 9, right=True),
            Column("worst", 9, right=True),
            Column("best", 9, right=True),
            Column("", 0),
        ]

    def _symbol(self, columns: list[Column], line: SymbolLine) -> Line:
        cells: list[Cell] = [
            (self._draw.clean(line.symbol), "bold"),
            (str(line.windows), ""),
            (str(line.failed or ""), STYLES["failed"]),
            (str(line.measured or ""), ""),
            *(("" if value is None else number(value), "") for value in (line.median, line.worst, line.best)),
            ("", ""),
        ]
        return row(columns, cells, self._draw)


_EMPTY: dict[Tab, str] = {
    "windows": "No window is like this",
    "failures": "No window has failed",
    "symbols": "There are no windows",
    "settings": "They are not known yet",
}
