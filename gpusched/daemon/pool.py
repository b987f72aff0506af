"""The devices that windows may use here and the slots on each: what discovery found, as the configuration wants it."""

from __future__ import annotations

import os

import msgspec

from gpusched.config import Config
from gpusched.core.model import Device, DeviceChoice, DeviceType
from gpusched.core.placement import suits
from gpusched.daemon import devices as discovery
from gpusched.errors import ConfigError

#: memory that a GPU slot is worth, as long as nothing has been learned about windows
BYTES_PER_SLOT = 1 << 30


class NoDevice(ConfigError):
    problem = "no {wanted} device can be used here: {why}"
    remedy = "run `gpusched doctor` to see what is missing, or give --device cpu"


class PoolPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Devices with their slots, and sentences for people about what was found."""

    devices: tuple[Device, ...]
    notes: tuple[str, ...]
    #: cores that this process may use
    cores: int

    def device_types(self, wanted: DeviceChoice) -> tuple[DeviceType, ...]:
        """The LightGBM device types that a batch which asks for `wanted` may be trained on; empty: none."""
        suitable = [device for device in self.devices if suits(device, wanted)]
        return tuple(sorted({device.device_type if wanted == "auto" else wanted for device in suitable}))

    def slots(self, wanted: DeviceChoice) -> int:
        """Slots that a batch which asks for `wanted` may use."""
        return sum(device.capacity for device in self.devices if suits(device, wanted))

    def require(self, wanted: DeviceChoice) -> None:
        """Raise NoDevice unless a batch that asks for `wanted` can be trained here."""
        if not self.device_types(wanted):
            raise NoDevice(
                wanted="GPU" if wanted == "auto" else wanted, why="; ".join(self.notes) or "no GPU was found"
            )


def build_pool(config: Config, *, workers: int = 0, wanted: DeviceChoice = "auto") -> PoolPlan:
    """Discover the devices and give them slots. `workers` and `wanted` are those of the one batch of a `run`, if any.

    CPU slots are always there, for batches that ask for them; batches that ask for `auto` use them if there is no GPU
    (and `devices.fallback` allows it), or if `devices.cpu_slots` gives them a number.
    """
    settings = config.devices
    cores = discovery.usable_cores()
    notes: list[str] = []
    gpus: tuple[Device, ...] = ()
    if wanted != "cpu":
        found = discovery.discover(os.environ.get("CUDA_VISIBLE_DEVICES"))
        notes += found.notes
        gpus = tuple(_with_slots(gpu, settings.slots, cores, len(found.devices)) for gpu in found.devices)
    cpu_slots = cores if settings.cpu_slots == "auto" else settings.cpu_slots
    if workers and (wanted == "cpu" or not gpus):
        cpu_slots = workers
    cpu = discovery.cpu_device(cpu_slots, max(1, cores // max(1, cpu_slots)))
    offered = settings.cpu_slots != "auto" if gpus else settings.fallback == "cpu"
    cpu = msgspec.structs.replace(cpu, auto=offered)
    return PoolPlan(devices=(*gpus, cpu), notes=tuple(notes), cores=cores)


def _with_slots(gpu: Device, slots: int | str, cores: int, gpus: int) -> Device:
    """`auto`: what the memory allows, but no more than the GPU's share of the cores can feed."""
    if slots == "auto":
        by_memory = (gpu.memory_total_bytes or BYTES_PER_SLOT) // BYTES_PER_SLOT
        capacity = max(1, min(by_memory, cores // gpus))
    else:
        capacity = int(slots)
    # A card in exclusive mode says that it takes one process only.
    capacity = min(capacity, gpu.capacity) if gpu.capacity else capacity
    return msgspec.structs.replace(gpu, capacity=capacity, threads=max(1, cores // max(1, gpus * capacity)))
