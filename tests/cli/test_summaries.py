"""Results summed up by the values of parameters, and the best of each group."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gpusched.cli.commands import results
from gpusched.cli.summaries import Row, best, by_symbol, by_values
from gpusched.client.drawing.listing import Cell
from tests.analysis.reports import line, with_result

ROWS: list[Row] = [
    {"symbol": symbol, "window_label": f"{symbol}-{leaves}-{number}", "leaves": leaves, "kind": kind, "auc": auc}
    for number, (symbol, leaves, kind, auc) in enumerate(
        [
            ("A", 31, "gbdt", 0.5),
            ("A", 15, "dart", 0.7),
            ("B", 31, None, 0.6),
            ("B", 15, "gbdt", None),
            ("B", 4, 2, 0.6),
        ]
    )
]


def test_values_are_in_order_and_have_the_numbers_of_their_windows() -> None:
    found = by_values(ROWS, ["leaves"], "auc")
    assert [row["leaves"] for row in found] == [4, 15, 31]
    assert found[2] == {
        "leaves": 31,
        "windows": 2,
        "mean": 0.55,
        "median": 0.55,
        "spread": 0.070711,
        "best": 0.6,
        "worst": 0.5,
    }
    assert [row["kind"] for row in by_values(ROWS, ["kind"], "auc")] == [2, "dart", "gbdt", None]
    assert [(row["symbol"], row["leaves"], row["mean"]) for row in by_values(ROWS, ["symbol", "leaves"], "auc")] == [
        ("A", 15, 0.7),
        ("A", 31, 0.5),
        ("B", 4, 0.6),
        ("B", 15, None),
        ("B", 31, 0.6),
    ]


def test_the_best_of_all_and_of_each_group() -> None:
    assert best(ROWS, "auc", []) == [1]
    assert best(ROWS, "auc", ["symbol"]) == [1, 2], "the first of equals"
    assert best(ROWS, "auc", ["symbol"], worst=True) == [0, 2]
    assert best(ROWS, "kind", ["leaves"]) == [4], "what is no number is no best"


def test_less_of_a_loss_is_better() -> None:
    rows: list[Row] = [
        {"symbol": "A", "window_label": name, "rmse": rmse} for name, rmse in (("good", 0.1), ("bad", 0.9), ("so", 0.5))
    ]
    (values,) = by_values(rows, ["symbol"], "rmse")
    assert (values["best"], values["worst"], values["median"]) == (0.1, 0.9, 0.5)
    (symbol,) = by_symbol(rows, "rmse")
    assert (symbol["best_window"], symbol["worst_window"]) == ("good", "bad")
    assert (best(rows, "rmse", []), best(rows, "rmse", [], worst=True)) == ([0], [1])


def test_a_metric_takes_no_other_columns_place() -> None:
    metrics = {
        "seconds": 7,
        "status": "good",
        "constant": 1,
        "train": {"rows": 9, "deep": {"auc": 0.8}},
        "big": 10**400,
    }
    trained = with_result(line(0), metrics=metrics, sample_counts={"train": 80})
    row = results.flat(trained)
    assert (row["seconds"], row["status"], row["train_rows"]) == (0.5, "succeeded", 80)
    assert [row[f"metric_{name}"] for name in ("seconds", "status", "constant", "train_rows")] == [7, "good", 1, 9]
    assert row["train_deep_auc"] == 0.8
    assert results._chief_metric([trained], tuple(row)) == "metric_seconds"
    assert by_values([row], ["big"], "big") == [
        {"big": 10**400, "windows": 0, "mean": None, "median": None, "spread": None, "best": None, "worst": None}
    ]


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        ([1, 0.5, None], [1, 0.5, None]),
        ([True, None, False], [True, None, False]),
        (["a", None], ["a", None]),
        ([1, "auto", None], ["1", "auto", None]),
        ([True, 2], ["True", "2"]),
        ([10**30, 1], [str(10**30), "1"]),
        ([None, None], [None, None]),
    ],
)
def test_a_column_of_a_parquet_file_has_one_type(cells: list[Cell], column: list[Cell], tmp_path: Path) -> None:
    """`--param workload.alpha=1,auto` and `results --parquet` were an internal error."""
    pytest.importorskip("pyarrow")
    assert results.of_one_type(cells) == column
    path = tmp_path / "results.parquet"
    results._write_parquet([{"alpha": cell} for cell in cells], ["alpha"], path)
    assert [None if pd.isna(cell) else cell for cell in pd.read_parquet(path)["alpha"]] == column


@pytest.mark.parametrize(("name", "nearest"), [("auc", "validation_auc"), ("train_acu", "train_auc")])
def test_a_metric_without_its_part_is_known(name: str, nearest: str) -> None:
    """`run` shows `auc 0.612`, and `results --best auc` named no metric."""
    with pytest.raises(results.UnknownColumn, match=f"did you mean '{nearest}'"):
        results._require_column(name, ("symbol", "train_auc", "validation_auc"), "mine")


def test_by_symbol_names_the_windows() -> None:
    one, other = by_symbol(ROWS, "auc")
    assert (one["symbol"], one["windows"], one["mean"], one["best_window"]) == ("A", 2, 0.6, "A-15-1")
    assert (other["windows"], other["worst_window"]) == (2, "B-31-2")
    assert "median" not in one
