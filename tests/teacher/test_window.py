from __future__ import annotations

import datetime as dt
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest

import gpusched
from gpusched import teacher
from gpusched.teacher import training
from gpusched.teacher.booster import LightGBMError
from gpusched.teacher.metrics import metrics
from gpusched.teacher.schema import LIGHTGBM_DEFAULTS
from gpusched.teacher.training import trained_parameters
from gpusched.workload import BadData, BadParameters, DateRange, NoData, Result, SymbolSurvey, Task
from tests.teacher.support import START, day, ignore, survey_task, walk, window_task, write_csv, write_daily
from tests.teacher.test_artifacts import rows_of

Trained = tuple[Path, Result]


def artifacts_of(task: Task, directory: Path) -> tuple[Result, dict[str, bytes]]:
    directory.mkdir()
    result = teacher.train_window(task, directory, ignore)
    return result, {path.name: path.read_bytes() for path in directory.iterdir()}


def test_result(trained: Trained) -> None:
    result = trained[1]
    assert result.sample_counts["bars"] == 120
    assert result.sample_counts["usable"] == 113
    assert result.sample_counts["train"] + result.sample_counts["validation"] == 113 - 7
    assert result.sample_counts["validation"] == 23
    assert list(result.phases) == ["load", "features", "dataset", "boosting", "metrics", "artifacts"]
    assert all(seconds >= 0 for seconds in result.phases.values())
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result
    details = result.metadata
    assert details["requested"] == {
        "symbol": "ABC",
        "start": "2024-01-01",
        "end": "2024-04-29",
        "interval": "1d",
        "horizon": 7,
        "threshold": 0.02,
        "split": "chronological",
        "validation_fraction": 0.2,
        "min_rows": 20,
    }
    assert details["data_quality"] == {"invalid_rows": 0, "duplicate_rows": 0, "conflicting_rows": 0}
    assert details["data_fingerprint"] == result.fingerprint
    assert details["best_iteration"] == details["rounds"] >= 1
    assert details["opencl_device"] is None
    assert details["versions"]["gpusched"] == gpusched.__version__
    assert details["versions"]["lightgbm"] == lightgbm.__version__


def test_metrics_are_those_of_the_saved_model(trained: Trained) -> None:
    root, result = trained
    rows = rows_of(root / "artifacts" / "labels.csv.gz")[:113]
    table = np.array([[float(row[name] or "nan") for name in result.metadata["features"]] for row in rows])
    labels = np.array([row["label"] == "1" for row in rows])
    scores = np.asarray(lightgbm.Booster(model_file=root / "artifacts" / "model.txt").predict(table))
    assert result.metrics == {
        "train": metrics(labels[:83], scores[:83]),
        "validation": metrics(labels[90:], scores[90:]),
    }


def test_recorded_parameters_are_those_of_the_saved_model(trained: Trained) -> None:
    root, result = trained
    assert result.metadata["requested_parameters"] == LIGHTGBM_DEFAULTS
    saved = trained_parameters((root / "artifacts" / "model.txt").read_text())
    assert result.metadata["parameters"] == saved
    for name, value in LIGHTGBM_DEFAULTS.items():
        assert saved[name] == value
    assert (saved["device_type"], saved["num_threads"]) == ("cpu", 0)


def test_what_is_trained_with_is_what_was_asked_for(root: Path) -> None:
    asked = {"min_child_samples": 5, "eta": 0.2, "n_estimators": 7, "lambda_l1": 0.5, "early_stopping": 0}
    result, _ = artifacts_of(window_task(root, lightgbm=asked), root / "one")
    trained = result.metadata["parameters"]
    expected = {"min_data_in_leaf": 5, "learning_rate": 0.2, "num_iterations": 7, "lambda_l1": 0.5}
    assert {name: trained[name] for name in expected} == expected
    assert (result.metadata["rounds"], result.metadata["best_iteration"]) == (7, None)


def test_every_run_gives_the_same_bytes(trained: Trained, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "ROWS_PER_THREAD", 10)
    first = {path.name: path.read_bytes() for path in (trained[0] / "artifacts").iterdir()}
    for threads in (1, 2):
        result, again = artifacts_of(window_task(root, threads=threads), root / f"{threads} threads")
        assert again == first
        assert msgspec.structs.replace(result, phases={}) == msgspec.structs.replace(trained[1], phases={})


def test_settings_that_come_from_json_give_the_same_bytes(trained: Trained, root: Path) -> None:
    text = msgspec.json.encode(window_task(root, lightgbm=dict(reversed(LIGHTGBM_DEFAULTS.items())), horizon=7))
    _, again = artifacts_of(msgspec.json.decode(text, type=Task), root / "again")
    assert again == {path.name: path.read_bytes() for path in (trained[0] / "artifacts").iterdir()}


@pytest.mark.parametrize(
    "settings",
    [
        {"horizon": 5},
        {"threshold": 0.01},
        {"split": "random"},
        {"validation_fraction": 0.3},
        {"validation_days": 50},
        {"lightgbm": {"num_leaves": 4}},
    ],
)
def test_settings_change_the_fingerprint_and_the_result(trained: Trained, root: Path, settings: dict[str, Any]) -> None:
    result, artifacts = artifacts_of(window_task(root, **settings), root / "other")
    assert result.fingerprint != trained[1].fingerprint
    assert artifacts["model.txt"] != (trained[0] / "artifacts" / "model.txt").read_bytes()


def test_the_fingerprint_is_of_the_window_alone(trained: Trained, root: Path) -> None:
    def fingerprint() -> str | None:
        return teacher.survey(survey_task(window_task(root))).windows[0].fingerprint

    path = root / "data" / "ABC" / "1d" / "all.csv"
    assert fingerprint() == trained[1].fingerprint
    path.write_text(path.read_text() + "2024-12-01T00:00:00+05:30,1,1,1,1,1\n")
    assert fingerprint() == trained[1].fingerprint
    path.write_text(path.read_text().replace("2024-02-01T00", "2024-02-01T01"))
    assert fingerprint() != trained[1].fingerprint
    path.write_text(path.read_text().replace("2024-02-01T01", "2024-02-01T00"))
    assert fingerprint() == trained[1].fingerprint
    assert teacher.survey(survey_task(window_task(root, min_rows=30))).windows[0].fingerprint == trained[1].fingerprint


@pytest.mark.parametrize(
    ("days", "settings"),
    [
        (120, {}),
        (120, {"split": "random"}),
        (27, {}),
        (26, {}),
        (26, {"min_rows": 19}),
        (5, {}),
        (120, {"threshold": 5.0}),
        (120, {"threshold": -0.9}),
        (40, {"horizon": 30, "min_rows": 2}),
        (10, {"min_rows": 2, "horizon": 1}),
    ],
)
def test_the_survey_and_the_training_agree(root: Path, days: int, settings: dict[str, Any]) -> None:
    task = window_task(root, days=days, **settings)
    (seen,) = teacher.survey(survey_task(task)).windows
    assert (seen.start, seen.end, seen.bars) == (task.start, task.end, days)
    assert seen.usable_rows == max(0, days - settings.get("horizon", 7))
    if seen.skip_reason is not None:
        assert seen.fingerprint is None
        with pytest.raises(NoData, match=f"^{re.escape(seen.skip_reason)}$"):
            teacher.train_window(task, root, ignore)
        return
    result, _ = artifacts_of(task, root / "one")
    assert result.fingerprint == seen.fingerprint
    assert result.sample_counts["usable"] == seen.usable_rows


def test_survey_of_several_windows(root: Path) -> None:
    ranges = (
        DateRange(START, day(59)),
        DateRange(day(60), day(119)),
        DateRange(dt.date(2030, 1, 1), dt.date(2031, 1, 1)),
    )
    task = msgspec.structs.replace(survey_task(window_task(root)), windows=ranges)
    first, second, none = teacher.survey(task).windows
    assert (first.bars, first.usable_rows, first.skip_reason) == (60, 53, None)
    assert (second.start, second.end, second.skip_reason) == (day(60), day(119), None)
    assert first.fingerprint != second.fingerprint
    assert none.skip_reason is not None
    assert none.skip_reason.startswith("no data: there are no bars from 2030-01-01 to 2031-01-01")


def test_a_symbol_without_data_and_one_with_broken_data_are_told_apart(root: Path) -> None:
    missing = survey_task(window_task(root, symbol="NONE"))
    with pytest.raises(NoData, match=r"^no data: neither "):
        teacher.survey(missing)
    with pytest.raises(NoData, match=r"^no data: neither "):
        teacher.train_window(window_task(root, symbol="NONE"), root, ignore)
    write_csv(root / "data" / "BAD.csv", "Date,Open\n")
    broken = window_task(root, symbol="BAD")
    with pytest.raises(BadData, match=r"BAD\.csv:1: there are no columns 'high', 'low', 'close'"):
        teacher.survey(survey_task(broken))
    with pytest.raises(BadData, match=r"BAD\.csv:1: there are no columns 'high', 'low', 'close'"):
        teacher.train_window(broken, root, ignore)


def test_importing_the_survey_does_not_hide_it(root: Path) -> None:
    task = msgspec.structs.replace(survey_task(window_task(root)), windows=())
    assert teacher.survey(task) == teacher.survey(task) == SymbolSurvey(windows=())


def test_one_class_to_validate_with_leaves_its_metrics_undefined(tmp_path: Path) -> None:
    rising = walk(100)
    falling = [tuple(value * 0.97**n for value in rising[-1]) for n in range(1, 40)]
    write_daily(tmp_path / "data", "ABC", [*rising, *falling])  # type: ignore[list-item]
    result, _ = artifacts_of(window_task(tmp_path, days=139), tmp_path / "one")
    assert result.sample_counts["validation_positive"] == 0
    assert (result.metrics["validation"]["auc"], result.metrics["validation"]["recall"]) == (None, None)
    assert result.metrics["train"]["auc"] is not None
    assert b"NaN" not in msgspec.json.encode(result)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"num_leaves": 1}, "num_leaves"),
        ({"num_leaves": "many"}, "num_leaves"),
        ({"metric": "foo"}, "eval metric"),
        ({"num_class": 3}, "Number of classes"),
        ({"monotone_constraints": [1, 2]}, "monotone_constraints"),
        ({"boosting": "foo"}, "Unknown boosting type foo"),
        ({"force_row_wise": True}, "force_row_wise"),
    ],
)
def test_values_that_lightgbm_refuses(root: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParameters, match=message):
        teacher.train_window(window_task(root, lightgbm=params), root, ignore)


def test_a_build_without_cuda_says_so(root: Path) -> None:
    task = msgspec.structs.replace(window_task(root), device_type="cuda")
    with pytest.raises((BadParameters, LightGBMError)) as raised:
        teacher.train_window(task, root, ignore)
    if not isinstance(raised.value, BadParameters):
        pytest.skip("this build of LightGBM has CUDA")
    assert "CUDA Tree Learner was not enabled" in str(raised.value)


def test_progress(root: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def report(phase: str, round: int = 0, rounds: int = 0) -> None:
        seen.append((phase, round, rounds))

    teacher.train_window(window_task(root, lightgbm={"num_iterations": 3}), root, report)
    assert seen == [
        ("load", 0, 0),
        ("features", 0, 0),
        ("dataset", 0, 0),
        *(("boosting", number, 3) for number in range(4)),
        ("metrics", 0, 0),
        ("artifacts", 0, 0),
    ]


def test_nothing_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys, gpusched.teacher, gpusched.teacher.schema as s; s.parse_settings({});"
        "print(sorted({'numpy', 'pandas', 'lightgbm', 'talib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(("rows_per_thread", "expected"), [(10_000, 1), (50, 2), (10, 3)])
def test_small_windows_use_fewer_threads_than_they_may(
    root: Path, monkeypatch: pytest.MonkeyPatch, rows_per_thread: int, expected: int
) -> None:
    used: list[int] = []
    monkeypatch.setattr(training, "ROWS_PER_THREAD", rows_per_thread)
    monkeypatch.setattr(training, "set_threads", used.append)
    teacher.train_window(window_task(root, threads=3, lightgbm={"num_iterations": 1}), root, ignore)
    assert used == [expected]


def test_a_model_that_does_not_fit_on_the_disk_fails_its_window(root: Path, trained: tuple[Path, Result]) -> None:
    almost = (trained[0] / "artifacts" / "model.txt").stat().st_size - 10  # all of its trees fit
    directory = root / "short of room"
    directory.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (almost, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            teacher.train_window(window_task(root), directory, ignore)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_model_records_words_and_numbers() -> None:
    values = {
        "a": 1,
        "b": -1,
        "c": 0.25,
        "d": 1e-05,
        "e": -2.5e300,
        "f": "",
        "g": "gbdt",
        "h": "1,2",
        "i": "1.2.3",
        "j": "2e",
    }
    lines = "\n".join(f"[{name}: {value}]" for name, value in values.items())
    assert trained_parameters(f"tree\n\nparameters:\n{lines}\n\nend of parameters\n[z: 1]\n") == values
