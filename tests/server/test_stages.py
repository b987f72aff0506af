"""Stages: accepted now, started when other batches are done, whatever happens to the daemon meanwhile."""

from __future__ import annotations

import argparse
import datetime as dt
import re
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import msgspec
import pytest

from gpusched import clock
from gpusched.cli.commands.stages import AfterNothing, BadInstant, instant, stage, wait_for
from gpusched.core.model import BatchSpec
from gpusched.errors import InputError, StoreFull
from gpusched.protocol import BatchAnnounced, BatchStatus, Snapshot, Submit
from gpusched.service import stages
from gpusched.service.admission import Draining
from gpusched.store.staged import StagedRow
from gpusched.supervisor.runtime import Runtime
from tests.server.support import Daemon, finished, until
from tests.waiting import PATIENCE_S
from tests.waiting import until as patiently

DAY = dt.date(2022, 1, 1)
WORKLOAD = """
import json
from pathlib import Path
from gpusched.workload import BadParameters, Result
from tests.server.workloads import take_one

def teacher(task, directory, report):
    if task.symbol == "WAITS":
        take_one(Path(task.data_root, "fifo"))
    if task.symbol == "BAD" and not Path(task.data_root, "good").exists():
        raise BadParameters("told to")
    return Result(metrics={}, sample_counts={}, metadata={}, phases={})

def student(task, directory, report):
    lines = [json.loads(line) for index in task.after for line in open(index)]
    return Result(metrics={"teachers": len(lines)}, sample_counts={}, metadata={}, phases={})
"""

SURVEY = """
from tests.server import workloads

def survey(task):
    if task.symbol == "A":
        Path(task.data_root, "surveyed").touch()
        take_one(Path(task.data_root, "fifo"))
    return workloads.survey(task)
"""


def test_a_stage_starts_when_its_predecessor_has_succeeded(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon")
    (tmp_path / "stage.py").write_text(WORKLOAD)

    def spec(name: str, *symbols: str) -> BatchSpec:
        return msgspec.structs.replace(daemon.spec(*symbols), workload=f"{tmp_path}:stage:{name}")

    with daemon, daemon.fifo() as release:
        with daemon.connect() as client:

            def submit(name: str, spec: BatchSpec, **when: Any) -> BatchStatus:
                return client.submit(spec, source="s", name=name, **when).batch

            submit("t", spec("teacher", "WAITS", "A"))
            assert submit("s", spec("student", "A"), after=("t",)).waits == "until t has succeeded"
            assert submit("s", spec("student", "A"), after=("t",)).state == "waiting"
            submit("s2", spec("student", "B"), after=("t", "s"), only_if="finished")
            submit("late", spec("student", "B"), after=("t",), not_before=time.time() + 3600)
            states = {batch.id: batch.state for batch in client.batches()}
            assert states == {"t": "open", "s": "waiting", "s2": "waiting", "late": "waiting"}
            with pytest.raises(InputError, match="there is no batch nope to wait for"):
                submit("x", spec("student", "A"), after=("nope",))
            with pytest.raises(InputError, match=re.escape("s would wait for itself: s after s2 after s")):
                submit("s", spec("student", "A"), after=("s2",))
            with pytest.raises(InputError, match="there is a batch s already, and it asks for something else"):
                submit("s", spec("student", "OTHER"), after=("t",))
            for asked in (
                partial(client.change, "hold", "s"),
                partial(client.window, "s", "A"),
                partial(client.explain, "s", "A"),
                partial(client.history, "s"),
                partial(client.forget, "s"),
            ):
                with pytest.raises(InputError, match="the batch s has not been planned yet"):
                    asked()
            client.change("cancel", "late")
        daemon.kill()
        daemon.start()
        release()
        assert wait_for(daemon.socket, "s")[0] == 0
        code, batch = wait_for(daemon.socket, "s2")
        assert (code, batch.counts) == (0, {"succeeded": 1})
        with daemon.connect() as client:
            assert [batch.id for batch in client.batches()] == ["t", "s", "s2"]
            assert [line.metrics for line in client.results("s2")] == [{"teachers": 3}]


def states(batches: Iterable[BatchStatus]) -> set[tuple[str, str]]:
    return {(batch.id, batch.state) for batch in batches}


def test_a_stage_is_held_after_a_failure_and_goes_on_after_a_retry(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon")
    (tmp_path / "stage.py").write_text(WORKLOAD)
    with daemon, daemon.connect() as client, daemon.connect() as watcher:
        updates = watcher.subscribe()
        spec = msgspec.structs.replace(daemon.spec("BAD"), workload=f"{tmp_path}:stage:teacher")
        client.submit(spec, source="s", name="t")
        finished(daemon, "t")
        never = client.submit(spec, source="s", name="never", not_before=1e18).batch
        assert never.waits.startswith("until 9999-12-")
        client.submit(spec, source="s", name="both", after=("never", "t"))
        until(updates, lambda delta: isinstance(delta, Snapshot) and ("both", "held") in states(delta.batches))
        assert client.batch("both").batch.held_reason == "1 window of t has failed"
        assert client.submit(spec, source="s", name="s", after=("t",)).batch.state == "waiting"
        until(updates, lambda delta: isinstance(delta, Snapshot) and ("s", "held") in states(delta.batches))
        batch = client.batch("s").batch
        assert (batch.state, batch.held_reason) == ("held", "1 window of t has failed")
        assert wait_for(daemon.socket, "s")[0] == wait_for(daemon.socket, "t")[0] == 1
        (daemon.data / "good").touch()
        client.change("retry", "t")
        assert finished(daemon, "t").counts == {"succeeded": 1}
        until(updates, lambda delta: isinstance(delta, BatchAnnounced) and delta.batch.id == "s")
        assert finished(daemon, "s").counts == {"succeeded": 1}
        patiently(lambda: client.batch("both").batch.state == "waiting", patience_s=PATIENCE_S)


def test_a_release_does_not_wait_for_the_instant(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon")
    (tmp_path / "stage.py").write_text(WORKLOAD)
    with daemon, daemon.connect() as client:
        spec = msgspec.structs.replace(daemon.spec("A"), workload=f"{tmp_path}:stage:teacher")
        client.submit(spec, source="s", name="now", not_before=time.time() + 3600)
        client.submit(spec, source="s", name="after", after=("now",), not_before=time.time() + 3600)
        client.change("release", "after")
        assert client.batch("after").batch.waits == "until now has succeeded"
        client.change("release", "now")
        assert wait_for(daemon.socket, "after")[0] == 0


def test_instants() -> None:
    now = time.time()
    assert instant(None) == 0.0
    assert now < instant("00:00") <= now + 86400 + 3600
    assert instant("2024-12-31T18:00+00:00") == 1735668000.0
    for text in ("tomorrow", "0001-01-01T00:00", "24:01"):
        with pytest.raises(BadInstant):
            instant(text)


def test_instants_where_summer_time_begins_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
        time.tzset()
        hour = 3600.0
        evening = instant("2027-11-06T20:00")
        there.setattr(clock, "wall", lambda: evening)
        assert instant("18:00") == evening + 23 * hour == instant("2027-11-07T18:00")
        assert instant("2027-03-14T02:30") == instant("2027-03-14T03:30") == instant("2027-03-14T01:30") + hour
        assert instant("9999-12-31T23:59-10:00") > evening
    time.tzset()


def test_a_condition_needs_batches_that_it_is_about() -> None:
    options = argparse.Namespace(after=None, only_if=None, not_before=None)
    assert stage(options) == {"after": (), "only_if": "succeeded", "not_before": 0.0}
    with pytest.raises(AfterNothing, match="none is given"):
        stage(argparse.Namespace(after=None, only_if="finished", not_before=None))


def test_a_stage_that_cannot_be_looked_at_is_held_and_the_daemon_stays(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon")
    (tmp_path / "stage.py").write_text(WORKLOAD)
    with daemon, daemon.connect() as client, daemon.connect() as watcher, daemon.fifo() as release:
        updates = watcher.subscribe()
        spec = msgspec.structs.replace(daemon.spec("WAITS"), workload=f"{tmp_path}:stage:teacher")
        client.submit(spec, source="s", name="t")
        client.submit(msgspec.structs.replace(spec, symbols=("A",)), source="s", name="s", after=("t",))
        place = daemon.directory / "state" / "logs" / "s"
        place.touch()  # where the log of its survey should be
        release()
        until(updates, lambda delta: isinstance(delta, Snapshot) and ("s", "held") in states(delta.batches))
        assert client.batch("s").batch.held_reason == f"Not a directory: {place / 'survey.log'}"
        place.unlink()
        client.change("release", "s")
        until(updates, lambda delta: isinstance(delta, BatchAnnounced) and delta.batch.id == "s")
        assert finished(daemon, "s").counts == {"succeeded": 1}


def test_a_stage_that_is_cancelled_while_stages_are_planned_is_not_started(tmp_path: Path) -> None:
    """The list of stages was out of date by then, and so was the answer: it will not be started."""
    daemon = Daemon(tmp_path / "daemon")
    (tmp_path / "stage.py").write_text(WORKLOAD + SURVEY)
    with daemon, daemon.connect() as client, daemon.connect() as watcher, daemon.fifo() as release:
        updates = watcher.subscribe()

        def submit(name: str, symbol: str, **when: Any) -> None:
            spec = msgspec.structs.replace(daemon.spec(symbol), workload=f"{tmp_path}:stage:teacher")
            client.submit(spec, source="s", name=name, **when)

        submit("t", "WAITS")
        submit("first", "A", after=("t",))
        submit("second", "B", after=("t",))
        submit("third", "C", after=("t",))
        release()
        patiently((daemon.data / "surveyed").exists, patience_s=PATIENCE_S)
        client.change("cancel", "second")
        client.change("cancel", "first")
        until(updates, lambda delta: isinstance(delta, BatchAnnounced) and delta.batch.id == "third")
        assert [batch.id for batch in client.batches()] == ["t", "third"]
        release()  # the survey's process may still wait
        assert finished(daemon, "third").counts == {"succeeded": 1}


async def test_stages_are_looked_at_again_once_the_store_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LOOK_S", 0.01)
    started = anyio.Event()
    full = iter([True, True])
    spec = BatchSpec(symbols=("A",), start=DAY, end=DAY, window_days=1, data_root="/", workload="w", settings={})
    request = Submit(spec=spec, source="s")
    row = StagedRow(
        batch_id="s", digest="d", request=msgspec.json.encode(request), peer=None, submitted_at=0.0, output_dir="/"
    )

    class Admission:
        async def submit(self, *_: object) -> None:
            if next(full, False):
                raise Draining

    class Rows:
        def rows(self) -> list[StagedRow]:
            return [row]

        def row(self, batch_id: str) -> StagedRow:
            return row

        def hold(self, batch_id: str, why: str) -> None:
            raise StoreFull(path="state.db", cause="no space")

        def remove(self, batch_id: str) -> None:
            started.set()

    runtime = cast(Runtime, SimpleNamespace(store=SimpleNamespace(staged=Rows()), supervisor=None))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stages.Stages(runtime, cast(Any, Admission()), lambda: None).run)
        with anyio.fail_after(PATIENCE_S):
            await started.wait()
        tasks.cancel_scope.cancel()
