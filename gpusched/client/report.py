"""The report of a batch: one HTML file that needs nothing else, drawn with plotly.

A timeline of the windows by slot with the devices' use and memory below it, seconds by phase, a metric by symbol and
window, what the remaining time was said to be and what it was, and tables. Everything that comes from a batch is
untrusted text: it is escaped both for HTML and for plotly, which takes its labels for markup.
"""

from __future__ import annotations

import datetime as dt
import html
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gpusched.client.cells import clean, device_name, duration
from gpusched.client.view import general_reason
from gpusched.core.history import Sample
from gpusched.core.model import OUTCOMES, BatchSpec
from gpusched.errors import InputError
from gpusched.protocol import BatchStatus, ResultLine

COLOURS = {
    "succeeded": "#2f9e6e",
    "reused": "#3aa5c4",
    "skipped": "#c9a227",
    "failed": "#d64545",
    "timed_out": "#e07b39",
    "cancelled": "#8a8f98",
    "lost": "#a04fb0",
}
#: reasons that the table of failures and skips lists
MOST_REASONS = 50
#: of the rate that a remaining time is derived from: as the live screens do it, the last of so many ends
RATE_ENDS = 100
#: pixels of a row of the timeline and of the heat map, and of the rest of a figure
ROW, FRAME = 22, 150
#: zoomed by dragging, set back by a double click
_INTERACTION = {"displayModeBar": False, "responsive": True}


class NoPlotly(InputError):
    problem = "a report is drawn with plotly, which is not installed"
    remedy = "`pip install 'gpusched-supervisor[report]'`"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that a report is made of."""

    batch: BatchStatus
    spec: BatchSpec
    #: finished windows, in the order of finishing
    results: Sequence[ResultLine]
    samples: Sequence[Sample]
    #: what was in force where the windows were trained, by name
    versions: dict[str, str]
    #: name of the metric of the heat map, `validation_auc` for `{"validation": {"auc": …}}`; None: the first there is
    metric: str | None = None


def page(report: Report) -> str:
    """The HTML file. Raises NoPlotly."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise NoPlotly from None
    batch, results = report.batch, report.results
    sections = [
        ("Timeline", _timeline(results, report.samples)),
        ("Seconds by phase", _phases(results)),
        (*_heat_map(results, report.metric),),
        ("Remaining time: what was said, and what it was", _calibration(results, sum(batch.counts.values()))),
        ("Failures and skips", _reasons(results)),
        ("Configuration", _configuration(report)),
    ]
    body = "\n".join(f"<section><h2>{_text(title)}</h2>{content}</section>" for title, content in sections if content)
    return _PAGE.format(
        title=_text(batch.id), style=_STYLE, plotly=get_plotlyjs(), head=_head(report), body=body
    )  # fmt: skip


# -- figures -----------------------------------------------------------------------------------------------------------


def _timeline(results: Sequence[ResultLine], samples: Sequence[Sample]) -> str:
    """Windows by slot; below, on the same axis of time, the use and the memory of each device."""
    from plotly.subplots import make_subplots

    launched = [line for line in results if line.started_at is not None and line.ended_at is not None]
    if not launched and not samples:
        return ""
    slots = sorted({(line.slot or 0, line.device or "") for line in launched})
    names = {index: f"{index} {_markup(device_name(device))}" for index, device in slots}
    height = max(6, len(slots)) * ROW
    figure = make_subplots(
        rows=3,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.07,
        row_heights=[height, 130, 130],
        subplot_titles=("windows by slot", "use, %", "memory, GiB"),
    )
    for outcome in OUTCOMES:
        lines = [line for line in launched if line.status == outcome]
        if lines:
            seconds = [max(0.0, (line.ended_at or 0.0) - (line.started_at or 0.0)) for line in lines]
            figure.add_bar(
                row=1,
                col=1,
                orientation="h",
                name=outcome.replace("_", " "),
                y=[names[line.slot or 0] for line in lines],
                base=[_instant(line.started_at or 0.0) for line in lines],
                x=[1000 * took for took in seconds],  # milliseconds, on an axis of dates
                marker={"color": COLOURS[outcome], "line": {"width": 0.5, "color": "white"}},
                hovertext=[
                    f"{_markup(line.key.label)}, {duration(took)}"
                    + (f"<br>{_markup(line.reason)}" if line.reason else "")
                    for line, took in zip(lines, seconds, strict=True)
                ],
                hoverinfo="text",
            )
    for number, device in enumerate(dict.fromkeys(sample.device_id for sample in samples)):
        read = [sample for sample in samples if sample.device_id == device]
        shared = {
            "x": [_instant(s.at) for s in read],
            "name": _markup(device_name(device)),
            "legendgroup": device,
            "mode": "lines+markers",
            "line": {"color": _LINES[number % len(_LINES)], "width": 1.5},
            "marker": {"size": 3},
        }
        use = [None if s.utilisation is None else 100 * s.utilisation for s in read]
        memory = [None if s.memory_used_bytes is None else s.memory_used_bytes / 2**30 for s in read]
        figure.add_scatter(row=2, col=1, y=use, **shared)
        figure.add_scatter(row=3, col=1, y=memory, showlegend=False, **shared)
    figure.update_yaxes(row=1, col=1, autorange="reversed", type="category")
    figure.update_yaxes(row=2, col=1, range=[0, 105])
    figure.update_yaxes(row=3, col=1, rangemode="tozero")
    figure.update_annotations(x=0, xanchor="left", font_size=12)
    figure.update_layout(barmode="overlay", bargap=0.15, hovermode="closest")
    return _drawn(figure, height + 260 + FRAME)


def _phases(results: Sequence[ResultLine]) -> str:
    """How long each phase took, window by window."""
    import plotly.graph_objects as go

    trained = [line for line in results if line.status == "succeeded" and line.phases]
    names = list(dict.fromkeys(name for line in trained for name in line.phases or {}))
    if not names:
        return ""
    figure = go.Figure()
    for name in names:
        seconds = [line.phases[name] for line in trained if line.phases and name in line.phases]
        figure.add_box(
            x=seconds, name=f"{_markup(name)} ({duration(sum(seconds))})", boxpoints="outliers", marker={"size": 3}
        )
    figure.update_layout(showlegend=False, xaxis_title="seconds of a window; in brackets, of all windows together")
    figure.update_yaxes(autorange="reversed")
    return _drawn(figure, len(names) * 34 + FRAME)


def _heat_map(results: Sequence[ResultLine], metric: str | None) -> tuple[str, str]:
    """A metric by symbol and window: title and drawing."""
    import plotly.graph_objects as go

    values = {(line.symbol, line.start.isoformat()): _numbers(line.metrics) for line in results if line.metrics}
    known = list(dict.fromkeys(name for numbers in values.values() for name in numbers))
    name = metric or next((n for n in ("validation_auc", "validation_accuracy") if n in known), next(iter(known), None))
    if name is None:
        return "", ""
    symbols = sorted({symbol for symbol, _ in values})
    starts = sorted({start for _, start in values})
    figure = go.Figure(
        go.Heatmap(
            z=[[values.get((symbol, start), {}).get(name) for start in starts] for symbol in symbols],
            x=starts,
            y=[_markup(symbol) for symbol in symbols],
            colorscale="Viridis",
            xgap=1,
            ygap=1,
            hovertemplate="%{y}, from %{x}: %{z:.4f}<extra></extra>",
            colorbar={"thickness": 12},
        )
    )
    figure.update_xaxes(type="category", title="first day of the window")
    figure.update_yaxes(type="category", autorange="reversed")
    return f"{name} by symbol and window", _drawn(figure, len(symbols) * ROW + FRAME)


def _calibration(results: Sequence[ResultLine], total: int) -> str:
    """At the end of each window, the remaining time by the rate of the last ends, against what it turned out to be."""
    import plotly.graph_objects as go

    launched = [line for line in results if line.started_at is not None and line.ended_at is not None]
    ends = sorted(line.ended_at or 0.0 for line in launched)
    if len(ends) < 3:
        return ""
    began = min(line.started_at or 0.0 for line in launched)
    said, was, at = [], [], []
    for number, end in enumerate(ends[1:-1], start=1):
        first = max(0, number - RATE_ENDS)
        since = began if first == 0 else ends[first - 1]
        if end > since:
            rate = (number - first + 1) / (end - since)
            at.append(end - began)
            said.append((len(ends) - number - 1) / rate)
            was.append(ends[-1] - end)
    figure = go.Figure()
    figure.add_scatter(x=at, y=was, name="was", mode="lines", line={"color": COLOURS["succeeded"]})
    figure.add_scatter(x=at, y=said, name="said", mode="lines", line={"color": COLOURS["timed_out"], "dash": "dot"})
    figure.update_layout(xaxis_title="seconds since the first launch", yaxis_title="seconds left")
    return _drawn(figure, 240 + FRAME)


def _drawn(figure: Any, height: int) -> str:
    figure.update_layout(
        height=height,
        template="plotly_white",
        margin={"l": 8, "r": 8, "t": 30, "b": 8},
        legend={"orientation": "h", "y": -0.12 if height > 500 else -0.3},
        font={"family": "system-ui, sans-serif", "size": 12},
    )
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(automargin=True)
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config=_INTERACTION)
    return drawn


# -- text --------------------------------------------------------------------------------------------------------------


def _head(report: Report) -> str:
    batch, counts = report.batch, report.batch.counts
    parts = [
        f'<span style="color:{COLOURS[name]}"><b>{counts[name]}</b> {name.replace("_", " ")}</span>'
        for name in OUTCOMES
        if counts.get(name)
    ]
    waiting = sum(count for name, count in counts.items() if name not in OUTCOMES)
    if waiting:
        parts.append(f"<span><b>{waiting}</b> not finished</span>")
    ended = batch.finished_at or max((line.finished_at for line in report.results), default=batch.submitted_at)
    took = max(0.0, ended - batch.submitted_at)
    state = batch.state if batch.held_reason is None else f"held: {batch.held_reason}"
    about = f"{_instant(batch.submitted_at)[:19]} UTC · {duration(took)} · {state} · {batch.output_dir}"
    return f"<p class=counts>{' · '.join(parts)}</p><p>{_text(about)}</p>"


def _reasons(results: Iterable[ResultLine]) -> str:
    reasons = Counter(
        (line.status, general_reason(line.reason, line.symbol))
        for line in results
        if line.reason and line.status != "succeeded"
    )
    if not reasons:
        return ""
    rows = [(count, status.replace("_", " "), reason) for (status, reason), count in reasons.most_common(MOST_REASONS)]
    left_out = len(reasons) - len(rows)
    table = _table(("windows", "outcome", "reason"), rows, "reasons")
    return table + (f"<p>and {left_out} other reasons</p>" if left_out else "")


def _configuration(report: Report) -> str:
    asked = msgspec.to_builtins(report.spec)
    asked["symbols"] = f"{len(report.spec.symbols)}: {', '.join(report.spec.symbols)}"
    rows = [*report.versions.items(), *_flat(asked)]
    return f"<details><summary>{len(rows)} values</summary>{_table(('', ''), rows)}</details>"


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, inner in value.items():
        rows += _flat(inner, f"{prefix}{name}.") if isinstance(inner, dict) else [(prefix + name, inner)]
    return rows


def _table(names: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "plain") -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{_text(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table class={kind}><tr>{head}</tr>{body}</table>"


def _text(text: str) -> str:
    return html.escape(clean(text))


#: plotly reads its labels as a subset of HTML
_markup = _text


def _instant(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _numbers(metrics: dict[str, Any] | None) -> dict[str, float]:
    """Metrics on one level, those that are numbers."""
    rows = _flat(metrics or {})
    return {name.replace(".", "_"): value for name, value in rows if isinstance(value, int | float)}


_LINES = ("#3b6fb6", "#c46a1b", "#2f9e6e", "#a04fb0", "#c4373a", "#6b6f76", "#13889b", "#8a6d1f")

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2127; background: #fff; margin: 0 auto; max-width: 1280px;
       padding: 0 16px 48px; }
h1 { font-size: 22px; margin: 20px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 28px 0 4px; }
p { margin: 4px 0; overflow-wrap: anywhere; }
.counts { font-size: 17px; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid #e4e7eb; vertical-align: top;
         overflow-wrap: anywhere; }
td:first-child, .reasons td:nth-child(2) { white-space: nowrap; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>gpusched: {title}</title>
<style>{style}</style>
<script>{plotly}</script>
</head>
<body>
<h1>{title}</h1>
{head}
{body}
</body>
</html>
"""
