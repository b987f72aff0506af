"""The driver's account of windows that have ended, through the real pynvml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gpusched.core.model import WindowKey
from gpusched.devices.kind import UNKNOWN, Accounted
from gpusched.devices.nvidia.accounting import Accountant
from gpusched.devices.nvidia.cards import discover
from gpusched.store.store import Store
from tests.devices.fake_nvml import GIB, GPU_IS_LOST, NOT_SUPPORTED, FakeNvml, uuid
from tests.supervisor.support import END, START, make_batch, plan, supervised

STATS = "nvmlDeviceGetAccountingStats"


@pytest.fixture
def accountants() -> Iterator[list[Accountant]]:
    """They are closed at the end."""
    made: list[Accountant] = []
    yield made
    for accountant in made:
        accountant.close()


def accountant(made: list[Accountant], *, patience_s: float = 10.0, sees_own_pids: bool = True) -> Accountant:
    """Of the machine that NVML shows now."""
    made.append(Accountant(discover(None).devices, patience_s=patience_s, sees_own_pids=sees_own_pids))
    return made[-1]


async def test_seconds_and_memory_of_one_that_has_ended(fake: FakeNvml, accountants: list[Accountant]) -> None:
    fake.gpus(2, accounting=1).set(1, accounted=f"122:7:7:7 123:{3 * GIB}:1500:40")
    asked = accountant(accountants)
    assert await asked.account(uuid(1), 123) == Accounted(memory_bytes=3 * GIB, seconds=0.6)
    # the driver has nothing on it, or does not know that it has ended
    assert await asked.account(uuid(1), 12) == UNKNOWN
    fake.set(1, accounted=f"123:{GIB}:0:0")
    assert await asked.account(uuid(1), 123) == Accounted(memory_bytes=GIB, seconds=None)


async def test_a_gpu_that_joins_later_counts_too(fake: FakeNvml, accountants: list[Accountant]) -> None:
    fake.gpus(1, accounting=1, accounted="*:1:1:1")
    asked = accountant(accountants)
    assert await asked.account(uuid(0), 123) == Accounted(memory_bytes=1, seconds=0.0)
    fake.gpus(2, accounting=1, accounted="*:7:1:1")
    assert await asked.account(uuid(1), 123) == UNKNOWN, "nobody has told of it"
    asked.watch(discover(None).devices)
    assert await asked.account(uuid(1), 123) == Accounted(memory_bytes=7, seconds=0.0)
    asked.watch(discover(None).devices[:1])
    assert await asked.account(uuid(1), 123) == UNKNOWN, "it has left"


async def test_the_first_gpu_in_accounting_mode_may_join_later(fake: FakeNvml, accountants: list[Accountant]) -> None:
    fake.gpus(1, accounting=0)
    asked = accountant(accountants)
    fake.gpus(1, accounting=1, accounted="*:7:1:1")
    asked.watch(discover(None).devices)
    assert await asked.account(uuid(0), 123) == Accounted(memory_bytes=7, seconds=0.0)


@pytest.mark.parametrize("error", [NOT_SUPPORTED, GPU_IS_LOST])
async def test_an_error_is_no_answer(fake: FakeNvml, accountants: list[Accountant], error: int) -> None:
    fake.gpus(1, accounting=1, accounted="*:1:1:1").fail(STATS, error)
    asked = accountant(accountants)
    assert await asked.account(uuid(0), 123) == UNKNOWN
    fake.fail(STATS, None)
    assert await asked.account(uuid(0), 123) == Accounted(memory_bytes=1, seconds=0.0)


@pytest.mark.parametrize(("accounting", "own"), [(0, True), (None, True), (1, False)])
async def test_nobody_is_asked_who_does_not_count(
    fake: FakeNvml, accountants: list[Accountant], tmp_path: Path, accounting: int | None, own: bool
) -> None:
    fake.gpus(1, accounting=accounting, accounted="*:1:1:1")
    asked = accountant(accountants, sees_own_pids=own)
    fake.write(calls=tmp_path / "calls")
    assert await asked.account(uuid(0), 123) == UNKNOWN
    assert await asked.account("cpu", 123) == UNKNOWN
    assert not (tmp_path / "calls").exists()


async def test_a_driver_that_blocks_is_waited_for_once(fake: FakeNvml, accountants: list[Accountant]) -> None:
    fake.gpus(1, accounting=1, accounted="*:1:1:1")
    block = fake.block(STATS, 0)
    asked = accountant(accountants, patience_s=0.05)
    assert await asked.account(uuid(0), 123) == UNKNOWN
    block.entered()
    block.release()
    assert await asked.account(uuid(0), 123) == UNKNOWN


async def test_windows_have_it_in_the_store_and_the_next_ones_are_placed_by_it(
    fake: FakeNvml, accountants: list[Accountant], tmp_path: Path
) -> None:
    fake.gpus(1, accounting=1, accounted=f"*:{2 * GIB}:500:50")
    (found,) = discover(None, lightgbm_type="cuda").devices
    devices = (msgspec.structs.replace(found, capacity=2),)
    store = Store.open(tmp_path / "state" / "state.db")
    workload = "tests.devices.workloads:until_told"  # and nothing is there to wait for
    async with supervised(tmp_path, devices=devices, store=store, accountant=accountant(accountants)) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, workload), plan(2))
        await bench.finished()
        await bench.supervisor.committed()
        for number in range(2):
            (attempt,) = store.attempts(WindowKey("b", f"S{number}_{START}_to_{END}"))
            assert attempt.usage is not None
            assert (attempt.usage.device_memory_bytes, attempt.usage.device_seconds) == (2 * GIB, 0.25)
        (learned,) = store.learned()
        assert learned.memory_max == 2 * GIB
