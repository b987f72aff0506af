"""`load_results`, and loading from a row of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

import gpusched
from gpusched import results
from gpusched.results import NoArtifact, NoModel, NoResults, NotIntact, NotOneRow, as_number
from gpusched.worker.messages import WindowJob
from gpusched.worker.window import run_window
from gpusched.workload import Report, Result, Task
from tests.teacher.support import ignore, walk, window_task, write_daily

SUCCESS: dict[str, Any] = {
    "batch_id": "b",
    "symbol": "AAPL",
    "date_range": {"start": "2022-01-01", "end": "2022-06-29"},
    "window_label": "AAPL_2022-01-01_to_2022-06-29",
    "status": "success",
    "metrics": {"train": {"auc": 0.9}, "validation": {"auc": 0.5, "f1": None}},
    "sample_counts": {"train": 80, "validation": 20},
    "started_at": "2026-11-24T02:42:43.084+00:00",
    "seconds": 0.5,
}
FAILED = SUCCESS | {"status": "failed", "metrics": None, "sample_counts": None, "error": {"message": "no", "kind": "x"}}


def write(path: Path, *lines: dict[str, Any], more: str = "") -> Path:
    path.mkdir(exist_ok=True)
    (path / "teacher_runs.json").write_text("".join(json.dumps(line) + "\n" for line in lines) + more)
    return path


def test_one_row_for_each_window(tmp_path: Path) -> None:
    frame = gpusched.load_results(write(tmp_path, SUCCESS, FAILED))
    assert list(frame["status"]) == ["success", "failed"]
    assert frame["validation_auc"].iloc[0] == 0.5
    assert frame["validation_auc"].isna().iloc[1]
    assert frame["train_rows"].iloc[0] == 80
    assert (frame["end"] - frame["start"]).dt.days.tolist() == [179, 179]
    assert frame["error"].iloc[1] == "no"
    assert str(frame["started_at"].dt.tz) == "UTC"


def test_lines_of_every_version_have_the_words_of_the_commands(tmp_path: Path) -> None:
    lines = (
        SUCCESS, SUCCESS | {"reused": True}, FAILED, FAILED | {"error": {"kind": "timed_out", "message": "after 5 s"}},
        SUCCESS | {"status": "skipped", "skip_reason": "no data"}, SUCCESS | {"outcome": "x", "reason": "newer"},
    )  # fmt: skip
    frame = gpusched.load_results(write(tmp_path, *lines))
    assert list(frame["outcome"]) == ["succeeded", "reused", "failed", "timed_out", "skipped", "x"]
    assert list(frame["reason"].fillna("")) == ["", "", "x: no", "after 5 s", "no data", "newer"]


def test_a_metric_takes_no_other_columns_place(tmp_path: Path) -> None:
    metrics = {"seconds": 7, "start": 5, "symbol": "X", "train": {"rows": 9, "deep": {"auc": 0.8}}, "rounds": 40}
    (row,) = gpusched.load_results(write(tmp_path, SUCCESS | {"metrics": metrics})).to_dict("records")
    assert (row["seconds"], row["symbol"], row["train_rows"]) == (0.5, "AAPL", 80)
    assert row["start"] == pd.Timestamp("2022-01-01")
    assert [row[f"metric_{name}"] for name in ("seconds", "start", "symbol", "train_rows")] == [7, 5, "X", 9]
    assert (row["rounds"], row["train_deep_auc"]) == (40, 0.8)


def test_a_metric_of_ones_own_is_no_entry_of_a_booster(tmp_path: Path) -> None:
    task = window_task(tmp_path, symbol="S")
    run_window(
        WindowJob(workload="tests.worker.workloads:two_files", task=task, output_dir=str(tmp_path / "o")), ignore
    )
    line = SUCCESS | {"window_label": task.label, "metrics": {"best_iteration": 12, "rounds": 40}}
    (row,) = gpusched.load_results(write(tmp_path / "o", line)).to_dict("records")
    assert (row["best_iteration"], row["rounds"]) == (12, 40)


def test_what_is_no_number_is_no_defined_metric() -> None:
    assert [as_number(value) for value in (1, 0.5, -1e299)] == [1.0, 0.5, -1e299]
    undefined = (True, "1", None, [1], float("nan"), float("-inf"), 10**400, 1e308)
    assert [as_number(value) for value in undefined] == [None] * len(undefined)


def test_what_is_told_of_the_data_is_text(tmp_path: Path) -> None:
    notes = [{"kind": "jumps", "text": "÷ 4"}, {"kind": "gaps", "text": "1 day missing"}]
    frame = gpusched.load_results(write(tmp_path, SUCCESS | {"data_notes": notes}, SUCCESS))
    assert frame["data_notes"].iloc[0] == "÷ 4; 1 day missing"
    assert frame["data_notes"].isna().iloc[1]


def test_settings_are_columns(tmp_path: Path) -> None:
    frame = gpusched.load_results(write(tmp_path, SUCCESS | {"settings": {"workload.alpha": 0.1}}, SUCCESS))
    assert frame["workload.alpha"].iloc[0] == 0.1
    assert frame["workload.alpha"].isna().iloc[1]


def test_all_settings_of_a_workload_of_ones_own_are_columns(tmp_path: Path) -> None:
    task = msgspec.structs.replace(window_task(tmp_path, symbol="S"), settings={"alpha": 0.1, "layers": [3, 2]})
    job = WindowJob(workload="tests.worker.workloads:two_files", task=task, output_dir=str(tmp_path / "out"))
    run_window(job, ignore)
    (row,) = gpusched.load_results(write(tmp_path / "out", SUCCESS | {"window_label": task.label})).to_dict("records")
    assert (row["workload.alpha"], row["workload.layers"]) == (0.1, [3, 2])


def test_the_file_itself_may_be_named_and_may_be_growing(tmp_path: Path) -> None:
    write(tmp_path, SUCCESS, more='{"batch_id": "b", "sym')
    assert len(gpusched.load_results(str(tmp_path / "teacher_runs.json"))) == 1


@pytest.mark.parametrize("content", [None, "[1, 2]\n", "not json\n", '{"a":' + "[" * 100_000 + "\n"])
def test_what_is_no_index_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "teacher_runs.json").write_text(content)
    with pytest.raises(NoResults, match="name a batch directory"):
        gpusched.load_results(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"date_range": {"start": "2022-01-01", "end": "never"}},
        {"date_range": 5},
        {"window_label": "a\0b"},
        {"artifacts_path": {}},
        {"batch_id": "\ud800"},
        {"data_notes": [{}]},
        {"constant": "yes"},
        {"started_at": "x"},
    ],
    ids=lambda entry: next(iter(entry)),
)
def test_an_index_that_others_have_changed_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(NoResults, match="it is not an index"):
        gpusched.load_results(write(tmp_path, SUCCESS, SUCCESS | entry))


def asked_otherwise(task: Task, directory: Path, report: Report) -> Result:
    """A workload whose entries are called like those of the built-in one, and are no objects."""
    entries = {"requested": 5, "requested_parameters": ["a"]}
    return Result(metrics={}, sample_counts={}, metadata=entries, phases={})


def test_entries_of_ones_own_are_no_settings_of_the_built_in_workload(tmp_path: Path) -> None:
    task = window_task(tmp_path, symbol="S")
    job = WindowJob(workload=f"{__name__}:asked_otherwise", task=task, output_dir=str(tmp_path / "out"))
    run_window(job, ignore)
    (row,) = gpusched.load_results(write(tmp_path / "out", SUCCESS | {"window_label": task.label})).to_dict("records")
    assert row["constant"] is None


def test_several_batches_are_one_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "more").mkdir(parents=True)
    for name in ("runs/a", "runs/b", "runs/more/c"):
        write(tmp_path / name, SUCCESS | {"batch_id": name})

    def batches(paths: Any) -> list[str]:
        return [*gpusched.load_results(paths)["batch_id"]]

    assert batches(tmp_path) == ["runs/a", "runs/b", "runs/more/c"]
    assert batches([tmp_path / "runs" / "b", str(tmp_path / "runs" / "a")]) == ["runs/b", "runs/a"]
    assert batches(str(tmp_path / "runs" / "[ab]")) == ["runs/a", "runs/b"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert batches("runs/*/c") == ["runs/more/c"]
    (tmp_path / "runs" / "symbols.txt").write_text("AAPL\n")
    assert batches("runs/*") == ["runs/a", "runs/b", "runs/more/c"]
    with pytest.raises(NoResults, match="nor a directory below it"):
        batches("runs/*.txt")
    with pytest.raises(NoResults, match="nor a directory below it"):
        batches([tmp_path / "runs", tmp_path / "empty"])
    with pytest.raises(NoResults, match="No such file"):
        batches("runs/nothing-*")


@pytest.fixture
def trained(tmp_path: Path) -> pd.DataFrame:
    """One trained window, written by an index that remembers another place of it."""
    directory = tmp_path / "data"
    write_daily(directory, "NA", walk(120))
    task = window_task(tmp_path, symbol="NA", horizon=5, lightgbm={"num_leaves": 7, "min_data_in_leaf": 5})
    job = WindowJob(workload="gpusched.teacher:train_window", task=task, output_dir=str(tmp_path / "out"))
    result = run_window(job, ignore)
    line = SUCCESS | {
        "symbol": "NA",
        "window_label": task.label,
        "artifacts_path": "/moved/away",
        "metrics": result.metrics,
        "sample_counts": result.sample_counts,
        "peak_memory_bytes": 1 << 20,
    }
    return gpusched.load_results(write(tmp_path / "out", line, FAILED))


def test_a_row_says_how_it_was_trained(trained: pd.DataFrame) -> None:
    row = trained.iloc[0]
    assert (row["lightgbm.num_leaves"], row["lightgbm.learning_rate"]) == (7, 0.01)
    assert (row["labels.horizon"], row["split.method"], row["training.min_rows"]) == (5, "chronological", 20)
    assert row["rounds"] >= row["best_iteration"] >= 1
    assert row["boosting_seconds"] > 0
    assert row["peak_memory_bytes"] == 1 << 20
    assert bool(row["constant"]) is False
    assert pd.isna(trained.iloc[1]["lightgbm.num_leaves"])


def test_a_row_leads_to_its_files(trained: pd.DataFrame) -> None:
    row = trained.iloc[0]
    model, labels, predictions = gpusched.load_model(row), gpusched.load_labels(row), gpusched.load_predictions(row)
    assert list(labels["symbol"].unique()) == ["NA"]
    assert str(labels["ts"].dt.tz) == "UTC+05:30"
    assert list(predictions.columns) == ["ts", "split", "label", "probability"]
    assert predictions["ts"].equals(labels["ts"])
    assert dict(predictions["split"].value_counts()) == {"train": row["train_rows"], "validation": 23, "": 10}
    expected = model.predict(labels[model.feature_name()])
    assert predictions["probability"].tolist() == np.asarray(expected).tolist()
    (tuple_row,) = trained.head(1).itertuples()
    assert gpusched.load_model(tuple_row).num_trees() == model.num_trees() == row["rounds"]
    assert gpusched.load_model(Path(row["artifacts_path"])).num_trees() == row["rounds"]


def test_what_has_no_result_is_refused(trained: pd.DataFrame) -> None:
    for rows in (1, 2):
        with pytest.raises(NotOneRow, match=rf"a table of {rows} rows? has no model\.txt of its own\n.*frame\.iloc"):
            gpusched.load_model(pd.DataFrame([{"artifacts_path": "here"}] * rows))
    with pytest.raises(NoArtifact, match=r"has no model\.txt: it has no result"):
        gpusched.load_model(trained.iloc[1])
    row = trained.iloc[0]
    Path(row["artifacts_path"], "predictions.csv.gz").unlink()
    with pytest.raises(NoArtifact, match=r"is missing\n.*trains it again"):
        gpusched.load_predictions(row)


def test_a_model_that_was_cut_off_is_refused(trained: pd.DataFrame) -> None:
    """LightGBM ends the process over it: an exception leaves one of the threads that read the trees."""
    row = trained.iloc[0]
    model = Path(row["artifacts_path"], "model.txt")
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(NotIntact, match=r"model\.txt cannot be read: it is not the file that metadata\.json"):
            gpusched.load_model(row)
    finally:
        model.write_bytes(whole)


BOMB = gzip.compress(b"ts,split\n2024-01-01," + b"x" * 10_000, mtime=0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"hi", "Not a gzipped file"),
        (gzip.compress(b"ts,split\n", mtime=0)[:-5], "ended before the end-of-stream marker"),
        (gzip.compress(b"", mtime=0), "No columns to parse"),
        (gzip.compress(b"ts\n2024-01-01\n", mtime=0), "it has no column split"),
        (gzip.compress(b"split\ntrain\n", mtime=0), "it has no column ts"),
        (gzip.compress(b"ts,split\nnever,train\n", mtime=0), "never is not ISO8601"),
        (gzip.compress(b"ts,split\n2024-01-01,\xff\n", mtime=0), "'utf-8' codec can't decode"),
        (BOMB, "it unpacks to more than 0 GiB"),
    ],
)
def test_a_table_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, why: str
) -> None:
    monkeypatch.setattr(results, "_MOST_BYTES", 1000)
    (tmp_path / "predictions.csv.gz").write_bytes(content)
    with pytest.raises(NotIntact, match=rf"predictions\.csv\.gz cannot be read: .*{why}"):
        gpusched.load_predictions(tmp_path)


def test_a_text_in_an_index_may_have_any_character(tmp_path: Path) -> None:
    text = "one\u2028two\x85three"
    line = msgspec.json.encode(FAILED | {"error": {"message": text, "kind": "x"}}).decode()
    write(tmp_path, SUCCESS, more=f"{line}\n")
    assert gpusched.load_results(tmp_path)["error"].iloc[1] == text
    (tmp_path / "teacher_runs.json").write_bytes(b'{"symbol": "\xff"}\n')
    with pytest.raises(NoResults, match="it is not an index"):
        gpusched.load_results(tmp_path)


def test_a_workloads_own_model_is_no_booster(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("weights 1 2 3\n")
    with pytest.raises(NoModel, match=r"model\.txt is no LightGBM model: .*\n.*read it as that workload does"):
        gpusched.load_model(tmp_path)


def test_timestamps_whose_offset_changes_are_utc(tmp_path: Path) -> None:
    rows = b"ts,split,label,probability\n2024-01-01T00:00:00-05:00,train,0,0.5\n2024-07-01T00:00:00-04:00,,,0.5\n"
    (tmp_path / "predictions.csv.gz").write_bytes(gzip.compress(rows))
    frame = gpusched.load_predictions(tmp_path)
    assert [str(ts) for ts in frame["ts"]] == ["2024-01-01 05:00:00+00:00", "2024-07-01 04:00:00+00:00"]


def test_what_is_public() -> None:
    assert dir(gpusched) == gpusched.__all__
    assert all(getattr(gpusched, name) for name in gpusched.__all__)
    with pytest.raises(AttributeError):
        gpusched.save_results  # noqa: B018
