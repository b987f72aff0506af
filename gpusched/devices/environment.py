"""The environment variables that pin a process to a device, and cap its threads."""

from __future__ import annotations

from gpusched.core.model import Device
from gpusched.worker.threads import capped


def environment(device: Device) -> dict[str, str | None]:
    """The environment variables that pin a process to `device`, and limit it to the device's share of the cores."""
    return {**pinning(device), **capped(device.threads)}


def pinning(device: Device) -> dict[str, str | None]:
    """The environment variables that make `device` the only one that a process sees, as CUDA's device 0."""
    if device.kind == "host":
        return {"CUDA_VISIBLE_DEVICES": ""}
    return {"CUDA_VISIBLE_DEVICES": device.id, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
