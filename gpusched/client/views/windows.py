"""The windows of one batch as `gpusched top` lists them: the list, kept up to date, and a frame of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.text import Glyphs, device_name, duration, glyphs, marked
from gpusched.client.views.batch import BatchView
from gpusched.client.views.window import RunningWindow
from gpusched.core.events import WindowMoved
from gpusched.core.states import Active, Finished, Running, Starting, Stopping
from gpusched.core.statuses import BY_URGENCY, name_of, reason_of, words
from gpusched.protocol import WindowLine

Order = Literal["submitted", "status", "time", "window"]
#: each after the other
ORDERS: tuple[Order, ...] = get_args(Order)

#: orders in which a window moves while it runs
_MOVING = ("status", "time")
#: seconds between two looks at the order of windows that move
ARRANGE_S = 1.0

KEYS = "⏎ log  c cancel  h hold  r retry  f filter  s sort  esc back  ? help  q quit"
_PLAIN_KEYS = "enter log  c cancel  h hold  r retry  f filter  s sort  esc back  ? help  q quit"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A window as it is listed. Fields of events that have not happened yet are None."""

    number: int
    label: str
    #: name of the state, or of the outcome once finished
    status: str
    attempts: int
    slot: int | None
    device: str | None
    #: of the last launch, Unix time
    began: float | None
    ended: float | None
    reason: str

    def seconds(self, wall: float) -> float | None:
        """Of the last launch, so far or in all."""
        return None if self.began is None else max(0.0, (self.ended or wall) - self.began)


class WindowList:
    """The windows of a batch in an order, those that are looked for, and which of them is chosen."""

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        self.loaded = False
        self.order: Order = "submitted"
        self.words = ""
        self._lines: dict[str, Line] = {}
        #: moves that were told before the list was there: they are newer than it
        self._early: list[WindowMoved] = []
        self._shown: list[str] = []
        self._chosen: str | None = None
        self._number = 0
        self._arranged_at: float | None = None

    def load(self, windows: Iterable[WindowLine]) -> None:
        """Begin with the daemon's list."""
        self._lines = {line.key.label: _line(number, line) for number, line in enumerate(windows)}
        self.loaded = True
        early, self._early = self._early, []
        for moved in early:
            self.apply(moved)
        self._arranged_at = None

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

    def look_for(self, words: str) -> None:
        """Show only windows with each of these words in the label, the status or the reason."""
        self.words = words
        self._arranged_at = None

    def next_order(self) -> None:
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self._chosen, self._number = None, 0
        self._arranged_at = None

    def shown(self, monotonic: float) -> list[str]:
        """The labels in their order. Looked at anew once in `ARRANGE_S`: it costs something with 100,000 of them."""
        stale = self._arranged_at is None or monotonic >= self._arranged_at + ARRANGE_S
        if stale and (self._arranged_at is None or self.words or self.order in _MOVING):
            self._shown = self._arrange()
            self._arranged_at = monotonic
        return self._shown

    def chosen(self, monotonic: float) -> tuple[int, Line] | None:
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

    def lines(self, first: int, count: int) -> list[Line]:
        """So many of those that are shown."""
        return [self._lines[label] for label in self._shown[first : first + count]]

    def __len__(self) -> int:
        return len(self._lines)

    def _arrange(self) -> list[str]:
        words = self.words.lower().split()
        found = [line for line in self._lines.values() if not words or _has(line, words)]
        match self.order:
            case "status":
                found.sort(key=lambda line: (BY_URGENCY.index(line.status), line.number))
            case "time":
                # Of those that run, the ones that began first take longest.
                found.sort(key=lambda line: line.began - (line.ended or 1e12) if line.began is not None else 0.0)
            case "window":
                found.sort(key=lambda line: line.label)
        return [line.label for line in found]


def _has(line: Line, words: list[str]) -> bool:
    text = f"{line.label} {line.status} {line.reason}".lower()
    return all(word in text for word in words)


def _line(number: int, window: WindowLine) -> Line:
    return Line(
        number=number,
        label=window.key.label,
        status=window.status,
        attempts=window.attempts,
        slot=window.slot.index if window.slot else None,
        device=window.slot.device_id if window.slot else None,
        began=window.started_at,
        ended=window.ended_at,
        reason=window.reason or "",
    )


def _moved(line: Line, moved: WindowMoved) -> Line:
    new = moved.new
    match new:
        case Starting(slot=slot) | Running(slot=slot) | Stopping(slot=slot):
            began = moved.at if isinstance(new, Starting) or line.began is None else line.began
            return msgspec.structs.replace(
                line, status=name_of(new), attempts=new.attempt, slot=slot.index, device=slot.device_id,
                began=began, ended=None, reason="",
            )  # fmt: skip
        case Finished(outcome=outcome, attempts=attempts):
            ended = moved.at if isinstance(moved.old, Active) else line.ended
            return msgspec.structs.replace(
                line, status=name_of(outcome), attempts=attempts, ended=ended, reason=reason_of(outcome) or ""
            )
        case _:
            ended = moved.at if isinstance(moved.old, Active) else line.ended
            return msgspec.structs.replace(line, status=name_of(new), ended=ended, reason=moved.reason)


class WindowsFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The list at the instant `monotonic`, `wall` as Unix time."""

    windows: WindowList
    #: None: the daemon has not told of the batch
    view: BatchView | None
    monotonic: float
    wall: float
    #: an answer, instead of the keys
    message: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.size.height
        draw = glyphs(ascii_only=options.ascii_only)
        yield from _Drawing(self, draw, options.max_width).lines(height)


class _Drawing:
    def __init__(self, frame: WindowsFrame, draw: Glyphs, width: int) -> None:
        self._frame = frame
        self._draw = draw
        self._width = width
        self._label_width = max(20, min(44, width - 48))

    def lines(self, height: int) -> list[Text]:
        frame, windows = self._frame, self._frame.windows
        shown = windows.shown(frame.monotonic)
        chosen = windows.chosen(frame.monotonic)
        drawn = [self._header(len(shown)), self._text(self._columns(), "bold")]
        told: list[Text] = []
        if chosen is not None and chosen[1].reason and not frame.message:
            told = self._draw.told(f"{chosen[1].label}  {chosen[1].reason}", self._width)[: max(0, height - 5)]
        room = height - 3 - len(told)
        if not windows.loaded:
            drawn.append(self._text("  Loading", "dim"))
        elif not shown:
            drawn.append(self._text("  No window is like this", "dim"))
        elif room > 0 and chosen is not None:
            number = chosen[0]
            first = max(0, min(number - room // 2, len(shown) - room))
            running = {window.label: window for window in frame.view.running.values()} if frame.view else {}
            for place, line in enumerate(windows.lines(first, room), first):
                text = self._line(line, running.get(line.label))
                if place == number:
                    text = marked(text, self._width)
                drawn.append(text)
        drawn = drawn[: height - 1 - len(told)]
        drawn += [Text() for _ in range(height - 1 - len(told) - len(drawn))]
        drawn += told
        keys = _PLAIN_KEYS if self._draw.ascii_only else KEYS
        return [*drawn, self._text(frame.message, "bold yellow") if frame.message else self._text(keys, "dim")]

    def _header(self, shown: int) -> Text:
        windows, view, dot = self._frame.windows, self._frame.view, self._draw.dot
        parts = [f"{shown} of {len(windows)} windows"]
        if view is not None:
            parts += [f"{count} {words(name)}" for name, count in view.counts.items() if count]
            parts += ["held"] if view.held_reason is not None else []
        parts.append(f"by {windows.order}")
        if windows.words:
            parts.append(f"only {windows.words!r}")
        told = f" {dot} ".join(parts)
        name = self._draw.crop_middle(self._draw.clean(windows.batch_id), max(8, min(40, self._width - len(told) - 2)))
        return self._text(f"{name.rstrip()}  {told}", "reverse", pad=True)

    def _columns(self) -> str:
        return f"  {'window':<{self._label_width}} {'status':<10} {'tries':>5} {'slot':>4} {'time':>6}  what"

    def _line(self, window: Line, running: RunningWindow | None) -> Text:
        draw = self._draw
        seconds = window.seconds(self._frame.wall)
        line = Text("  ", no_wrap=True, overflow="crop")
        line.append(draw.crop_middle(draw.clean(window.label), self._label_width) + " ")
        line.append(f"{words(window.status):<10}", STYLES.get(window.status, ""))
        line.append(f" {window.attempts or '':>5} {'' if window.slot is None else window.slot:>4}")
        line.append(f" {'' if seconds is None else duration(seconds):>6}  ")
        if running is not None:
            rounds = f" {running.round}/{running.rounds}" if running.rounds else ""
            line.append(f"{draw.clean(running.phase)}{rounds} on {draw.clean(device_name(running.device))}")
        else:
            line.append(draw.clean(window.reason))
        return draw.fitted(line, self._width)

    def _text(self, text: str, style: str = "", *, pad: bool = False) -> Text:
        cropped = self._draw.crop(self._draw.clean(text), self._width)
        return Text(cropped if pad else cropped.rstrip(), style, no_wrap=True, overflow="crop")
