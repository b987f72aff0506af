"""A batch from the symbols file to verified artifacts, through `gpusched run`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bars import write_batch
from gpusched import load_predictions
from tests.end_to_end.support import REPRODUCIBLE, Command, check_sound, hashes, index
from tests.waiting import PATIENCE_S

#: the sample's batch: 4 symbols × 6 windows of 122 days
WINDOWS = 24


@pytest.mark.thorough
def test_36_symbols_and_3_years_are_252_windows_of_which_36_are_too_short(tmp_path: Path) -> None:
    write_batch(tmp_path)
    gpusched = Command(tmp_path)
    asked = ("symbols.txt", "--start", "2022-01-01", "--end", "2024-12-31", "-o", "out")
    plan = gpusched.json("plan", *asked)
    assert plan["totals"] == {"total": 252, "train": 216, "reuse": 0, "skip": 36}
    assert plan["estimated_seconds"] > 0
    assert not (tmp_path / "out").exists()

    ended = gpusched.json("run", *asked)
    assert ended["windows"] == {
        "total": 252, "succeeded": 216, "reused": 0, "skipped": 36, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert set(ended) == {"batch_id", "output_dir", "windows", "seconds", "windows_per_second"}
    check_sound(tmp_path / "out", 216)
    lines = index(tmp_path / "out")
    assert len(lines) == 252
    skipped = [line for line in lines if line["status"] == "skipped"]
    assert len(skipped) == 36
    assert all("too few rows" in line["skip_reason"] for line in skipped)
    for line in lines:
        if line["status"] == "success":
            assert line["metrics"]["validation"]["accuracy"] is not None
            assert Path(line["artifacts_path"]).name == line["window_label"]
            predictions = load_predictions(line)
            validated = predictions[predictions["split"] == "validation"]["probability"]
            assert line["constant"] == (validated.nunique() == 1)
    constant = sum(line.get("constant", False) for line in lines)
    assert constant > 20
    said = f"{constant} of 216 models predict a constant: too few rows for num_leaves 127, min_data_in_leaf 20?"
    assert said in gpusched("run", *asked)


def test_a_second_run_reuses_everything_and_another_configuration_nothing(gpusched: Command) -> None:
    first = gpusched.json("run", "symbols.txt", "-o", "out")
    assert first["windows"]["succeeded"] == WINDOWS
    before = hashes(gpusched.directory / "out")
    again = gpusched.json("run", "symbols.txt", "-o", "out")
    assert again["windows"]["reused"] == WINDOWS
    assert hashes(gpusched.directory / "out") == before
    assert all(line["status"] == "success" and line["reused"] for line in index(gpusched.directory / "out"))

    other = gpusched.json("run", "symbols.txt", "-o", "out", "--set", "lightgbm.num_leaves=7", "--replace")
    assert other["windows"]["succeeded"] == WINDOWS
    check_sound(gpusched.directory / "out", WINDOWS)
    metadata = json.loads(next((gpusched.directory / "out").glob("*/metadata.json")).read_text())
    assert metadata["parameters"]["num_leaves"] == 7


def test_settings_that_the_workload_refuses_end_a_run_before_the_plan(gpusched: Command) -> None:
    _, refused = gpusched.said("run", "symbols.txt", "-o", "out", "--set", "lightgbm.num_leaves=1", code=4)
    assert "--set: lightgbm.num_leaves: LightGBM refuses its parameters: Check failed: (num_leaves) > (1)" in refused
    assert not (gpusched.directory / "out" / "teacher_runs.json").exists()


def test_settings_of_ones_own_are_recorded(gpusched: Command) -> None:
    (gpusched.directory / "mine.py").write_text(OWN)
    asked = ("run", "--symbols", "A", "-o", "out", "--set", "run.workload=mine:train")
    _, refused = gpusched.said(*asked, "--set", "workload.alpa=1", code=4)
    assert "--set: workload.alpa: there is no setting 'alpa'; did you mean 'alpha'?" in refused
    gpusched.json(*asked, "--set", "workload.alpha=0.1")
    line = index(gpusched.directory / "out")[0]
    assert line["settings"] == {"workload.alpha": 0.1}
    metadata = json.loads(Path(line["artifacts_path"], "metadata.json").read_text())
    assert metadata["workload_settings"] == {"alpha": 0.1, "kind": "ridge"}


OWN = """
from dataclasses import dataclass
from gpusched.workload import Result

@dataclass
class settings:
    alpha: float = 0.5
    kind: str = "ridge"

def train(task, directory, report):
    return Result(metrics={"alpha": task.settings.alpha}, sample_counts={}, metadata={}, phases={})
"""


def test_a_function_in_a_file_and_what_lies_beside_it(gpusched: Command) -> None:
    code = gpusched.directory / "code"
    code.mkdir()
    (code / "train-v2.py").write_text(OWN.replace("task.settings.alpha", "helping.ANSWER") + "import helping\n")
    (code / "helping.py").write_text("ANSWER = 1\n")
    asked = ("run", "--symbols", "A", "-o", "out", "--workload", "code/train-v2.py:train")
    windows = gpusched.json(*asked)["windows"]["total"]
    assert gpusched.json(*asked)["windows"]["reused"] == windows
    (code / "helping.py").write_text("ANSWER = 2\n")
    assert gpusched.json(*asked)["windows"]["succeeded"] == windows
    assert index(gpusched.directory / "out")[0]["metrics"] == {"alpha": 2}
    _, missing = gpusched.said(*asked[:-1], "code/none.py:train", code=4)
    assert f"there is no workload in {code}/none.py" in missing
    _, missing = gpusched.said(*asked[:-1], "none:train", code=4)
    assert "No module named 'none'; the search path is /" in missing


def test_a_damaged_result_is_trained_again(gpusched: Command) -> None:
    gpusched("run", "symbols.txt", "-o", "out")
    before = hashes(gpusched.directory / "out")
    models = sorted((gpusched.directory / "out").glob("*/model.txt"))
    models[0].write_text("tree\n")
    models[1].unlink()
    again = gpusched.json("run", "symbols.txt", "-o", "out")
    assert (again["windows"]["succeeded"], again["windows"]["reused"]) == (2, WINDOWS - 2)
    assert hashes(gpusched.directory / "out") == before


def test_a_model_is_the_same_bytes_however_it_was_trained(gpusched: Command) -> None:
    """By `train`, with one slot and with four, and with the symbols the other way round."""
    gpusched("run", "symbols.txt", "-o", "one", "--workers", "1")
    gpusched("run", "symbols.txt", "-o", "four", "--workers", "4")
    backwards = "\n".join(reversed((gpusched.directory / "symbols.txt").read_text().split()))
    (gpusched.directory / "backwards.txt").write_text(backwards)
    gpusched("run", "backwards.txt", "-o", "backwards", "--workers", "2")
    one = hashes(gpusched.directory / "one")
    assert len(one) == WINDOWS * len(REPRODUCIBLE)
    assert hashes(gpusched.directory / "four") == one
    assert hashes(gpusched.directory / "backwards") == one
    for start, end in (("2006-01-01", "2006-05-02"), ("2007-09-03", "2007-12-31")):
        gpusched("train", "IBM", start, end, "-o", "alone")
    alone = hashes(gpusched.directory / "alone")
    assert len(alone) == 2 * len(REPRODUCIBLE)
    assert alone.items() <= one.items()


def test_a_function_draws_the_same_numbers_by_train_and_in_a_slot(gpusched: Command) -> None:
    (gpusched.directory / "draws.py").write_text(
        "import numpy.random\n"
        "numpy.random.seed(1)\n"
        "def train(task, directory, report): return {'drawn': numpy.random.random()}\n"
    )
    asked = ("--workload", "./draws.py:train")
    alone = gpusched.json("train", "IBM", "2007-09-03", "2007-12-31", "-o", "alone", *asked)
    gpusched("run", "--symbols", "IBM", "-o", "out", *asked)
    drawn = {line["window_label"]: line["metrics"]["drawn"] for line in index(gpusched.directory / "out")}
    assert drawn["IBM_2007-09-03_to_2007-12-31"] == alone["metrics"]["drawn"]
    assert len(set(drawn.values())) == len(drawn)


@pytest.mark.parametrize(
    ("workload", "kind", "code", "allowed"),
    [
        pytest.param("segfaults", "crashed", 1, 0, marks=pytest.mark.thorough),
        pytest.param("exits_at_once", "exited", 1, 0, marks=pytest.mark.thorough),
        ("bad_data", "bad_data", 5, 5),  # nothing to train, however many failures are allowed
    ],
)
def test_failures_are_told(gpusched: Command, workload: str, kind: str, code: int, allowed: int) -> None:
    asked = ["symbols.txt", "-o", "out", "--set", f"run.workload=tests.worker.workloads:{workload}"]
    # Without the circuit breaker, and with one attempt each.
    asked += ["--set", "run.breaker_failures=0", "--set", "run.max_attempts=1"]
    ended = gpusched.json("run", *asked, code=code)
    assert ended["windows"]["failed"] == WINDOWS
    for line in index(gpusched.directory / "out"):
        assert line["status"] == "failed"
        assert kind in json.dumps(line["error"])
    ended = gpusched.json("run", *asked, "--max-failure-rate", "1.0", code=allowed)
    assert ended["windows"]["failed"] == WINDOWS


def test_a_batch_that_keeps_failing_in_the_same_way_is_held(gpusched: Command) -> None:
    asked = ("symbols.txt", "-o", "out", "--set", "run.workload=tests.worker.workloads:bad_data", "--workers", "1")
    ended = gpusched.json("run", *asked, code=1)
    assert ended["windows"]["failed"] == 10
    assert "Held" in gpusched("run", *asked, code=1)


def test_limits_of_a_window_are_kept(gpusched: Command) -> None:
    (gpusched.directory / "one.txt").write_text("IBM\n")
    asked = ("one.txt", "--start", "2006-01-01", "--end", "2006-05-02", "--set", "run.max_attempts=1")
    hogs = ("--set", "run.workload=tests.worker.workloads:hogs_memory", "--set", "run.memory_limit_mb=200")
    gpusched("run", *asked, "-o", "hogs", *hogs, code=1)
    (line,) = index(gpusched.directory / "hogs")
    assert "memory" in json.dumps(line["error"]).lower()
    os.mkfifo(gpusched.directory / "data" / "fifo")
    (gpusched.directory / "one.txt").write_text("FIFO\n")
    hangs = ("--set", "run.workload=tests.server.workloads:window", "--set", "run.timeout_s=0.5")
    gpusched("run", *asked, "-o", "hangs", *hangs, code=1)
    (line,) = index(gpusched.directory / "hangs")
    assert line["status"] == "failed"
    assert "0.5 s" in json.dumps(line["error"])


def test_the_demo_trains_real_bars(tmp_path: Path) -> None:
    gpusched = Command(tmp_path)
    ended = gpusched.json("demo")
    windows = ended["windows"]
    assert windows["failed"] == 0
    assert windows["succeeded"] > 90
    assert windows["succeeded"] + windows["skipped"] == windows["total"] == 135
    check_sound(Path(ended["output_dir"]), windows["succeeded"])
    assert "exists already" in _error(gpusched, "demo")
    (tmp_path / "my demo").mkdir()
    assert "`cd 'my demo'`" in _error(gpusched, "demo", "my demo")
    # The commands that it says to try next do work.
    there = Command(tmp_path / "gpusched-demo")
    assert there.json("run", "symbols.txt")["windows"]["reused"] == windows["succeeded"]


def _error(gpusched: Command, *arguments: str) -> str:
    with gpusched.start(*arguments) as process:
        _, err = process.communicate()
    assert process.returncode == 4
    return err


@pytest.mark.parametrize("as_json", [True, False])
def test_a_reader_who_leaves_ends_the_drawing_and_not_the_batch(gpusched: Command, as_json: bool) -> None:
    """`run | head -1`, and `run --json | true`; the exit code is that of the batch, here of a failed window."""
    (gpusched.directory / "symbols.txt").write_text("AAPL\nBAD\n")
    workload = ("--set", "run.workload=tests.server.workloads:window")
    with gpusched.start("run", "symbols.txt", "-o", "out", *workload, *(["--json"] if as_json else [])) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if not as_json:
            process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1, err
    assert "internal error" not in err
    assert {line["symbol"] for line in index(gpusched.directory / "out")} == {"AAPL", "BAD"}


def test_a_full_disk_below_stdout_is_told_and_costs_no_batch(gpusched: Command) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gpusched", "run", "symbols.txt", "-o", "out"],
            cwd=gpusched.directory,
            env=gpusched.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
        )
    assert done.returncode == 0
    assert "not all of stdout could be written: No space left on device\nhint: the batch went on" in done.stderr
    assert len(index(gpusched.directory / "out")) == WINDOWS


def test_streams_that_are_closed_from_the_start_are_nobody_who_listens(gpusched: Command) -> None:
    """The store and the pipes of windows must not get the numbers of the streams either."""
    command = f"exec {shlex.quote(sys.executable)} -m gpusched run symbols.txt -o out <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", command], cwd=gpusched.directory, env=gpusched.environment, timeout=PATIENCE_S)
    assert done.returncode == 0
    assert len(index(gpusched.directory / "out")) == WINDOWS


def test_the_state_of_a_run_can_be_elsewhere(gpusched: Command) -> None:
    """On a local disk, where the results are on a file system without file locks; each output has its own."""
    elsewhere = ("--set", "run.state_dir=state", "--set", "run.workload=tests.server.workloads:window")
    for output in ("out", "other"):
        ended = gpusched.json("run", "symbols.txt", "-o", output, *elsewhere)
        assert ended["windows"]["succeeded"] == WINDOWS
        assert not (gpusched.directory / output / ".gpusched").exists()
    assert len(list((gpusched.directory / "state").glob("*/state.db"))) == 2
    assert all(Path(line["log"]).is_file() for line in index(gpusched.directory / "out"))
    gpusched("report", "out", "-o", "out.html", *elsewhere)


@pytest.mark.parametrize("command", ["demo new", "plan symbols.txt", "run symbols.txt -o out"])
def test_a_missing_openmp_runtime_is_told_at_once_in_the_doctors_words(gpusched: Command, command: str) -> None:
    """It is hidden in a mount namespace of the command's own."""
    found = [path.resolve() for path in Path("/usr/lib").glob("*/libgomp.so.1")]
    hidden = " && ".join(f"mount --bind /dev/null {path}" for path in found) or "false"
    shell = ["unshare", "--mount", "sh", "-c", f"{hidden} && exec {shlex.quote(sys.executable)} -m gpusched {command}"]
    if os.geteuid() or subprocess.run([*shell[:4], hidden], check=False, capture_output=True).returncode:
        pytest.skip("needs root and a mount namespace")
    done = subprocess.run(
        shell, cwd=gpusched.directory, env=gpusched.environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 4
    assert done.stderr.startswith("error: LightGBM does not train: ")
    assert "\nhint: install it: `apt install libgomp1`" in done.stderr
    assert not (gpusched.directory / "new").exists()
    assert not (gpusched.directory / "out").exists()
