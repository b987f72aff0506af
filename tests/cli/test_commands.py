"""plan, run, train, demo and config, as they are typed: arguments, output, and the messages for mistakes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gpusched import __version__, cli
from gpusched.cli.examples import EXAMPLES
from gpusched.cli.parser import COMMANDS, parse
from gpusched.cli.usage import SYNONYMS
from tests.end_to_end.support import Command

DATES = ("--start", "2022-01-01", "--end", "2022-12-31")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Shell:
    """Runs commands in this process, in a directory of their own."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        try:
            code = cli.run(arguments)
        except SystemExit as exit:  # --help and --version
            code = int(exit.code or 0)
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        return Ended(code, out, err)

    def refused(self, *arguments: str, code: int) -> str:
        """The message for a mistake: a problem and a remedy, on stderr alone."""
        ended = self(*arguments)
        assert (ended.code, ended.out) == (code, ""), ended
        assert re.fullmatch(r"error: .+\n(usage: gpusched .+\n)?hint: .+\n", ended.err), ended.err
        return ended.err

    def file(self, name: str, content: str | bytes) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """With a data root that holds no bars, and a symbols file."""
    for name in [name for name in os.environ if name.startswith("GPUSCHED_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "symbols.txt").write_text("ABC\nDEF\n")
    return Shell(tmp_path, capsys)


# -- wrong arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("--socket s", "the following arguments are required: COMMAND"),
        ("prune", "there is no command 'prune'; did you mean 'forget'?"),
        ("rum", "there is no command 'rum'; did you mean 'run'?"),
        ("completion bsh", "invalid choice: 'bsh' (choose from bash, zsh, fish); did you mean 'bash'?"),
        ("xyzzy", "there is no command 'xyzzy'\n"),
        ("run", "the following arguments are required: SYMBOLS_FILE"),
        ("run symbols.txt --symbols ABC", "give SYMBOLS_FILE or --symbols, not both"),
        ("plan symbols.txt --star 2022-01-01", "there is no option --star; did you mean '--start'?"),
        ("plan symbols.txt --window-day=3", "there is no option --window-day; did you mean '--window-days'?"),
        ("plan symbols.txt --zzz", "there is no option --zzz\n"),
        ("plan symbols.txt -x", "there is no option -x\n"),
        ("plan symbols.txt another.txt", "unrecognized arguments: another.txt"),
        ("plan symbols.txt --start", "argument --start: expected one argument"),
        ("plan symbols.txt --set run.workers", "--set run.workers: expected KEY=VALUE"),
        ("plan symbols.txt --priority high", "argument --priority: invalid int value: 'high'"),
        ("train ABC 2022-01-01 2022-12-31", "the following arguments are required: -o/--output"),
        ("train ABC 2022-01-01 2022-31-12 -o x", "'2022-31-12' is not a date"),
        ("train ABC yesterday 2022-12-31 -o x", "'yesterday' is not a date"),
        ("train A/B 2022-01-01 2022-12-31 -o x", "'A/B' cannot be a symbol: it contains a path separator"),
        ("train ABC 2022-12-31 2022-01-01 -o x", "the windows end on 2022-01-01, before they start on 2022-12-31"),
        ("train ABC 2022-01-01 2022-12-31 -o x --workers 2", "there is no option --workers"),
        ("plan symbols.txt", "no start and no end date is given"),
        ("plan symbols.txt --start 2022-01-01", "no end date is given"),
        ("plan symbols.txt --start 2022-02-01 --end 2022-01-01", "before they start on 2022-02-01"),
        ("run symbols.txt --start 2022-01-01 --end 2022-12-31 --name ../up", "--name '../up' cannot name a batch"),
        ("run symbols.txt --start 2022-01-01 --end 2022-12-31 --name .", "--name '.' cannot name a batch"),
        ("run symbols.txt --start 2022-01-01 --end 2022-12-31 --name a/b", "--name 'a/b' cannot name a batch"),
        ("run symbols.txt --start 2022-01-01 --end 2022-12-31 --name=", "--name '' cannot name a batch"),
    ],
)
def test_a_typing_error_is_named(shell: Shell, typed: str, says: str) -> None:
    assert says in shell.refused(*typed.split(), code=2)
    assert not (shell.directory / "gpusched-runs").exists()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("plan none.txt", "none.txt: the symbols file cannot be read: No such file or directory"),
        ("plan data", "data: the symbols file cannot be read: Is a directory"),
        ("plan symbols.txt --start tomorrow", "--start: windows.start: expected a date such as 2022-01-31"),
        ("plan symbols.txt --window-days 0", "--window-days: windows.days: expected a whole number from 1 to 36500"),
        ("plan symbols.txt --workers many", "--workers: run.workers: expected a whole number"),
        ("plan symbols.txt --device tpu", '--device: run.device: expected "auto" or "cpu" or "cuda" or "gpu"'),
        ("plan symbols.txt --horizon 1.5", "--horizon: labels.horizon: expected a whole number"),
        ("plan symbols.txt --threshold nan", "--threshold: labels.threshold: expected a number"),
        ("plan symbols.txt --interval ../1d", "--interval: data.interval: "),
        ("plan symbols.txt --max-failure-rate 2", "--max-failure-rate: run.max_failure_rate: expected a number"),
        ("plan symbols.txt --data-root=", "--data-root: data.root: expected a path, got ''"),
        ("plan symbols.txt --set run.worker=1", "there is no setting 'run.worker'; did you mean 'run.workers'?"),
        ("plan symbols.txt --set lightgbm.num_leafs=1", "no parameter 'num_leafs'; did you mean 'num_leaf'?"),
        ("plan symbols.txt --set =1", "--set: there is no setting ''"),
        ("--config none.toml plan symbols.txt", "none.toml cannot be read: No such file"),
        ("plan symbols.txt --config data", "data cannot be read: Is a directory"),
        ("config --set run.worker=1", "there is no setting 'run.worker'"),
        ("demo --workers many", "--workers: run.workers: expected a whole number"),
    ],
)
def test_an_input_that_cannot_be_used_is_named(shell: Shell, typed: str, says: str) -> None:
    assert says in shell.refused(*typed.split(), code=4)
    assert not (shell.directory / "gpusched-demo").exists()


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "symbols.txt: the symbols file names no symbol"),
        ("# only\n\n   # comments\n", "symbols.txt: the symbols file names no symbol"),
        ("ABC\n\n../etc/passwd\n", "symbols.txt:3: '../etc/passwd' cannot be a symbol"),
        ("ABC\n/etc # absolute\n", "symbols.txt:2: '/etc' cannot be a symbol: it contains a path separator"),
        ("A B\n", "symbols.txt:1: 'A B' cannot be a symbol: it contains white space (one symbol a line)"),
        (".hidden\n", "symbols.txt:1: '.hidden' cannot be a symbol: it starts with a dot"),
        ("ABC\nX\x1b[2J\n", r"symbols.txt:2: 'X\x1b[2J' cannot be a symbol: it contains control characters"),
        ("A" * 300, "it is longer than"),
        (b"ABC\n\xff\xfe\n", "symbols.txt: the symbols file cannot be read: it is not UTF-8 text"),
        (b"ABC\n\xd6BB\n", "the byte 0xd6 in line 2 is 'Ö' in Latin-1"),
        ("ABC\n".encode("utf-16"), "it is UTF-16 text"),
        ("ABC\n".encode("utf-16-le"), "it is UTF-16 text"),
        (b"PK\3\4\0\0", "it is a zip archive"),
        (
            "Symbol,Name\nABC,A\n",
            "symbols.txt:1: 'Symbol,Name' cannot be a symbol: it contains a comma (one symbol a line;",
        ),
        ("###TECH,NASDAQ:AAPL\n", "names no symbol: all that it has are comments"),
        ("ABC\nX/Y\nX/Z\nX/W\n", "; 2 more lines like it"),
    ],
)
def test_a_bad_line_of_a_symbols_file_has_its_number(
    shell: Shell, command: str, content: str | bytes, says: str
) -> None:
    error = shell.refused(command, shell.file("symbols.txt", content), *DATES, code=4)
    assert f"{shell.directory}{os.sep}symbols.txt:" in error
    assert says in error


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"symbol": "ABC"', "Input data was truncated"),
        ("ABC", "JSON is malformed"),
        ('["ABC"]', "Expected object, got array"),
        ('{"symbol": "ABC", "start": "2022-01-01"}', "Object missing required field end"),
        ('{"symbol": "../ABC", %s}', "'../ABC' cannot be a symbol: it starts with a dot"),
        ('{"symbol": "ABC", "start": "2022-01-01", "end": "2022-31-12"}', "end: invalid RFC3339 encoded date"),
        ('{"symbol": "ABC", "start": "2022-01-02", "end": "2022-01-01"}', "ends on 2022-01-01, before it starts on"),
        ('{"symbol": "ABC", %s, "lable": "x"}', "a window has no field 'lable'; did you mean 'label'?"),
        ('{"symbol": "ABC", %s, "label": "../x"}', "'../x' cannot be a label: a label has 1 to 160 letters"),
        ('{"symbol": "ABC", %s, "label": ""}', "'' cannot be a label"),
        ('{"symbol": "ABC", %s, "label": "teacher_runs.json"}', "teacher_runs.json is the index of the batch"),
        ('{"symbol": "ABC", %s, "priority": 1e3}', "priority: expected int, got float"),
        ('{"symbol": "ABC", %s, "expected_seconds": -1}', "expected_seconds: expected float >= 0.0"),
        ('{"symbol": "ABC", %s}', "line 1 has the label ABC_2022-01-01_to_2022-06-30, too"),
        ('{"symbol": ' + "[" * 100_000, "recursion"),
    ],
)
def test_a_bad_line_of_a_windows_file_has_its_number(shell: Shell, line: str, says: str) -> None:
    dates = '"start": "2022-01-01", "end": "2022-06-30"'
    first = f'{{"symbol": "ABC", {dates}}}'
    error = shell.refused("plan", shell.file("windows.jsonl", f"{first}\n\n{line.replace('%s', dates)}\n"), code=4)
    assert f"{shell.directory}{os.sep}windows.jsonl:3: " in error
    assert says in error


def test_a_windows_file_has_the_dates(shell: Shell) -> None:
    file = shell.file("windows.jsonl", '{"symbol": "ABC", "start": "2022-01-01", "end": "2022-06-30"}\n')
    assert "--end does not go with" in shell.refused("plan", file, "--end", "2022-06-30", code=2)


@pytest.mark.parametrize("typed", ["plan symbols.txt", "run symbols.txt", "train ABC 2022-01-01 2022-12-31 -o x"])
def test_a_data_root_that_is_missing(shell: Shell, typed: str) -> None:
    dates = () if typed.startswith("train") else DATES
    for root, why in (("none", "No such file or directory"), ("symbols.txt", "Not a directory")):
        error = shell.refused(*typed.split(), *dates, "--data-root", root, code=4)
        assert f"the data root {shell.directory / root} cannot be read: {why}" in error
        assert "--data-root" in error.splitlines()[1]


def test_what_control_characters_are_in_is_shown_without_them(shell: Shell) -> None:
    """A terminal would obey them."""
    for typed in (["plan", "no\x1b[2Jne.txt"], ["plan", "symbols.txt", "--name", "\x1b[2J"], ["\x1b[2J"]):
        ended = shell(*typed, *(DATES if typed[0] == "plan" else ()))
        assert ended.code in (2, 4)
        assert "\x1b" not in ended.err
    file = shell.file("sym\x1b[2Jbols.txt", "ABC\nABC\n")
    err = shell("run", file, *DATES, "--device", "cpu").err
    assert "named twice" in err
    assert "\x1b" not in err


# -- right arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_for_everything(shell: Shell, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = shell(*command.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"usage: gpusched {command}".rstrip() + " [OPTIONS]")
    assert max(map(len, ended.out.splitlines())) < 80
    assert ("\nexamples:\n  " in ended.out) == bool(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_command_are_right(command: str) -> None:
    for arguments, _ in EXAMPLES[command]:
        assert parse([command, *shlex.split(arguments)]).command == command


def test_words_of_other_tools_lead_to_commands_of_this_one() -> None:
    assert set(SYNONYMS.values()) <= set(COMMANDS)
    assert not set(SYNONYMS) & set(COMMANDS)


def test_without_a_word_it_shows_its_help(shell: Shell) -> None:
    ended = shell()
    assert (ended.code, ended.err) == (2, "")
    assert ended.out == shell("--help").out


def test_a_usage_error_shows_the_usage_in_one_line(shell: Shell) -> None:
    assert shell("train").err == (
        "error: the following arguments are required: SYMBOL, START, END, -o/--output\n"
        "usage: gpusched train [OPTIONS] -o DIR SYMBOL START END\n"
        "hint: try `gpusched train --help`\n"
    )


def test_the_version(shell: Shell) -> None:
    assert shell("--version") == (0, f"gpusched {__version__}\n", "")


def test_global_options_may_stand_before_the_command_and_after_it(shell: Shell) -> None:
    shell.file("one.toml", "[run]\nworkers = 5\n")
    for typed in (("--config", "one.toml", "config", "--json"), ("config", "--json", "--config", "one.toml")):
        assert json.loads(shell(*typed).out)["settings"]["run.workers"]["value"] == 5


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


@pytest.fixture
def gpusched(tmp_path: Path) -> Command:
    """The command in a process of its own, with the bars of one symbol out of two."""
    rows = (
        f"2022-{month:02}-{day:02},{10 + (day * 7 + month) % 5},16,9,{10 + (day * 5 + month) % 6},1000\n"
        for month in range(1, 13)
        for day in range(1, 29)
    )
    bars = tmp_path / "data" / "ABC.csv"
    bars.parent.mkdir()
    bars.write_text("timestamp,open,high,low,close,volume\n" + "".join(rows))
    (tmp_path / "symbols.txt").write_text("ABC\nNONE # is not there\nABC\n")
    return Command(tmp_path)


def ended(command: Command, *arguments: str, stdin: str | None = None) -> Ended:
    with command.start(*arguments, reads=stdin is not None) as process:
        out, err = process.communicate(stdin, timeout=60)
    return Ended(process.returncode, out, err)


def test_a_plan_as_json(gpusched: Command) -> None:
    found = ended(gpusched, "plan", "symbols.txt", *DATES, "--device", "cpu", "--json")
    assert found.code == 0
    plan: dict[str, Any] = json.loads(found.out)
    assert set(plan) == {"batch_id", "output_dir", "windows", "totals", "estimated_seconds", "device", "device_choice"}
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
        assert process.wait(60) == 0
    assert "rror" not in said
    assert "Traceback" not in said


def test_a_name_names_the_batch_and_its_directory(gpusched: Command) -> None:
    plan = gpusched.json("plan", "symbols.txt", *DATES, "--name", "mine")
    assert (plan["batch_id"], plan["output_dir"]) == ("mine", str(gpusched.directory / "gpusched-runs" / "mine"))


def test_a_plan_needs_no_cache(gpusched: Command) -> None:
    """Only that everything is parsed again the next time."""
    plan = gpusched.json("plan", "symbols.txt", *DATES, "--device", "cpu", "--set", "cache.dir=/dev/null/cache")
    assert plan["totals"]["train"] == 2


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
        found = ended(gpusched, *typed, "--debug")
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


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_below_stdout_is_no_bug(gpusched: Command, unbuffered: str) -> None:
    """Unbuffered, a print fails; otherwise the last flush does, and the interpreter would try that once more."""
    done = to_full_disk(gpusched, "config", full="stdout", unbuffered=unbuffered)
    assert done.returncode == 4
    assert done.stderr.startswith("error: No space left on device\nhint: make room")
    assert "bug" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_below_stderr_keeps_the_exit_code(gpusched: Command, unbuffered: str) -> None:
    assert to_full_disk(gpusched, "rum", full="stderr", unbuffered=unbuffered).returncode == 2


@pytest.mark.parametrize("typed", [("status",), ("config",), ("plan", "symbols.txt")])
def test_a_working_directory_that_was_removed_is_told(shell: Shell, typed: tuple[str, ...]) -> None:
    gone = shell.directory / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert "the working directory of this shell was removed\nhint: go to another one" in shell.refused(*typed, code=4)


def test_a_full_disk_below_stderr_costs_no_plan(gpusched: Command) -> None:
    """Notes go to stderr, the answer to stdout."""
    done = to_full_disk(gpusched, "plan", "symbols.txt", *DATES, full="stderr", unbuffered="1")
    assert "2022-01-01_to_" in done.stdout


def to_full_disk(gpusched: Command, *typed: str, full: str, unbuffered: str) -> subprocess.CompletedProcess[str]:
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Path("/dev/full").open("w") as streams[full]:
        return subprocess.run(
            [sys.executable, "-m", "gpusched", *typed],
            cwd=gpusched.directory,
            env={**gpusched.environment, "PYTHONUNBUFFERED": unbuffered},
            text=True,
            timeout=60,
            **streams,
        )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("typed", [("config",), ("doctor", "--help")])
def test_a_terminal_that_has_hung_up_is_nobody_who_listens(
    gpusched: Command, typed: tuple[str, ...], unbuffered: str
) -> None:
    """Where SIGHUP is ignored (`nohup`, a session's leader that is gone) a write fails with EIO."""
    ours, theirs = os.openpty()
    os.close(ours)
    with os.fdopen(theirs, "w") as terminal:
        done = subprocess.run(
            [sys.executable, "-m", "gpusched", *typed],
            cwd=gpusched.directory,
            env={**gpusched.environment, "PYTHONUNBUFFERED": unbuffered},
            stdout=terminal,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_stdout_is_nobody_who_listens(gpusched: Command) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m gpusched config >&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=gpusched.directory, env=gpusched.environment, stderr=subprocess.PIPE, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


BAD_INPUTS: tuple[tuple[str, ...], ...] = (
    (),
    ("",),
    ("-",),
    ("--",),
    ("--json",),
    ("rum", "--json"),
    ("plan", ""),
    ("plan", "\udcff"),
    ("plan", "no\x00ne"),
    ("plan", "/dev/null", *DATES),
    ("plan", "symbols.txt", "--start", ""),
    ("plan", "symbols.txt", "--start", "0000-00-00", "--end", "9999-99-99"),
    ("plan", "symbols.txt", "--start", "2022-01-01T00:00", "--end", "2022-01-02"),
    ("plan", "symbols.txt", *DATES, "--window-days", "9" * 400),
    ("plan", "symbols.txt", *DATES, "--threshold", "1e999"),
    ("plan", "symbols.txt", *DATES, "--workers", "-1"),
    ("plan", "symbols.txt", *DATES, "--data-root", "\x00"),
    ("plan", "symbols.txt", *DATES, "--data-root", "\udcff"),
    ("plan", "symbols.txt", *DATES, "--data-root", "x" * 5000),
    ("plan", "symbols.txt", *DATES, "--data-root", "~nobody-of-that-name/x"),
    ("plan", "symbols.txt", *DATES, "--set", "lightgbm.{}=1"),
    ("plan", "symbols.txt", *DATES, "--set", "{x}.{y}=1"),
    ("plan", "symbols.txt", *DATES, "--set", "run.workers={x}"),
    ("plan", "symbols.txt", *DATES, "--set", "lightgbm.seed=[[[[1]]]]"),
    ("plan", "symbols.txt", *DATES, "--set", "run.workload=no.such.module:function"),
    ("plan", "symbols.txt", *DATES, "--set", "run.workload=os:no_such_function"),
    ("run", "symbols.txt", *DATES, "-o", "/dev/null/out"),
    ("run", "symbols.txt", *DATES, "-o", "symbols.txt"),
    ("run", "symbols.txt", *DATES, "-o", "\x00"),
    ("run", "symbols.txt", *DATES, "--device", "cuda"),
    ("run", "symbols.txt", *DATES, "--set", "devices.fallback=none"),
    ("run", "symbols.txt", *DATES, "-o", "\udcff"),
    ("train", "ABC", "2022-01-01", "2022-12-31", "-o", "symbols.txt"),
    ("train", "ABC", "2022-01-01", "2022-12-31", "-o", "/dev/null/out"),
    ("train", "ABC", "2022-01-01", "2022-12-31", "-o", "\x00"),
    ("train", "", "2022-01-01", "2022-12-31", "-o", "x"),
    ("train", "ABC", "2022-01-01", "2022-12-31", "-o", "x", "--interval", "5min"),
    ("train", "ABC", "2022-01-01", "2022-12-31", "-o", "x", "--set", "run.workload=no.such.module:function"),
    ("train", "ABC", "2022-01-01", "2022-12-31", "-o", "x", "--set", "cache.dir=/dev/null/cache"),
    ("demo", "symbols.txt/below"),
    ("demo", "\x00"),
    ("demo", "/dev/null/demo"),
    ("config", "--config", "\udcff"),
    ("config", "--config", "/dev/null/none.toml"),
    ("config", "--socket", "x" * 5000, "--set", "x"),
    ("doctor", "--set", "x=1"),
)


@pytest.mark.parametrize("typed", BAD_INPUTS, ids=lambda typed: ascii(" ".join(typed))[:60])
def test_no_traceback_and_no_internal_error_whatever_is_typed(
    shell: Shell, typed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = shell(*typed)
    assert found.code in (1, 2, 4), found
    assert "internal error" not in found.err


def test_interrupted_before_it_has_begun(gpusched: Command) -> None:
    """By a signal that arrives while modules are imported: no traceback either."""
    program = (
        "import signal, sys; from gpusched import cli; import gpusched.cli as c;"
        "c.parse = lambda arguments: signal.raise_signal(signal.SIGINT); sys.exit(cli.run(['config']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=gpusched.environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "")
