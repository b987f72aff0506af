"""The costs of windows, learned from those that have finished."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusched.core.estimates import MEMORY, Estimates, guessed_seconds, makespan, work

W = "gpusched.teacher:train_window"
MIB = 1 << 20


def test_knows_nothing_at_first() -> None:
    estimates = Estimates()
    assert estimates.seconds(W, "cpu", 100) is None
    assert estimates.memory_bytes(W, "cpu", 100) is None
    assert estimates.rows() == []


def test_keeps_mean_and_maximum() -> None:
    estimates = Estimates()
    estimates.observe(W, "gpu", 100, 1.0, 300 * MIB)
    (row,) = estimates.observe(W, "gpu", 120, 2.0, 500 * MIB)
    assert (row.count, row.rows_mean, row.seconds_mean, row.seconds_max) == (2, 110.0, 1.5, 2.0)
    assert (row.memory_count, row.memory_mean, row.memory_max) == (2, 400.0 * MIB, 500 * MIB)
    assert estimates.rows() == [row]


def test_scales_seconds_within_and_beyond_a_bucket() -> None:
    estimates = Estimates()
    estimates.observe(W, "cpu", 100, 1.0, None)
    assert estimates.seconds(W, "cpu", 100) == pytest.approx(1.0)
    assert estimates.seconds(W, "cpu", 120) == pytest.approx(1.2)
    assert estimates.seconds(W, "cpu", 9000) == pytest.approx(90.0)
    assert estimates.seconds(W, "cpu", 10) == pytest.approx(0.1)


def test_answers_from_the_nearest_bucket() -> None:
    estimates = Estimates()
    estimates.observe(W, "cpu", 100, 1.0, None)
    estimates.observe(W, "cpu", 10_000, 20.0, None)
    assert estimates.seconds(W, "cpu", 200) == pytest.approx(2.0)
    assert estimates.seconds(W, "cpu", 8000) == pytest.approx(16.0)


def test_memory_is_scaled_up_but_never_down() -> None:
    estimates = Estimates()
    estimates.observe(W, "gpu", 1000, 1.0, 400 * MIB)
    assert estimates.memory_bytes(W, "gpu", 1000) == 400 * MIB
    assert estimates.memory_bytes(W, "gpu", 10) == 400 * MIB
    assert estimates.memory_bytes(W, "gpu", 2000) == 800 * MIB


def test_memory_may_be_unknown() -> None:
    estimates = Estimates()
    estimates.observe(W, "gpu", 1000, 1.0, None)
    assert estimates.memory_bytes(W, "gpu", 1000) is None
    estimates.observe(W, "gpu", 8000, 1.0, 100 * MIB)
    # the nearest bucket that knows
    assert estimates.memory_bytes(W, "gpu", 1000) == 100 * MIB


def test_workloads_and_device_types_are_apart() -> None:
    estimates = Estimates()
    estimates.observe(W, "gpu", 100, 1.0, MIB)
    assert estimates.seconds(W, "cpu", 100) is None
    assert estimates.seconds("other:work", "gpu", 100) is None


def test_follows_a_workload_that_changes() -> None:
    estimates = Estimates()
    for _ in range(10 * MEMORY):
        estimates.observe(W, "cpu", 100, 1.0, None)
    for _ in range(3 * MEMORY):
        estimates.observe(W, "cpu", 100, 3.0, None)
    seconds = estimates.seconds(W, "cpu", 100)
    assert seconds is not None
    assert 2.8 < seconds <= 3.0


observations = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["cpu", "gpu", "cuda"]),
        st.integers(0, 10**7),
        st.floats(0, 1e5),
        st.none() | st.integers(0, 1 << 40),
    ),
    max_size=30,
)


@given(observations, st.integers(0, 10**9))
def test_what_is_kept_answers_as_before(seen: list[tuple[str, str, int, float, int | None]], rows: int) -> None:
    estimates = Estimates()
    kept = {}
    for workload, device_type, seen_rows, seconds, memory in seen:
        (row,) = estimates.observe(workload, device_type, seen_rows, seconds, memory)  # type: ignore[arg-type]
        kept[row.workload, row.device_type, row.bucket] = row
    assert sorted(map(repr, kept.values())) == sorted(map(repr, estimates.rows()))
    again = Estimates(kept.values())
    for workload in "ab":
        for device_type in ("cpu", "gpu", "cuda"):
            expected = estimates.seconds(workload, device_type, rows)  # type: ignore[arg-type]
            assert again.seconds(workload, device_type, rows) == expected  # type: ignore[arg-type]
            assert expected is None or expected >= 0
            memory = estimates.memory_bytes(workload, device_type, rows)  # type: ignore[arg-type]
            assert again.memory_bytes(workload, device_type, rows) == memory  # type: ignore[arg-type]


# -- the time that a batch takes ---------------------------------------------------------------------------------------


def test_a_guess_grows_with_the_rows() -> None:
    assert 0 < guessed_seconds(0) < guessed_seconds(100) < guessed_seconds(9000)


def test_the_longest_window_goes_first() -> None:
    assert makespan([], 2) == 0.0
    assert makespan([1.0, 1.0, 1.0, 3.0], 2) == 3.0
    assert makespan([2.0, 3.0], 1) == 5.0
    assert makespan([2.0, 3.0], 8) == 3.0


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=60), st.integers(1, 8))
def test_the_makespan_stays_within_grahams_bound(seconds: list[float], slots: int) -> None:
    least = max(sum(seconds) / slots, max(seconds))
    assert least * 0.999 <= makespan(seconds, slots) <= sum(seconds) * 1.001
    # Graham, 1969: whatever the order, the end is within one window of a perfect balance.
    assert makespan(seconds, slots) <= sum(seconds) / slots + max(seconds)


def test_a_point_of_a_sweep_is_known_by_itself_and_else_by_its_workload() -> None:
    estimates = Estimates()
    many, few, other = (work(W, point) for point in ("num_leaves=255", "num_leaves=15", "num_leaves=31"))
    assert (work(W, ""), many) == (W, f"{W} num_leaves=255")
    kept = {row.workload: row for row in estimates.observe(many, "gpu", 1000, 8.0, 800 * MIB)}
    assert [(row.workload, row.is_of_a_point) for row in kept.values()] == [(many, True), (W, False)]
    kept |= {row.workload: row for row in estimates.observe(few, "gpu", 1000, 2.0, 200 * MIB)}
    assert Estimates(kept.values()).seconds(many, "gpu", 1000) == 8.0
    assert [estimates.seconds(one, "gpu", 1000) for one in (many, few, other, W)] == [8.0, 2.0, 5.0, 5.0]
    assert estimates.memory_bytes(few, "gpu", 1000) == 200 * MIB
    assert estimates.memory_bytes(other, "gpu", 1000) == 800 * MIB, "of an unknown point the most that any took"
    estimates.observe_host_memory(few, "gpu", 1000, 100 * MIB)
    assert estimates.host_memory_bytes(few, "gpu", 1000) == estimates.host_memory_bytes(other, "gpu", 1000) == 100 * MIB
    assert [one.workload for one in estimates.rows()] == [W]


def test_the_earliest_points_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusched.core.estimates.MOST_POINTS", 2)
    estimates = Estimates()
    for number in range(3):
        estimates.observe(work(W, f"x={number}"), "cpu", 100, float(number + 1), None)
    assert [estimates.seconds(work(W, f"x={number}"), "cpu", 100) for number in range(3)] == [2.0, 2.0, 3.0]
