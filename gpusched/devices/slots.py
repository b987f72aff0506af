"""The devices that windows may use here and the slots on each: what discovery found, as the configuration wants it."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from gpusched.config import Config, Slots
from gpusched.core.estimates import Estimate
from gpusched.core.memory import LARGEST_SHARE, LEAST_DEVICE_BYTES
from gpusched.core.model import CPU, BatchSpec, Device, DeviceChoice, DeviceType
from gpusched.core.placement import suits, type_on
from gpusched.devices import discovery as discovery
from gpusched.devices.naming import Selected, by_device, select
from gpusched.errors import ConfigError

#: memory that a GPU slot is worth, as long as nothing has been learned about windows
BYTES_PER_SLOT = 1 << 30
#: slots that tuning may try, in cores of the GPU's share, and in all
TUNED_SHARE, MOST_SLOTS = 2, 64


class NoDevice(ConfigError):
    problem = "no {wanted} device can be used here: {why}"
    remedy = "run `gpusched doctor` to see what is missing, or give --device cpu"


class PoolPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Devices with their slots, and sentences for people about what was found."""

    devices: tuple[Device, ...]
    notes: tuple[str, ...]
    #: cores that this process may use
    cores: int

    @property
    def gpus(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(device.id for device in self.devices if device.id != CPU)

    def device_types(self, wanted: DeviceChoice) -> tuple[DeviceType, ...]:
        """The LightGBM device types that a batch which asks for `wanted` may be trained on; empty: none."""
        suitable = [device for device in self.devices if suits(device, wanted)]
        return tuple(sorted({type_on(device, wanted) for device in suitable}))

    def slots(self, wanted: DeviceChoice) -> int:
        """Slots that a batch which asks for `wanted` may use."""
        return sum(device.tuned_from or device.capacity for device in self.devices if suits(device, wanted))

    def too_many_threads(self, spec: BatchSpec) -> str | None:
        """A sentence if LightGBM is told to use more threads than a slot's share of the cores.

        Many windows at once, each with as many threads as there are cores, take a hundred times as long.
        """
        lightgbm = spec.settings.get("lightgbm")
        asked = lightgbm.get("num_threads") if isinstance(lightgbm, dict) else None
        shares = [device.threads for device in self.devices if suits(device, spec.device)]
        if not isinstance(asked, int) or not shares or asked <= min(shares):
            return None
        share = min(shares)
        return (
            f"lightgbm.num_threads (n_jobs) = {asked} is beyond a slot's share of the cores, {share} of {self.cores}:"
            " windows will wait for each other; leave it out, and each window uses its share"
        )

    def require(self, wanted: DeviceChoice) -> None:
        """Raise NoDevice unless a batch that asks for `wanted` can be trained here."""
        if not self.device_types(wanted):
            raise NoDevice(
                wanted="GPU" if wanted == "auto" else wanted, why="; ".join(self.notes) or "no GPU was found"
            )


def find_gpus(config: Config, wanted: DeviceChoice = "auto") -> Selected:
    """The GPUs here that the operator's mask and the configuration leave, and sentences for people."""
    return choose(config, look(wanted))


def look(wanted: DeviceChoice = "auto") -> discovery.Discovery:
    """The GPUs here that the operator's mask leaves to batches which ask for `wanted`. May block for seconds."""
    if wanted == "cpu":
        return discovery.Discovery(devices=(), notes=())
    # Until the warm-up has tried it.
    presumed: DeviceType = "cuda" if wanted == "cuda" else "gpu"
    return discovery.discover(os.environ.get("CUDA_VISIBLE_DEVICES"), device_type=presumed)


def choose(config: Config, found: discovery.Discovery) -> Selected:
    """Those of the GPUs found that `devices.include` and `devices.exclude` leave."""
    if not found.devices:
        return Selected((), found.notes)
    selected = select(found.devices, config.devices.include, config.devices.exclude)
    return Selected(selected.devices, found.notes + selected.notes)


def build_pool(config: Config, found: Selected, *, workers: int = 0, learned: Iterable[Estimate] = ()) -> PoolPlan:
    """Give slots to the GPUs that were found, and to the processors. `workers`: of the one batch of a `run`, if any.

    `learned` is what earlier windows took: where slots are `auto`, it says how many fit into the memory of a GPU.

    CPU slots are always there, for batches that ask for them; `auto` may come to them if `devices.fallback` allows it,
    or if `devices.cpu_slots` gives them a number.
    """
    gpus, notes = found.devices, found.notes
    settings = config.devices
    cores = discovery.usable_cores()
    own_slots: dict[str, Slots] = {}
    if gpus:
        own_slots, more = by_device("devices.slots_by_device", settings.slots_by_device, gpus)
        notes += more
    bytes_per_slot = _bytes_per_slot(learned, config.run.workload)
    slots = [_slots(gpu, own_slots.get(gpu.id, settings.slots), cores // len(gpus), bytes_per_slot) for gpu in gpus]
    threads = max(1, cores // max(1, sum(first for first, _ in slots)))
    cpu_slots = cores if settings.cpu_slots == "auto" else settings.cpu_slots
    if workers and not gpus:
        cpu_slots = workers
    offered = settings.cpu_slots != "auto" or settings.fallback == "cpu"
    cpu = discovery.cpu_device(cpu_slots, max(1, cores // max(1, cpu_slots)), auto=offered)
    return PoolPlan(
        devices=(
            *(
                msgspec.structs.replace(gpu, capacity=most, tuned_from=first if first < most else 0, threads=threads)
                for gpu, (first, most) in zip(gpus, slots, strict=True)
            ),
            cpu,
        ),
        notes=notes,
        cores=cores,
    )


def _slots(gpu: Device, slots: Slots, cores: int, bytes_per_slot: int) -> tuple[int, int]:
    """Slots used at first, and at most.

    `auto`: what the memory allows, but at first no more than the GPU's share of the cores can feed, and `TUNED_SHARE`
    times as many at most; which number of them does the most work is found while windows run.
    """
    if slots == "auto":
        by_memory = max(1, int((gpu.memory_total_bytes or bytes_per_slot) * LARGEST_SHARE) // bytes_per_slot)
        first, most = max(1, min(by_memory, cores)), min(by_memory, TUNED_SHARE * max(1, cores), MOST_SLOTS)
    else:
        first = most = slots
    # A card in exclusive mode says that it takes one process only.
    return (min(first, gpu.capacity), min(most, gpu.capacity)) if gpu.capacity else (first, most)


def _bytes_per_slot(learned: Iterable[Estimate], workload: str) -> int:
    """GPU memory of the largest window that was seen."""
    seen = [e.memory_max for e in learned if e.memory_count and e.workload == workload and e.device_type != "cpu"]
    return max(LEAST_DEVICE_BYTES, *seen) if seen else BYTES_PER_SLOT
