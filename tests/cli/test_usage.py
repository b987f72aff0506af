"""Arguments as they are typed: a mistake has its name and a way out, and every command has its help."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest

from gpusched import __version__
from gpusched.cli.examples import EXAMPLES
from gpusched.cli.parser import COMMANDS, parse
from gpusched.cli.usage import SYNONYMS
from gpusched.errors import INTERRUPTED
from tests.cli.shells import DATES, Shell

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
    "typed", ["run s.txt --start \udcff", "status \udcff", "run s.txt --param \udcff=1", "run s.txt -- echo \udcff"]
)
def test_arguments_are_text(shell: Shell, typed: str) -> None:
    """They cannot be sent to a daemon, nor recorded."""
    assert r"the argument '\udcff" in shell.refused(*typed.split(), code=2)


def test_the_place_of_a_command_is_text(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    place = shell.directory / "\udcff"
    place.mkdir()
    monkeypatch.chdir(place)
    said = shell.refused("plan", "--symbols", "A", "--start", "2022-01-01", "--end", "2022-12-31", code=2)
    assert "cannot be used: the path is not UTF-8 text" in said


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
        ("", "symbols.txt: no symbol is named"),
        ("# only\n\n   # comments\n", "symbols.txt: no symbol is named"),
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
        ("###TECH,NASDAQ:AAPL\n", "no symbol is named: all that it has are comments"),
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
        ('{"symbol": "ABC", %s, "symbol": "XYZ"}', "'symbol' is given twice"),
        ('{"symbol": "ABC", %s, "parameters": {"a.x": 1, "a.x": 2}}', "'a.x' is given twice"),
        ('{"symbol": "ABC", %s, "lable": "x"}', "a window has no field 'lable'; did you mean 'label'?"),
        ('{"symbol": "ABC", %s, "label": "../x"}', "'../x' cannot be a label: a label has 1 to 160 letters"),
        ('{"symbol": "ABC", %s, "label": ""}', "'' cannot be a label"),
        ('{"symbol": "ABC", %s, "label": "teacher_runs.json"}', "teacher_runs.json is the index of the batch"),
        ('{"symbol": "ABC", %s, "priority": 1e3}', "priority: expected int, got float"),
        ('{"symbol": "ABC", %s, "expected_seconds": -1}', "expected_seconds: expected float >= 0.0"),
        ('{"symbol": "ABC", %s}', "line 1 has the label ABC_2022-01-01_to_2022-06-30, too"),
        ('{"symbol": ' + "[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_bad_line_of_a_windows_file_has_its_number(shell: Shell, line: str, says: str) -> None:
    dates = '"start": "2022-01-01", "end": "2022-06-30"'
    first = f'{{"symbol": "ABC", {dates}}}'
    error = shell.refused("plan", shell.file("windows.jsonl", f"{first}\n\n{line.replace('%s', dates)}\n"), code=4)
    assert f"{shell.directory}{os.sep}windows.jsonl:3: " in error
    assert says in error


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[\n{"symbol": "ABC", %s},\n{"symbol": "ABC", %s}\n]', ":3: line 2 has the label"),
        ('[{"symbol": "ABC", %s},', ": Input data was truncated"),
        ("[" * 100_000, ": "),  # Python 3.14 finds another fault first
        ('["ABC"]', ":1: Expected object, got str"),
        ("[]", ": it has no windows"),
    ],
)
def test_a_bad_array_of_windows(shell: Shell, content: str, says: str) -> None:
    file = shell.file("windows.json", content.replace("%s", '"start": "2022-01-01", "end": "2022-06-30"'))
    assert f"{os.sep}windows.json{says}" in shell.refused("plan", file, code=4)


def test_a_windows_file_may_be_an_array(shell: Shell) -> None:
    window = '{"symbol": "ABC",\n "start": "2022-01-01", "end": "2022-06-30"}'
    planned = shell("plan", shell.file("windows.json", f"[{window}]"), "--json")
    assert '"ABC_2022-01-01_to_2022-06-30"' in planned.out


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


@pytest.mark.parametrize("command", ["run", "status"])
def test_an_interrupt_amid_the_imports_has_no_traceback(command: str) -> None:
    """Ctrl-C right after enter: nothing has begun that could handle it."""
    program = (
        "import sys\n"
        "from gpusched.__main__ import main\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'gpusched.cli':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "")
