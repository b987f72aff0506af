"""One frame of the windows of a batch in `gpusched top`."""

from __future__ import annotations

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.text import Glyphs, device_name, duration, glyphs, marked
from gpusched.client.views.batch import BatchView
from gpusched.client.views.window import RunningWindow
from gpusched.client.views.windows import WindowList, seconds
from gpusched.core.statuses import words
from gpusched.protocol import WindowLine

KEYS = "⏎ log  c cancel  h hold  r retry  f filter  s sort  esc back  ? help  q quit"
_PLAIN_KEYS = "enter log  c cancel  h hold  r retry  f filter  s sort  esc back  ? help  q quit"


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
            told = self._draw.told(f"{chosen[1].key.label}  {chosen[1].reason}", self._width)[: max(0, height - 5)]
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
                text = self._line(line, running.get(line.key.label))
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

    def _line(self, window: WindowLine, running: RunningWindow | None) -> Text:
        draw = self._draw
        taken = seconds(window, self._frame.wall)
        line = Text("  ", no_wrap=True, overflow="crop")
        line.append(draw.crop_middle(draw.clean(window.key.label), self._label_width) + " ")
        line.append(f"{words(window.status):<10}", STYLES.get(window.status, ""))
        line.append(f" {window.attempts or '':>5} {'' if window.slot is None else window.slot.index:>4}")
        line.append(f" {'' if taken is None else duration(taken):>6}  ")
        if running is not None:
            rounds = f" {running.round}/{running.rounds}" if running.rounds else ""
            line.append(f"{draw.clean(running.phase)}{rounds} on {draw.clean(device_name(running.device))}")
        else:
            line.append(draw.clean(window.reason or ""))
        return draw.fitted(line, self._width)

    def _text(self, text: str, style: str = "", *, pad: bool = False) -> Text:
        cropped = self._draw.crop(self._draw.clean(text), self._width)
        return Text(cropped if pad else cropped.rstrip(), style, no_wrap=True, overflow="crop")
