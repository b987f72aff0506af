"""A survey foretells the windows of a batch, and finds the results that are there."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched import known_results
from gpusched.core.model import BatchSpec, DeviceType, Parameters, PlannedWindow, Training, Window, WindowResult
from gpusched.engines.local.launcher import Confines
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
    SymbolWindows,
)
from tests.worker.support import END, START, Bench, bench

SECOND = (dt.date(2022, 7, 1), dt.date(2022, 12, 31))


async def survey(
    b: Bench,
    *symbols: str,
    workload: str = "tests.worker.workloads:nothing",
    device_types: tuple[DeviceType, ...] = ("cpu",),
    points: tuple[str, ...] = ("",),
    output: Path | None = None,
    **more: Any,
) -> list[PipeMessage]:
    """The messages of a survey. `output`: another directory than that of `b`, whose results may be reused."""
    job = SurveyJob(
        workload=workload,
        data_root=str(b.directory),
        cache_dir=str(b.directory),
        settings={point: {"point": point} for point in points},
        symbols=tuple(
            SymbolWindows(
                symbol, tuple(Window(symbol, *dates, point) for dates in ((START, END), SECOND) for point in points)
            )
            for symbol in symbols
        ),
        output_dir=str(output or b.output),
        reuse_from=(str(b.output),) if output else (),
        device_types=device_types,
        **more,
    )
    process = await b.launcher.fork(job, Confines(log_path=b.log, env={}))
    messages: list[PipeMessage] = []
    end = await process.wait(messages.append)
    assert (end.exit_code == 0) == isinstance(messages[-1], SurveyDone)
    assert isinstance(messages[0], Started)
    return messages[1:]


async def test_committed_results_are_found_and_verified(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        own = "tests.worker.workloads:two_files"
        await b.run(own, point="")
        result = b.last
        about, first, second, done = await survey(b, "SYM", workload=own, device_types=("cuda", "cpu"))
        assert about == SurveyedSymbol(symbol="SYM", notes=(), days=None, strict=False)
        assert isinstance(first, SurveyedWindow)
        assert first.planned.window == Window("SYM", START, END)
        assert (first.planned.bars, first.planned.usable_rows, first.planned.skip_reason) == (100, 90, None)
        assert first.planned.committed is not None
        assert first.planned.committed.training is not None  # as far as its metadata tells
        assert msgspec.structs.replace(first.planned.committed, training=None) == result
        assert isinstance(second, SurveyedWindow)
        assert second.planned.committed is None
        assert isinstance(done, SurveyDone)

        _, first, *_ = await survey(b, "SYM", workload=own, device_types=("cuda",))
        assert isinstance(first, SurveyedWindow)
        assert first.planned.committed is None

        (b.output / "SYM_2022-01-01_to_2022-06-30" / "model.txt").write_text("damaged")
        _, first, *_ = await survey(b, "SYM", workload=own)
        assert isinstance(first, SurveyedWindow)
        assert first.planned.committed is None


LINE: dict[str, Any] = {
    "window_label": "SYM_2022-01-01_to_2022-06-30",
    "status": "success",
    "started_at": "2026-01-01T00:00:00+00:00",
    "seconds": 2.5,
    "attempts": 3,
    "slot": 1,
}


async def test_results_of_other_directories_and_the_records_of_their_trainings(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        own = "tests.worker.workloads:two_files"
        await b.run(own, point="")
        result = b.last
        assert isinstance(result, WindowResult)
        for lines, expected in (
            ([LINE, {"window_label": "other"}, []], Training(started_at=1767225600.0, seconds=2.5, attempts=3, slot=1)),
            ([LINE | {"seconds": 1e300}], None),
            ([LINE | {"status": "failed"}], None),
            ([LINE | {"attempts": 0}], None),
            ([LINE | {"started_at": "2026-01-01T00:00:00"}], None),
        ):
            (b.output / "teacher_runs.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            _, first, *_ = await survey(b, "SYM", workload=own, output=tmp_path / "other")
            assert isinstance(first, SurveyedWindow)
            found = first.planned.committed
            assert found is not None
            assert found.artifacts_path == result.artifacts_path
            assert found.training is not None
            if expected is None:
                assert (found.training.attempts, found.training.seconds) == (1, result.seconds)
            else:
                assert found.training == expected


async def test_results_that_the_index_knows(tmp_path: Path) -> None:
    """They are told of, and reused on request, if they are there and the user's own."""
    async with bench(tmp_path) as b:
        own = "tests.worker.workloads:two_files"
        await b.run(own, point="")
        assert isinstance(b.last, WindowResult)
        label = LINE["window_label"]

        async def first(*, reuse: bool) -> PlannedWindow:
            b.output.rename(b.output.with_name("elsewhere"))
            try:
                _, found, *_ = await survey(b, "SYM", workload=own, reuse_known=reuse)
            finally:
                b.output.with_name("elsewhere").rename(b.output)
            assert isinstance(found, SurveyedWindow)
            return found.planned

        with known_results.opened_for(b.directory, b.output.with_name("elsewhere"), None) as file:
            file.write(known_results.line(b.last.fingerprint or "", label))
        told, reused = await first(reuse=False), await first(reuse=True)
        assert (told.committed, told.known_in) == (None, str(b.output.with_name("elsewhere")))
        assert reused.committed is not None
        assert reused.committed.artifacts_path == str(b.output.with_name("elsewhere") / label)
        (b.output / label).rename(b.output / "moved")
        (b.output / label).symlink_to("moved")
        for reuse in (False, True):
            planned = await first(reuse=reuse)
            assert (planned.committed, planned.known_in) == (None, "")
        # One in the output directory counts only if it is whole, whoever knows it.
        (b.output / label).unlink()
        (b.output / "moved").rename(b.output / label)
        (b.output / label / "model.txt").write_text("damaged")
        with known_results.opened_for(b.directory, b.output, None) as file:
            file.write(known_results.line(b.last.fingerprint or "", label))
        _, found, *_ = await survey(b, "SYM", workload=own, reuse_known=True)
        assert isinstance(found, SurveyedWindow)
        assert (found.planned.committed, found.planned.known_in) == (None, "")


async def test_results_of_other_settings_are_told_from_those_of_other_data(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        own = "tests.worker.workloads:two_files"
        await b.run(own, point="")
        for point, others in (("", False), ("x", True)):
            _, first, *_ = await survey(b, "SYM", workload=own, device_types=("cuda",), points=(point,))
            assert isinstance(first, SurveyedWindow)
            label = first.planned.window.label
            if point:
                (b.output / LINE["window_label"]).rename(b.output / label)
                text = (b.output / label / "metadata.json").read_text()
                (b.output / label / "metadata.json").write_text(text.replace(LINE["window_label"], label))
                _, first, *_ = await survey(b, "SYM", workload=own, device_types=("cuda",), points=(point,))
                assert isinstance(first, SurveyedWindow)
            assert (first.planned.replaces, first.planned.replaces_others) == ("result", others)


async def test_a_symbol_that_cannot_be_surveyed_does_not_keep_the_others(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        bad, bug, short, *windows, done = await survey(b, "BAD", "BUG", "SHORT", "SYM")
        assert bad == SurveyFailed(symbol="BAD", point="", kind="bad_data", reason="no bars at all")
        assert bug == SurveyFailed(symbol="BUG", point="", kind="unknown", reason="ZeroDivisionError: division by zero")
        assert isinstance(short, SurveyFailed)
        assert "did not return its windows one by one" in short.reason
        assert [one.planned.window.symbol for one in windows if isinstance(one, SurveyedWindow)] == ["SYM", "SYM"]
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
    pieces = [SymbolWindows(f"S{n}", (Window(f"S{n}", START, END),) * windows) for n in range(symbols)]
    groups = daemon_survey._grouped(pieces, processes)
    assert [len(group) for group in groups] == sizes
    assert sorted(piece.symbol for group in groups for piece in group) == [piece.symbol for piece in pieces]


async def test_the_points_of_one_symbol_are_shared_among_processes() -> None:
    points: dict[str, Parameters] = {f"p{number}": {} for number in range(1000)}
    spec = BatchSpec(
        symbols=("A", "B"),
        start=START,
        end=END,
        window_days=400,
        data_root="/",
        workload="w:w",
        settings={},
        points=points,
    )
    pieces = await daemon_survey.pieces_of(spec, 4)
    assert [(piece.symbol, len(piece.windows)) for piece in pieces] == [*[("A", 500)] * 2, *[("B", 500)] * 2]
    few = await daemon_survey.pieces_of(msgspec.structs.replace(spec, points={}), 4)
    assert [(piece.symbol, len(piece.windows)) for piece in few] == [("A", 1), ("B", 1)]


async def test_each_point_is_looked_at_with_its_settings_and_its_labels(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        about, *windows, _ = await survey(b, "SYM", "POINTS", points=("p=1", "p=2"))
        assert isinstance(about, SurveyedSymbol), "the first of a symbol says it for all of its points"
        assert [one.planned.window.label for one in windows if isinstance(one, SurveyedWindow)] == [
            "SYM_2022-01-01_to_2022-06-30_p=1",
            "SYM_2022-07-01_to_2022-12-31_p=1",
            "SYM_2022-01-01_to_2022-06-30_p=2",
            "SYM_2022-07-01_to_2022-12-31_p=2",
            "POINTS_2022-01-01_to_2022-06-30_p=1",
            "POINTS_2022-07-01_to_2022-12-31_p=1",
        ]
        assert windows[-1] == SurveyFailed(symbol="POINTS", point="p=2", kind="no_data", reason="not at p=2, after p=1")


@pytest.mark.parametrize(("settings", "processes", "sizes"), [(1, 4, [1]), (60, 4, [50, 10]), (500, 2, [250, 250])])
def test_settings_are_shared_among_processes_unless_they_are_few(
    settings: int, processes: int, sizes: list[int]
) -> None:
    shares = daemon_survey._shares([{"n": number} for number in range(settings)], processes)
    assert [len(share) for share in shares] == sizes
    assert [one["n"] for share in shares for one in share] == list(range(settings))
