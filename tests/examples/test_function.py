"""A scikit-learn function with settings of its own: what `examples/function/README.md` runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import gpusched
from gpusched.sample import write_sample
from tests.end_to_end.support import REPOSITORY, Command
from tests.examples.test_windows import commands

pytestmark = pytest.mark.slow


def test_a_function_of_scikit_learn(tmp_path: Path) -> None:
    here = tmp_path / "gpusched-demo"
    here.mkdir()
    write_sample(here)
    (here / "symbols.txt").write_text("IBM\nFB\n")
    code = tmp_path / "examples" / "function"
    shutil.copytree(REPOSITORY / "examples" / "function", code)
    client, (plan, run, sweep) = Command(here), commands("function")
    assert client.json(*plan)["totals"]["train"] == 18  # it has no survey: each window finds out itself
    windows = client.json(*run)["windows"]
    assert (windows["succeeded"], windows["skipped"], windows["failed"]) == (
        8,
        10,
        0,
    )  # FB was not listed yet, and the last window is of three weeks
    frame = gpusched.load_results(here / "logistic")
    trained = frame[frame.status == "success"]
    assert trained.validation_auc.between(0, 1).all()
    assert set(trained["workload.c"]) == {0.1}
    assert client.json(*run)["windows"]["reused"] == 8

    _, refused = client.said(*run[:-1], "workload.c=-1", code=4)
    assert "--set: workload.c: c must be above 0, got -1" in refused
    with (code / "logistic.py").open("a") as file:
        file.write("# another version\n")
    assert client.json(*run)["windows"]["succeeded"] == 8
    assert client.json(*sweep)["windows"]["succeeded"] == 8 * 9
    swept = gpusched.load_results(here / "sweep")
    assert swept["workload.lags"].nunique() == 3
