"""Batches through the socket: accepted once, changed, followed, shown."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from gpusched.client.connection import Connection
from gpusched.core.events import DeviceChanged
from gpusched.core.model import BatchSpec, Existing, Limits
from gpusched.errors import DaemonError, GpuschedError, InputError, ReplacementRefused
from gpusched.protocol import Submitted
from tests.server.support import Daemon, finished, label, until

# -- submitting --------------------------------------------------------------------------------------------------------


def test_a_survey_begins_again_if_the_launcher_dies(daemon: Daemon, name: str) -> None:
    """The batch was refused, although a new launcher would have surveyed it."""
    with daemon.connect() as connection:
        connection.submit(daemon.spec("ORPHAN", "A"), name=name, source="s")
        assert finished(daemon, name).counts == {"succeeded": 2}
        with pytest.raises(GpuschedError, match="the launcher process died"):
            connection.submit(daemon.spec("ORPHANS", "A"), source="s")


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
        result = results[label("M&M")].result
        assert result is not None
        assert result.artifacts_path == str(daemon.directory / "runs" / batch_id / label("M&M"))
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
                link.change("retry", name)
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


def test_results_of_another_batch_and_of_other_parameters(daemon: Daemon, tmp_path: Path, name: str) -> None:
    with daemon.connect() as connection:
        first = connection.submit(daemon.spec("A"), source="s", name=name, output_dir=tmp_path / "first").batch
        finished(daemon, first.id)
        taken = Existing(reuse_from=(first.output_dir, str(tmp_path)))
        both = connection.submit(daemon.spec("A", "B"), source="both", output_dir=tmp_path / "both", existing=taken)
        assert finished(daemon, both.batch.id).counts == {"reused": 1, "succeeded": 1}
        assert (tmp_path / "both" / label("A") / "model.txt").exists()
        reused, _ = sorted(connection.results(both.batch.id), key=lambda line: line.symbol)
        (trained,) = connection.results(first.id)
        assert reused.started_at == pytest.approx(trained.started_at, abs=1e-5)
        assert (reused.slot, reused.attempts) == (trained.slot, 1)
        with pytest.raises(InputError, match="has no log: its result is that of an earlier run"):
            list(connection.log(both.batch.id, label("A")))

        submit = partial(connection.submit, daemon.spec("B", alpha=1), source="other", output_dir=tmp_path / "both")
        (tmp_path / "both" / label("B") / "model.txt").write_text("damaged, so it cannot be reused")
        with pytest.raises(ReplacementRefused, match=r"1 result of other parameters in .* would be replaced"):
            submit(existing=Existing(replace=False))
        assert finished(daemon, submit(existing=Existing()).batch.id).counts == {"succeeded": 1}


def test_one_symbol_more_takes_the_results_of_the_batch_before(daemon: Daemon) -> None:
    """Without a name and a directory; other settings train anew."""
    with daemon.connect() as connection:
        first = connection.submit(daemon.spec("A"), source="growing").batch
        finished(daemon, first.id)
        more = connection.submit(daemon.spec("A", "B", windows=2), source="growing")
        assert Path(more.batch.output_dir).name == more.batch.id != first.id
        assert finished(daemon, more.batch.id).counts == {"reused": 1, "succeeded": 3}
        assert more.notes[0] == f"1 result was copied from {first.output_dir}"
        other = connection.submit(daemon.spec("A", alpha=2), source="growing").batch
        assert finished(daemon, other.id).counts == {"succeeded": 1}
        named = connection.submit(daemon.spec("A"), source="growing", name="a-name-of-its-own").batch
        assert finished(daemon, named.id).counts == {"succeeded": 1}


# -- changing ----------------------------------------------------------------------------------------------------------


def test_hold_release_cancel_retry(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.fifo() as release:
        spec = change(daemon.spec("FIFO", windows=4), workers=1)
        connection.submit(spec, source="s", name=name)
        one = label("FIFO", 2)
        assert connection.change("hold", name, one).windows == 1
        assert connection.change("hold", name, one).windows == 0
        started = connection.change("hold", name, label("FIFO"))
        assert (started.windows, started.note) == (0, f"{label('FIFO')} has started, and goes on")
        assert connection.window(name, one).window.status == "held"
        assert connection.change("hold", name).batch.state == "held"
        assert connection.change("release", name).batch.state == "open"
        assert connection.window(name, one).window.status == "queued"
        assert connection.change("cancel", name, one).windows == 1
        assert connection.change("cancel", name).windows == 3
        assert finished(daemon, name).counts == {"cancelled": 4}
        assert connection.change("cancel", name).windows == 0
        assert connection.change("retry", name, one).windows == 1
        release()
        assert finished(daemon, name).counts == {"cancelled": 3, "succeeded": 1}
        assert connection.change("retry", name).windows == 3
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
        assert connection.change("retry", "batch").windows == 1
        assert finished(service, "batch").counts == {"failed": 1, "succeeded": 1}
        assert len(connection.window("batch", label("BAD")).attempts) == 2
    index = (service.directory / "runs" / "batch" / "teacher_runs.json").read_text().splitlines()
    assert sorted(json.loads(line)["window_label"] for line in index) == [label("A"), label("BAD")]
    service.stop()


def test_what_there_is_not(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection:
        connection.submit(daemon.spec("RELIANCE", "TCS", windows=2), source="s", name=name)
        with pytest.raises(InputError, match=f"did you mean {name}"):
            connection.change("cancel", name[:-1])
        with pytest.raises(InputError, match=f"did you mean {label('RELIANCE', 1)}"):
            connection.change("cancel", name, label("RELAINCE", 1))
        with pytest.raises(InputError, match="one of: queued, held"):
            list(connection.windows(name, status="done"))
        with pytest.raises(InputError, match="there are: cpu"):
            connection.drain("GPU-1")
        hold, retry = (partial(connection.change, verb) for verb in ("hold", "retry"))
        for ask in (connection.batch, hold, retry, connection.subscribe):
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
