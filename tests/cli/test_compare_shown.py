"""`compare` of batches that measure different things."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpusched import cli


def test_batches_without_a_metric_in_common(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, metrics in (("a", {"r2": 0.5}), ("b", {"validation": {"auc": 0.5}})):
        dates = {"start": "2022-01-01", "end": "2022-06-30"}
        line = {"window_label": "A_1", "symbol": "A", "status": "success", "metrics": metrics, "date_range": dates}
        (tmp_path / name).mkdir()
        (tmp_path / name / "teacher_runs.json").write_text(f"{json.dumps(line)}\n")
    assert cli.run(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "These windows have no metric in common" in capsys.readouterr().err
