"""The supervisor with real processes: every kind of ending, requests, and its files."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpusched import __version__, artifacts
from gpusched.core.entry_point import entry_point
from gpusched.core.events import (
    BatchHeld,
    BatchReopened,
    ChangeRequested,
    DeviceRead,
    ProgressReported,
)
from gpusched.core.model import Reading, WindowKey
from gpusched.core.states import Failed, Finished, Queued, Running, Stopping, TimedOut
from gpusched.engines.local import launcher
from gpusched.errors import StoreError
from gpusched.metadata import read_metadata
from gpusched.store.learned import peek_learned
from gpusched.store.store import Store
from gpusched.supervisor import kept
from gpusched.worker.code import read_code
from gpusched.worker.identity import Identity
from gpusched.workload import device_fingerprint
from tests.supervisor.support import END, START, make_batch, plan, supervised
from tests.worker.support import runs


def index(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "output" / "teacher_runs.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


async def test_trains_every_window_once_and_indexes_it(tmp_path: Path) -> None:
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "two_files"), plan(7))
        await bench.finished()
        assert bench.outcomes() == ["succeeded"] * 7
        assert set(map(tuple, bench.stories().values())) == {("starting", "running", "finished")}
    lines = index(tmp_path)
    assert sorted(line["symbol"] for line in lines) == [f"S{number}" for number in range(7)]
    for line in lines:
        assert line["status"] == "success"
        assert line["attempts"] == 1
        assert line["metrics"] == {"auc": 0.5, "undefined": None}
        metadata = read_metadata(Path(line["artifacts_path"]))
        assert metadata is not None
        assert artifacts.verify(Path(line["artifacts_path"]), {str(metadata.fingerprint)}) is not None
    assert not list((tmp_path / "output").glob(".partial/*"))


async def test_remembers_how_long_windows_took(tmp_path: Path) -> None:
    database = tmp_path / "state" / "state.db"
    assert peek_learned(database) == []
    began = time.monotonic()
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "two_files"), plan(7))
        await bench.finished()
        (learned,) = peek_learned(database)
    assert (learned.workload, learned.device_type, learned.count) == ("tests.worker.workloads:two_files", "cpu", 7)
    assert learned.rows_mean == 100
    assert 0 < learned.seconds_mean <= learned.seconds_max < time.monotonic() - began
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "two_files", batch_id="c"), plan(1))
        await bench.finished("c")
    assert [estimate.count for estimate in peek_learned(database)] == [8]


async def test_keeps_what_was_read_of_the_devices_while_a_batch_ran(tmp_path: Path, fifo: Any) -> None:
    said = fifo("said")
    readings = [Reading(device_id="cpu", at=100.0 + n, utilisation=n / 10) for n in range(4)]
    async with supervised(tmp_path, slots=1) as bench:
        bench.supervisor.post(DeviceRead(reading=readings[0]))
        await bench.supervisor.submit(make_batch(tmp_path, "hangs", settings={"fifo": said.path}), plan(1))
        await said.number()
        for reading in readings[1:]:
            bench.supervisor.post(DeviceRead(reading=reading))
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.finished()
        bench.supervisor.post(DeviceRead(reading=readings[0]))
        await bench.supervisor.committed()
    with Store.open(tmp_path / "state" / "state.db") as store:
        assert [(s.device_id, s.at, s.utilisation) for s in store.history("b")] == [
            ("cpu", 101.0, 0.1),
            ("cpu", 102.0, 0.2),
            ("cpu", 103.0, 0.3),
        ]


async def test_skipped_and_reused_windows_need_no_process(tmp_path: Path) -> None:
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(3, skip_reason="no data"))
        await bench.finished()
        assert bench.outcomes() == ["skipped"] * 3
        assert bench.stories() == {}
    assert [line["skip_reason"] for line in index(tmp_path)] == ["no data"] * 3


@pytest.mark.parametrize(
    ("workload", "kind", "launches"),
    [
        ("raises", "raised", 2),
        ("bad_data", "bad_data", 1),
        ("bad_parameters", "bad_parameters", 1),
        ("exits_at_once", "exited", 2),
        ("kills_itself", "killed", 2),
        ("segfaults", "crashed", 2),
        ("writes_garbage", "protocol", 2),
        ("claims_another_place", "protocol", 2),
        ("writes_long_line", "protocol", 2),
        ("writes_endless_progress", "protocol", 2),
        ("no.such.module:function", "bad_parameters", 1),
    ],
)
async def test_fails_alone_and_is_tried_again_only_where_that_can_help(
    tmp_path: Path, workload: str, kind: str, launches: int
) -> None:
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, workload, max_attempts=2), plan(1))
        await bench.supervisor.submit(make_batch(tmp_path, "nothing", batch_id="good"), plan(2))
        await bench.finished()
        await bench.finished("good")
        assert bench.outcomes("good") == ["succeeded"] * 2
        state = next(iter(bench.supervisor.scheduler.states("b")))[1]
        assert isinstance(state, Finished)
        assert isinstance(state.outcome, Failed)
        assert state.outcome.failure.kind == kind
        assert state.attempts == launches


async def test_keeps_the_last_traceback_and_the_log_of_every_attempt(tmp_path: Path) -> None:
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "raises", max_attempts=3), plan(1))
        await bench.finished()
        key = WindowKey("b", plan(1)[0].window.label)
        assert "ValueError: no good" in bench.supervisor.attempts.log_path(key, 2).read_text()
        (line,) = index(tmp_path)
        assert "ValueError: no good" in line["error"]["traceback"]
        assert line["log"] == str(bench.supervisor.attempts.log_path(key, 2))
        assert bench.supervisor.attempts.log_path(key, 1).exists()
    with Store.open(tmp_path / "state" / "state.db") as store:
        attempts = store.attempts(key)
        told = store.story(key)
    assert [attempt.ending for attempt in attempts] == ["raised"] * 2  # at the same line, so a third would be in vain
    assert "raised twice at the same line, so there is no third attempt" in told[-1].reason
    assert "ValueError: no good" in str(attempts[-1].traceback)


async def test_a_window_that_hangs_is_stopped_at_its_timeout(tmp_path: Path, fifo: Any) -> None:
    said = fifo("said")
    async with supervised(tmp_path) as bench:
        batch = make_batch(tmp_path, "hangs", settings={"fifo": said.path}, timeout_s=0.3, max_attempts=1)
        await bench.supervisor.submit(batch, plan(1))
        pid = await said.number()
        await bench.finished()
        assert not runs(pid)
        assert bench.outcomes() == ["timed_out"]
        moved = await bench.moved_to(Finished)
        assert isinstance(moved.new, Finished)
        assert moved.new.outcome == TimedOut(seconds=0.3)


async def test_a_window_that_ignores_the_request_to_stop_is_killed_after_the_grace(tmp_path: Path, fifo: Any) -> None:
    said = fifo("said")
    async with supervised(tmp_path) as bench:
        batch = make_batch(tmp_path, "ignores_term", settings={"fifo": said.path}, grace_s=0.2)
        await bench.supervisor.submit(batch, plan(1))
        pid = await said.number()
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.moved_to(Stopping)
        await bench.finished()
        assert not runs(pid)
        assert bench.outcomes() == ["cancelled"]


async def test_cancel_ends_what_runs_and_what_waits(tmp_path: Path, fifo: Any) -> None:
    said = fifo("said")
    async with supervised(tmp_path, slots=1) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "hangs", settings={"fifo": said.path}), plan(5))
        await said.number()
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.finished()
        assert bench.outcomes() == ["cancelled"] * 5
    assert {line["status"] for line in index(tmp_path)} == {"cancelled"}


async def test_a_held_batch_waits_and_goes_on_when_released(tmp_path: Path) -> None:
    async with supervised(tmp_path, slots=1) as bench:
        bench.supervisor.post(ChangeRequested(verb="hold", batch_id="b"))
        await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(30))
        bench.supervisor.post(ChangeRequested(verb="hold", batch_id="b"))
        await bench.until(lambda update: isinstance(update, BatchHeld))
        await bench.supervisor.committed()
        assert "queued" in bench.outcomes()
        bench.supervisor.post(ChangeRequested(verb="release", batch_id="b"))
        await bench.finished()
        assert bench.outcomes() == ["succeeded"] * 30


async def test_the_breaker_holds_a_batch_that_keeps_failing_in_the_same_way(tmp_path: Path) -> None:
    async with supervised(tmp_path, slots=1) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "bad_data", breaker_failures=3), plan(10))
        held = await bench.until(lambda update: isinstance(update, BatchHeld))
        assert isinstance(held, BatchHeld)
        assert held.reason == "the last 3 windows failed in the same way (no bars)"
        await bench.supervisor.committed()
        assert bench.outcomes() == ["failed"] * 3 + ["queued"] * 7


async def test_retry_runs_the_failed_windows_again(tmp_path: Path) -> None:
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "raises", max_attempts=1), plan(2))
        await bench.finished()
        bench.updates.clear()
        bench.supervisor.post(ChangeRequested(verb="retry", batch_id="b"))
        await bench.finished()
        assert set(map(tuple, bench.stories().values())) == {("queued", "starting", "running", "finished")}
    assert [line["attempts"] for line in index(tmp_path)] == [2, 2]


async def test_progress_reaches_the_observer(tmp_path: Path, fifo: Any) -> None:
    back = fifo("back")
    async with supervised(tmp_path) as bench:
        batch = make_batch(tmp_path, "lasting_phase", settings={"back": back.path})
        await bench.supervisor.submit(batch, plan(1))
        update = await bench.until(lambda update: isinstance(update, ProgressReported))
        assert isinstance(update, ProgressReported)
        assert (update.phase, update.round, update.rounds, update.attempt) == ("train", 1, 2, 1)
        back.answer()
        await bench.finished()


async def test_a_stop_puts_running_windows_back_into_the_queue_and_the_next_supervisor_takes_them_up(
    tmp_path: Path, fifo: Any
) -> None:
    said, back = fifo("said"), fifo("back")
    settings = {"fifo": said.path, "back": back.path}
    async with supervised(tmp_path, slots=1) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "lasting_phase", settings=settings), plan(2))
        await bench.until(lambda update: isinstance(update, ProgressReported))
        bench.supervisor.shut_down(drain=False)
        await bench.supervisor.stopped()
        assert bench.outcomes() == ["queued", "queued"]
    async with supervised(tmp_path, slots=1, recover=True) as bench:
        for label in (planned.window.label for planned in plan(2)):
            back.answer()
            await bench.moved_to(Finished, label)
        await bench.finished()
        assert bench.outcomes() == ["succeeded", "succeeded"]
    assert len(index(tmp_path)) == 2


async def test_a_drain_lets_running_windows_finish_and_starts_no_other(tmp_path: Path, fifo: Any) -> None:
    back = fifo("back")
    async with supervised(tmp_path, slots=1) as bench:
        batch = make_batch(tmp_path, "lasting_phase", settings={"back": back.path})
        await bench.supervisor.submit(batch, plan(2))
        await bench.until(lambda update: isinstance(update, ProgressReported))
        bench.supervisor.shut_down(drain=True)
        back.answer()
        await bench.supervisor.stopped()
        assert bench.outcomes() == ["succeeded", "queued"]


class _FullDisk:
    """A store whose disk fills up once the first window runs, until `full` is set to False."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.full: bool | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def record(self, records: Sequence[Any], *rest: Any) -> None:
        if self.full is None and any(isinstance(getattr(record, "new", None), Running) for record in records):
            self._store.record(records, *rest)
            self.full = True
            return
        if self.full:
            raise StoreError(problem="the disk is full", remedy="make room")
        self._store.record(records, *rest)


async def test_nothing_is_launched_while_the_disk_is_full(tmp_path: Path) -> None:
    with Store.open(tmp_path / "state" / "state.db") as store:
        full = _FullDisk(store)
        async with supervised(tmp_path, slots=1, store=full) as bench:  # type: ignore[arg-type]
            await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(4))
            await bench.moved_to(Running)
            # The scheduler's later decisions are neither on disk nor done.
            assert [name for names in bench.stories().values() for name in names] == ["starting", "running"]
            full.full = False
            await bench.finished()
            assert bench.outcomes() == ["succeeded"] * 4


async def test_interrupted_attempts_use_up_no_retry(tmp_path: Path, fifo: Any) -> None:
    said = fifo("said")
    async with supervised(tmp_path, slots=1) as bench:
        batch = make_batch(tmp_path, "hangs", settings={"fifo": said.path}, max_attempts=1)
        await bench.supervisor.submit(batch, plan(1))
        await said.number()
        (launcher,) = bench.engine.launcher.pids(batch.spec.workload)
        os.kill(launcher, signal.SIGKILL)
        moved = await bench.moved_to(Queued)
        assert moved.reason == "the launcher died, and the window with it"
        await said.number()
        assert bench.outcomes() == ["running"]


async def test_a_result_that_was_committed_but_not_reported_counts(tmp_path: Path) -> None:
    """The window dies between its commit and its report; the supervisor does, too, in the second round."""
    first = make_batch(tmp_path, "two_files", batch_id="first")
    (window,) = plan(1)
    entry = entry_point(first.spec.workload)
    assert entry is not None
    identity = Identity(first.spec.workload, read_code(entry), {}, first.spec.data_root)
    fingerprint = identity.fingerprint(window.window.symbol, START, END, "f" * 64)
    assert fingerprint is not None
    planned = plan(1, fingerprint=fingerprint)
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(first, planned)
        await bench.finished("first")
        metadata = read_metadata(tmp_path / "output" / window.window.label)
        assert metadata is not None
    assert metadata.fingerprint == device_fingerprint(fingerprint, "cpu")
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "kills_itself", batch_id="second"), planned)
        await bench.finished("second")
        assert bench.outcomes("second") == ["succeeded"]


async def test_old_batches_are_forgotten_and_can_be_recalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT_WINDOWS", 5)
    async with supervised(tmp_path) as bench:
        for batch_id in ("one", "two", "three"):
            workload = "bad_data" if batch_id == "one" else "nothing"
            await bench.supervisor.submit(make_batch(tmp_path, workload, batch_id=batch_id), plan(3))
            await bench.finished(batch_id)
        assert [batch.id for batch in bench.supervisor.scheduler.batches()] == ["three"]
        async with bench.supervisor.recalled("one"):
            bench.supervisor.post(ChangeRequested(verb="retry", batch_id="one"))
            await bench.until(lambda update: isinstance(update, BatchReopened))
        bench.updates.clear()
        await bench.finished("one")
        assert bench.outcomes("one") == ["failed"] * 3
        assert [batch.id for batch in bench.supervisor.scheduler.batches()] == ["one"]


async def test_an_upgrade_while_it_runs_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher of another version is never started: the devices are closed until a restart, which goes on."""
    installed = tmp_path / "installed.py"
    installed.write_text('__version__ = "9.9.9"\n')
    with monkeypatch.context() as patched:
        patched.setattr(launcher, "_VERSION_FILE", installed)
        async with supervised(tmp_path) as bench:
            await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(3))
            held = await bench.until(lambda update: isinstance(update, BatchHeld))
            assert isinstance(held, BatchHeld)
            assert f"gpusched {__version__} was replaced by 9.9.9 while it ran: restart the daemon" in held.reason
            await bench.supervisor.committed()
            assert set(bench.outcomes()) == {"queued"}
    async with supervised(tmp_path, recover=True) as bench:
        await bench.finished()
        assert bench.outcomes() == ["succeeded"] * 3
