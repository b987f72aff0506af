"""The quant's part of a report: the worth of the models, by window, symbol, time and feature."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpusched.analysis import charts
from gpusched.analysis.bootstrap import interval, median
from gpusched.analysis.comparison import Pair, difference
from gpusched.analysis.evidence import Evidence, calibration, roc
from gpusched.analysis.markup import table, text
from gpusched.analysis.scores import Scored, numbers
from gpusched.core.merit import merit
from gpusched.core.model import Parameters
from gpusched.core.statuses import FAILURES, words
from gpusched.protocol import WindowLine

#: symbols that the ranking and the courses show: of more, the best and the worst
MOST_SYMBOLS = 60
#: steps of the heat map's colours on either side of its centre, and the distance from it that has the last one
SHADES, FARTHEST = 8, 0.4
#: cells of the heat map; of more, the latest windows
MOST_CELLS = 20_000
#: metrics of the table of windows
TABLED = 5


def centre_of(metric: str) -> float | None:
    """The value of a metric that chance gives, if there is one."""
    return 0.5 if metric.endswith("auc") else None


def tile(value: str, label: str) -> str:
    return f"<div class=tile><b>{text(value)}</b><span>{text(label)}</span></div>"


def summary(scored: Sequence[Scored], metric: str, constants: int, note: str) -> str:
    """The main metric with its interval, the share better than chance, and models that predict a constant."""
    values = [window.metrics[metric] for window in scored if metric in window.metrics]
    undefined = len(scored) - len(values)
    tiles = []
    if values:
        between = interval(values, median)
        range_text = f" · 95 % interval {between[0]:.3f} to {between[1]:.3f}" if between else ""
        left_out = f" · undefined in {undefined}" if undefined else ""
        label = f"median {metric} of {len(values)} windows{range_text}{left_out}"
        tiles.append(tile(f"{statistics.median(values):.3f}", label))
        if (centre := centre_of(metric)) is not None:
            better = [float(value > centre) for value in values]
            between = interval(better)
            range_text = f" · {between[0]:.0%} to {between[1]:.0%}" if between else ""
            tiles.append(tile(f"{statistics.fmean(better):.0%}", f"of them above {centre:g}{range_text}"))
    if any(window.constant is not None for window in scored):
        tiles.append(tile(str(constants), note.partition(" ")[2] or f"of {len(scored)} models predict a constant"))
    return "".join(tiles)


def distribution(scored: Sequence[Scored], metric: str) -> str:
    """How many windows have a value in each range, those whose model predicts a constant apart."""
    values, flat = (
        [window.metrics[metric] for window in scored if metric in window.metrics and bool(window.constant) is constant]
        for constant in (False, True)
    )
    if len(values) + len(flat) < 2:
        return ""
    middle = statistics.median([*values, *flat])
    centre = centre_of(metric)
    notes = [] if centre is None else [f"{centre:g} is what guessing has: blue windows are better, orange ones worse"]
    notes += [f"grey: {len(flat)} models that predict a constant, which measures nothing"] if flat else []
    hint = f"<p class=hint>{'; '.join(notes).capitalize()}</p>" if notes else ""
    return charts.histogram(values, flat, (middle, f"median {middle:.3f}"), metric, centre=centre) + hint


# -- by symbol ---------------------------------------------------------------------------------------------------------


def by_symbol(scored: Iterable[Scored], metric: str) -> dict[str, list[Scored]]:
    """The windows that define the metric, by symbol, the best median first; within a symbol in the order of time."""
    groups: dict[str, list[Scored]] = {}
    for window in scored:
        if metric in window.metrics:
            groups.setdefault(window.symbol, []).append(window)
    ranked = _best_first(groups, metric)
    return {symbol: sorted(windows, key=lambda window: window.end) for symbol, windows in ranked.items()}


def _best_first(groups: Mapping[str, list[Scored]], metric: str) -> dict[str, list[Scored]]:
    """Groups of windows that define the metric, the best median first."""
    middles = {name: statistics.median(w.metrics[metric] for w in windows) for name, windows in groups.items()}
    return {name: groups[name] for name in sorted(groups, key=lambda name: -merit(metric, middles[name]))}


def _ends(symbols: Sequence[str]) -> tuple[list[str], str]:
    """The symbols that are shown, and a note on those that are not."""
    if len(symbols) <= MOST_SYMBOLS:
        return list(symbols), ""
    half = MOST_SYMBOLS // 2
    left_out = len(symbols) - 2 * half
    return [
        *symbols[:half],
        *symbols[-half:],
    ], f"<p class=hint>The {half} best and the {half} worst; {left_out} between</p>"


def ranking(ranked: dict[str, list[Scored]], metric: str) -> str:
    """Median and spread of each symbol."""
    if not ranked:
        return ""
    shown, note = _ends(list(ranked))
    rows = []
    for symbol in shown:
        values = sorted(window.metrics[metric] for window in ranked[symbol])
        lower, middle, upper = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        lower, upper = max(lower, values[0]), min(upper, values[-1])
        rows.append((symbol, (values[0], lower, middle, upper, values[-1]), f"{middle:.3f} ·{len(values)}"))
    hint = "<p class=hint>Median, quartiles, least and greatest; the median and the number of windows at the end</p>"
    return hint + charts.ranges(rows, centre_of(metric), f"{metric} by symbol") + note


def courses(ranked: dict[str, list[Scored]], metric: str) -> str:
    """The metric over time, a small chart for each symbol, on one axis."""
    several = [symbol for symbol, windows in ranked.items() if len({window.end for window in windows}) > 1]
    if not several:
        return ""
    shown, note = _ends(several)
    values = [window.metrics[metric] for windows in ranked.values() for window in windows]
    low, high = min(values), max(values)
    drawn = []
    for symbol in shown:
        places = _by_end(ranked[symbol], metric)
        drawn.append(charts.course(places, low, high, centre_of(metric), symbol))
    hint = f"<p class=hint>All from {low:.2f} to {high:.2f}, in the order of the ranking</p>"
    return f"{hint}<div class=few>{''.join(drawn)}</div>{note}"


def _by_end(windows: Iterable[Scored], metric: str) -> list[tuple[str, float]]:
    """Last day and value in the order of time; the mean of several windows (points of a sweep) that end together.

    The last days are those that validate, and windows that grow have nothing else to tell them apart.
    """
    by_end: dict[str, list[float]] = {}
    for window in windows:
        by_end.setdefault(window.end.isoformat(), []).append(window.metrics[metric])
    return [(end, statistics.fmean(values)) for end, values in sorted(by_end.items())]


# -- by symbol and window ----------------------------------------------------------------------------------------------


def heat_map(results: Sequence[WindowLine], metric: str) -> str:
    """The metric as a number in a colour, by symbol and last day of the window; windows without one say why."""
    cells: dict[tuple[str, str], list[WindowLine]] = {}
    for line in results:
        cells.setdefault((line.symbol, line.end.isoformat()), []).append(line)
    if not cells:
        return ""
    symbols = list(dict.fromkeys(sorted(symbol for symbol, _ in cells)))
    every = sorted({end for _, end in cells})
    ends = every[-max(1, MOST_CELLS // len(symbols)) :]
    values = [value for line in results if (value := numbers(line.metrics).get(metric)) is not None]
    centre = centre_of(metric)
    if centre is None and values:
        centre = statistics.median(values)
    farthest = FARTHEST if centre_of(metric) is not None else max([abs(v - (centre or 0)) for v in values] or [1]) or 1
    head = "<tr><th></th>" + "".join(f"<th>{end[2:]}</th>" for end in ends) + "</tr>"
    body = "".join(
        f"<tr><th>{text(symbol)}</th>"
        + "".join(_cell(cells.get((symbol, end), ()), metric, centre or 0.0, farthest) for end in ends)
        + "</tr>"
        for symbol in symbols
    )
    key = (
        f"<p class=key><span class=b6>below {centre or 0:.2g}</span> <span class=a6>above</span>"
        " <span class=flat>predicts a constant</span> <span class=none>undefined</span>"
        " <span class=skip>skipped</span> <span class=fail>failed</span></p>"
    )
    if len(ends) < len(every):
        key += f"<p class=hint>The last {len(ends)} of {len(every)} last days</p>"
    return f"{key}<div class=scroll><table class=heat>{head}{body}</table></div>"


def _cell(lines: Sequence[WindowLine], metric: str, centre: float, farthest: float) -> str:
    values = [value for line in lines if (value := numbers(line.metrics).get(metric)) is not None]
    if values:
        value = statistics.fmean(values)
        shade = min(SHADES - 1, int(abs(value - centre) / farthest * SHADES))
        shown = f"{value:.2f}".replace("0.", ".", 1)
        if all(line.result is not None and line.result.constant for line in lines):
            return f"<td class=flat>{shown}</td>"
        return f"<td class={'a' if value >= centre else 'b'}{shade}>{shown}</td>"
    if not lines:
        return "<td></td>"
    line = lines[0]
    if line.status in FAILURES:
        return f'<td class=fail title="{text(line.reason or "")[:200]}">{words(line.status)}</td>'
    if line.metrics is not None:
        return "<td class=none>–</td>"
    return f"<td class=skip>{words(line.status)}</td>"


def shades() -> str:
    """The colours of the heat map: `a0` to `a7` above its centre, `b0` to `b7` below."""
    rules = []
    for name, (red, green, blue) in (("a", (47, 127, 193)), ("b", (217, 130, 43))):
        for shade in range(SHADES):
            share = (shade + 0.6) / SHADES
            mixed = ",".join(str(round(255 + (part - 255) * share)) for part in (red, green, blue))
            rules.append(f".{name}{shade}{{background:rgb({mixed})}}")
    return "".join(rules)


# -- from the results' files -------------------------------------------------------------------------------------------


def importances(evidence: Evidence) -> str:
    """Mean and standard deviation of each feature's share of the gain, over the models."""
    if not evidence.importances:
        return ""
    rows = [
        (name, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
        for name, values in evidence.importances.items()
    ]
    rows.sort(key=lambda row: -row[1])
    models = max(map(len, evidence.importances.values()))
    hint = f"<p class=hint>Share of the gain: mean and standard deviation over {models} models that split</p>"
    return hint + charts.shares(rows[:30], "importance of features")


def predictions(evidence: Evidence) -> str:
    """Calibration and ROC of the validation's predictions of all windows together."""
    bins = calibration(evidence)
    if not bins:
        return ""
    x, y = charts.unit()
    most = max(group.rows for group in bins)
    dots = [
        charts.dot(x(group.predicted), y(group.observed), charts.ABOVE, round(2.5 + 6 * (group.rows / most) ** 0.5, 1),
                   f"{group.rows} rows: predicted {group.predicted:.3f}, observed {group.observed:.3f}")
        for group in bins
    ]  # fmt: skip
    line = [(group.predicted, group.observed) for group in bins]
    drawn = [charts.square([(line, charts.FAINT)], dots, "mean prediction", "share of labels that are 1")]
    if curve := roc(evidence):
        drawn.append(charts.square([(curve, charts.ABOVE)], [], "share of false alarms", "share of hits"))
    rows = len(evidence.labels)
    hint = (
        f"<p class=hint>{rows:,} validation rows of {evidence.read:,} of {evidence.windows:,} windows, together. Left:"
        " on the dashed line, what is predicted comes true as often as it says; the area of a dot grows with its rows."
        " Right: above the line, labels of 1 are ranked higher than guessing would</p>"
    )
    return f"{hint}<div class=pair>{''.join(drawn)}</div>"


# -- tables ------------------------------------------------------------------------------------------------------------


def points(scored: Sequence[Scored], metric: str, parameters: Mapping[str, Parameters]) -> str:
    """The points of a sweep, the best median first, and each against the best: on the same symbols and dates."""
    by_point: dict[str, list[Scored]] = {}
    for window in scored:
        if window.point and metric in window.metrics:
            by_point.setdefault(window.point, []).append(window)
    if len(by_point) < 2:
        return ""
    ranked = _best_first(by_point, metric)
    best = next(iter(ranked))
    swept = list(dict.fromkeys(key for name in ranked for key in parameters.get(name, {})))
    rows = []
    for name, tried in ranked.items():
        values = [window.metrics[metric] for window in tried]
        own = [parameters.get(name, {}).get(key, "") for key in swept] if swept else [name]
        above = "" if (c := centre_of(metric)) is None else f"{sum(v > c for v in values) / len(values):.0%}"
        constants = sum(window.constant is True for window in tried)
        against = _against(ranked[best], tried, metric) if name != best else ["", ""]
        rows.append((*own, len(values), f"{statistics.median(values):.4f}", _between(interval(values, median)), above,
                     constants, *against))  # fmt: skip
    names = (*(swept or ["point"]), "windows", f"median {metric}", "95 % interval", "above 0.5", "constant",
             "mean − best's", "95 % interval")  # fmt: skip
    return f"<div class=scroll>{table(names, rows)}</div>"


def _against(best: Sequence[Scored], other: Sequence[Scored], metric: str) -> list[str]:
    """The mean difference to the best point, and its interval, over the windows that both have."""
    places = {(window.symbol, window.start, window.end): window for window in best}
    pairs = [
        Pair(window=window.label, symbol=window.symbol, a=places[place].metrics, b=window.metrics)
        for window in other
        if (place := (window.symbol, window.start, window.end)) in places
    ]
    compared = difference(metric, pairs)
    return ["", ""] if compared is None else [f"{compared.difference:+.4f}", _between(compared.interval, "+.4f")]


def _between(bounds: tuple[float, float] | None, form: str = ".4f") -> str:
    return "" if bounds is None else f"{bounds[0]:{form}} to {bounds[1]:{form}}"


def windows(results: Sequence[WindowLine], names: Sequence[str]) -> str:
    """The table of all windows, which the page's script fills, sorts and searches."""
    if not results:
        return ""
    metrics = list(names[:TABLED])
    columns = ["window", "symbol", "start", "status", *metrics, "rows", "constant", "seconds", "attempts", "reason"]
    rows = [_tabled(line, metrics) for line in results]
    places = {line.key.label: Path(line.result.artifacts_path) for line in results if line.result is not None}
    links = {label: place.as_uri() for label, place in places.items() if place.is_absolute()}
    content = {"columns": columns, "fixed": metrics, "links": links, "rows": rows}
    data = json.dumps(content, separators=(",", ":"))
    head = "".join(f"<th>{text(name)}</th>" for name in columns)
    return (
        '<div id="windows"><input placeholder="search: a symbol, a status, a reason" aria-label="search"> <span'
        f" class=hint></span><div class=scroll><table><thead><tr>{head}</tr></thead><tbody></tbody></table></div>"
        "<button hidden>more</button></div>"
        f'<script type="application/json" id="rows">{data.replace("<", chr(92) + "u003c")}</script>'
    )


def _tabled(line: WindowLine, metrics: Sequence[str]) -> list[Any]:
    values, result = numbers(line.metrics), line.result
    return [
        line.key.label,
        line.symbol,
        line.start.isoformat(),
        words(line.status),
        *(None if (value := values.get(name)) is None else round(value, 4) for name in metrics),
        result.sample_counts.get("usable") if result is not None else None,
        "constant" if result is not None and result.constant else "",
        None if line.seconds is None else round(line.seconds, 3),
        line.attempts,
        (line.reason or "")[:200],
    ]
