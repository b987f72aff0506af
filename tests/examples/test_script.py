"""A script as users have it, unchanged, through `--command`: as `examples/script/README.md` says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gpusched.sample import write_sample
from tests.end_to_end.support import REPOSITORY, Command, index
from tests.examples.test_windows import commands

pytestmark = pytest.mark.slow

PRELOAD = ("--set", 'command.preload=["pandas", "lightgbm"]')


def test_a_script_is_run_for_each_window_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    demo = tmp_path / "gpusched-demo"
    write_sample(demo)
    (demo / "symbols.txt").write_text("IBM\nFB\n")
    gpusched, (request,) = Command(demo), commands("script")
    gpusched.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = gpusched.json(*request)
    assert said["windows"] == {"total": 6, "succeeded": 3, "reused": 0, "skipped": 3, "failed": 0, "cancelled": 0}
    lines = {line["window_label"]: line for line in index(demo / "teachers")}
    trained = lines["IBM_2006-01-01_to_2006-05-02"]
    assert 0 <= trained["metrics"]["validation"]["auc"] <= 1
    assert lines["FB_2006-01-01_to_2006-05-02"]["skip_reason"] == "only 0 bars of FB"
    directory = Path(trained["artifacts_path"])
    assert {"model.txt", "labels.csv", "metrics.json", "metadata.json"} == {path.name for path in directory.iterdir()}

    (demo / "data" / "IBM.csv").touch()
    warm = (*request[:-2], *PRELOAD, *request[-2:])
    again = gpusched.json(*warm, "--replace")
    assert (again["windows"]["succeeded"], again["windows"]["reused"]) == (3, 0)
    assert gpusched.json(*warm)["windows"]["reused"] == 3
