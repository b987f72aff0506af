"""The windows of one batch as `gpusched top` lists them, kept up to date: alone, by failure, by symbol. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable
from typing import Any, Literal, get_args

import msgspec

from gpusched.client.views.failures import FailureGroup, by_reason, failed_window
from gpusched.client.views.numbers import chief_metrics
from gpusched.client.views.panels import after, has
from gpusched.core.events import WindowMoved
from gpusched.core.merit import merit
from gpusched.core.model import BatchSpec
from gpusched.core.states import Active, Failed, Finished, Lost, Running, Starting, Stopping
from gpusched.core.statuses import BY_URGENCY, FAILURES, name_of, reason_of, result_of
from gpusched.core.totals import flat
from gpusched.protocol import WindowLine

Order = Literal["submitted", "status", "time", "window", "metric"]
#: each after the other
ORDERS: tuple[Order, ...] = get_args(Order)

Tab = Literal["windows", "failures", "symbols", "settings"]
TABS: tuple[Tab, ...] = get_args(Tab)

#: orders in which a window moves while it runs
_MOVING = ("status", "time", "metric")
#: seconds between two looks at the order of windows that move
ARRANGE_S = 1.0


def seconds(line: WindowLine, wall: float) -> float | None:
    """Seconds of a window's last launch, at the instant `wall` or in all; None: none has begun."""
    return None if line.started_at is None else max(0.0, (line.ended_at or wall) - line.started_at)


class SymbolLine(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of a symbol, and their metric: None where no window has one."""

    symbol: str
    windows: int
    failed: int
    measured: int
    median: float | None
    worst: float | None
    best: float | None


class WindowList:
    """The windows of a batch in an order, those that are looked for, and which of them is chosen."""

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        self.loaded = False
        #: the settings that the batch was asked for, by name
        self.settings: list[tuple[str, str]] = []
        self.order: Order = "submitted"
        self.words = ""
        #: only windows in this state or with this outcome; empty: all
        self.status = ""
        #: numbers of windows that were trained, by label, and the names that they have
        self._metrics: dict[str, dict[str, float | None]] = {}
        self._names: dict[str, None] = {}
        #: the metric that is shown; empty: the first one that there is
        self.metric = ""
        #: labels of the windows that keys act upon together
        self.marked: set[str] = set()
        #: the last groups, and when they were made
        self._failures: tuple[float, list[FailureGroup]] | None = None
        self._symbols: tuple[float, list[SymbolLine]] | None = None
        self._lines: dict[str, WindowLine] = {}
        #: moves that were told before the list was there: they are newer than it
        self._early: list[WindowMoved] = []
        self._shown: list[str] = []
        self._chosen: str | None = None
        self._number = 0
        self._arranged_at: float | None = None

    def load(self, windows: Iterable[WindowLine]) -> None:
        """Begin with the daemon's list."""
        self._lines = {line.key.label: line for line in windows}
        self.loaded = True
        early, self._early = self._early, []
        for moved in early:
            self.apply(moved)
        self._arranged_at = self._failures = self._symbols = None

    def describe(self, spec: BatchSpec) -> None:
        """Take in the settings of the batch: one row a value, and lists of symbols and windows in one."""
        settings = msgspec.to_builtins(spec)
        settings["symbols"] = f"{len(spec.symbols)}: {', '.join(spec.symbols)}"
        settings["windows"] = f"{len(spec.windows)} one by one" if spec.windows else ""
        self.settings = [(name, str(value)) for name, value in flat(settings) if value not in ("", None, [])]

    def learn(self, results: Iterable[WindowLine]) -> None:
        """Take in the metrics of windows that were trained before."""
        for result in results:
            if result.key.label not in self._metrics:
                self._measure(result.key.label, result.metrics)
        self._arranged_at = self._failures = self._symbols = None

    def apply(self, moved: WindowMoved) -> None:
        """A window moved; those of other batches are passed over."""
        if moved.key.batch_id != self.batch_id:
            return
        if not self.loaded:
            self._early.append(moved)
            return
        line = self._lines.get(moved.key.label)
        if line is not None:
            self._lines[moved.key.label] = _moved(line, moved)
            if (result := result_of(moved.new)) is not None:
                self._measure(moved.key.label, result.metrics)
            else:
                self._metrics.pop(moved.key.label, None)

    def _measure(self, label: str, metrics: dict[str, Any] | None) -> None:
        numbers = chief_metrics(metrics)
        self._metrics[label] = numbers
        self._names.update(dict.fromkeys(numbers))

    def look_for(self, words: str) -> None:
        """Show only windows with each of these words in the label, the status or the reason."""
        self.words = words
        self._arranged_at = None

    def next_order(self) -> None:
        self.order = after(ORDERS, self.order)
        self._chosen, self._number = None, 0
        self._arranged_at = None

    def next_status(self) -> None:
        """Show only windows in the next state or outcome that any has, after the last one all."""
        present = {line.status for line in self._lines.values()}
        self.status = after(["", *(status for status in BY_URGENCY if status in present)], self.status)
        self._arranged_at = None

    @property
    def shown_metric(self) -> str:
        """The name of the metric that is shown; empty: there is none."""
        return self.metric or next(iter(self._names), "")

    def metrics(self, most: int) -> list[str]:
        """The names of at most `most` metrics that windows have; the first one is the metric that is shown."""
        shown = self.shown_metric
        return [shown, *(name for name in self._names if name != shown)][:most] if shown else []

    def next_metric(self) -> None:
        if self._names:
            self.metric = after([*self._names], self.shown_metric)
        self._arranged_at = self._failures = self._symbols = None

    def value(self, label: str, metric: str = "") -> float | None:
        """A metric of a window, or the one that is shown; None: it has none, or it is undefined."""
        return self._metrics.get(label, {}).get(metric or self.shown_metric)

    def of_symbol(self, symbol: str) -> list[WindowLine]:
        return [line for line in self._lines.values() if line.symbol == symbol]

    def statuses(self, labels: Iterable[str]) -> set[str]:
        """States and outcomes of windows."""
        return {self._lines[label].status for label in labels if label in self._lines}

    def mark(self, labels: Collection[str]) -> None:
        """Mark windows, or take the mark away where all of them have it."""
        self.marked = self.marked - set(labels) if self.marked >= set(labels) else self.marked | set(labels)

    def failures(self, monotonic: float) -> list[FailureGroup]:
        """Windows that failed by reason, looked at anew now and then."""
        if self._failures is None or monotonic >= self._failures[0] + self._rest_s:
            failed = (line for line in self._lines.values() if line.status in FAILURES)
            self._failures = monotonic, by_reason(map(failed_window, failed))
        return self._failures[1]

    def symbols(self, monotonic: float) -> list[SymbolLine]:
        """Windows by symbol, those with the best metric first, looked at anew now and then."""
        if self._symbols is None or monotonic >= self._symbols[0] + self._rest_s:
            self._symbols = monotonic, self._by_symbol()
        return self._symbols[1]

    @property
    def _rest_s(self) -> float:
        """Seconds between two looks at all windows: with 100,000 of them one takes a sixth of a second."""
        return max(ARRANGE_S, len(self._lines) / 20_000)

    def _by_symbol(self) -> list[SymbolLine]:
        symbols: dict[str, list[WindowLine]] = {}
        for line in self._lines.values():
            symbols.setdefault(line.symbol, []).append(line)
        symbol_lines = []
        for symbol, lines in symbols.items():
            values = [value for line in lines if (value := self.value(line.key.label)) is not None]
            values.sort(key=self._merit)
            symbol_lines.append(
                SymbolLine(
                    symbol=symbol,
                    windows=len(lines),
                    failed=sum(line.status in FAILURES for line in lines),
                    measured=len(values),
                    median=statistics.median(values) if values else None,
                    worst=values[0] if values else None,
                    best=values[-1] if values else None,
                )
            )
        return sorted(symbol_lines, key=lambda line: self._best_first(line.median))

    def shown(self, monotonic: float) -> list[str]:
        """The labels in their order. Looked at anew now and then: it costs something with 100,000 of them."""
        stale = self._arranged_at is None or monotonic >= self._arranged_at + self._rest_s
        if stale and (self._arranged_at is None or self.words or self.status or self.order in _MOVING):
            self._shown = self._arrange()
            self._arranged_at = monotonic
        return self._shown

    def chosen(self, monotonic: float) -> tuple[int, WindowLine] | None:
        """Where the chosen window stands among those that are shown, and the window."""
        shown = self.shown(monotonic)
        if not shown:
            return None
        # Where windows move all the time, the choice stays with the place.
        if self.order in _MOVING or self._chosen not in self._lines or self._chosen not in shown:
            number = min(self._number, len(shown) - 1)
        else:
            number = shown.index(self._chosen)
        return number, self._lines[shown[number]]

    def move(self, step: int, monotonic: float) -> None:
        chosen = self.chosen(monotonic)
        if chosen is not None:
            self._number = max(0, min(len(self._shown) - 1, chosen[0] + step))
            self._chosen = self._shown[self._number]

    def lines(self, first: int, count: int) -> list[WindowLine]:
        """`count` of the lines that are shown, from the one at `first` on."""
        return [self._lines[label] for label in self._shown[first : first + count]]

    def __len__(self) -> int:
        return len(self._lines)

    def _arrange(self) -> list[str]:
        words = self.words.lower().split()
        lines = [
            line
            for line in self._lines.values()
            if self.status in ("", line.status)
            and (not words or has(f"{line.key.label} {line.status} {line.reason or ''}", words))
        ]
        match self.order:
            case "status":
                lines.sort(key=lambda line: BY_URGENCY.index(line.status))
            case "time":
                lines.sort(key=_by_time)
            case "window":
                lines.sort(key=lambda line: line.key.label)
            case "metric":
                values = {line.key.label: self.value(line.key.label) for line in lines}
                lines.sort(key=lambda line: self._best_first(values[line.key.label]))
        return [line.key.label for line in lines]

    def _merit(self, value: float) -> float:
        return merit(self.shown_metric, value)

    def _best_first(self, value: float | None) -> tuple[bool, float]:
        """Where a value of the metric stands; those without one come last."""
        return (True, 0.0) if value is None else (False, -self._merit(value))


def _by_time(line: WindowLine) -> float:
    """Windows that run come first, and among them those that began first: they take longest."""
    return 0.0 if line.started_at is None else line.started_at - (line.ended_at or 1e12)


def _moved(line: WindowLine, moved: WindowMoved) -> WindowLine:
    new = moved.new
    match new:
        case Starting(slot=slot) | Running(slot=slot) | Stopping(slot=slot):
            is_new = not isinstance(moved.old, Active) or line.started_at is None
            return msgspec.structs.replace(
                line,
                status=name_of(new),
                attempts=new.attempt,
                slot=slot,
                started_at=moved.at if is_new else line.started_at,
                ended_at=None,
                why=None,
                failure=None,
            )
        case Finished(outcome=outcome, attempts=attempts):
            ended = moved.at if isinstance(moved.old, Active) else line.ended_at
            failure = None
            if isinstance(outcome, Failed | Lost):
                failure = msgspec.structs.replace(outcome.failure, traceback="")  # 64 KiB, and there are 100,000 lines
            return msgspec.structs.replace(
                line,
                status=name_of(outcome),
                attempts=attempts,
                ended_at=ended,
                why=None if failure is not None else reason_of(outcome),
                failure=failure,
            )
        case _:
            ended = moved.at if isinstance(moved.old, Active) else line.ended_at
            return msgspec.structs.replace(line, status=name_of(new), ended_at=ended, why=moved.reason, failure=None)
