"""The words of a command: split, checked and filled in, before anything is looked up."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from gpusched.command import placeholders
from gpusched.command.schema import ExitCodes, check, parse_settings, split
from gpusched.workload import BadParameters, Task

TASK = Task(
    symbol="M&M",
    start=dt.date(2022, 1, 1),
    end=dt.date(2022, 6, 29),
    data_root="/bars",
    cache_dir="/cache",
    settings={},
    threads=2,
)


def filled(*words: str) -> list[str]:
    return placeholders.fill(words, placeholders.values(TASK, "/out", {"depth": 3}))


def test_a_line_is_split_as_a_shell_would_and_no_more() -> None:
    assert split("python train.py --name 'a b' \"c\" $HOME *.csv | tee > x") == (
        *("python", "train.py", "--name", "a b", "c"),
        *("$HOME", "*.csv", "|", "tee", ">", "x"),
    )
    assert split(("a b", "c")) == ("a b", "c")
    with pytest.raises(BadParameters, match="cannot be split into words: No closing quotation"):
        split("python 'train.py")


def test_placeholders_are_filled_in() -> None:
    assert filled("--symbol={symbol}", "{start}..{end}", "{output_dir}/model", "{label}", "{threads}", "{device}") == [
        *("--symbol=M&M", "2022-01-01..2022-06-29", "/out/model", "M&M_2022-01-01_to_2022-06-29", "2", "cpu"),
    ]
    assert filled("{start:%Y%m%d}", "{{}}", '{{"symbol": "{symbol}"}}', "{data_root}") == [
        *("20220101", "{}", '{"symbol": "M&M"}', "/bars"),
    ]


def test_what_a_symbol_holds_is_no_placeholder() -> None:
    assert placeholders.fill(("{symbol}",), {"symbol": "{end}"}) == ["{end}"]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("{simbol}", "there is no placeholder {simbol}; did you mean 'symbol'?"),
        ("{outputdir}", "did you mean 'output_dir'?"),
        ("{zebra}", "there is no placeholder {zebra} (there are symbol, start"),
        ("{symbol.__class__}", "there is no placeholder {symbol.__class__}"),
        ("{symbol[0]}", "there is no placeholder {symbol[0]}"),
        ("{0}", "there is no placeholder {0}"),
        ("{}", "'{}' has an empty placeholder; {{ and }} write braces"),
        ("{symbol!r}", "{symbol!r} in '{symbol!r}': a placeholder takes no conversion"),
        ("{symbol:>99}", "only dates take a format"),
        ("{symbol", "{{ and }} write braces"),
        ("symbol}", "{{ and }} write braces"),
        ("{param.}", "there is no placeholder {param.}"),
        ('{"a": 1}', "write braces"),
    ],
)
def test_what_is_no_placeholder_is_refused(word: str, why: str) -> None:
    with pytest.raises(BadParameters, match=re.escape(why)):
        check(("python", word), ExitCodes())


def test_parameters_of_a_sweep_have_a_place() -> None:
    check(("python", "{param.depth}"), ExitCodes())
    assert filled("--depth={param.depth}") == ["--depth=3"]
    placeholders.require_parameters(("{param.depth}",), {"depth": 3})
    with pytest.raises(BadParameters, match=re.escape("{param.rate} has no value: give it with --param rate=…")):
        placeholders.require_parameters(("{param.depth}", "{param.rate}"), {"depth": 3})


@pytest.mark.parametrize(
    ("argv", "codes", "why"),
    [
        ((), {}, "there is no command"),
        (("",), {}, "there is no command"),
        (("{symbol}",), {}, "the program itself ('{symbol}') takes no placeholder"),
        (("a", "b\0"), {}, "no null characters"),
        (("a",), {"success": (0, 2)}, "exit code 2 cannot mean both success and skip"),
    ],
)
def test_what_cannot_be_a_command(argv: tuple[str, ...], codes: dict[str, tuple[int, ...]], why: str) -> None:
    with pytest.raises(BadParameters, match=re.escape(why)):
        check(argv, ExitCodes(**codes))


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"argv": [], "directory": "/"},
        {"argv": ["python"], "directory": "/"},
        {"argv": ["/bin/true"], "directory": "."},
        {"argv": ["/bin/true"], "directory": "/", "shell": True},
        {"argv": ["/bin/true"], "directory": "/", "preload": ["os; import sys"]},
        {"argv": ["/bin/true"], "directory": "/", "exit_codes": {"success": [256]}},
        {"argv": ["/bin/true", "{nothing}"], "directory": "/"},
    ],
)
def test_settings_that_a_client_may_not_send(raw: dict[str, object]) -> None:
    with pytest.raises(BadParameters):
        parse_settings(raw)
