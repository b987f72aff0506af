"""The report: one HTML file that needs nothing else, first what the models are worth, then where the time went."""

from __future__ import annotations

import base64
import functools
import gzip
from collections.abc import Sequence

from gpusched.analysis import operations, quality
from gpusched.analysis.comparison import Comparison
from gpusched.analysis.content import Report
from gpusched.analysis.evidence import gather
from gpusched.analysis.frame import PAGE, SCRIPT, STYLE
from gpusched.analysis.markup import instant, text
from gpusched.analysis.operations import NoPlotly
from gpusched.analysis.pairs import side_by_side
from gpusched.analysis.scores import Scored, metric_names, of_lines, require_metric
from gpusched.client.drawing.palette import COLOURS
from gpusched.client.drawing.text import duration
from gpusched.core.statuses import OUTCOMES, words
from gpusched.core.worth import constants_note

Section = tuple[str, str]


def page(report: Report, comparison: Comparison | None = None) -> str:
    """The HTML file. Raises NoPlotly, and NoMetric for a metric that the results do not have."""
    packed = _packed_plotly()
    scored = of_lines(report.results)
    names = metric_names(scored)
    metric = None if not names else require_metric(report.metric, names) if report.metric else names[0]
    sections: list[Section] = []
    if comparison is not None:
        sections.append((f"{comparison.a} and {comparison.b} side by side", side_by_side(comparison)))
    if metric is not None:
        sections += _quality(report, metric, scored)
    in_order = sorted(names, key=lambda name: name != metric)
    sections.append(("Windows", quality.windows(report.results, in_order)))
    sections += [(name, content) for name, content in _operations(report) if content]
    title = report.batch.id if comparison is None else f"{comparison.a} and {comparison.b}"
    note = constants_note(report.batch.constants, len(scored), report.spec)
    tiles = quality.summary(scored, metric, report.batch.constants, note) if metric is not None else ""
    return PAGE.format(
        title=text(title),
        style=STYLE + quality.shades(),
        script=SCRIPT,
        plotly=packed,
        head=_head(report, tiles),
        body="\n".join(f"<section><h2>{text(name)}</h2>{content}</section>" for name, content in sections if content),
    )


def _quality(report: Report, metric: str, scored: Sequence[Scored]) -> list[Section]:
    results = report.results
    evidence, ranked = gather(results), quality.by_symbol(scored, metric)
    # In the order of a narrow page; on a wide one the ranking stands beside the other two.
    distribution, ranking = quality.distribution(scored, metric), quality.ranking(ranked, metric)
    importances = _titled("Importance of features", quality.importances(evidence))
    worth = f"<div>{distribution}</div><div class=tall>{ranking}</div><div>{importances}</div>"
    return [
        (f"{metric} of all windows, and by symbol", f"<div class=worth>{worth}</div>"),
        ("Points of the sweep", quality.points(scored, metric, report.spec.points)),
        (f"{metric} by symbol and window", quality.heat_map(results, metric)),
        (f"{metric} over time", quality.courses(ranked, metric)),
        ("Calibration and ROC", quality.predictions(evidence)),
    ]


def _titled(title: str, content: str) -> str:
    return f"<h2>{text(title)}</h2>{content}" if content else ""


def _operations(report: Report) -> list[Section]:
    results = report.results
    return [
        ("Timeline", operations.timeline(report)),
        ("Seconds by phase", operations.phases(results)),
        ("Remaining time: what was said, and what it was", operations.remaining_time(results)),
        ("Failures and skips", operations.reasons(results)),
        ("About the data", operations.about_data(report.notes)),
        ("Configuration", operations.configuration(report)),
    ]


def _head(report: Report, tiles: str) -> str:
    """The first screen: what the models are worth, windows by outcome, when and where."""
    batch, counts = report.batch, report.batch.counts
    parts = [
        f'<span class=counts style="color:{COLOURS[name]}"><b>{counts[name]}</b> {words(name)}</span>'
        for name in OUTCOMES
        if counts.get(name)
    ]
    waiting = sum(count for name, count in counts.items() if name not in OUTCOMES)
    if waiting:
        parts.append(f"<span class=counts><b>{waiting}</b> not finished</span>")
    ended = batch.finished_at or max((line.moved_at for line in report.results), default=batch.submitted_at)
    took = max(0.0, ended - batch.submitted_at)
    state = batch.state if batch.held_reason is None else f"held: {batch.held_reason}"
    spec = report.spec
    about = f"{spec.start} to {spec.end} · {len(spec.symbols)} symbols · {instant(batch.submitted_at)[:19]} UTC"
    about += f" · {duration(took)} · {state} · {batch.output_dir}"
    outcomes = f"<div class=tile>{''.join(parts) or 'no windows'}</div>"
    return f"<p class=about>{text(about)}</p><div class=tiles>{tiles}{outcomes}</div>"


@functools.cache
def _packed_plotly() -> str:
    """Plotly's script, compressed: 5 MB become 2."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise NoPlotly from None
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
