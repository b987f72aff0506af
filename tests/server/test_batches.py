"""Batches through the socket: accepted once, changed, followed, shown."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from gpusched.client.connection import Connection
from gpusched.core.events import BatchFinished, BatchHeld, BatchReleased, BatchReopened, DeviceChanged, WindowMoved
from gpusched.core.model import BatchSpec, Limits, WindowKey
from gpusched.core.states import Finished, Running
from gpusched.core.statuses import name_of
from gpusched.errors import DaemonError, GpuschedError, InputError
from gpusched.protocol import BatchAnnounced, Snapshot, Submitted
from tests.server.support import Daemon, finished, frame, read_frame, until


def label(symbol: str, number: int = 0) -> str:
    start = dt.date(2022, 1, 1) + dt.timedelta(days=10 * number)
    return f"{symbol}_{start}_to_{start + dt.timedelta(days=9)}"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A batch name of the test's own."""
    return str(request.node.name).translate(str.maketrans("[]", "--"))[:80].rstrip("-")


# -- submitting --------------------------------------------------------------------------------------------------------


def test_submit_then_status_windows_show_results_logs(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        surveyed: list[tuple[int, int]] = []
        spec = daemon.spec("M&M", "SKIP", "BAD", "DIE", windows=2)
        submitted = connection.submit(
            spec, source="my symbols", on_survey=lambda done, total: surveyed.append((done, total))
        )
        batch_id = submitted.batch.id
        assert submitted.how == "new"
        assert batch_id.startswith("my-symbols-")
        assert surveyed[-1] == (4, 4)
        assert submitted.batch.output_dir == str(daemon.directory / "runs" / batch_id)

        assert finished(daemon, batch_id).counts == {"succeeded": 4, "failed": 2, "skipped": 2}
        assert batch_id in [batch.id for batch in connection.batches()]
        assert connection.batch(batch_id).spec == spec

        lines = list(connection.windows(batch_id))
        assert [line.key.label for line in lines] == [label(s, n) for s in spec.symbols for n in range(2)]
        by_label = {line.key.label: line for line in lines}
        assert by_label[label("M&M")].status == "succeeded"
        assert by_label[label("M&M")].attempts == 1
        assert by_label[label("SKIP")].reason == "told to"
        assert by_label[label("SKIP")].slot is None
        assert by_label[label("BAD")].reason == "bad_data: told to"
        assert [line.key.label for line in connection.windows(batch_id, status="skipped")] == [
            label("SKIP", 0),
            label("SKIP", 1),
        ]

        shown = connection.window(batch_id, label("DIE"))
        assert [line.new for line in shown.story] == [
            "starting",
            "running",
            "queued",
            "starting",
            "running",
            "succeeded",
        ]
        assert [attempt.ending for attempt in shown.attempts] == ["killed", "result"]

        results = {result.key.label: result for result in connection.results(batch_id)}
        assert len(results) == 8
        assert results[label("M&M")].metrics == {"auc": 0.5}
        assert results[label("M&M")].artifacts_path == str(daemon.directory / "runs" / batch_id / label("M&M"))
        assert results[label("BAD")].metrics is None

        text = b"".join(chunk.data for chunk in connection.log(batch_id, label("DIE")))
        assert text == f"attempt at {label('DIE')}\n".encode()
        (chunk,) = connection.log(batch_id, label("DIE"), attempt=1, offset=8)
        assert (chunk.attempt, chunk.offset, chunk.data[:2]) == (1, 8, b"at")


def test_the_same_batch_again(daemon: Daemon, name: str) -> None:
    spec = daemon.spec("FIFO", "A", "BAD")
    with daemon.connect() as connection, daemon.fifo() as release:
        assert connection.submit(spec, source="s", name=name).how == "new"
        again = connection.submit(spec, source="other", name=name)
        assert again.how == "known"
        assert again.batch.id == name
        # Terms are not part of a batch's identity.
        patient = msgspec.structs.replace(spec, limits=Limits(max_attempts=7), workers=1, priority=3)
        assert connection.submit(patient, source="s", name=name).how == "known"
        release()
        assert finished(daemon, name).counts == {"succeeded": 2, "failed": 1}
        assert connection.submit(spec, source="s", name=name).how == "again"
    assert finished(daemon, name).counts == {"reused": 2, "failed": 1}


def test_the_same_name_for_something_else(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection:
        connection.submit(daemon.spec("A"), source="s", name=name)
        with pytest.raises(InputError, match="asks for something else") as error:
            connection.submit(daemon.spec("B"), source="s", name=name)
    assert error.value.exit_code == 4


def at_once(daemon: Daemon, count: int, ask: Callable[[Connection], Submitted]) -> list[Submitted]:
    """The answers that as many clients get at the same time."""
    barrier = threading.Barrier(count)
    answers: list[Submitted] = []

    def client() -> None:
        with daemon.connect() as connection:
            barrier.wait()
            answers.append(ask(connection))

    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_submitted_by_many_at_once_it_is_one_batch(daemon: Daemon, name: str) -> None:
    spec = daemon.spec("FIFO", "A", windows=2)
    with daemon.fifo() as release:
        answers = at_once(daemon, 8, lambda connection: connection.submit(spec, source="s", name=name))
        assert sorted(answer.how for answer in answers) == ["known"] * 7 + ["new"]
        release()
        release()
        assert finished(daemon, name).counts == {"succeeded": 4}


def test_a_submit_and_a_retry_at_once(daemon: Daemon, name: str) -> None:
    """Both open a finished batch again; whichever comes first, every window ends."""
    spec = daemon.spec("BAD", windows=3, limits=Limits(breaker_failures=0))
    with daemon.connect() as connection:
        connection.submit(spec, source="s", name=name)
        for _ in range(5):
            assert finished(daemon, name).counts == {"failed": 3}

            def ask(link: Connection) -> Submitted:
                link.retry(name)
                return link.submit(spec, source="s", name=name)

            at_once(daemon, 4, ask)
    assert finished(daemon, name).counts == {"failed": 3}


def change(spec: BatchSpec, **fields: object) -> BatchSpec:
    return msgspec.convert(msgspec.to_builtins(spec) | fields, BatchSpec, strict=False)


NESTED: dict[str, object] = {}
for _ in range(50):
    NESTED = {"deeper": NESTED}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"symbols": []}, "no symbols"),
        ({"symbols": ["../etc"]}, "not a symbol"),
        ({"symbols": ["A", "A"]}, "twice"),
        ({"data_root": "data"}, "not an absolute path"),
        ({"data_root": "/data/../etc"}, "not an absolute path"),
        ({"data_root": "/data\0"}, "not an absolute path"),
        ({"data_root": "/nowhere"}, "cannot read the data root /nowhere: No such file"),
        ({"workload": "os.system"}, "not of the form"),
        ({"workload": "gpusched.teacher:train-window"}, "not of the form"),
        ({"window_days": 0}, "one day at least"),
        ({"window_days": 1 << 62}, "36,500 days at most"),
        ({"stride_days": -1}, "a stride has 36,500 days at most"),
        ({"start": "0001-01-01", "end": "9999-12-31", "stride_days": 1}, "more than 200,000 windows"),
        ({"start": "2023-01-01"}, "no window between"),
        ({"points": {"../up": {"workload.x": 1}}}, "is not the name of the point with these parameters"),
        ({"points": {"horizon=5": {"labels.horizon": 5}}}, "it is a setting of gpusched.teacher:train_window"),
        ({"windows": [{"symbol": "B", "start": "2022-01-01", "end": "2022-01-02"}]}, "of a symbol that the batch does"),
        ({"start": "0001-01-01", "end": "9999-12-31", "window_days": 1}, "more than 200,000 windows"),
        ({"settings": NESTED}, "nested"),
        ({"workers": -1}, "workers is out of range"),
        ({"priority": 1 << 62}, "priority is out of range"),
        ({"limits": {"max_attempts": 0}}, "max_attempts is out of range"),
        ({"limits": {"grace_s": -1}}, "grace_s is out of range: at least 0 and at most 10,000,000"),
        ({"limits": {"memory_limit_bytes": 1 << 62}}, "memory_limit_bytes is out of range"),
        ({"limits": {"log_limit_bytes": 1}}, "log_limit_bytes is out of range: 0, or at least 65,536"),
        ({"device": "cuda"}, "no cuda device"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_batches_that_are_not_accepted(daemon: Daemon, fields: dict[str, object], why: str) -> None:
    with daemon.connect() as connection:
        with pytest.raises(GpuschedError) as error:
            connection.submit(change(daemon.spec("A", windows=1), **fields), source="refused")
        assert not [batch for batch in connection.batches() if batch.id.startswith("refused")]
    assert why in str(error.value)
    assert error.value.exit_code == 4


@pytest.mark.parametrize("bad", ["", "../x", "a/b", ".hidden", "x" * 100, "a b"])
def test_names_that_are_not_accepted(daemon: Daemon, bad: str) -> None:
    with daemon.connect() as connection, pytest.raises(InputError, match="is not one"):
        connection.submit(daemon.spec("A"), source="s", name=bad)


def test_the_output_directory_must_be_writable(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with daemon.connect() as connection:
        with pytest.raises(InputError, match="cannot write to the output directory"):
            connection.submit(daemon.spec("A"), source="s", output_dir=tmp_path / "file" / "out")
        with pytest.raises(InputError, match="not an absolute path"):
            connection.submit(daemon.spec("A"), source="s", output_dir=Path("out"))


def test_an_output_directory_belongs_to_one_unfinished_batch(daemon: Daemon, tmp_path: Path, name: str) -> None:
    with daemon.connect() as connection, daemon.fifo() as release:
        connection.submit(daemon.spec("FIFO"), source="s", name=name, output_dir=tmp_path)
        with pytest.raises(InputError, match=name):
            connection.submit(daemon.spec("A"), source="other", output_dir=tmp_path)
        release()
        finished(daemon, name)
        other = connection.submit(daemon.spec("A"), source="other", output_dir=tmp_path)
    assert finished(daemon, other.batch.id).counts == {"succeeded": 1}
    assert (tmp_path / label("A") / "model.txt").exists()


# -- changing ----------------------------------------------------------------------------------------------------------


def test_hold_release_cancel_retry(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.fifo() as release:
        spec = change(daemon.spec("FIFO", windows=4), workers=1)
        connection.submit(spec, source="s", name=name)
        one = label("FIFO", 2)
        assert connection.hold(name, one).windows == 1
        assert connection.hold(name, one).windows == 0
        assert connection.window(name, one).window.status == "held"
        assert connection.hold(name).batch.state == "held"
        assert connection.release(name).batch.state == "open"
        assert connection.window(name, one).window.status == "queued"
        assert connection.cancel(name, one).windows == 1
        assert connection.cancel(name).windows == 3
        assert finished(daemon, name).counts == {"cancelled": 4}
        assert connection.cancel(name).windows == 0
        assert connection.retry(name, one).windows == 1
        release()
        assert finished(daemon, name).counts == {"cancelled": 3, "succeeded": 1}
        assert connection.retry(name).windows == 3
        for _ in range(3):
            release()
        assert finished(daemon, name).counts == {"succeeded": 4}


def test_a_finished_batch_can_be_retried_after_a_restart(service: Daemon) -> None:
    service.start()
    with service.connect() as connection:
        connection.submit(service.spec("BAD", "A"), source="s", name="batch")
        finished(service, "batch")
    service.stop()
    service.start()
    with service.connect() as connection:
        assert connection.retry("batch").windows == 1
        assert finished(service, "batch").counts == {"failed": 1, "succeeded": 1}
        assert len(connection.window("batch", label("BAD")).attempts) == 2
    index = (service.directory / "runs" / "batch" / "teacher_runs.json").read_text().splitlines()
    assert sorted(json.loads(line)["window_label"] for line in index) == [label("A"), label("BAD")]
    service.stop()


def test_what_there_is_not(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection:
        connection.submit(daemon.spec("RELIANCE", "TCS", windows=2), source="s", name=name)
        with pytest.raises(InputError, match=f"did you mean {name}"):
            connection.cancel(name[:-1])
        with pytest.raises(InputError, match=f"did you mean {label('RELIANCE', 1)}"):
            connection.cancel(name, label("RELAINCE", 1))
        with pytest.raises(InputError, match="one of: queued, held"):
            list(connection.windows(name, status="done"))
        with pytest.raises(InputError, match="there are: cpu"):
            connection.drain("GPU-1")
        for ask in (connection.batch, connection.hold, connection.retry, connection.subscribe):
            with pytest.raises(InputError, match="there is no batch nothing"):
                ask("nothing")
        with pytest.raises(InputError, match="there is no batch nothing"):
            list(connection.results("nothing"))


def test_drain_and_resume(service: Daemon) -> None:
    service.start()
    with service.connect() as connection, service.connect() as follower:
        subscription = follower.subscribe()
        assert [device.device.id for device in subscription.snapshot.devices] == ["cpu"]
        (drained,) = connection.drain("c")
        assert drained.health == "draining"
        until(subscription, lambda delta: isinstance(delta, DeviceChanged) and delta.health == "draining")
        connection.submit(service.spec("A"), source="s", name="batch")
        assert connection.batch("batch").batch.counts == {"queued": 1}
        (resumed,) = connection.resume(None)
        assert resumed.health == "open"
        assert finished(service, "batch").counts == {"succeeded": 1}
    service.stop()


# -- following ---------------------------------------------------------------------------------------------------------


def test_a_snapshot_and_its_deltas_have_no_gap(daemon: Daemon, name: str) -> None:
    """Subscriptions that begin at any moment of a batch count the same in the end."""
    with daemon.connect() as connection, daemon.connect() as first:
        everything = first.subscribe()
        spec = daemon.spec("A", "BAD", windows=20, limits=Limits(breaker_failures=0))
        connection.submit(spec, source="s", name=name)
        links: list[Connection] = []
        subscriptions = []
        while connection.batch(name).batch.state != "finished" and len(links) < 100:
            links.append(daemon.connect())
            subscriptions.append(links[-1].subscribe(name))
        seen = until(everything, lambda delta: isinstance(delta, BatchFinished) and delta.batch_id == name)
        (announced,) = [d for d in seen if isinstance(d, BatchAnnounced) and d.batch.id == name]
        assert announced.batch.counts == {"queued": 40}
        followed = [(announced.batch.counts, seen)]
        for subscription in subscriptions:
            (batch,) = subscription.snapshot.batches
            deltas = [] if batch.state == "finished" else until(subscription, lambda d: isinstance(d, BatchFinished))
            followed.append((batch.counts, deltas))
        for link in links:
            link.close()
    assert len(followed) > 2
    for counts, deltas in followed:
        assert counted(counts, deltas, name) == {"succeeded": 20, "failed": 20}


def counted(counts: dict[str, int], deltas: Sequence[object], name: str) -> dict[str, int]:
    """The counts of a snapshot, carried on by the deltas."""
    for delta in deltas:
        if isinstance(delta, WindowMoved) and delta.key.batch_id == name:
            for state, change in ((delta.old, -1), (delta.new, 1)):
                status = name_of(state.outcome if isinstance(state, Finished) else state)
                counts = counts | {status: counts.get(status, 0) + change}
    return {status: count for status, count in counts.items() if count}


def test_a_subscription_to_a_batch_is_about_that_batch(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower, daemon.fifo() as release:
        connection.submit(daemon.spec("FIFO"), source="s", name=name)
        subscription = follower.subscribe(name)
        assert [line.key for line in subscription.snapshot.active] == [WindowKey(name, label("FIFO"))]
        other = connection.submit(daemon.spec("A", windows=5), source="other")
        finished(daemon, other.batch.id)
        connection.hold(name)
        connection.release(name)
        release()
        seen = until(subscription, lambda delta: isinstance(delta, BatchFinished))
        connection.retry(name)
    assert not [d for d in seen if isinstance(d, WindowMoved) and d.key.batch_id != name]
    assert [type(d) for d in seen if isinstance(d, BatchHeld | BatchReleased | BatchReopened)] == [
        BatchHeld,
        BatchReleased,
    ]


def test_a_change_to_many_windows_is_through_when_it_is_answered_and_told_as_it_goes(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower:
        connection.drain(None)
        try:
            connection.submit(daemon.spec("A", windows=2500), source="s", name=name)
            subscription = follower.subscribe(name)
            changed = connection.cancel(name)
            assert (changed.windows, changed.batch.counts) == (2500, {"cancelled": 2500})
            told = until(subscription, lambda delta: isinstance(delta, BatchFinished | Snapshot))
            assert isinstance(told[-1], Snapshot) or sum(isinstance(d, WindowMoved) for d in told) == 2500
            changed = connection.retry(name)
            assert (changed.windows, changed.batch.counts) == (2500, {"queued": 2500})
            connection.cancel(name)
        finally:
            connection.resume(None)


def test_pending_never_waits(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower:
        subscription = follower.subscribe()
        while subscription.pending():
            pass
        connection.submit(daemon.spec("A"), source="s", name=name)
        finished(daemon, name)
        seen: list[object] = []
        while not any(isinstance(delta, BatchFinished) for delta in seen):
            seen += subscription.pending()


def test_a_log_is_followed_through_all_attempts(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower:
        connection.drain(None)
        connection.submit(daemon.spec("DIELATER"), source="s", name=name)
        log = follower.log(name, label("DIELATER"), follow=True)
        connection.resume(None)
        chunks = list(log)
    assert [chunk.attempt for chunk in chunks] == [1, 2]
    assert {chunk.data for chunk in chunks} == {f"attempt at {label('DIELATER')}\n".encode()}


def test_a_log_is_followed_while_it_is_written(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower, daemon.fifo() as release:
        connection.submit(daemon.spec("FIFO"), source="s", name=name)
        log = follower.log(name, label("FIFO"), follow=True)
        assert next(log).data.startswith(b"attempt at")
        release()
        assert list(log) == []
        with pytest.raises(InputError, match="attempt 7 left none"):
            list(connection.log(name, label("FIFO"), attempt=7))


def test_a_window_that_was_never_launched_has_no_log(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection:
        connection.submit(daemon.spec("SKIP"), source="s", name=name)
        for follow in (False, True):
            with pytest.raises(InputError, match="has no log"):
                list(connection.log(name, label("SKIP"), follow=follow))


def test_a_client_that_goes_during_the_survey_takes_its_batch_with_it(daemon: Daemon, name: str) -> None:
    """Nothing was promised to anybody yet."""
    spec = daemon.spec(*[f"S{number}" for number in range(50)])
    with daemon.greeted() as link:
        request = {"spec": msgspec.to_builtins(spec), "source": "s", "name": name}
        link.sendall(frame(type="submit", **request))
        assert read_frame(link)["type"] == "surveyed"
    with daemon.connect() as connection:
        how = connection.submit(spec, source="s", name=name).how
        assert how in ("new", "known")  # it may have been too late
        connection.cancel(name)


def test_progress_is_shown(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower, daemon.fifo() as release:
        everything = follower.subscribe()
        connection.submit(daemon.spec("FIFO"), source="s", name=name)
        until(
            everything, lambda d: isinstance(d, WindowMoved) and isinstance(d.new, Running) and d.key.batch_id == name
        )
        with daemon.connect() as late:
            subscription = late.subscribe(name)
            told = subscription.snapshot.progress or until(subscription, lambda d: hasattr(d, "rounds"))[-1:]
            assert [(report.phase, report.round, report.rounds) for report in told] == [("train", 1, 2)]  # type: ignore[union-attr]
        release()
    assert finished(daemon, name).counts == {"succeeded": 1}


def test_submitting_to_a_daemon_that_stops(service: Daemon) -> None:
    service.start()
    with service.connect() as connection, service.fifo() as release:
        connection.submit(service.spec("FIFO", windows=3), source="s", name="batch")
        service.process.terminate()
        service.wait_for_notice("STOPPING=1")
        assert connection.ping().draining
        with pytest.raises(DaemonError, match="accepts no more batches"):
            connection.submit(service.spec("A"), source="s")
        assert connection.batch("batch").batch.counts["queued"] == 1
        release()
        release()
        assert service.end() == 0
    assert not service.processes()
    with service.fifo() as release:
        service.start()
        release()
        assert finished(service, "batch").counts == {"succeeded": 3}
    service.stop()
