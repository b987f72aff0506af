"""How often the inventory looks for GPUs, with no driver, a slow one, and one that Linux tells of first."""

from __future__ import annotations

import itertools
from pathlib import Path

from gpusched.devices.kind import Discovery, Note
from gpusched.devices.nvidia import inventory
from gpusched.devices.nvidia.inventory import Inventory


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def looks(tmp_path: Path, clock: Clock, *found: Discovery) -> tuple[Inventory, list[float]]:
    """An inventory that finds these one after the other, and when it looked."""
    at: list[float] = []
    rest = list(found)

    def look() -> Discovery:
        at.append(clock())
        return rest.pop(0) if len(rest) > 1 else rest[0]

    return Inventory(look, Discovery(devices=(), notes=()), root=tmp_path, clock=clock), at


def test_where_there_is_no_driver_it_looks_more_and_more_rarely(tmp_path: Path) -> None:
    clock = Clock()
    found, at = looks(tmp_path, clock, Discovery(devices=(), notes=()))
    for _ in range(5000):
        clock.at += 1.0
        assert found.news() is None
    gaps = [round(b - a) for a, b in itertools.pairwise(at)]
    assert gaps[:6] == [10, 20, 40, 80, 160, 300]
    assert set(gaps[6:]) == {300}
    assert inventory.RARE_LOOK_S == 300


def test_a_slow_driver_is_left_alone(tmp_path: Path) -> None:
    clock = Clock()

    def look() -> Discovery:
        clock.at += 3.0
        return Discovery(devices=(), notes=(Note("slow"),), complete=True)

    found = Inventory(look, Discovery(devices=(), notes=()), root=tmp_path, clock=clock)
    clock.at = 5.0
    assert found.news() is not None
    clock.at += 29.0
    assert found.news() is None
    assert clock.at == 37.0


def test_linux_tells_of_a_driver_without_nvml(tmp_path: Path) -> None:
    clock = Clock()
    found, at = looks(tmp_path, clock, Discovery(devices=(), notes=(Note("here"),), complete=True))
    assert not found.changed_for_linux()
    assert found.news() is None
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    assert found.changed_for_linux()
    assert not found.changed_for_linux()
    assert found.news() is not None
    assert at == [0.0]
