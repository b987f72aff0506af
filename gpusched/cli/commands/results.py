"""`results`: the results of a batch, by window or by symbol."""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gpusched.cli.notes import notes_object, print_notes, print_worth
from gpusched.cli.sources import of_batch
from gpusched.client.drawing.listing import Cell, iso, on_terminal, print_json, print_listing
from gpusched.client.drawing.palette import STYLES
from gpusched.core.totals import worth_object
from gpusched.errors import DONE, InputError, UsageError, did_you_mean
from gpusched.protocol import ResultLine

Row = dict[str, Cell]

#: columns that every result has; metrics and counts follow them
COLUMNS = (
    *("batch_id", "symbol", "start", "end", "window_label", "status", "attempts", "device", "slot", "finished_at"),
    *("seconds", "artifacts_path", "reason"),
)
#: the metrics that a terminal shows, if the results have them; the first of these is the default of `--by-symbol`
SHOWN = ("validation_auc", "validation_accuracy", "validation_f1", "train_auc")
#: columns of `--by-symbol`
SYMBOL_COLUMNS = ("symbol", "windows", "mean", "spread", "best", "worst", "best_window", "worst_window")


class UnknownColumn(UsageError):
    problem = "these results have no column {name!r}{nearest}"
    remedy = "`gpusched results {asked} --csv` has them all in its first line"


class NoParquet(InputError):
    problem = "a parquet file cannot be written: {why}"
    remedy = "`pip install pyarrow`, or use --csv"


def results(options: argparse.Namespace) -> int:
    """Print the finished windows of a batch and their metrics."""
    with of_batch(options, options.batch) as (source, batch_id):
        finished = list(source.results(batch_id))
        detail = source.batch(batch_id, notes=True)
    about = worth_object(detail.batch.constants) | notes_object(detail.notes)
    # `arguments` are those of the `results` that prints this table, for the remedy of UnknownColumn.
    rows, arguments = [flat(line) for line in finished], options.batch
    names = tuple(dict.fromkeys((*COLUMNS, *(name for row in rows for name in row))))
    if options.by_symbol:
        metric = options.metric or next((name for name in SHOWN if name in names), SHOWN[0])
        rows = by_symbol(rows, _require_column(metric, names, arguments))
        names, arguments = SYMBOL_COLUMNS, f"{arguments} --by-symbol"
    order = list(range(len(rows)))
    if options.sort is not None:
        order = _sorted(rows, _require_column(options.sort, names, arguments), reverse=options.reverse)
    elif options.reverse:
        order.reverse()
    rows = [rows[number] for number in order]
    if options.parquet is not None:
        _write_parquet(rows, names, Path(options.parquet))
    elif not options.json:
        _print(rows, names, options)
    elif options.by_symbol:
        print_json({"batch_id": batch_id, "symbols": rows} | about)
    else:
        lines = [result_object(finished[number]) for number in order]
        print_json({"batch_id": batch_id, "results": lines} | about)
    if not options.json:
        print_notes(detail.notes)
        print_worth(detail)
    return DONE


def result_object(line: ResultLine) -> dict[str, Any]:
    """A result as `results --json` shows it."""
    fields: dict[str, Any] = msgspec.to_builtins(line)
    del fields["key"]
    return {"batch_id": line.key.batch_id, "window_label": line.key.label} | fields


def flat(line: ResultLine) -> Row:
    """A flat row: the columns that every result has, then `validation_auc`, `train_rows` and so on."""
    fields = result_object(line)
    metrics, counts = fields.pop("metrics") or {}, fields.pop("sample_counts") or {}
    constant = fields.pop("constant")
    fields["finished_at"] = iso(line.finished_at)
    row: Row = {name: fields[name] for name in COLUMNS}
    for name, value in metrics.items():
        if isinstance(value, dict):
            row |= {f"{name}_{inner}": number for inner, number in value.items()}
        else:
            row[name] = value
    row |= {f"{name}_rows": count for name, count in counts.items()}
    return row | ({} if constant is None else {"constant": constant})


def by_symbol(rows: list[Row], metric: str) -> list[Row]:
    """For each symbol: the number of windows with the metric, its mean and standard deviation, the best and worst."""
    summaries: list[Row] = []
    for symbol in dict.fromkeys(str(row["symbol"]) for row in rows):
        measured = [(value, str(row["window_label"])) for row in rows if row["symbol"] == symbol
                    if isinstance(value := row.get(metric), int | float)]  # fmt: skip
        values = [float(value) for value, _ in measured]
        summaries.append(
            {
                "symbol": symbol,
                "windows": len(measured),
                "mean": round(statistics.fmean(values), 6) if values else None,
                "spread": round(statistics.stdev(values), 6) if len(values) > 1 else None,
                "best": round(max(values), 6) if values else None,
                "worst": round(min(values), 6) if values else None,
                "best_window": max(measured)[1] if measured else None,
                "worst_window": min(measured)[1] if measured else None,
            }
        )
    return summaries


def _require_column(name: str, names: Sequence[str], arguments: str) -> str:
    if name in names:
        return name
    raise UnknownColumn(name=name, asked=arguments, nearest=did_you_mean(name, names))


def _sorted(rows: list[Row], name: str, *, reverse: bool) -> list[int]:
    """The order of the rows by a column: largest value first, text from A to Z, rows without a value always last."""

    def rank(number: int) -> tuple[bool, float, str]:
        value = rows[number][name]
        return (False, -value, "") if isinstance(value, int | float) else (True, 0.0, str(value))

    empty = [number for number, row in enumerate(rows) if row.get(name) is None]
    valued = [number for number, row in enumerate(rows) if row.get(name) is not None]
    return sorted(valued, key=rank, reverse=reverse) + empty


def _print(rows: list[Row], names: Sequence[str], options: argparse.Namespace) -> None:
    if options.csv:
        writer = csv.DictWriter(sys.stdout, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
        return
    if on_terminal() and not options.by_symbol:
        metrics = [name for name in SHOWN if name in names] or [name for name in names if name not in COLUMNS][:4]
        names = ["window_label", "status", "seconds", *metrics, "reason"]
    print_listing(names, [[row.get(name) for name in names] for row in rows], styles=STYLES)


def _write_parquet(rows: list[Row], names: Sequence[str], path: Path) -> None:
    import pandas as pd

    try:
        pd.DataFrame(rows, columns=list(names)).to_parquet(path, index=False)
    except (ImportError, OSError) as error:
        raise NoParquet(why=str(error).strip().splitlines()[0]) from None
