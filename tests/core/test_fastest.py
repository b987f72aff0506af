"""Which device type has a batch done first, from the seconds of a window on each."""

from __future__ import annotations

import msgspec
import pytest

from gpusched.core import fastest
from gpusched.core.estimates import Estimates, bucket_of
from gpusched.core.fastest import Kind, Load, Timing
from gpusched.core.model import Device, DeviceType
from tests.core.support import cpu, planned

CORES = Kind(device_type="cpu", model="EPYC", devices=16, slots=16)
CARDS = Kind(device_type="cuda", model="A6000", devices=2, slots=16)


def windows(count: int, rows: int = 90) -> Load:
    return fastest.load([planned(f"S{number}", rows) for number in range(count)])


def timing(kind: Kind, seconds: float, rows: int = 90, *, at_least: bool = False) -> Timing:
    return Timing(
        workload="w:train",
        settings="s",
        model=kind.model,
        device_type=kind.device_type,
        bucket=bucket_of(rows),
        rows=rows,
        seconds=seconds,
        at_least=at_least,
    )


def test_says_what_each_takes_and_what_it_came_to() -> None:
    found = {CORES: timing(CORES, 0.25), CARDS: timing(CARDS, 1.75)}
    choice = fastest.fastest(windows(256), (CORES, CARDS), found)
    assert choice.device == "cpu"
    assert choice.reason == (
        "CPU: 4 s on 16 cores; CUDA: 28 s on 2 GPUs; both: 3.5 s. Training on the CPU; --device cuda to insist"
    )
    on_cpu, on_gpus = choice.expected
    assert (on_cpu.device_type, on_cpu.devices, round(on_cpu.seconds, 6)) == ("cpu", 16, 4.0)
    assert (on_gpus.device_type, on_gpus.devices, round(on_gpus.seconds, 6)) == ("cuda", 2, 28.0)
    assert fastest.is_certain(choice, (CORES, CARDS))


def test_the_gpus_win_where_windows_are_large() -> None:
    found = {CORES: timing(CORES, 600, 9000), CARDS: timing(CARDS, 300, 9000)}
    choice = fastest.fastest(windows(252, 9000), (CORES, CARDS), found)
    assert choice.device == "cuda"
    assert choice.reason.endswith(". Training on the GPUs with CUDA; --device cpu to insist")
    assert choice.reason.startswith("CPU: 2.7 h on 16 cores; CUDA: 80 min on 2 GPUs; both: ")


def test_a_lower_bound_that_is_beyond_the_other_is_certain_and_said() -> None:
    found = {CORES: timing(CORES, 0.02), CARDS: timing(CARDS, 0.5, at_least=True)}
    choice = fastest.fastest(windows(252), (CORES, CARDS), found)
    assert (choice.device, choice.mixed_seconds) == ("cpu", None)
    assert "; CUDA: over 8 s on 2 GPUs. Training on the CPU" in choice.reason
    assert fastest.is_certain(choice, (CORES, CARDS))
    # of few windows it is not: a window of more than half a second may take 0.6 s, as many do on the processors
    few = fastest.fastest(windows(8), (CORES, CARDS), {CORES: timing(CORES, 0.6), CARDS: found[CARDS]})
    assert few.device == "cpu"
    assert not fastest.is_certain(few, (CORES, CARDS))


def test_what_is_not_known_of_is_not_certain() -> None:
    choice = fastest.fastest(windows(8), (CORES, CARDS), {CORES: timing(CORES, 0.02)}, pending=2)
    assert (
        choice.reason
        == "CPU: 0.02 s on 16 cores; 2 GPUs are still being tried. Training on the CPU; --device mixed waits for them"
    )
    assert not fastest.is_certain(choice, (CORES, CARDS))
    nothing = fastest.fastest(windows(8), (CORES, CARDS), {})
    assert (nothing.device, nothing.reason) == ("cuda", "Training on the GPUs with CUDA")
    only_bounds = fastest.fastest(windows(8), (CORES, CARDS), {CORES: timing(CORES, 10, at_least=True)})
    assert only_bounds.device == "cuda"


def test_windows_of_other_sizes_count_for_their_rows() -> None:
    many = fastest.load([planned(f"S{number}", 90 if number else 9000) for number in range(101)])
    (one,) = fastest.expected(many, (CORES,), {CORES: timing(CORES, 0.09)})
    assert one.seconds == pytest.approx(9.0)  # the large one alone


@pytest.mark.parametrize(
    ("rows", "medium"),
    [([5], 5), ([1, 1, 1, 1], 1), ([10, 10, 10, 500], 500), ([90] * 9 + [100], 90), ([4, 3, 2], 3), ([0, 0], 0)],
)
def test_the_typical_window_has_half_of_all_rows_above_it(rows: list[int], medium: int) -> None:
    some = [planned(f"S{number}", count) for number, count in enumerate(rows)]
    assert fastest.load(some).typical.usable_rows == medium


@pytest.mark.parametrize(
    ("count", "best_s", "patience"),
    [
        (16, None, 0.5),  # as long as the batch itself: half a second
        (256, None, 10.0),
        (256, 1.6, 0.5),
        (256, 32.0, 2.0),  # 16 windows after each other: more than 2 s each, and 32 s are over
        (256, 1e6, 10.0),
    ],
)
def test_a_timing_ends_when_it_cannot_win_any_more(count: int, best_s: float | None, patience: float) -> None:
    assert fastest.patience_s(windows(count), CARDS, best_s) == pytest.approx(patience)


@pytest.mark.parametrize(("best_s", "patience"), [(0.1, 0.5), (8.0, 2.0), (1e6, 10.0)])
def test_a_trial_is_waited_for_through_a_quarter_of_the_batch(best_s: float, patience: float) -> None:
    assert fastest.trial_patience_s(best_s) == pytest.approx(patience)


def test_kinds_are_models_by_device_type() -> None:
    def card(number: int, model: str, slots: int, first: int = 0) -> Device:
        return Device(id=f"GPU-{number}", name=model, lightgbm_type="cuda", capacity=slots, tuned_from=first)

    devices = [card(0, "A100", 8, 4), card(1, "T4", 2), card(2, "A100", 8, 4), cpu(6)]
    assert [(k.device_type, k.model, k.devices, k.slots) for k in fastest.kinds(devices)] == [
        ("cuda", "A100", 2, 8),
        ("cuda", "T4", 1, 2),
        ("cpu", "the processors", 6, 6),
    ]
    assert [kind.slots for kind in fastest.kinds(devices, workers=3)] == [3, 2, 3]


@pytest.mark.parametrize(
    ("cores", "slots", "at_once", "times"), [(2, 3, 3, 1), (2, 3, 2, 1.5), (16, 17, 4, 17 / 16), (16, 8, 4, 1)]
)
def test_a_slot_beyond_the_cores_makes_the_processors_no_faster(
    cores: int, slots: int, at_once: int, times: float
) -> None:
    (kind,) = fastest.kinds([msgspec.structs.replace(cpu(slots), cores=cores)])
    assert (kind.devices, kind.slots) == (min(cores, slots), slots)
    assert fastest.slowdown(kind, at_once) == times


def test_how_the_slots_of_a_gpu_share_it_is_not_known() -> None:
    assert fastest.slowdown(CARDS, 4) == 1


@pytest.mark.parametrize(("times", "known"), [(7, False), (8, True)])
def test_what_windows_took_answers_where_enough_have_ended_on_each(times: int, known: bool) -> None:
    estimates = Estimates()
    types: tuple[DeviceType, ...] = ("cpu", "cuda")
    for device_type in types:
        for _ in range(times if device_type == "cuda" else 100):
            estimates.observe("w:train", device_type, 100, 2.0, None)
    found = fastest.learned(estimates, "w:train", (CORES, CARDS), 130)  # the next bucket
    assert {kind: one.seconds for kind, one in found.items()} == ({CORES: 2.0, CARDS: 2.0} if known else {})
    assert fastest.learned(estimates, "w:train", (CORES, CARDS), 4000) == {}
    assert fastest.learned(estimates, "other", (CORES,), 100) == {}


def test_timings_of_the_same_model_and_size_are_remembered() -> None:
    kept = [timing(CARDS, 1.0), timing(CORES, 2.0, 9000)]
    assert fastest.remembered(kept, (CORES, CARDS), 100) == {CARDS: kept[0]}
