"""plan, run, train, demo and config, as they are typed: arguments, output, and the messages for mistakes."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpusched import cli
from gpusched.engines.local import proc
from tests.cli.shells import DATES, Shell, ended
from tests.end_to_end.support import Command
from tests.waiting import PATIENCE_S


def test_config_says_where_each_value_comes_from(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.file("config.toml", "[labels]\nhorizon = 5\n[lightgbm]\neta = 0.5\n")
    monkeypatch.setenv("GPUSCHED_RUN_WORKERS", "2")
    typed = ("config", "--set", "windows.start=2022-01-01", "--set", "lightgbm.extra_trees=true")
    found = json.loads(shell(*typed, "--json").out)
    settings = found["settings"]
    assert found["file"] == str(shell.directory / "config.toml")
    assert settings["labels.horizon"] == {"value": 5, "origin": f"{shell.directory / 'config.toml'}:2"}
    assert settings["lightgbm.learning_rate"] == {"value": 0.5, "origin": f"{shell.directory / 'config.toml'}:4"}
    assert settings["lightgbm.extra_trees"] == {"value": True, "origin": "--set"}
    assert settings["run.workers"] == {"value": 2, "origin": "GPUSCHED_RUN_WORKERS"}
    assert settings["windows.start"] == {"value": "2022-01-01", "origin": "--set"}
    assert settings["windows.end"] == {"value": None, "origin": "default"}
    assert settings["data.root"] == {"value": str(shell.directory / "data"), "origin": "default"}

    lines = [line.split("\t") for line in shell(*typed).out.splitlines()]
    assert [key for key, _, _ in lines] == ["setting", *settings]
    assert ["lightgbm.extra_trees", "true", "--set"] in lines


def test_without_a_file_config_says_so(shell: Shell) -> None:
    assert json.loads(shell("config", "--json").out)["file"] is None


def test_a_plan_as_json(gpusched: Command) -> None:
    found = ended(gpusched, "plan", "symbols.txt", *DATES, "--device", "cpu", "--json")
    assert found.code == 0
    plan: dict[str, Any] = json.loads(found.out)
    estimate = {"estimated_seconds", "estimate_factor"}
    assert set(plan) == {"batch_id", "output_dir", "windows", "totals", *estimate, "device", "device_choice"}
    assert (plan["device"], plan["device_choice"]) == ("cpu", None)
    assert re.fullmatch(r"symbols-[0-9a-f]{8}", plan["batch_id"])
    assert plan["output_dir"] == str(gpusched.directory / "gpusched-runs" / plan["batch_id"])
    assert plan["totals"] == {"total": 4, "train": 2, "reuse": 0, "skip": 2}
    assert plan["estimated_seconds"] > 0
    first, last = plan["windows"][0], plan["windows"][-1]
    assert first == {
        "symbol": "ABC",
        "start": "2022-01-01",
        "end": "2022-06-29",
        "window_label": "ABC_2022-01-01_to_2022-06-29",
        "bars": 168,
        "usable_rows": first["usable_rows"],
        "action": "train",
        "reason": None,
    }
    assert 20 <= first["usable_rows"] < 168
    assert (last["symbol"], last["action"], last["bars"]) == ("NONE", "skip", 0)
    assert "NONE" in last["reason"]
    assert not (gpusched.directory / "gpusched-runs").exists()
    # On stderr, and once.
    assert found.err.splitlines() == [f"{gpusched.directory}/symbols.txt: named twice, taken once: ABC (line 3)"]


def test_a_plan_of_rolling_and_of_expanding_windows(gpusched: Command) -> None:
    def planned(*options: str) -> list[str]:
        out, _ = gpusched.said("plan", "--symbols", "ABC", *DATES, "--device", "cpu", "--json", *options)
        return [window["window_label"] for window in json.loads(out)["windows"]]

    assert planned("--stride-days", "100", "--validation-days", "30") == [
        "ABC_2022-01-01_to_2022-06-29",
        "ABC_2022-04-11_to_2022-10-07",
        "ABC_2022-07-20_to_2022-12-31",
    ]
    assert planned("--stride-days", "100", "--anchored") == [
        "ABC_2022-01-01_to_2022-06-29",
        "ABC_2022-01-01_to_2022-10-07",
        "ABC_2022-01-01_to_2022-12-31",
    ]


def test_windows_one_by_one(gpusched: Command) -> None:
    dates = {"start": "2022-01-01", "end": "2022-12-31"}
    windows = (
        {"symbol": "ABC", "label": "whole", "priority": 2, "expected_seconds": 3.5, "expected_memory_mb": 64, **dates},
        {"symbol": "NONE", **dates},
        {"symbol": "ABC", "start": "2022-03-01", "end": "2022-08-31"},
    )
    (gpusched.directory / "windows.jsonl").write_text("".join(json.dumps(window) + "\n" for window in windows))
    found = ended(gpusched, "run", "windows.jsonl", "--device", "cpu", "--json", "-o", "out")
    assert (found.code, json.loads(found.out)["windows"]["succeeded"]) == (0, 2)
    index = [json.loads(line) for line in (gpusched.directory / "out" / "teacher_runs.json").read_text().splitlines()]
    assert {line["window_label"]: line["status"] for line in index} == {
        "whole": "success",
        "ABC_2022-03-01_to_2022-08-31": "success",
        "NONE_2022-01-01_to_2022-12-31": "skipped",
    }
    assert json.loads((gpusched.directory / "out" / "whole" / "metadata.json").read_text())["label"] == "whole"
    again = ended(gpusched, "run", "-", "--device", "cpu", "--json", "-o", "out", stdin=json.dumps(windows[0]))
    assert json.loads(again.out)["windows"] | {"total": 1, "reused": 1} == json.loads(again.out)["windows"]


def test_a_plan_says_that_single_precision_makes_another_model_each_time(gpusched: Command) -> None:
    off = ("--set", "lightgbm.gpu_use_dp=false")
    told = [gpusched.said("plan", "symbols.txt", *DATES, *more)[1] for more in (off, (*off, "--device", "cpu"), ())]
    assert ["may make another model of the same window each time" in err for err in told] == [True, False, False]


def test_symbols_may_be_typed_or_come_from_a_pipe(gpusched: Command) -> None:
    typed = gpusched.json("plan", "--symbols", "ABC,NONE", *DATES, "--device", "cpu")
    assert typed["batch_id"].startswith("ABC-NONE-")
    piped = ended(gpusched, "plan", "-", *DATES, "--device", "cpu", "--json", stdin="ABC\nNONE\n")
    assert piped.code == 0
    found = json.loads(piped.out)
    assert found["batch_id"].startswith("stdin-")
    assert found["windows"] == typed["windows"]
    refused = ended(gpusched, "plan", "--symbols", "ABC,../X", *DATES)
    assert refused.code == 4
    assert "--symbols: '../X' cannot be a symbol" in refused.err


def test_many_lines_that_repeat_a_symbol_are_one_short_note(shell: Shell) -> None:
    file = shell.file("symbols.txt", "ABC\n" * 40_001)
    err = shell("run", file, *DATES, "--device", "cpu").err
    assert "named twice, taken once: ABC (line 2), ABC (line 3), " in err
    assert "(line 6) and 39,995 more\n" in err
    assert len(err) < 1000


@pytest.mark.parametrize("command", ["plan", "run"])
def test_nothing_to_train_is_an_end_of_its_own(gpusched: Command, command: str) -> None:
    """The reasons, and the likeliest remedy; the object is on stdout as ever."""
    (gpusched.directory / "data" / "BAD.csv").write_text("<html>\n")
    typed = (command, "--symbols", "NONE,BAD", *DATES, "--device", "cpu")
    found = ended(gpusched, *typed, "--json")
    assert found.code == 5
    assert re.search(
        r"nothing to train: no data: neither .+ \(2 windows\); .+BAD\.csv.+HTML.+ \(2 windows\)", found.err
    )
    assert "likeliest remedy: " in found.err
    assert json.loads(found.out)["batch_id"].startswith("NONE-BAD-")
    shown = ended(gpusched, *typed)
    assert shown.code == 5
    assert "BAD.csv" in shown.out
    assert "Traceback" not in shown.err


def test_windows_that_find_out_themselves_say_why_nothing_was_trained(gpusched: Command) -> None:
    """Their workload has no survey."""
    (gpusched.directory / "mine.py").write_text(
        "from gpusched.workload import BadData, NoData\n"
        "def window(task, directory, report):\n"
        "    raise (NoData if task.symbol == 'NONE' else BadData)('nothing in ' + task.symbol)\n"
    )
    found = ended(gpusched, "run", "symbols.txt", *DATES, "--device", "cpu", "--set", "run.workload=mine:window")
    assert found.code == 5
    assert "nothing to train: nothing in … (4 windows)" in found.err  # one reason, whatever the symbol


def test_a_file_that_is_refused_counts_as_failed(gpusched: Command) -> None:
    (gpusched.directory / "data" / "BAD.csv").write_text("<html>\n")
    typed = ("--symbols", "ABC,BAD", *DATES, "--device", "cpu")
    plan = gpusched.json("plan", *typed, code=1)
    assert gpusched.json("plan", *typed, "--max-failure-rate", "0.5") == plan
    assert plan["totals"] == {"total": 4, "train": 2, "reuse": 0, "skip": 0, "fail": 2}
    assert (plan["windows"][-1]["action"], "HTML" in plan["windows"][-1]["reason"]) == ("fail", True)
    found = gpusched.json("run", *typed, code=1)
    assert found["windows"]["failed"] == 2
    (refused,) = found["refused"]
    assert (refused["windows"], "HTML" in refused["reason"]) == (2, True)
    (index,) = gpusched.directory.glob("gpusched-runs/*/teacher_runs.json")
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    failed = [line for line in lines if line["status"] == "failed"]
    assert [(line["symbol"], line["attempts"], line["error"]["kind"]) for line in failed] == [
        ("BAD", 0, "bad_data")
    ] * 2
    assert gpusched.json("run", *typed, "--max-failure-rate", "0.5")["windows"]["reused"] == 2


def test_what_the_data_are_like_is_said(gpusched: Command) -> None:
    path = gpusched.directory / "data" / "ABC.csv"
    path.write_text(path.read_text().replace("2022-03-07,", "2022-03-07,-"))
    plan = gpusched.json("plan", "--symbols", "ABC", *DATES, "--device", "cpu")
    (note,) = plan["data_notes"]["ABC"]
    assert note["kind"] == "prices"
    assert "negative" in note["text"]
    assert gpusched.json("run", "--symbols", "ABC", *DATES, "--device", "cpu")["data_notes"] == plan["data_notes"]
    _, err = gpusched.said("plan", "--symbols", "ABC", *DATES, "--device", "cpu")
    assert f"ABC: {note['text']}" in err
    out, _ = gpusched.said("run", "--symbols", "ABC", *DATES, "--device", "cpu", "-o", "other")
    assert f"ABC: {note['text']}" in out


def test_a_plan_in_a_pipe_and_in_one_that_is_closed(gpusched: Command) -> None:
    found = ended(gpusched, "plan", "symbols.txt", *DATES)
    assert found.code == 0
    assert [line.count("\t") for line in found.out.splitlines()] == [found.out.splitlines()[0].count("\t")] * 5
    assert found.err.count("named twice") == 1
    with gpusched.start("plan", "symbols.txt", *DATES) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(PATIENCE_S) == 0
    assert "rror" not in said
    assert "Traceback" not in said


def test_a_name_names_the_batch_and_its_directory(gpusched: Command) -> None:
    plan = gpusched.json("plan", "symbols.txt", *DATES, "--name", "mine")
    assert (plan["batch_id"], plan["output_dir"]) == ("mine", str(gpusched.directory / "gpusched-runs" / "mine"))


def test_a_plan_needs_no_cache(gpusched: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that everything is parsed again the next time; each left a directory with a log among temporary files."""
    (place := gpusched.directory / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    plan = gpusched.json("plan", "symbols.txt", *DATES, "--device", "cpu", "--set", "cache.dir=/dev/null/cache")
    assert plan["totals"]["train"] == 2
    assert not list(place.iterdir())


def test_train_says_what_it_made_and_what_it_cannot(gpusched: Command) -> None:
    dates = ("2022-01-01", "2022-06-29")
    found = gpusched.json("train", "ABC", *dates, "-o", "one", "--device", "cpu")
    assert Path(found["artifacts_path"]) == gpusched.directory / "one" / "ABC_2022-01-01_to_2022-06-29"
    assert (gpusched.directory / "one" / "ABC_2022-01-01_to_2022-06-29" / "model.txt").exists()
    refused = ended(gpusched, "train", "NONE", *dates, "-o", "one")
    assert (refused.code, refused.out) == (4, "")
    assert refused.err.startswith("error: NONE_2022-01-01_to_2022-06-29: the window cannot be trained: no data: ")
    assert "Traceback" not in refused.err
    # a library that cannot be loaded hides a real one
    (gpusched.directory / "libcuda.so.1").touch()
    gpusched.environment["LD_LIBRARY_PATH"] = str(gpusched.directory)
    refused = ended(gpusched, "train", "ABC", *dates, "-o", "one", "--device", "cuda")
    assert refused.code == 4
    assert "cannot be trained with --device cuda: there is no CUDA driver here (libcuda.so.1)" in refused.err


def test_a_demo_overwrites_nothing(gpusched: Command) -> None:
    directory = gpusched.directory / "mine"
    directory.mkdir()
    for name in ("mine", "symbols.txt", "symbols.txt/below"):
        refused = ended(gpusched, "demo", name)
        assert (refused.code, refused.out) == (4, "")
        assert refused.err.startswith("error: ")
        assert name in refused.err
    assert list(directory.iterdir()) == []


def test_debug_shows_the_traceback(gpusched: Command) -> None:
    for typed in (("plan", "none.txt", *DATES), ("rum",), ("config", "--set", "run.worker=1")):
        found = ended(gpusched, *typed, "--debug", stdin="")  # Python writes it as it ends
        assert found.code != 0
        assert "Traceback (most recent call last)" in found.err


def test_a_bug_is_admitted_without_a_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> int:
        raise RuntimeError("oops")

    monkeypatch.setattr("gpusched.cli.commands.settings.show", broken)
    found = shell("config")
    assert found.code == 70
    assert "internal error: RuntimeError: oops" in found.err
    with pytest.raises(RuntimeError):
        cli.run(["config", "--debug"])


def test_a_file_that_hides_a_module_of_python_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `secrets.py` with passwords, in a directory of PYTHONPATH."""
    hiding = ModuleType("secrets")
    hiding.__file__ = str(shell.directory / "secrets.py")

    def asks(options: object) -> int:
        return int(sys.modules["secrets"].token_hex())

    monkeypatch.setitem(sys.modules, "secrets", hiding)
    monkeypatch.setattr("gpusched.cli.commands.settings.show", asks)
    said = shell.refused("config", code=4)
    assert f"{hiding.__file__} hides Python's own module secrets: module 'secrets' has no attribute" in said
    assert "leave its directory out of PYTHONPATH" in said


def test_a_machine_without_proc_is_told(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "ROOT", shell.directory)
    shell.file("data/ABC.csv", "")
    assert "/proc is not mounted here" in shell("run", "--symbols", "ABC", *DATES, "--device", "cpu").err
    assert "/proc is not mounted here" in shell.refused("plan", "--symbols", "ABC", *DATES, "--device", "cpu", code=4)
