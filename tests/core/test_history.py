"""The samples of a batch: nothing is left out, nothing grows without bound."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusched.core import samples
from gpusched.core.model import Reading
from gpusched.core.samples import MOST, RECENT, History, Recent, Sample


def reading(at: float, *, use: float | None = 0.5, device: str = "GPU-a", used: int = 1, total: int = 10) -> Reading:
    return Reading(
        device_id=device,
        at=at,
        utilisation=use,
        memory_total_bytes=total,
        memory_free_bytes=total - used,
        power_w=100.0,
        temperature_c=at,
    )


def test_a_short_batch_keeps_every_reading() -> None:
    history = History()
    for second in range(100):
        history.add(reading(1000.0 + second, use=second / 100, used=second % 10))
    samples = history.samples()
    assert [(s.at, s.utilisation, s.memory_used_bytes) for s in samples] == [
        (1000.0 + second, second / 100, second % 10) for second in range(100)
    ]
    assert {s.seconds for s in samples} == {1.0}


def test_a_long_batch_keeps_means_and_peaks() -> None:
    history = History()
    for second in range(MOST + 1):
        history.add(reading(float(second), use=second % 2, used=9 if second == 100 else 1))
    samples = history.samples()
    assert len(samples) == MOST // 2 + 1
    assert samples[0] == Sample(
        device_id="GPU-a",
        at=0.0,
        seconds=2.0,
        readings=2,
        utilisation=0.5,
        memory_used_bytes=1,
        memory_total_bytes=10,
        power_w=100.0,
        temperature_c=1.0,
    )
    assert samples[50].memory_used_bytes == 9


def test_what_is_not_told_is_not_zero() -> None:
    history = History()
    for second in range(2 * MOST):
        history.add(Reading(device_id="GPU-a", at=float(second)))
    assert {(s.utilisation, s.memory_used_bytes, s.power_w, s.temperature_c) for s in history.samples()} == {
        (None,) * 4
    }


def test_a_history_goes_on_from_what_was_kept() -> None:
    first, whole = History(), History()
    for second in range(MOST + 100):
        first.add(reading(float(second)))
        whole.add(reading(float(second)))
    again = History(first.samples())
    for second in range(MOST + 100, 2 * MOST + 200):
        again.add(reading(float(second)))
        whole.add(reading(float(second)))
    assert again.samples() == whole.samples()


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 5000), min_size=1, max_size=3000), st.sampled_from(["GPU-a", "GPU-b"]))
def test_samples_are_bounded_in_order_and_apart(pauses: list[float], device: str) -> None:
    history, at = History(), 0.0
    for pause in pauses:
        at += pause
        history.add(reading(at, device=device))
    samples = history.samples()
    assert 1 <= len(samples) <= MOST
    assert sum(s.readings for s in samples) == len(pauses)
    assert all(s.at + s.seconds <= t.at * (1 + 1e-9) for s, t in pairwise(samples))
    assert samples[-1].at <= at


def test_the_last_minutes_of_each_device() -> None:
    recent = Recent()
    for second in range(2 * RECENT + 100):
        recent.add(reading(float(second), use=second % 2, used=second % 10))
        recent.add(reading(float(second), device="GPU-b", use=None))
    mine = recent.of("GPU-a")
    assert len(mine) == RECENT
    assert (mine[-1].at, mine[-1].utilisation, mine[-1].readings) == (2.0 * RECENT + 98, 0.5, 2)
    assert mine[0].at == 100.0
    again = Recent(recent.samples())
    assert again.samples() == recent.samples()
    again.add(reading(2.0 * RECENT + 100))
    assert len(again.of("GPU-a")) == RECENT
    assert recent.of("GPU-c") == Recent().of("GPU-a")


def test_the_last_minutes_of_many_devices_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "RECENT_OF_ALL", 20)
    recent = Recent()
    for second in range(0, 40, 2):
        for device in range(4 if second > 20 else 1):
            recent.add(reading(float(second), device=f"GPU-{device}"))
    assert [len(recent.of(f"GPU-{device}")) for device in range(4)] == [5, 5, 5, 5]
