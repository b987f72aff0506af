"""`compare`: the same windows of two batches side by side."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gpusched.analysis.comparison import Comparison, Difference, compare, comparison_object
from gpusched.analysis.scores import Scored, of_index, of_lines
from gpusched.cli.sources import of_batch
from gpusched.client.drawing.listing import Cell, on_terminal, print_json, print_listing
from gpusched.core.planning import INDEX
from gpusched.core.wording import first_few
from gpusched.errors import DONE

#: windows that a terminal shows: those whose difference is greatest
SHOWN_WINDOWS = 10
#: labels of windows without a counterpart that are shown
SHOWN_LABELS = 3


def compare_batches(options: argparse.Namespace) -> int:
    """Print the differences between two batches, metric by metric, and the windows side by side."""
    comparison = compare(options.a, options.b, _scored(options, options.a), _scored(options, options.b), options.metric)
    if options.json:
        print_json(comparison_object(comparison))
        return DONE
    rows = [_row(difference) for difference in comparison.differences]
    print_listing(["metric", "A", "B", "B - A", "95% interval", "n", "B>A/A>B/="], rows, styles={})
    for line in _notes(comparison):
        print(line, file=sys.stderr)  # noqa: T201
    if options.windows or on_terminal():
        _print_windows(comparison, every=options.windows)
    return DONE


def _scored(options: argparse.Namespace, name: str) -> list[Scored]:
    """The windows with a model: of an index, or of a batch as `of_batch` finds it. Raises NoResults."""
    for index in (Path(name), Path(name, INDEX)):
        if os.path.isfile(index):  # noqa: PTH113 - where it may not be looked for, `of_batch` has the error
            return of_index(index)
    with of_batch(options, name) as (source, batch_id):
        return of_lines(source.results(batch_id))


def _row(difference: Difference) -> list[Cell]:
    between = "" if difference.interval is None else f"{difference.interval[0]:+.4f}..{difference.interval[1]:+.4f}"
    return [
        difference.metric,
        f"{difference.a:.4f}",
        f"{difference.b:.4f}",
        f"{difference.difference:+.4f}",
        between,
        difference.windows,
        f"{difference.greater}/{difference.less}/{difference.equal}",
    ]


def _notes(comparison: Comparison) -> list[str]:
    """What the table is of, and what it leaves out."""
    notes = [
        f"A is {comparison.a}, B is {comparison.b}: {len(comparison.pairs)} windows have a model in both. Means, and"
        " the interval of the mean difference by the paired bootstrap"
    ]
    for name, labels in (("A", comparison.only_a), ("B", comparison.only_b)):
        if labels:
            notes.append(f"{len(labels)} only in {name}, left out: {first_few(labels, SHOWN_LABELS)}")
    if not comparison.differences:
        notes.append("These windows have no metric in common: `gpusched results` shows those of each batch")
    constants = [
        f"{number} of {name}" for name, number in (("A", comparison.constant_a), ("B", comparison.constant_b)) if number
    ]
    if constants:
        notes.append(f"Models that predict a constant: {', '.join(constants)}")
    return notes


def _print_windows(comparison: Comparison, *, every: bool) -> None:
    """The windows by the first metric: those with the greatest differences, or all."""
    if not comparison.differences:
        return
    metric = comparison.differences[0].metric
    pairs = [pair for pair in comparison.pairs if metric in pair.a and metric in pair.b]
    if not every:
        pairs = sorted(pairs, key=lambda pair: -abs(pair.b[metric] - pair.a[metric]))[:SHOWN_WINDOWS]
        print(f"\nThe greatest differences in {metric}; --windows lists all")  # noqa: T201
    rows: list[list[Cell]] = [
        [pair.window, f"{pair.a[metric]:.4f}", f"{pair.b[metric]:.4f}", f"{pair.b[metric] - pair.a[metric]:+.4f}"]
        for pair in pairs
    ]
    print_listing(["window", f"A {metric}", f"B {metric}", "B - A"], rows, styles={})
