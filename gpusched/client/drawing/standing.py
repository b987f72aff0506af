"""Frames of `status`: all batches as a table for any width from 80 columns on, and one batch on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gpusched.client.drawing.failures import failure_groups, path_line
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.text import Glyphs, device_name, duration, glyphs, per_second
from gpusched.client.views.batch import BatchView
from gpusched.client.views.failures import FailureGroup
from gpusched.client.views.standing import by_urgency, failures, standing, way_on, why_held
from gpusched.core.statuses import FAILURES, OUTCOMES, UNFINISHED, tally, words
from gpusched.core.wording import counted
from gpusched.protocol import BatchStatus, WindowLine

GAP = 2
#: cells that an id keeps before columns are left out for it, and at the least
FEWEST_ID, LEAST_ID = 16, 6
#: windows of each kind on the screen of one batch
MOST_WINDOWS = 3

COLUMNS = ("batch", "state", "done", "failed", "rate", "left", "took", "submitted", "owner")
#: text to the left, numbers to the right
_LEFT = ("batch", "state", "submitted", "owner")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A batch with its view, which knows the rate, and its owner's name."""

    batch: BatchStatus
    #: None: it is not in the daemon's snapshot
    view: BatchView | None = None
    owner: str = ""
    #: instant of the view, monotonic seconds
    monotonic: float = 0.0

    @property
    def took(self) -> float:
        """Seconds since it was submitted, until it was finished."""
        batch = self.batch
        end = batch.finished_at if batch.finished_at is not None else batch.at or batch.submitted_at
        return max(0.0, end - batch.submitted_at)

    @property
    def ago(self) -> str:
        """How long ago it was submitted."""
        return duration(max(0.0, (self.batch.at or self.batch.submitted_at) - self.batch.submitted_at))

    def rate(self) -> str:
        """Windows per second: lately while it runs, of all its time once it is finished."""
        if self.batch.state == "finished":
            ended = tally(self.batch.counts, ("succeeded", *FAILURES))
            return per_second(ended / self.took) if ended and self.took else ""
        rate = self.view.rate(self.monotonic) if self.view is not None else 0.0
        return per_second(rate) if rate else ""

    def left(self, draw: Glyphs) -> str:
        """The time that is left, with its standard error where that can be said."""
        if self.view is None or self.batch.state == "finished" or not (eta := self.view.eta_s(self.monotonic)):
            return ""
        error = self.view.eta_error_s(self.monotonic)
        return duration(eta) if error is None else f"{duration(eta)} {draw.plus_minus}{duration(error)}"


class BatchTable(msgspec.Struct, frozen=True, kw_only=True):
    """All batches, the most urgent first. `more`: finished batches that are not listed."""

    batches: Sequence[Seen]
    more: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        draw = glyphs(ascii_only=options.ascii_only)
        seen = {one.batch.id: one for one in self.batches}
        ordered = [seen[batch.id] for batch in by_urgency([one.batch for one in self.batches])]
        rows = [_cells(one, draw) for one in ordered]
        shown = [name for name in COLUMNS if name in ("batch", "state", "done") or any(row[name] for row in rows)]
        widths = _widths(rows, shown, options.max_width)
        yield _line({name: name for name in COLUMNS}, widths, draw, "bold")
        for one, row in zip(ordered, rows, strict=True):
            line = _line(row, widths, draw, "")
            _paint(line, row, widths, STYLES.get(standing(one.batch), ""))
            yield line
        for one in ordered:
            if (why := why_held(one.batch)) is not None:
                held = f"{one.batch.id} is held: {why}; {way_on(one.batch)}"
                yield Text(draw.clean(held), STYLES["held"], overflow="fold")
            elif one.batch.waits:
                yield Text(draw.clean(f"{one.batch.id} waits {one.batch.waits}"), "dim", overflow="fold")
        if self.more:
            yield Text(f"{draw.ellipsis} and {counted(self.more, 'more batch', 'more batches')}: --all", "dim")


def _cells(one: Seen, draw: Glyphs) -> dict[str, str]:
    batch = one.batch
    total = sum(batch.counts.values())
    failed = failures(batch)
    return {
        "batch": draw.clean(batch.id),
        "state": standing(batch),
        "done": f"{total - tally(batch.counts, UNFINISHED)}/{total}" if total else "",
        "failed": str(failed) if failed else "",
        "rate": one.rate(),
        "left": one.left(draw),
        "took": duration(one.took),
        "submitted": f"{one.ago} ago",
        "owner": draw.clean(one.owner),
    }


def _widths(rows: Sequence[dict[str, str]], shown: list[str], room: int) -> dict[str, int]:
    """The widths of the columns that fit. The id is shortened first; then columns are left out, from the right."""
    widths = {name: max([cell_len(name), *(cell_len(row[name]) for row in rows)]) for name in shown}
    least = min(widths["batch"], FEWEST_ID)
    while len(widths) > 4 and sum(widths.values()) - widths["batch"] + least + GAP * (len(widths) - 1) > room:
        widths.popitem()
    over = sum(widths.values()) + GAP * (len(widths) - 1) - room
    widths["batch"] = max(LEAST_ID, widths["batch"] - max(0, over))
    return widths


def _line(row: dict[str, str], widths: dict[str, int], draw: Glyphs, style: str) -> Text:
    cells = [
        draw.crop_middle(row[name], width)
        if name == "batch"
        else row[name].ljust(width)
        if name in _LEFT
        else row[name].rjust(width)
        for name, width in widths.items()
    ]
    return Text((" " * GAP).join(cells).rstrip(), style, no_wrap=True, overflow="crop")


def _paint(line: Text, row: dict[str, str], widths: dict[str, int], style: str) -> None:
    """Colour the state, and the number of failures."""
    at = 0
    for name, width in widths.items():
        if name == "state":
            line.stylize(style, at, at + width)
        elif name == "failed" and row["failed"]:
            line.stylize(STYLES["failed"], at, at + width)
        at += width + GAP


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """The failures of a batch by reason. Print them with `crop=False`, as `BatchScreen`."""

    groups: Sequence[FailureGroup]
    #: where the logs of its windows are
    logs_dir: Path

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text()
        yield Text("Failures by reason", "bold")
        yield from failure_groups(self.groups, self.logs_dir, console, options)


class BatchScreen(msgspec.Struct, frozen=True, kw_only=True):
    """One batch: counts, rate and time left, slots, the slowest windows, and failures by reason.

    Print it with `crop=False`: paths are whole, on lines of their own.
    """

    seen: Seen
    groups: Sequence[FailureGroup] = ()
    #: the slowest of its finished windows, the slowest first
    slowest: Sequence[WindowLine] = ()
    #: where the logs of its windows are
    logs_dir: Path
    #: the choice of `auto`, for people
    device: str = ""
    #: how it goes on if it is held: a sentence with the command
    way_on: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        draw = glyphs(ascii_only=options.ascii_only)
        yield from self._head(draw)
        yield from self._running(draw)
        if self.slowest:
            yield Text()
            yield Text("Slowest windows", "bold")
            for line in self.slowest[:MOST_WINDOWS]:
                label = draw.clean(line.key.label)
                if console.is_terminal:  # of a long one both ends are seen: the symbol, and the point of a sweep
                    label = draw.crop_middle(label, max(20, options.max_width - 11)).rstrip()
                yield Text(f"  {duration(line.seconds or 0.0):>7}  {label}")
        if self.groups:
            yield Failures(groups=self.groups, logs_dir=self.logs_dir)

    def _head(self, draw: Glyphs) -> Iterator[Text]:
        seen, batch = self.seen, self.seen.batch
        state = standing(batch)
        by = f" by {draw.clean(seen.owner)}" if seen.owner else ""
        heading = Text(draw.clean(batch.id), "bold", overflow="fold")
        heading.append(f"  {state}", STYLES.get(state, ""))
        yield heading.append(f"  submitted{by} {seen.ago} ago", "not bold")
        if (why := why_held(batch)) is not None:
            yield Text(f"  held: {draw.clean(why)}", STYLES["held"], overflow="fold")
            yield Text(f"  {draw.clean(self.way_on)}", overflow="fold")
        if batch.waits:
            yield Text(f"  waits {draw.clean(batch.waits)}; it is planned then", overflow="fold")
            yield path_line(2, batch.output_dir, draw)
            return
        counts = Text(f"  {sum(batch.counts.values())} windows: ", overflow="fold")
        parts = [(name, batch.counts[name]) for name in (*OUTCOMES, *UNFINISHED) if batch.counts.get(name)]
        for number, (name, count) in enumerate(parts):
            counts.append(", " if number else "").append(f"{count} {words(name)}", STYLES.get(name, ""))
        yield counts
        pace = [seen.rate(), f"{duration(seen.took)} {'in all' if state == 'finished' else 'so far'}"]
        if left := seen.left(draw):
            pace.append(f"{left} left")
        yield Text(f"  {', '.join(filter(None, pace))}")
        if self.device:
            yield Text(f"  {draw.clean(self.device)}", overflow="fold")
        yield path_line(2, batch.output_dir, draw)

    def _running(self, draw: Glyphs) -> Iterator[Text]:
        view = self.seen.view
        if view is None or not view.running:
            return
        running = sorted(view.running.values(), key=lambda window: window.since)
        yield Text()
        yield Text(f"At work on {counted(len(running), 'slot')}, the longest first", "bold")
        for window in running[:MOST_WINDOWS]:
            rounds = f" {window.round}/{window.rounds}" if window.rounds else ""
            where = f"{draw.clean(window.phase)}{rounds} on {draw.clean(device_name(window.device, window.node))}"
            since = duration(max(0.0, self.seen.monotonic - window.since))
            yield Text(f"  {since:>7}  {draw.clean(window.label)}  {where}", no_wrap=True, overflow="ellipsis")
