"""Stages: accepted now, started when other batches are done, whatever happens to the daemon meanwhile."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched.cli.commands.stages import BadInstant, instant, wait_for
from gpusched.core.model import BatchSpec
from gpusched.errors import InputError
from gpusched.protocol import BatchStatus
from tests.server.support import Daemon, finished

WORKLOAD = """
import json, time
from pathlib import Path
from gpusched.workload import BadParameters, Result

def teacher(task, directory, report):
    while task.symbol == "WAITS" and not Path(task.data_root, "go").exists():
        time.sleep(0.01)
    if task.symbol == "BAD" and not Path(task.data_root, "good").exists():
        raise BadParameters("told to")
    return Result(metrics={}, sample_counts={}, metadata={}, phases={})

def student(task, directory, report):
    lines = [json.loads(line) for index in task.after for line in open(index)]
    return Result(metrics={"teachers": len(lines)}, sample_counts={}, metadata={}, phases={})
"""


def test_a_stage_starts_when_its_predecessor_has_succeeded(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon")
    (tmp_path / "stage.py").write_text(WORKLOAD)

    def spec(name: str, *symbols: str) -> BatchSpec:
        return msgspec.structs.replace(daemon.spec(*symbols), workload=f"{tmp_path}:stage:{name}")

    with daemon:
        with daemon.connect() as client:

            def submit(name: str, spec: BatchSpec, **when: Any) -> BatchStatus:
                return client.submit(spec, source="s", name=name, **when).batch

            submit("t", spec("teacher", "WAITS", "A"))
            assert submit("s", spec("student", "A"), after=("t",)).held_reason == "waits until t has succeeded"
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
            with pytest.raises(InputError, match="the batch s has not been planned yet"):
                client.hold("s")
            client.cancel("late")
        daemon.kill()
        daemon.start()
        (daemon.data / "go").touch()
        assert wait_for(daemon.socket, "s")[0] == 0
        code, status = wait_for(daemon.socket, "s2")
        assert (code, status["windows"]["succeeded"]) == (0, 1)
        with daemon.connect() as client:
            assert [batch.id for batch in client.batches()] == ["t", "s", "s2"]
            assert [line.metrics for line in client.results("s2")] == [{"teachers": 3}]


def test_a_stage_is_held_after_a_failure_and_goes_on_after_a_retry(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon")
    (tmp_path / "stage.py").write_text(WORKLOAD)
    with daemon, daemon.connect() as client:
        spec = msgspec.structs.replace(daemon.spec("BAD"), workload=f"{tmp_path}:stage:teacher")
        client.submit(spec, source="s", name="t")
        finished(daemon, "t")
        assert client.submit(spec, source="s", name="s", after=("t",)).batch.state == "waiting"
        while (batch := client.batch("s").batch).state == "waiting":
            time.sleep(0.01)
        assert (batch.state, batch.held_reason) == ("held", "1 windows of t have failed")
        assert wait_for(daemon.socket, "s")[0] == wait_for(daemon.socket, "t")[0] == 1
        (daemon.data / "good").touch()
        client.retry("t")
        assert finished(daemon, "t").counts == {"succeeded": 1}
        while client.batch("s").batch.state == "held":
            time.sleep(0.01)
        assert finished(daemon, "s").counts == {"succeeded": 1}


def test_instants() -> None:
    now = time.time()
    assert instant(None) == 0.0
    assert now < instant("00:00") <= now + 86400 + 3600
    assert instant("2024-12-31T18:00+00:00") == 1735668000.0
    with pytest.raises(BadInstant):
        instant("tomorrow")
