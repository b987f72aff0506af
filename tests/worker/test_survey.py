"""A survey says what windows would find, and which results are there already."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from gpusched.core.model import DeviceType, PlannedWindow, WindowResult
from gpusched.supervisor import survey as daemon_survey
from gpusched.worker.messages import (
    Error,
    PipeMessage,
    Started,
    SurveyDone,
    SurveyedSymbol,
    SurveyedWindow,
    SurveyFailed,
    SurveyJob,
)
from gpusched.workload import SurveyTask, Window
from tests.worker.support import END, START, Bench, bench

SECOND = (dt.date(2022, 7, 1), dt.date(2022, 12, 31))


async def survey(
    b: Bench,
    *symbols: str,
    workload: str = "tests.worker.workloads:nothing",
    device_types: tuple[DeviceType, ...] = ("cpu",),
) -> list[PipeMessage]:
    tasks = tuple(
        SurveyTask(
            symbol=symbol,
            windows=(Window(symbol, START, END), Window(symbol, *SECOND)),
            data_root=str(b.directory),
            cache_dir=str(b.directory),
            settings={},
        )
        for symbol in symbols
    )
    job = SurveyJob(workload=workload, tasks=tasks, output_dir=str(b.output), device_types=device_types)
    process = await b.launcher.fork(job, log_path=b.log, env={})
    messages: list[PipeMessage] = []
    end = await process.wait(messages.append)
    assert (end.exit_code == 0) == isinstance(messages[-1], SurveyDone)
    assert isinstance(messages[0], Started)
    return messages[1:]


async def test_committed_results_are_found_and_verified(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.run("two_files")
        result = b.last
        assert isinstance(result, WindowResult)
        about, first, second, done = await survey(b, "SYM", device_types=("cuda", "cpu"))
        assert about == SurveyedSymbol(symbol="SYM", notes=(), days=None, strict=False)
        assert isinstance(first, SurveyedWindow)
        assert first.planned == PlannedWindow(
            window=Window("SYM", START, END),
            bars=100,
            usable_rows=90,
            fingerprint=first.planned.fingerprint,
            committed=result,
        )
        assert isinstance(second, SurveyedWindow)
        assert second.planned.committed is None
        assert isinstance(done, SurveyDone)

        _, first, *_ = await survey(b, "SYM", device_types=("cuda",))
        assert isinstance(first, SurveyedWindow)
        assert first.planned.committed is None

        (b.output / "SYM_2022-01-01_to_2022-06-30" / "model.txt").write_text("damaged")
        _, first, *_ = await survey(b, "SYM")
        assert isinstance(first, SurveyedWindow)
        assert first.planned.committed is None


async def test_a_symbol_that_cannot_be_surveyed_does_not_keep_the_others(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        bad, bug, short, *windows, done = await survey(b, "BAD", "BUG", "SHORT", "SYM")
        assert bad == SurveyFailed(symbol="BAD", what="bad_data", reason="no bars at all")
        assert bug == SurveyFailed(symbol="BUG", what="unknown", reason="ZeroDivisionError: division by zero")
        assert isinstance(short, SurveyFailed)
        assert "did not return its windows one by one" in short.reason
        assert [window.planned.window.symbol for window in windows if isinstance(window, SurveyedWindow)] == [
            "SYM",
            "SYM",
        ]
        assert isinstance(done, SurveyDone)
        assert 'raise ZeroDivisionError("division by zero")' in b.log.read_text()


async def test_a_workload_without_a_survey(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        _, first, second, _ = await survey(b, "SYM", workload="os.path:join")
        assert first == SurveyedWindow(planned=PlannedWindow(window=Window("SYM", START, END)))
        assert isinstance(second, SurveyedWindow)


async def test_a_workload_that_does_not_exist(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        (error,) = await survey(b, "SYM", workload="os.path:nothing")
        assert isinstance(error, Error)
        assert error.kind == "bad_parameters"


@pytest.mark.parametrize(
    ("symbols", "windows", "processes", "sizes"),
    [
        (5, 1, 2, [3, 2]),
        (2, 1, 64, [1, 1]),
        (8, 5_000, 2, [2, 2, 2, 2]),
        (3, 50_000, 2, [1, 1, 1]),
    ],
)
def test_groups_are_as_many_as_processes_unless_there_are_very_many_windows(
    symbols: int, windows: int, processes: int, sizes: list[int]
) -> None:
    tasks = [
        SurveyTask(
            symbol=f"S{number}",
            windows=(Window(f"S{number}", START, END),) * windows,
            data_root="/",
            cache_dir="/",
            settings={},
        )
        for number in range(symbols)
    ]
    groups = daemon_survey._grouped(tasks, processes)
    assert [len(group) for group in groups] == sizes
    assert sorted(task.symbol for group in groups for task in group) == [task.symbol for task in tasks]
