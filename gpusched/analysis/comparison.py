"""Two batches side by side: the same windows, their metrics, and the differences. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from gpusched.analysis.bootstrap import interval
from gpusched.analysis.scores import Scored, constants, metric_names, require_metric
from gpusched.errors import InputError

#: points of a batch that an error names
NAMED_POINTS = 3


class NothingInCommon(InputError):
    problem = "{a} and {b} have no window in common: {counts}"
    remedy = "compare batches of the same symbols, dates and lengths of windows; `gpusched results` lists the windows"


class NoPointInCommon(NothingInCommon):
    """One of the batches is a sweep, or both are, of other values."""

    problem = "{a} and {b} have the same windows at other points: {points}"
    remedy = (
        "run the other batch with the same --param, of one value if need be;"
        " `gpusched results {sweep} --by PARAMETER` compares the points of a sweep"
    )


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A window that has a model in both batches."""

    window: str
    symbol: str
    #: metrics by name
    a: dict[str, float]
    b: dict[str, float]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of the windows in which both batches define it: B − A."""

    metric: str
    windows: int
    #: means
    a: float
    b: float
    difference: float
    #: of the mean difference, by the paired bootstrap; None for one window
    interval: tuple[float, float] | None
    #: windows in which B is greater, in which A is, and in which they are equal
    greater: int
    less: int
    equal: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two batches side by side."""

    a: str
    b: str
    pairs: tuple[Pair, ...]
    #: labels of windows with a model in one of them only
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    #: models that predict a constant; None: their results do not tell
    constant_a: int | None
    constant_b: int | None
    differences: tuple[Difference, ...]


def compare(a: str, b: str, of_a: Sequence[Scored], of_b: Sequence[Scored], metrics: Sequence[str] = ()) -> Comparison:
    """Compare the windows of two batches, called `a` and `b`, in `metrics` (all that both have, if none is named).

    Windows are taken in the order of their labels: in which order they finished changes no interval. Raises
    NothingInCommon, NoMetric.
    """
    of_a, of_b = (sorted(windows, key=lambda window: window.label) for windows in (of_a, of_b))
    by_label = {window.label: window for window in of_b}
    pairs = tuple(
        Pair(window=window.label, symbol=window.symbol, a=window.metrics, b=by_label[window.label].metrics)
        for window in of_a
        if window.label in by_label
    )
    if not pairs:
        raise _nothing_in_common(a, b, of_a, of_b)
    both = {pair.window for pair in pairs}
    of_both = frozenset(metric_names(window for window in of_b if window.label in both))
    shared = [name for name in metric_names(of_a) if name in of_both]
    chosen = [require_metric(name, shared) for name in metrics] or shared
    return Comparison(
        a=a,
        b=b,
        pairs=pairs,
        only_a=tuple(window.label for window in of_a if window.label not in both),
        only_b=tuple(window.label for window in of_b if window.label not in both),
        constant_a=constants(of_a),
        constant_b=constants(of_b),
        differences=tuple(compared for name in chosen if (compared := difference(name, pairs)) is not None),
    )


def _nothing_in_common(a: str, b: str, of_a: Sequence[Scored], of_b: Sequence[Scored]) -> NothingInCommon:
    spans_a, spans_b = ({(window.symbol, window.start, window.end) for window in windows} for windows in (of_a, of_b))
    if spans_a.isdisjoint(spans_b):
        return NothingInCommon(a=a, b=b, counts=f"{len(of_a)} and {len(of_b)} windows have a model")
    points_a, points_b = (sorted({window.point for window in windows} - {""}) for windows in (of_a, of_b))
    points = f"{_first(points_a)} in {a}, {_first(points_b)} in {b}"
    return NoPointInCommon(a=a, b=b, points=points, sweep=a if points_a else b)


def _first(points: Sequence[str]) -> str:
    return ", ".join([*points[:NAMED_POINTS], *(["…"] if len(points) > NAMED_POINTS else [])]) or "none"


def difference(metric: str, pairs: Sequence[Pair]) -> Difference | None:
    """The difference in a metric; None if no window defines it in both batches."""
    values = [(pair.a[metric], pair.b[metric]) for pair in pairs if metric in pair.a and metric in pair.b]
    if not values:
        return None
    differences = [b - a for a, b in values]
    return Difference(
        metric=metric,
        windows=len(values),
        a=statistics.fmean(a for a, _ in values),
        b=statistics.fmean(b for _, b in values),
        difference=statistics.fmean(differences),
        interval=interval(differences),
        greater=sum(d > 0 for d in differences),
        less=sum(d < 0 for d in differences),
        equal=sum(d == 0 for d in differences),
    )


def comparison_object(comparison: Comparison) -> dict[str, object]:
    """A comparison as `compare --json` prints it."""
    plain: dict[str, object] = msgspec.to_builtins(comparison)
    plain["windows"] = plain.pop("pairs")
    return plain
