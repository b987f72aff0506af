"""The jobs of windows: which of them share content, and that it is the content that each would have made."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched.command import WORKLOAD as COMMAND
from gpusched.config.schema import BUILT_IN_WORKLOAD
from gpusched.core.model import Batch, BatchSpec, Device, PlannedWindow, Window, WindowResult
from gpusched.core.points import point_name
from gpusched.engines.local.jobs import window_job
from gpusched.engines.local.launcher import Confines
from gpusched.teacher.features import FEATURES
from gpusched.teacher.schema import parse_settings, written
from gpusched.worker.messages import WindowJob
from tests.teacher.support import START, day, walk, write_daily
from tests.worker.support import Bench, bench, descriptors

PROCESSORS = Device(id="cpu", name="processors", kind="host", lightgbm_type="cpu", capacity=1)
END = day(119)
#: the built-in workload, in a launcher that keeps memory files for as long as it lives
LASTING = "tests.worker.sharing:train_window"
_SETTINGS: dict[str, Any] = {
    BUILT_IN_WORKLOAD: written(parse_settings({})),
    COMMAND: {"argv": ["train", "{param.depth}"]},
}


def batch(
    *points: dict[str, Any], batch_id: str = "b", workload: str = BUILT_IN_WORKLOAD, root: Path = Path()
) -> Batch:
    spec = BatchSpec(
        symbols=("ABC",),
        start=START,
        end=END,
        window_days=120,
        data_root=str(root / "data"),
        workload=workload,
        settings=_SETTINGS.get(workload, {}),
        points={point_name(point): point for point in points},
        device="cpu",
    )
    return Batch(id=batch_id, digest="", output_dir=str(root / "output"), submitted_at=0.0, spec=spec)


def jobs(batch: Batch, start: dt.date = START, symbol: str = "ABC") -> list[WindowJob]:
    """The jobs of a symbol's windows, by point."""
    windows = [PlannedWindow(window=Window(symbol, start, END, point)) for point in batch.spec.points or ("",)]
    return [window_job(batch, window, PROCESSORS, Path(batch.output_dir).parent / "cache") for window in windows]


def leaves(number: int, **more: Any) -> dict[str, Any]:
    return {"lightgbm.num_leaves": number, **more}


def test_points_share_where_labels_are_the_same() -> None:
    sweep = batch(
        leaves(7), leaves(9), leaves(7, **{"labels.horizon": 5}), {"split.validation_days": 9, "labels.horizon": 5}
    )
    first, second, third, fourth = (job.shares for job in jobs(sweep))
    assert first == second != third == fourth
    assert all((first, third))


def test_other_windows_and_other_batches_share_nothing_with_it() -> None:
    point = leaves(7)
    names = [
        *jobs(batch(point)),
        *jobs(batch(point), start=day(1)),
        *jobs(batch(point), symbol="ABD"),
        *jobs(batch(point, batch_id="c")),
    ]
    assert len({job.shares for job in names}) == len(names)


@pytest.mark.parametrize(
    ("points", "workload"),
    [
        ([], BUILT_IN_WORKLOAD),
        ([{"labels.horizon": 5}, {"labels.horizon": 7}], BUILT_IN_WORKLOAD),
        ([{"workload.alpha": 1}, {"workload.alpha": 2}], "their:train"),
        ([{"param.depth": 1}, {"param.depth": 2}], COMMAND),
    ],
    ids=["no sweep", "labels that are swept", "another workload", "a command"],
)
def test_nothing_is_shared_by(points: list[dict[str, Any]], workload: str) -> None:
    assert {job.shares for job in jobs(batch(*points, workload=workload))} == {""}


async def test_files_are_the_same_with_and_without(tmp_path: Path) -> None:
    write_daily(tmp_path / "data", "ABC", walk(140))
    sweep = batch(leaves(7), leaves(9), leaves(11), leaves(7, **{"labels.horizon": 5}), root=tmp_path)
    async with bench(tmp_path) as b:
        for job in jobs(sweep):
            shared = msgspec.structs.replace(job, workload=LASTING)
            alone = msgspec.structs.replace(shared, output_dir=str(tmp_path / "alone"), shares="")
            made, expected = await files(b, shared), await files(b, alone)
            assert made == expected
            assert "model.pkl" in made
        labels = [_labels(tmp_path, job) for job in (jobs(sweep)[0], jobs(sweep)[3])]
        assert kept_by(b, rows=gzip.decompress(labels[0]).count(b"\n") - 1) == set(labels)


def _labels(root: Path, job: WindowJob) -> bytes:
    return (root / "output" / job.task.label / "labels.csv.gz").read_bytes()


def kept_by(b: Bench, rows: int) -> set[bytes]:
    """The labels files that the launcher keeps for later windows, each behind a digest and the features."""
    before = hashlib.sha256().digest_size + 8 * len(FEATURES) * rows
    (launcher,) = b.launcher.pids(LASTING)
    own = Path(f"/proc/{launcher}/fd")
    names = descriptors(launcher)
    return {(own / name).read_bytes()[before:] for name in names if "gpusched-shared" in str((own / name).readlink())}


async def files(b: Bench, job: WindowJob) -> dict[str, bytes]:
    """Run a window; return its files by name, but for the metadata, which has times."""
    process = await b.launcher.fork(job, Confines(log_path=b.log, env={}))
    assert (await process.wait(b.messages.append)).exit_code == 0, b.log.read_text()
    assert isinstance(b.last, WindowResult)
    directory = Path(job.output_dir, job.task.label)
    return _contents(directory)


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "metadata.json"}
