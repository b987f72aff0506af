"""Reports that the tests draw."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gpusched.analysis.content import Report
from gpusched.core.model import BatchSpec, Slot, WindowKey, WindowResult, window_label
from gpusched.core.samples import Sample
from gpusched.protocol import AttemptLine, BatchStatus, WindowLine

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
START = dt.date(2022, 1, 1)


def line(number: int, status: str = "succeeded", reason: str | None = None, symbol: str = "") -> WindowLine:
    symbol, start = symbol or f"S{number % 3}", START + dt.timedelta(10 * (number // 3))
    end, trained = start + dt.timedelta(9), status == "succeeded"
    result = WindowResult(
        artifacts_path="",
        metrics={"validation": {"auc": number / 10, "f1": None}},
        sample_counts={},
        fingerprint=None,
        device_type="gpu",
        device="GPU-1",
        phases={"load": 0.1, "boosting": 0.3},
        seconds=0.5,
    )
    return WindowLine(
        key=WindowKey("mine", window_label(symbol, start, end)),
        symbol=symbol,
        start=start,
        end=end,
        status=status,
        moved_at=1001.0 + number,
        usable_rows=90,
        attempts=1,
        slot=Slot(number % 2, "GPU-1"),
        started_at=1000.0 + number,
        ended_at=1000.5 + number,
        why=reason,
        result=result if trained else None,
        seconds=0.5,
    )


def with_result(one: WindowLine, **changes: Any) -> WindowLine:
    """The line of a window that was trained, with another result."""
    assert one.result is not None
    return msgspec.structs.replace(one, result=msgspec.structs.replace(one.result, **changes))


def report(
    results: list[WindowLine],
    *,
    metric: str | None = None,
    batch_id: str = "mine",
    read: Iterable[int] = range(5),
    retried: Sequence[tuple[str, AttemptLine]] = (),
) -> Report:
    counts: dict[str, int] = {}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    return Report(
        batch=BatchStatus(
            id=batch_id,
            output_dir="/out",
            submitted_at=999.0,
            state="finished",
            held_reason=None,
            finished_at=1020.0,
            counts=counts,
        ),
        spec=BatchSpec(
            symbols=("S0", "M&M"),
            start=START,
            end=START,
            window_days=10,
            data_root="/data",
            workload="w:f",
            settings={"lightgbm": {"num_leaves": 7}},
        ),
        results=results,
        samples=[
            Sample(
                device_id="GPU-1",
                at=1000.0 + second,
                seconds=1.0,
                readings=1,
                utilisation=0.5,
                memory_used_bytes=2**30,
                memory_total_bytes=2**33,
                power_w=None,
                temperature_c=None,
            )
            for second in read
        ],
        retried=retried,
        versions={"gpusched": "0.1.0", "lightgbm": "4.6.0"},
        metric=metric,
    )


RESULTS = [
    *(line(number) for number in range(6)),
    line(6, "failed", "raised: ValueError: no"),
    line(7, "skipped", "too few rows: 3 of the 20 that are needed"),
]


def many(windows: int) -> Report:
    """A batch of real size: long labels, all metrics, a failure in fifty."""
    chance = random.Random(1)
    lines = []
    for number in range(windows):
        status, reason = ("succeeded", None) if number % 50 else ("failed", "raised: " * 20)
        one = line(3 * (number // 700), status, reason, symbol=f"SYMBOL{number % 700}")
        one = msgspec.structs.replace(one, started_at=1000.0 + number, ended_at=1000.5 + number)
        scores = {name: chance.random() for name in ("accuracy", "precision", "recall", "f1", "auc")}
        counts = {"usable": 120, "train": 90, "validation": 24}
        metrics = {"train": scores, "validation": scores}
        phases = {name: chance.random() for name in ("load", "features", "dataset", "boosting", "metrics", "artifacts")}
        place = f"/srv/research/gpusched-runs/symbols-3f2a/{one.key.label}"
        if number % 50:
            one = with_result(one, metrics=metrics, sample_counts=counts, phases=phases, artifacts_path=place)
        lines.append(one)
    return report(lines, read=range(512))
