"""Files on their way to nodes that share none, and back."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpusched.artifacts import verify
from gpusched.config import Cache, Config, Run
from gpusched.core.model import WindowResult
from gpusched.engines.ray import frames
from gpusched.engines.ray.engine import RayEngine
from gpusched.engines.ray.scratch import NotAsSent, Scratch, StagedFile, digest_of
from gpusched.engines.ray.staging import Staging
from gpusched.worker.messages import Error
from tests.engines.clusters import loopback
from tests.engines.test_contract import Bench, planned
from tests.engines.workloads import FAILING


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    config = Config(
        run=Run(workload="tests.devices.workloads:writes"),
        cache=Cache(dir=tmp_path / "cache"),
        engine=loopback(tmp_path, "n1"),
    )
    async with RayEngine(config, tmp_path / "state") as engine:
        yield Bench(engine, tmp_path)


def bars(directory: Path, symbol: str, text: str) -> None:
    (directory / symbol).mkdir()
    (directory / symbol / "bars.csv").write_text(text)
    os.utime(directory / symbol / "bars.csv", ns=(5, 1_234_567_891))


def staged(directory: Path) -> list[Path]:
    return sorted((directory / "scratch/n1/inputs").iterdir())


async def test_inputs_travel_once_with_their_times(bench: Bench, tmp_path: Path) -> None:
    bars(tmp_path, "A", "some bars")
    await bench.train("A")
    await bench.train("A")
    assert isinstance(bench.messages[-1], WindowResult)
    assert (tmp_path / "output" / planned("A").window.label / "bars.csv").read_text() == "some bars"
    (inputs,) = staged(tmp_path)
    assert [path.relative_to(inputs) for path in inputs.rglob("*.csv")] == [Path("A/bars.csv")]
    assert (inputs / "A/bars.csv").stat().st_mtime_ns == 1_234_567_891


async def test_the_workload_says_which_files_are_its_inputs(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "common.csv").write_text("for all")
    bench.workload("tests.engines.named_inputs:train")
    await bench.train("A")
    (inputs,) = staged(tmp_path)
    assert [path.name for path in inputs.iterdir()] == ["common.csv"]


async def test_a_result_that_did_not_arrive_is_found_on_its_node(bench: Bench, tmp_path: Path) -> None:
    """Its place is a file, so it cannot be committed at first."""
    (bench.plans["A"],) = await bench.survey(planned("A").window)
    (tmp_path / "output").write_text("in the way")
    await bench.train("A")
    error = bench.messages[-1]
    assert isinstance(error, Error)
    assert error.message.startswith("its result could not be committed: ")
    (tmp_path / "output").unlink()
    (tmp_path / "scratch/n1/logs/b" / f"{planned('A').window.label}.1.log").unlink()
    await bench.train("A")
    result = bench.messages[-1]
    assert isinstance(result, WindowResult)
    assert result.fingerprint is not None
    assert verify(Path(result.artifacts_path), {result.fingerprint}) is not None
    assert await bench.log("A") is None  # nothing was trained


async def test_the_log_of_a_window_that_failed_outlives_its_node(bench: Bench, tmp_path: Path) -> None:
    await bench.train(FAILING)
    assert isinstance(bench.messages[-1], Error)
    log = tmp_path / "state/logs/b" / f"{planned(FAILING).window.label}.1.log"
    assert "OSError: it fails" in log.read_text()


class Listening:
    """In the place of a node: it keeps the files sent to it."""

    def __init__(self) -> None:
        self.sent: list[frames.Order] = []

    def send(self, order: frames.Order) -> None:
        self.sent.append(order)


@pytest.mark.parametrize(
    "change",
    [
        "a byte",
        *(pytest.param(one, marks=pytest.mark.thorough) for one in ("a file less", "a null", "another window")),
        *(pytest.param(one, marks=pytest.mark.thorough) for one in ("no metadata", "metadata that is none")),
    ],
)
async def test_a_result_that_is_not_as_its_metadata_says_is_refused(bench: Bench, tmp_path: Path, change: str) -> None:
    await bench.train("A")
    label = planned("A").window.label
    directory = (tmp_path / "output").rename(tmp_path / "sent") / label
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    match change:
        case "a byte":
            files["model.txt"] = b"b model"
        case "a file less":
            files["metadata.json"] = files["metadata.json"].replace(b'"model.txt"', b'"../model.txt"')
        case "a null":
            files["metadata.json"] = files["metadata.json"].replace(b'"model.txt"', rb'"model\u0000"')
        case "no metadata":
            del files["metadata.json"]
        case "another window":
            files["metadata.json"] = files["metadata.json"].replace(b"A_2022", b"B_2022")
        case _:
            files["metadata.json"] = b"{"
    engine, node = bench.engine, Listening()
    assert isinstance(engine, RayEngine)
    answer = await Staging(engine.here).receive(node, bench.batch, label, files)  # type: ignore[arg-type]
    assert isinstance(answer, Error)
    assert node.sent == []
    assert not (tmp_path / "output" / label).exists()
    assert list((tmp_path / "output").glob(".partial/*")) == []


def test_inputs_that_are_not_those_that_were_sent_are_refused(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch", "n1")
    digest = digest_of([StagedFile("A/bars.csv", 1, "0" * 64)])
    piece = frames.Piece(name="A/bars.csv", mtime_ns=1, offset=0, data=b"other bars")
    assert not scratch.take(digest, [piece], last=False)
    with pytest.raises(NotAsSent):
        scratch.take(digest, [], last=True)
    with pytest.raises(NotAsSent):
        scratch.take(digest, [frames.Piece(name="../bars.csv", mtime_ns=1, offset=0, data=b"")], last=True)
    assert not scratch.inputs(digest).exists()


def test_old_inputs_are_removed(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch", "n1")
    old, new = "0" * 64, "1" * 64
    for name in (old, f".{old}.12", new):
        scratch.inputs(name).mkdir()
    os.utime(scratch.inputs(old), (1, 1))
    os.utime(scratch.inputs(f".{old}.12"), (1, 1))
    scratch.prune()
    assert [path.name for path in staged(tmp_path)] == [new]


def test_scratch_may_lie_among_files_of_a_user(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, "n1")
    theirs = [scratch.path / place / name for place in ("inputs", "results") for name in ("bars", ".git", "2019")]
    theirs.append(scratch.path / "results" / "2020" / ".partial" / "A.1")
    for path in theirs:
        path.mkdir(parents=True)
    for path in theirs:
        os.utime(path, (1, 1))
    scratch.prune()
    assert all(path.exists() for path in theirs)
