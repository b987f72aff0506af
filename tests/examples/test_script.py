"""A script as users have it, unchanged, through `--command`: as `examples/script/README.md` says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gpusched.sample import write_sample
from tests.end_to_end.support import REPOSITORY, Command, index

pytestmark = pytest.mark.slow

DATES = ("--start", "2006-01-01", "--end", "2006-12-31", "--window-days", "122")
WORDS = "--symbol {symbol} --start {start} --end {end} --output-dir {output_dir} --threads {threads}"


def test_a_script_is_run_for_each_window_as_it_is(tmp_path: Path) -> None:
    write_sample(tmp_path)
    (tmp_path / "symbols.txt").write_text("IBM\nFB\n")
    gpusched, script = Command(tmp_path), REPOSITORY / "examples" / "script" / "train_teacher.py"
    request = (
        *("run", "symbols.txt", "--data-root", "data", *DATES, "-o", "teachers"),
        *("--set", 'command.preload=["pandas", "lightgbm"]', "--command", f"{sys.executable} {script} {WORDS}"),
    )
    said = gpusched.json(*request)
    assert said["windows"] == {"total": 6, "succeeded": 3, "reused": 0, "skipped": 3, "failed": 0, "cancelled": 0}
    lines = {line["window_label"]: line for line in index(tmp_path / "teachers")}
    trained = lines["IBM_2006-01-01_to_2006-05-02"]
    assert 0 <= trained["metrics"]["validation"]["auc"] <= 1
    assert lines["FB_2006-01-01_to_2006-05-02"]["skip_reason"] == "only 0 bars of FB"
    directory = Path(trained["artifacts_path"])
    assert {"model.txt", "labels.csv", "metrics.json", "metadata.json"} == {path.name for path in directory.iterdir()}

    (tmp_path / "data" / "IBM.csv").touch()
    again = gpusched.json(*request)
    assert (again["windows"]["succeeded"], again["windows"]["reused"]) == (3, 0)
    assert gpusched.json(*request)["windows"]["reused"] == 3
