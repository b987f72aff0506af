"""The devices that windows may use here, and the slots on each: discovery's GPUs, narrowed by the configuration."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gpusched.config import Config, Slots
from gpusched.core.estimates import Estimate
from gpusched.core.memory import LARGEST_SHARE, LEAST_DEVICE_BYTES
from gpusched.core.model import BatchSpec, Device, DeviceChoice, DeviceType
from gpusched.core.placement import suits, type_on
from gpusched.devices import processors
from gpusched.devices.kind import Discovery, Note
from gpusched.devices.naming import Selected, select, slots_by_device
from gpusched.devices.nvidia.gpus import look
from gpusched.devices.processors import Machine
from gpusched.errors import ConfigError

#: GPU memory that one slot is assumed to need until windows have been observed
BYTES_PER_SLOT = 1 << 30
#: most slots of a GPU that tuning may try: for each core of the GPU's share, and in all
TUNED_SHARE, MOST_SLOTS = 2, 64
#: CPU slots beyond one for each core, with `auto`: while a window waits for the disk, another one keeps the core busy
SPARE_SLOTS = 1


class NoDevice(ConfigError):
    problem = "no {wanted} device can be used here: {why}"
    remedy = "run `gpusched doctor` to see what is missing, or give --device cpu"


class PoolPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Devices with their slots, and sentences for people about GPUs that are missing or limited."""

    devices: tuple[Device, ...]
    notes: tuple[Note, ...]
    #: cores that this process may use
    cores: int

    @property
    def gpus(self) -> tuple[str, ...]:
        """The ids of the GPUs among the devices."""
        return tuple(device.id for device in self.devices if device.kind != "host")

    def device_types(self, wanted: DeviceChoice) -> tuple[DeviceType, ...]:
        """The LightGBM device types that a batch which asks for `wanted` may be trained on; empty: none."""
        suitable = [device for device in self.devices if suits(device, wanted)]
        return tuple(sorted({type_on(device, wanted) for device in suitable}))

    def slots(self, wanted: DeviceChoice) -> int:
        """The number of slots that a batch which asks for `wanted` may use."""
        return sum(device.tuned_from or device.capacity for device in self.devices if suits(device, wanted))

    def too_many_threads(self, spec: BatchSpec) -> str | None:
        """A warning if the settings give LightGBM more threads than a slot's share of the cores, or None.

        Many windows at once, each with as many threads as there are cores, take a hundred times as long.
        """
        lightgbm = spec.settings.get("lightgbm")
        threads = lightgbm.get("num_threads") if isinstance(lightgbm, dict) else None
        shares = [device.threads for device in self.devices if suits(device, spec.device)]
        if not isinstance(threads, int) or not shares or threads <= min(shares):
            return None
        share = min(shares)
        return (
            f"lightgbm.num_threads (n_jobs) = {threads} is beyond a slot's share of the cores, {share} of {self.cores}:"
            " windows will wait for each other; leave it out, and each window uses its share"
        )

    def require(self, wanted: DeviceChoice) -> None:
        """Raise `NoDevice` unless a batch that asks for `wanted` can be trained here."""
        if not self.device_types(wanted):
            raise NoDevice(
                wanted="GPU" if wanted == "auto" else wanted, why="; ".join(map(str, self.notes)) or "no GPU was found"
            )


class PoolRules(msgspec.Struct, frozen=True):
    """The settings that decide about the devices of a pool and their slots."""

    config: Config
    #: the device that a run's one batch asks for
    wanted: DeviceChoice = "auto"
    #: the limit of a run's one batch; 0: none
    workers: int = 0
    #: the costs of earlier windows: they tell how many `auto` slots fit into the memory of a GPU
    learned: tuple[Estimate, ...] = ()

    def find(self) -> Selected:
        """Look for the GPUs that the operator's mask and the configuration allow. May block for seconds."""
        return self.select(look(self.wanted))

    def select(self, discovered: Discovery) -> Selected:
        """The discovered GPUs that `devices.include` and `devices.exclude` allow."""
        if not discovered.devices:
            return Selected((), discovered.notes)
        settings = self.config.devices
        selected = select(discovered.devices, settings.include, settings.exclude)
        return Selected(selected.devices, discovered.notes + selected.notes)

    def pool(self, selected: Selected, machine: Machine | None = None) -> PoolPlan:
        """Give slots to the selected GPUs and to the processors of a machine; None: this one.

        CPU slots always exist, for batches that ask for them. `auto` may use them if `devices.fallback` allows it, or
        if `devices.cpu_slots` is a number.
        """
        gpus, notes = selected.devices, selected.notes
        settings = self.config.devices
        machine = machine or processors.this_machine()
        cores = machine.cores
        own_slots: dict[str, Slots] = {}
        if gpus:
            own_slots, more = slots_by_device(settings.slots_by_device, gpus)
            notes += more
        bytes_per_slot = _bytes_per_slot(self.learned, self.config.run.workload)
        slots = [_slots(gpu, own_slots.get(gpu.id, settings.slots), cores // len(gpus), bytes_per_slot) for gpu in gpus]
        threads = max(1, cores // max(1, sum(first for first, _ in slots)))
        cpu_slots = cores + SPARE_SLOTS if settings.cpu_slots == "auto" else settings.cpu_slots
        if self.workers and not gpus:
            cpu_slots = self.workers
        offered = settings.cpu_slots != "auto" or settings.fallback == "cpu"
        with_slots = [
            msgspec.structs.replace(gpu, capacity=most, tuned_from=first if first < most else 0, threads=threads)
            for gpu, (first, most) in zip(gpus, slots, strict=True)
        ]
        cpu = processors.cpu_device(machine, cpu_slots, auto=offered)
        return PoolPlan(devices=(*with_slots, cpu), notes=notes, cores=cores)


def _slots(gpu: Device, slots: Slots, cores: int, bytes_per_slot: int) -> tuple[int, int]:
    """The number of slots used at first, and the most that tuning may use.

    With `auto`, both are limited by the GPU's memory; the first also to one slot for each core of the GPU's share
    (`cores`), the second to `TUNED_SHARE` times that. Tuning finds the best number in between while windows run.
    """
    if slots == "auto":
        by_memory = max(1, int((gpu.memory_total_bytes or bytes_per_slot) * LARGEST_SHARE) // bytes_per_slot)
        first, most = max(1, min(by_memory, cores)), min(by_memory, TUNED_SHARE * max(1, cores), MOST_SLOTS)
    else:
        first = most = slots
    # A card in exclusive mode takes one process only: its capacity is already 1.
    return (min(first, gpu.capacity), min(most, gpu.capacity)) if gpu.capacity else (first, most)


def _bytes_per_slot(learned: Iterable[Estimate], workload: str) -> int:
    """GPU memory of the largest window of the workload so far; `BYTES_PER_SLOT` if none has been measured."""
    peaks = [e.memory_max for e in learned if e.memory_count and e.workload == workload and e.device_type != "cpu"]
    return max(LEAST_DEVICE_BYTES, *peaks) if peaks else BYTES_PER_SLOT
