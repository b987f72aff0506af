"""Two batches in a report: the differences, and a window of one against the same of the other."""

from __future__ import annotations

import statistics

from gpusched.analysis import charts
from gpusched.analysis.comparison import Comparison, Pair
from gpusched.analysis.markup import table, text

#: symbols that are shown, those whose difference is greatest
MOST_SYMBOLS = 60


def side_by_side(comparison: Comparison) -> str:
    """The table of differences, the windows as dots, and the symbols by their mean difference."""
    rows = [
        (
            difference.metric,
            f"{difference.a:.4f}",
            f"{difference.b:.4f}",
            f"{difference.difference:+.4f}",
            "" if difference.interval is None else f"{difference.interval[0]:+.4f} to {difference.interval[1]:+.4f}",
            difference.windows,
            difference.greater,
            difference.less,
        )
        for difference in comparison.differences
    ]
    names = ("metric", "A", "B", "B − A", "95 % interval", "windows", "B greater", "A greater")
    left_out = [
        f"{len(labels)} only in {name}"
        for name, labels in (("A", comparison.only_a), ("B", comparison.only_b))
        if labels
    ]
    left_out += [f"{constants} models of {name} predict a constant"
                 for name, constants in (("A", comparison.constant_a), ("B", comparison.constant_b))
                 if constants]  # fmt: skip
    caption = f"A is {comparison.a}, B is {comparison.b}: {len(comparison.pairs)} windows in both"
    hint = f"<p class=hint>{text('; '.join((caption, *left_out)))}. Means, and intervals of their differences by the"
    hint += " paired bootstrap over windows. The page below is of A</p>"
    drawn = ""
    if comparison.differences:
        metric = comparison.differences[0].metric
        pairs = [pair for pair in comparison.pairs if metric in pair.a and metric in pair.b]
        drawn = f"<div class=pair><div>{_dots(pairs, metric)}</div><div>{_symbols(pairs, metric)}</div></div>"
    return f"{hint}<div class=scroll>{table(names, rows)}</div>{drawn}"


def _dots(pairs: list[Pair], metric: str) -> str:
    values = [(pair.a[metric], pair.b[metric]) for pair in pairs]
    if not all(0 <= value <= 1 for both in values for value in both):
        return ""
    x, y = charts.unit()
    dots = [
        charts.dot(x(a), y(b), charts.ABOVE if b >= a else charts.BELOW, 2.5, f"{pair.window}: {a:.4f}, {b:.4f}")
        for pair, (a, b) in zip(pairs, values, strict=True)
    ]
    return charts.square([], dots, f"{metric} of A", f"{metric} of B")


def _symbols(pairs: list[Pair], metric: str) -> str:
    by_symbol: dict[str, list[float]] = {}
    for pair in pairs:
        by_symbol.setdefault(pair.symbol, []).append(pair.b[metric] - pair.a[metric])
    ranked = sorted(by_symbol.items(), key=lambda item: -abs(statistics.fmean(item[1])))[:MOST_SYMBOLS]
    rows = []
    for symbol, differences in sorted(ranked, key=lambda item: -statistics.fmean(item[1])):
        mean, low, high = statistics.fmean(differences), min(differences), max(differences)
        rows.append((symbol, (low, mean, mean, mean, high), f"{mean:+.3f}"))
    return "<p class=hint>Mean difference by symbol, least and greatest</p>" + charts.ranges(
        rows, 0.0, "B − A by symbol"
    )
