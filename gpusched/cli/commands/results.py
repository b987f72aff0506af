"""`results`: the results of a batch, by window or by symbol."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from gpusched.cli.notes import notes_object, print_notes, print_worth
from gpusched.cli.sources import of_batch
from gpusched.cli.summaries import SYMBOL_COLUMNS, VALUE_COLUMNS, Row, best, by_symbol, by_values
from gpusched.cli.usage import OneAtATime
from gpusched.client.drawing.listing import Cell, iso, on_terminal, print_json, print_listing
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.plain import clean_lines
from gpusched.config import canonical
from gpusched.config.schema import LIGHTGBM
from gpusched.core.model import NO_POINTS, Parameters
from gpusched.core.totals import worth_object
from gpusched.errors import DONE, InputError, UsageError, did_you_mean
from gpusched.protocol import WindowLine
from gpusched.results import metric_columns

#: columns that every result has; metrics and counts follow them
COLUMNS = (
    *("batch_id", "symbol", "start", "end", "window_label", "status", "attempts", "device", "slot", "finished_at"),
    *("seconds", "artifacts_path", "reason"),
)
#: columns that some results have
_SOME_HAVE = ("node", "point", "constant")
#: the metrics that a terminal shows, if the results have them; the first of these is the default of `--by-symbol`
SHOWN = ("validation_auc", "validation_accuracy", "validation_f1", "train_auc")


#: the largest whole number of a column of a parquet file
_LARGEST = 2**63 - 1


class UnknownColumn(UsageError):
    problem = "these results have no column {name!r}{nearest}"
    remedy = "`gpusched results {asked} --csv` has them all in its first line"


class NothingSwept(UsageError):
    problem = "--by param sums up the points of a sweep, and {asked} has none"
    remedy = "name columns: `gpusched results {asked} --by symbol`"


class PerWhat(UsageError):
    problem = "--per is for --best"
    remedy = "give --best validation_auc --per symbol"


class NoParquet(InputError):
    problem = "a parquet file cannot be written: {why}"
    remedy = "`pip install pyarrow`, or use --csv"


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that are asked for: windows, or sums of windows by symbol or by values of columns."""

    kind: Literal["windows", "symbols", "values"]
    rows: list[Row]
    names: Sequence[str]
    #: the windows that it is of, each with a row of its own unless they are summed up
    windows: Sequence[WindowLine]
    #: the metric that is summed up
    metric: str
    #: the arguments of the `results` that prints it, for the remedy of UnknownColumn
    arguments: str


def results(options: argparse.Namespace) -> int:
    """Print the finished windows of a batch and their metrics."""
    if options.parquet is not None and (options.csv or options.json):
        raise OneAtATime(one="--parquet", other="--csv" if options.csv else "--json")
    with of_batch(options, options.batch) as (source, batch_id):
        finished = list(source.results(batch_id))
        detail = source.batch(batch_id, notes=True)
    points = detail.spec.points
    table = _asked_for(options, finished, points)
    order = _order(table, options)
    rows = [table.rows[number] for number in order]
    if options.json:
        match table.kind:
            case "windows":
                entries: dict[str, Any] = {"results": [result_object(table.windows[n], points) for n in order]}
            case "symbols":
                entries = {"symbols": rows}
            case "values":
                entries = {"metric": table.metric, "values": rows}
        about = worth_object(detail.batch.constants) | notes_object(detail.notes)
        print_json({"batch_id": batch_id} | entries | about)
        return DONE
    if options.parquet is not None:
        _write_parquet(rows, table.names, Path(options.parquet))
    else:
        _print(rows, table.names, options)
    print_notes(detail.notes)
    print_worth(detail, table.windows)
    return DONE


def _asked_for(options: argparse.Namespace, windows: list[WindowLine], points: Mapping[str, Parameters]) -> _Table:
    """The table of finished windows, summed up or chosen as the options say. Raises UsageError."""
    rows, arguments = [flat(line, points) for line in windows], options.batch
    names = tuple(dict.fromkeys((*COLUMNS, *(name for row in rows for name in row))))
    metric = options.metric or _chief_metric(windows, names)
    table = _Table(kind="windows", rows=rows, names=names, windows=windows, metric=metric, arguments=arguments)
    match _summed_up(options):
        case "--by-symbol":
            rows, arguments = by_symbol(rows, _require_column(metric, names, arguments)), f"{arguments} --by-symbol"
            return msgspec.structs.replace(table, kind="symbols", rows=rows, names=SYMBOL_COLUMNS, arguments=arguments)
        case "--by":
            keys = _keys(options.by, names, points, arguments)
            rows = by_values(rows, keys, _require_column(metric, names, arguments))
            names, arguments = (*keys, *VALUE_COLUMNS), f"{arguments} --by {options.by}"
            return msgspec.structs.replace(table, kind="values", rows=rows, names=names, arguments=arguments)
        case "--best":
            per = _keys(options.per, names, points, arguments) if options.per else []
            chosen = best(rows, _require_column(options.best, names, arguments), per, worst=options.reverse)
            rows, windows = [rows[number] for number in chosen], [windows[number] for number in chosen]
            return msgspec.structs.replace(table, rows=rows, windows=windows)
    return table


def _order(table: _Table, options: argparse.Namespace) -> list[int]:
    """The numbers of the rows in the order of `--sort` and `--reverse`. Raises UnknownColumn."""
    if options.sort is not None:
        column = _require_column(options.sort, table.names, table.arguments)
        return _sorted(table.rows, column, reverse=options.reverse)
    numbers = list(range(len(table.rows)))
    # With --best, it is the worst that --reverse asks for.
    return numbers[::-1] if options.reverse and not options.best else numbers


def of_one_type(cells: Sequence[Cell]) -> Sequence[Cell]:
    """The cells of a column of a parquet file, which has one type: as texts where they are numbers and others."""
    kinds = {float if type(cell) is int else type(cell) for cell in cells if cell is not None}
    if len(kinds) < 2 and not any(isinstance(cell, int) and abs(cell) > _LARGEST for cell in cells):
        return cells
    return [None if cell is None else str(cell) for cell in cells]


def _summed_up(options: argparse.Namespace) -> str | None:
    """The option that asks for something else than a line for each window. Raises UsageError for more than one."""
    given = [flag for flag in ("--by-symbol", "--by", "--best") if getattr(options, flag[2:].replace("-", "_"))]
    if len(given) > 1:
        raise OneAtATime(one=given[0], other=given[1])
    if options.per and given != ["--best"]:
        raise PerWhat
    return given[0] if given else None


def result_object(line: WindowLine, points: Mapping[str, Parameters] = NO_POINTS) -> dict[str, Any]:
    """A result as `results --json` shows it; `points` are those of its batch."""
    result, slot, usage = line.result, line.slot, line.usage
    return {
        "batch_id": line.key.batch_id,
        "window_label": line.key.label,
        "symbol": line.symbol,
        "start": line.start.isoformat(),
        "end": line.end.isoformat(),
        "status": line.status,
        "finished_at": line.moved_at,
        "attempts": line.attempts,
        "seconds": line.seconds,
        "device": line.device,
        "slot": slot.number if slot else None,
        **({"node": slot.node} if slot and slot.node else {}),
        "artifacts_path": result.artifacts_path if result else None,
        "metrics": line.metrics,
        "sample_counts": result.sample_counts if result else None,
        "started_at": line.started_at,
        "ended_at": line.ended_at,
        "phases": result.phases if result else None,
        "cpu_seconds": usage.cpu_seconds if usage else None,
        "peak_memory_bytes": usage.peak_memory_bytes if usage else None,
        "device_memory_bytes": usage.device_memory_bytes if usage else None,
        "device_seconds": usage.device_seconds if usage else None,
        "constant": result.constant if result else None,
        "reason": line.reason,
        "failure": line.kind,
        **({"point": line.point, "parameters": points.get(line.point, {})} if line.point else {}),
    }


def flat(line: WindowLine, points: Mapping[str, Parameters] = NO_POINTS) -> Row:
    """A flat row: the columns that every result has, then its parameters, `validation_auc`, `train_rows` and so on."""
    fields = result_object(line, points)
    fields["finished_at"] = iso(line.moved_at)
    row: Row = {name: fields[name] for name in (*COLUMNS, *(name for name in ("node", "point") if name in fields))}
    row |= {name: _cell(value) for name, value in fields.get("parameters", {}).items()}
    if (result := line.result) is not None:
        counts = {f"{name}_rows": count for name, count in result.sample_counts.items()}
        row |= metric_columns(result.metrics, {*row, *counts, *_SOME_HAVE}) | counts
        row |= {} if result.constant is None else {"constant": result.constant}
    return row


def _cell(value: Any) -> Cell:
    return value if isinstance(value, str | int | float | None) else msgspec.json.encode(value).decode()


def _chief_metric(finished: Sequence[WindowLine], names: Sequence[str]) -> str:
    """The metric of `--by` where none is asked for: one of `SHOWN`, or else the first that the results have."""
    own = (name for line in finished for name in metric_columns(line.metrics, (*COLUMNS, *_SOME_HAVE)))
    return next((name for name in SHOWN if name in names), next(own, SHOWN[0]))


def _keys(text: str, names: Sequence[str], points: Mapping[str, Parameters], arguments: str) -> list[str]:
    """The columns of `--by` and `--per`; `param` stands for all parameters of the points. Raises UsageError."""
    keys: list[str] = []
    for name in map(str.strip, text.split(",")):
        if name != "param" or name in names:
            keys.append(_require_key(name, names, arguments))
        elif not points:
            raise NothingSwept(asked=arguments)
        else:
            keys += (key for point in points.values() for key in point)
    return list(dict.fromkeys(keys))


def _require_key(name: str, names: Sequence[str], arguments: str) -> str:
    """A column by its name, by the last part of it, or by another name of LightGBM's. Raises UnknownColumn."""
    parameter = canonical(name if "." in name else f"{LIGHTGBM}.{name}")
    alike = [column for column in names if column == parameter or column.rpartition(".")[2] == name]
    return alike[0] if len(alike) == 1 else _require_column(name, names, arguments)


def _require_column(name: str, names: Sequence[str], arguments: str) -> str:
    if name in names:
        return name
    of_validation = f"validation_{name}"  # as `run` shows it, without its part
    nearest = did_you_mean(of_validation if of_validation in names else name, names)
    raise UnknownColumn(name=name, asked=arguments, nearest=nearest)


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
        _write_csv(rows, names)
        return
    if on_terminal() and not (options.by_symbol or options.by):
        metrics = [name for name in SHOWN if name in names] or [name for name in names if name not in COLUMNS][:4]
        metrics = list(dict.fromkeys(([options.best] if options.best else []) + metrics))
        names = ["window_label", "status", "seconds", *metrics, "reason"]
    print_listing(names, [[row.get(name) for name in names] for row in rows], styles=STYLES)


def _write_csv(rows: list[Row], names: Sequence[str]) -> None:
    """Print the rows; on a terminal without control characters, which names of metrics and reasons may have."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n" if on_terminal() else "\r\n")
    writer.writeheader()
    writer.writerows(rows)
    sys.stdout.write(clean_lines(text.getvalue()) if on_terminal() else text.getvalue())


def _write_parquet(rows: list[Row], names: Sequence[str], path: Path) -> None:
    import pandas as pd

    columns = {name: of_one_type([row.get(name) for row in rows]) for name in names}
    try:
        pd.DataFrame(columns).to_parquet(path, index=False)
    except (ImportError, OSError) as error:
        raise NoParquet(why=str(error).strip().splitlines()[0]) from None
