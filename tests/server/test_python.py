"""Batches from Python: `gpusched.submit` and `gpusched.Batch`, on a real daemon."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gpusched
from gpusched.client.arguments import BadArgument
from gpusched.client.batches import BadName, TheDaemons, WaitedTooLong
from gpusched.client.connection import NoDaemon
from gpusched.client.symbols import BadSymbol
from gpusched.config import BadValue, NoDates, UnknownKey
from gpusched.errors import InputError
from tests.server.support import Daemon
from tests.waiting import PATIENCE_S


def submit(daemon: Daemon, symbols: Any, **more: Any) -> gpusched.Batch:
    given: dict[str, Any] = {"socket": daemon.socket, "start": "2022-01-01", "end": dt.date(2022, 1, 30)} | more
    settings = {"data.root": daemon.data, "run.workload": "tests.server.workloads:window", "windows.days": 10}
    return gpusched.submit(symbols, settings=settings | given.pop("settings", {}), **given)


def test_a_batch_from_submission_to_results(daemon: Daemon, tmp_path: Path) -> None:
    batch = submit(daemon, ["A", "B"], output=tmp_path / "out", name="python", priority=3)
    assert (batch.id, batch.notes, repr(batch)) == ("python", (), "Batch('python')")
    ended = batch.wait(timeout=PATIENCE_S)
    assert (ended.state, ended.counts) == ("finished", {"succeeded": 6})
    assert gpusched.Batch("python", socket=daemon.socket).status().finished_at == ended.finished_at
    frame = batch.results()
    assert sorted(frame["symbol"]) == ["A"] * 3 + ["B"] * 3
    assert batch.wait().counts == ended.counts  # of a batch that is finished, it is over at once
    assert batch.cancel() == 0


def test_what_numpy_and_pandas_give_is_the_same_batch(daemon: Daemon, tmp_path: Path) -> None:
    """The values of a notebook were errors of the encoder, and a text of `after` one batch for each character."""
    first = submit(daemon, ["A", "B"], output=tmp_path / "out", settings={"workload.depth": 3}, priority=3)
    again = submit(
        daemon,
        np.array(["A", "B"]),
        start=pd.Timestamp("2022-01-01"),
        output=tmp_path / "out",
        settings={"workload.depth": np.int64(3)},
        priority=np.int64(3),
    )
    assert again.id == first.id
    second = submit(daemon, pd.Series(["C"]), params={"workload.depth": np.arange(1, 3)}, after=first.id)
    assert second.wait(timeout=PATIENCE_S).counts == {"succeeded": 6}


def test_a_batch_that_takes_long_can_be_left_and_cancelled(daemon: Daemon) -> None:
    with daemon.fifo():
        batch = submit(daemon, "FIFO1,FIFO2", name="long")
        began = time.monotonic()
        with pytest.raises(WaitedTooLong, match=r"long is not finished after 0.2 s: 6 of 6 windows are left"):
            batch.wait(timeout=0.2)
        assert time.monotonic() - began >= 0.2
        assert batch.cancel() == 6
        assert batch.wait(timeout=PATIENCE_S).counts == {"cancelled": 6}


def test_a_batch_after_another_one_is_waited_for(daemon: Daemon) -> None:
    with daemon.fifo() as release:
        first = submit(daemon, ["FIFO"], name="before")
        second = submit(daemon, ["A"], name="behind", after=[first])
        assert second.status().state == "waiting"
        with pytest.raises(WaitedTooLong):
            second.wait(timeout=0.1)
        for _ in range(3):
            release()
        assert second.wait(timeout=PATIENCE_S).counts == {"succeeded": 3}


def test_a_batch_that_is_not_to_start_yet(daemon: Daemon) -> None:
    moment = dt.datetime.fromtimestamp(time.time() + 3600).astimezone()  # with that hour's offset from UTC
    waits = submit(daemon, ["A"], name="later", not_before=moment).status().waits
    assert waits == f"until {moment:%Y-%m-%d %H:%M:%S%z}"
    assert submit(daemon, ["A"], not_before=moment - dt.timedelta(days=1)).wait(timeout=PATIENCE_S).state == "finished"


def test_the_symbols_may_be_a_file(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("A\nA\n")
    batch = submit(daemon, tmp_path / "few.txt")
    assert batch.id.startswith("few-")
    note, *_ = batch.notes
    assert "named twice" in note
    assert batch.wait(timeout=PATIENCE_S).state == "finished"


@pytest.mark.parametrize(
    ("kind", "match", "more"),
    [
        (UnknownKey, r"settings\['labels.horizen'\]: there is no setting", {"settings": {"labels.horizen": 3}}),
        (BadValue, r"settings\['labels.horizon'\]: .*: it is a setting of gpus", {"settings": {"labels.horizon": 3}}),
        (BadValue, "it is a setting of commands", {"settings": {"command.line": "true"}}),
        (TheDaemons, "daemon.keep_days is the daemon's own", {"settings": {"daemon.keep_days": 3}}),
        (NoDates, "no end date", {"end": None}),
        (BadName, "'a b' cannot name a batch", {"name": "a b"}),
        (BadArgument, "only_if: expected 'succeeded' or 'finished', got 'sometimes'", {"only_if": "sometimes"}),
        (BadValue, "expected a number, a text, a list or a table", {"settings": {"workload.depth": object()}}),
        (NoDaemon, "no daemon answers", {"socket": "/nowhere/s"}),
        (InputError, "/nowhere", {"settings": {"data.root": "/nowhere"}}),
    ],
)
def test_errors_are_those_of_the_commands(daemon: Daemon, kind: type, match: str, more: dict[str, Any]) -> None:
    with pytest.raises(kind, match=match):
        submit(daemon, ["A"], **more)


def test_a_symbol_that_cannot_be_one(daemon: Daemon) -> None:
    with pytest.raises(BadSymbol, match="'A B' cannot be a symbol"):
        submit(daemon, ["A B"])


def test_a_batch_that_is_not_there(daemon: Daemon) -> None:
    with pytest.raises(InputError, match="nothing"):
        gpusched.Batch("nothing", socket=daemon.socket).wait()


def test_a_sweep_is_a_batch_of_every_combination(daemon: Daemon) -> None:
    batch = submit(daemon, ["A"], name="sweep", params={"workload.depth": [3, 5], "workload.rate": [0.5, 1.0]})
    assert batch.wait(timeout=PATIENCE_S).counts == {"succeeded": 12}
    frame = batch.results()
    swept = sorted(set(zip(frame["workload.depth"], frame["workload.rate"], strict=True)))
    assert swept == [(3, 0.5), (3, 1.0), (5, 0.5), (5, 1.0)]
    few = submit(daemon, ["A"], params=[{"workload.depth": 3, "workload.rate": 2.0}])
    assert few.wait(timeout=PATIENCE_S).counts == {"succeeded": 3}
