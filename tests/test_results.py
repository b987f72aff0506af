"""`load_results`, the one public function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gpusched
from gpusched.results import NoResults

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


def test_what_is_told_of_the_data_is_text(tmp_path: Path) -> None:
    notes = [{"kind": "jumps", "text": "÷ 4"}, {"kind": "gaps", "text": "1 day missing"}]
    frame = gpusched.load_results(write(tmp_path, SUCCESS | {"data_notes": notes}, SUCCESS))
    assert frame["data_notes"].iloc[0] == "÷ 4; 1 day missing"
    assert frame["data_notes"].isna().iloc[1]


def test_settings_are_columns(tmp_path: Path) -> None:
    frame = gpusched.load_results(write(tmp_path, SUCCESS | {"settings": {"workload.alpha": 0.1}}, SUCCESS))
    assert frame["workload.alpha"].iloc[0] == 0.1
    assert frame["workload.alpha"].isna().iloc[1]


def test_the_file_itself_may_be_named_and_may_be_growing(tmp_path: Path) -> None:
    write(tmp_path, SUCCESS, more='{"batch_id": "b", "sym')
    assert len(gpusched.load_results(str(tmp_path / "teacher_runs.json"))) == 1


@pytest.mark.parametrize("content", [None, "[1, 2]\n", "not json\n"])
def test_what_is_no_index_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "teacher_runs.json").write_text(content)
    with pytest.raises(NoResults, match="name a batch directory"):
        gpusched.load_results(tmp_path)


def test_nothing_else_is_public() -> None:
    with pytest.raises(AttributeError):
        gpusched.save_results  # noqa: B018
