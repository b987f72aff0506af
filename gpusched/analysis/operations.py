"""The operator's part of a report: where time and resources went. Its figures are drawn by plotly.

A timeline of the windows by slot with the devices' use and memory below it, seconds by phase, predicted and true
remaining time, and tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gpusched.analysis.content import Report
from gpusched.analysis.markup import instant, table, text
from gpusched.client.drawing.palette import COLOURS, RETRIED
from gpusched.client.drawing.text import device_name, duration
from gpusched.client.views.batch import BatchView
from gpusched.client.views.reasons import general_reason
from gpusched.core.events import WindowMoved
from gpusched.core.model import DataNotes, Slot
from gpusched.core.samples import Sample
from gpusched.core.states import Cancelled, Finished, Queued, Skipped, Starting
from gpusched.core.statuses import OUTCOMES, words
from gpusched.core.totals import flat
from gpusched.core.wording import first_few
from gpusched.errors import InputError
from gpusched.protocol import WindowLine

#: reasons that the table of failures and skips lists
MOST_REASONS = 50
#: labels of windows in a row of it; the table of windows has them all
MOST_LABELS = 3
#: a line is broken where nothing was read for this many times the seconds that a sample covers
GAP = 3
#: characters of a reason that are shown at a bar
HOVER_CHARS = 300
#: ends of windows at which the remaining time is drawn
MOST_ENDS = 500
#: pixels of a row of the timeline, of a figure of readings below it, and of the rest of a figure
ROW, READ, FRAME = 22, 130, 150
#: zoomed by dragging, set back by a double click
_INTERACTION = '{"displayModeBar": false, "responsive": true}'


class NoPlotly(InputError):
    problem = "a report is drawn with plotly, which is not installed"
    remedy = "`pip install 'gpusched-supervisor[report]'`"


class _Bar(msgspec.Struct, frozen=True):
    """An attempt in the timeline."""

    #: an outcome, or RETRIED
    kind: str
    slot: Slot
    began: float
    seconds: float
    #: its text under the pointer, as markup
    text: str


# -- figures -----------------------------------------------------------------------------------------------------------


def timeline(report: Report) -> str:
    """Windows by slot; below, on the same axis of time, the use and the memory of each device."""
    from plotly.subplots import make_subplots

    bars, samples = [*_bars(report)], report.samples
    if not bars and not samples:
        return ""
    slots = sorted({bar.slot for bar in bars})
    names = {slot: _title(slot) for slot in slots}
    height = max(6, len(names)) * ROW
    # A batch that is over before a device is read has nothing but its windows.
    parts = 3 if samples else 1
    figure = make_subplots(
        rows=parts,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.07,
        row_heights=[height, READ, READ][:parts],
        subplot_titles=("windows by slot", "use, %", "memory, GiB")[:parts],
    )
    _add_windows(figure, bars, names)
    _add_readings(figure, samples)
    # Left to itself, plotly takes the bars' milliseconds for an axis of numbers, turns and cuts off dates on a narrow
    # page, and has slots as they come.
    figure.update_xaxes(type="date", tickangle=0)
    order = {"categoryorder": "array", "categoryarray": list(names.values())}
    figure.update_yaxes(row=1, col=1, autorange="reversed", type="category", **order)
    if samples:
        figure.update_yaxes(row=2, col=1, range=[0, 105])
        figure.update_yaxes(row=3, col=1, rangemode="tozero")
    figure.update_annotations(x=0, xanchor="left", font_size=12)
    figure.update_layout(barmode="overlay", bargap=0.15, hovermode="closest")
    return _drawn("timeline", figure, height + READ * (parts - 1) + FRAME)


def _add_windows(figure: Any, bars: Sequence[_Bar], names: Mapping[Slot, str]) -> None:
    for kind in (*OUTCOMES, RETRIED):
        if drawn := [bar for bar in bars if bar.kind == kind]:
            figure.add_bar(
                row=1,
                col=1,
                orientation="h",
                name=words(kind),
                y=[names[bar.slot] for bar in drawn],
                base=[instant(bar.began) for bar in drawn],
                x=[round(1000 * bar.seconds, 1) for bar in drawn],  # milliseconds, on an axis of dates
                marker={"color": COLOURS[kind], "line": {"width": 0.5, "color": "white"}},
                hovertext=[f"{duration(bar.seconds)}, {bar.text}" for bar in drawn],
                hoverinfo="text",
            )


def _add_readings(figure: Any, samples: Sequence[Sample]) -> None:
    """The use and the memory of each device, in the second and the third row."""
    for number, device in enumerate(dict.fromkeys(sample.device_id for sample in samples)):
        read = _with_gaps(sample for sample in samples if sample.device_id == device)
        shared = {
            "x": [s and instant(s.at) for s in read],
            "name": text(device_name(device)),
            "legendgroup": device,
            "mode": "lines+markers",
            "line": {"color": _LINES[number % len(_LINES)], "width": 1.5},
            "marker": {"size": 3},
        }
        use = [None if s is None or s.utilisation is None else 100 * s.utilisation for s in read]
        memory = [None if s is None or s.memory_used_bytes is None else s.memory_used_bytes / 2**30 for s in read]
        figure.add_scatter(row=2, col=1, y=use, **shared)
        figure.add_scatter(row=3, col=1, y=memory, showlegend=False, **shared)


def _row(slot: Slot) -> Slot:
    """The row of a slot; windows of a node that ran before one was free there share a row."""
    return msgspec.structs.replace(slot, index=-1 if slot.node else 0) if slot.waits else slot


def _title(slot: Slot) -> str:
    """A row in words."""
    device = text(device_name(slot.device_id, slot.node))
    return device if slot.waits else f"{slot.index} {device}"


def _bars(report: Report) -> Iterator[_Bar]:
    for line in _of_this_batch(report.results):
        if line.slot is not None and line.started_at is not None and line.ended_at is not None:
            slot = _row(line.slot)
            yield _bar(line.status, slot, line.started_at, line.ended_at, line.key.label, line.reason)
    for label, attempt in report.retried:
        if attempt.ended_at is not None and (attempt.started_at is not None or not attempt.slot.waits):
            began, why = attempt.started_at or attempt.placed_at, attempt.message or attempt.ending
            slot = _row(attempt.slot)
            yield _bar(RETRIED, slot, began, attempt.ended_at, label, why)


def _of_this_batch(results: Sequence[WindowLine]) -> list[WindowLine]:
    """The results without the times of earlier trainings, unless nothing was launched by this batch."""
    if not any(line.started_at is not None and line.status != "reused" for line in results):
        return [*results]
    untimed = {"started_at": None, "ended_at": None}
    return [msgspec.structs.replace(line, **untimed) if line.status == "reused" else line for line in results]


def _bar(kind: str, slot: Slot, began: float, ended: float, label: str, reason: str | None) -> _Bar:
    """A bar whose foreign text is cut to a length that somebody reads."""
    shown = text(label) + (f"<br>{text(reason[:HOVER_CHARS])}" if reason else "")
    return _Bar(kind, slot, began, max(0.0, ended - began), shown)


def _with_gaps(samples: Iterable[Sample]) -> list[Sample | None]:
    """With None where nothing was read: no line is drawn there."""
    readings: list[Sample | None] = []
    for sample in samples:
        if readings and (last := readings[-1]) and sample.at - last.at > GAP * last.seconds:
            readings.append(None)
        readings.append(sample)
    return readings


def phases(results: Sequence[WindowLine]) -> str:
    """How long each phase took, window by window."""
    import plotly.graph_objects as go

    trained = [line.result.phases for line in results if line.status == "succeeded" and line.result is not None]
    names = list(dict.fromkeys(name for taken in trained for name in taken))
    if not names:
        return ""
    figure = go.Figure()
    for name in names:
        seconds = [round(taken[name], 5) for taken in trained if name in taken]
        figure.add_box(
            x=seconds, name=f"{text(name)} ({duration(sum(seconds))})", boxpoints="outliers", marker={"size": 3}
        )
    figure.update_layout(showlegend=False, xaxis_title="seconds; in brackets, of all")
    figure.update_yaxes(autorange="reversed")
    return _drawn("phases", figure, len(names) * 34 + FRAME)


def remaining_time(results: Sequence[WindowLine]) -> str:
    """At the end of each launched window, the remaining time that live screens showed, and the true one."""
    import plotly.graph_objects as go

    moves = sorted(_moves(_of_this_batch(results)), key=lambda move: move.at)
    ends = [move.at for move in moves if isinstance(move.old, Starting)]
    if len(ends) < 3:
        return ""
    began = next(move.at for move in moves if isinstance(move.new, Starting))
    view = BatchView()
    view.total = len(results)
    said, was, at = [], [], []
    for move in moves:
        view.apply(move, move.at)
        left = view.eta_s(move.at)
        if isinstance(move.old, Starting) and left is not None and move.at < ends[-1]:
            at.append(move.at - began)
            said.append(left)
            was.append(ends[-1] - move.at)
    step = -(-len(at) // MOST_ENDS) or 1
    at, said, was = ([round(number, 6) for number in numbers[::step]] for numbers in (at, said, was))
    figure = go.Figure()
    figure.add_scatter(x=at, y=was, name="was", mode="lines", line={"color": COLOURS["succeeded"]})
    figure.add_scatter(x=at, y=said, name="said", mode="lines", line={"color": COLOURS["timed_out"], "dash": "dot"})
    figure.update_layout(xaxis_title="seconds since the first launch", yaxis_title="seconds left")
    return _drawn("remaining", figure, 240 + FRAME)


def _moves(results: Iterable[WindowLine]) -> Iterator[WindowMoved]:
    """As much of the windows' stories as their rate depends on: when they were placed, and when they left."""
    for line in results:
        # Which outcome it was does not matter, unless it was cancelled: those say nothing about the rate.
        outcome = Cancelled() if line.status == "cancelled" else Skipped(reason="")
        old, new, at = Queued(), Finished(attempts=line.attempts, outcome=outcome), line.moved_at
        if line.started_at is None or line.ended_at is None:
            yield WindowMoved(key=line.key, old=old, new=new, reason="", at=at)
        else:
            placed = Starting(attempt=max(1, line.attempts), slot=line.slot or Slot(0, ""))
            yield WindowMoved(key=line.key, old=old, new=placed, reason="", at=line.started_at)
            yield WindowMoved(key=line.key, old=placed, new=new, reason="", at=max(line.started_at, line.ended_at))


def _drawn(name: str, figure: Any, height: int) -> str:
    """A figure that is drawn once plotly is there; `name` is its element's."""
    figure.update_layout(
        height=height,
        template="plotly_white",
        margin={"l": 8, "r": 8, "t": 30, "b": 8},
        legend={"orientation": "h", "y": -0.12 if height > 500 else -0.3},
        font={"family": "system-ui, sans-serif", "size": 12},
    )
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(automargin=True)
    drawn = json.loads(figure.to_json())
    traces, layout = (json.dumps(drawn[part], separators=(",", ":")) for part in ("data", "layout"))
    call = f'Plotly.newPlot("{name}", {traces}, {layout}, {_INTERACTION})'.replace("<", "\\u003c")
    return f'<div id="{name}"></div><script>later(() => {call})</script>'


# -- text --------------------------------------------------------------------------------------------------------------


def reasons(results: Iterable[WindowLine]) -> str:
    """How many windows ended for each reason, in words that they share, with one in full, and which they are."""
    groups: dict[tuple[str, str], list[WindowLine]] = {}
    for line in results:
        if line.reason and line.status != "succeeded":
            groups.setdefault((line.status, general_reason(line.reason, line.symbol)), []).append(line)
    if not groups:
        return ""
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))[:MOST_REASONS]
    rows = [(len(lines), words(status), _example(reason, lines), _which(lines)) for (status, reason), lines in ranked]
    left_out = len(groups) - len(rows)
    listed = table(("windows", "outcome", "reason", "which"), rows, "reasons")
    return listed + (f"<p>and {left_out} other reasons</p>" if left_out else "")


def _example(general: str, lines: Sequence[WindowLine]) -> str:
    """The reason that windows share; where their own differ, with the whole one of the first."""
    own = lines[0].reason or ""
    return general if own == general else f"{general} — of the first: {own}"


def _which(lines: Sequence[WindowLine]) -> str:
    return first_few([line.key.label for line in lines], MOST_LABELS)


def about_data(notes: DataNotes) -> str:
    if not notes:
        return ""
    shown = list(notes.items())[:MOST_REASONS]
    rows = [(symbol, "; ".join(note.text for note in symbol_notes)) for symbol, symbol_notes in shown]
    left_out = len(notes) - len(shown)
    listed = table(("symbol", "what there is to know"), rows, "reasons")
    return listed + (f"<p>and {left_out} more symbols</p>" if left_out else "")


def configuration(report: Report) -> str:
    settings = msgspec.to_builtins(report.spec)
    settings["symbols"] = f"{len(report.spec.symbols)}: {', '.join(report.spec.symbols)}"
    rows = [*report.versions.items(), *flat(settings)]
    return f"<details><summary>{len(rows)} values</summary>{table(('', ''), rows)}</details>"


_LINES = ("#3b6fb6", "#c46a1b", "#2f9e6e", "#a04fb0", "#c4373a", "#6b6f76", "#13889b", "#8a6d1f")
