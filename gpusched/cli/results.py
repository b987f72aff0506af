"""`results`: what the windows of a batch gave, one by one or by symbol."""

from __future__ import annotations

import argparse
import csv
import difflib
import statistics
import sys
from pathlib import Path
from typing import Any

import msgspec

from gpusched.cli.queries import STATUS_STYLES, to_daemon
from gpusched.client.listing import Cell, iso, print_json, print_listing
from gpusched.errors import DONE, InputError, UsageError
from gpusched.protocol import ResultLine

Row = dict[str, Cell]

#: what every result has; metrics and counts follow
COLUMNS = (
    *("batch_id", "symbol", "start", "end", "window_label", "status", "attempts", "device", "slot", "finished_at"),
    *("seconds", "artifacts_path", "reason"),
)
#: the metrics that a terminal shows, and the first of which `--by-symbol` is about
SHOWN = ("validation_auc", "validation_accuracy", "validation_f1", "train_auc")


class UnknownColumn(UsageError):
    problem = "these results have no column {name!r}{nearest}"
    remedy = "`gpusched results {batch} --csv` has them all in its first line"


class NoParquet(InputError):
    problem = "a parquet file cannot be written: {why}"
    remedy = "`pip install pyarrow`, or use --csv"


def results(options: argparse.Namespace) -> int:
    """The finished windows of a batch and their metrics."""
    with to_daemon(options) as daemon:
        found = list(daemon.results(options.batch))
    rows = [flat(line) for line in found]
    names = list(dict.fromkeys((*COLUMNS, *(name for row in rows for name in row))))
    order = list(range(len(rows)))
    if options.sort is not None:
        order = _sorted(rows, _known(options.sort, names, options.batch))
    if options.by_symbol:
        metric = options.metric or next((name for name in SHOWN if name in names), None)
        return _print_symbols(by_symbol(rows, _known(metric or SHOWN[0], names, options.batch)), options)
    if options.parquet is not None:
        _write_parquet([rows[number] for number in order], names, Path(options.parquet))
    elif options.json:
        lines = [result_object(found[number]) for number in order]
        print_json({"batch_id": options.batch, "results": lines})
    else:
        _print([rows[number] for number in order], names, as_csv=options.csv)
    return DONE


def result_object(line: ResultLine) -> dict[str, Any]:
    """A result as `results --json` shows it."""
    found: dict[str, Any] = msgspec.to_builtins(line)
    del found["key"]
    return {"batch_id": line.key.batch_id, "window_label": line.key.label} | found


def flat(line: ResultLine) -> Row:
    """One level: `validation_auc`, `train_rows` and so on, after the columns that every result has."""
    found = result_object(line)
    metrics, counts = found.pop("metrics") or {}, found.pop("sample_counts") or {}
    found["finished_at"] = iso(line.finished_at)
    row: Row = {name: found[name] for name in COLUMNS}
    for name, value in metrics.items():
        if isinstance(value, dict):
            row |= {f"{name}_{inner}": number for inner, number in value.items()}
        else:
            row[name] = value
    return row | {f"{name}_rows": count for name, count in counts.items()}


def by_symbol(rows: list[Row], metric: str) -> list[Row]:
    """For each symbol how many windows have the metric, its mean and standard deviation, and the best and worst one."""
    found: list[Row] = []
    for symbol in dict.fromkeys(str(row["symbol"]) for row in rows):
        known = [(value, str(row["window_label"])) for row in rows if row["symbol"] == symbol
                 if isinstance(value := row.get(metric), int | float)]  # fmt: skip
        values = [float(value) for value, _ in known]
        found.append(
            {
                "symbol": symbol,
                "windows": len(known),
                "mean": round(statistics.fmean(values), 6) if values else None,
                "spread": round(statistics.stdev(values), 6) if len(values) > 1 else None,
                "best": round(max(values), 6) if values else None,
                "worst": round(min(values), 6) if values else None,
                "best_window": max(known)[1] if known else None,
                "worst_window": min(known)[1] if known else None,
            }
        )
    return found


def _known(name: str, names: list[str], batch: str) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    raise UnknownColumn(name=name, batch=batch, nearest=f"; did you mean {near[0]!r}?" if near else "")


def _sorted(rows: list[Row], name: str) -> list[int]:
    """Numbers of rows: the largest value first, text from A to Z, what has none at the end."""

    def rank(number: int) -> tuple[bool, float, str]:
        value = rows[number].get(name)
        if isinstance(value, int | float):
            return False, -value, ""
        return value is None, 0.0, str(value)

    return sorted(range(len(rows)), key=rank)


def _print(rows: list[Row], names: list[str], *, as_csv: bool) -> None:
    if as_csv:
        writer = csv.DictWriter(sys.stdout, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
        return
    if sys.stdout.isatty():
        metrics = [name for name in SHOWN if name in names] or [name for name in names if name not in COLUMNS][:4]
        names = ["window_label", "status", "seconds", *metrics, "reason"]
    print_listing(names, [[row.get(name) for name in names] for row in rows], styles=STATUS_STYLES)


def _print_symbols(rows: list[Row], options: argparse.Namespace) -> int:
    if options.json:
        print_json({"batch_id": options.batch, "symbols": rows})
    elif rows:
        if options.csv:
            _print(rows, list(rows[0]), as_csv=True)
        else:
            print_listing(list(rows[0]), [list(row.values()) for row in rows], styles={})
    return DONE


def _write_parquet(rows: list[Row], names: list[str], path: Path) -> None:
    import pandas as pd

    try:
        pd.DataFrame(rows, columns=names).to_parquet(path, index=False)
    except (ImportError, OSError) as error:
        raise NoParquet(why=str(error).strip().splitlines()[0]) from None
