"""NVIDIA's GPUs as a kind of device: discovery, pinning, readings, and the driver's account of processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from gpusched.core.model import Device, DeviceChoice, DeviceType
from gpusched.devices.kind import Accounted, Discovery, Reported, Seen
from gpusched.devices.nvidia.accounting import Accountant
from gpusched.devices.nvidia.cards import discover
from gpusched.devices.nvidia.inventory import Inventory
from gpusched.devices.nvidia.sampler import Sampler


def look(wanted: DeviceChoice = "auto") -> Discovery:
    """Find the GPUs that the operator's mask allows, for batches which ask for `wanted`. May block for seconds."""
    if wanted == "cpu":
        return Discovery(devices=(), notes=())
    # The warm-up finds the real one.
    presumed: DeviceType = "cuda" if wanted == "cuda" else "gpu"
    return discover(os.environ.get("CUDA_VISIBLE_DEVICES"), lightgbm_type=presumed)


class Gpus:
    """See `gpusched.devices.kind.Kind`. `discovery`: the GPUs at the start; where there are none, later ones are seen
    only if `standing`. `windows` are the PIDs of our windows at any time.
    """

    def __init__(self, discovery: Discovery, *, standing: bool = False, windows: Collection[int] = ()) -> None:
        self.accountant = Accountant(discovery.devices)
        inventory = Inventory(look, discovery) if standing or discovery.devices else None
        self.sampler = Sampler(discovery.devices, inventory=inventory, windows=windows)

    def environment(self, device: Device) -> dict[str, str | None]:
        return {"CUDA_VISIBLE_DEVICES": device.id, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

    def watch(self, devices: Iterable[Device]) -> None:
        devices = tuple(devices)
        self.sampler.watch(device.id for device in devices)
        self.accountant.watch(devices)

    async def run(self, post: Callable[[Reported], None], notice: Callable[[Seen], None]) -> None:
        await self.sampler.run(post, notice)

    def counts(self, device: Device) -> bool:
        return self.accountant.counts(device.id)

    async def account(self, device: Device, pid: int) -> Accounted:
        return await self.accountant.account(device.id, pid)

    def close(self) -> None:
        self.accountant.close()
