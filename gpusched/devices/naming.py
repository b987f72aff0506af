"""Which devices a person means: by UUID or its unique prefix, PCI bus id, or name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from gpusched.core.model import Device

T = TypeVar("T")

#: `00000000:41:00.0` of nvidia-smi, `0000:41:00.0` of lspci, `41:00.0`
_BUS_ID = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-7])?", re.IGNORECASE)


class Selected(msgspec.Struct, frozen=True):
    """Devices in the order of the inventory, and a sentence for each name that means none of them."""

    devices: tuple[Device, ...]
    notes: tuple[str, ...] = ()


def named(name: str, devices: Iterable[Device]) -> tuple[Device, ...]:
    """The devices that `name` means: one by its UUID, all of a card by its bus id, all of a model by its name."""
    devices = tuple(devices)
    if exact := tuple(device for device in devices if device.id == name):
        return exact
    if bus_id := _bus_id(name):
        return tuple(device for device in devices if _bus_id(device.pci_bus_id) == bus_id)
    if same_name := tuple(device for device in devices if device.name.casefold() == name.strip().casefold()):
        return same_name
    if name.startswith(("GPU-", "MIG-")):
        found = tuple(device for device in devices if device.id.startswith(name))
        return found if len(found) == 1 else ()
    return ()


def select(devices: Sequence[Device], include: Sequence[str], exclude: Sequence[str]) -> Selected:
    """Those of `devices` that `include` names (all if it names nothing), without those that `exclude` names."""
    included, missed = _union(include, devices)
    excluded, missed_too = _union(exclude, devices)
    chosen = tuple(d for d in devices if (d.id in included or not include) and d.id not in excluded)
    notes = [_unknown("devices.include", name, devices) for name in missed]
    notes += [_unknown("devices.exclude", name, devices) for name in missed_too]
    if devices and not chosen:
        notes.append("devices.include and devices.exclude leave no GPU")
    return Selected(chosen, tuple(notes))


def by_device(key: str, values: Mapping[str, T], devices: Sequence[Device]) -> tuple[dict[str, T], tuple[str, ...]]:
    """The value of each device by its id, of a table `key` by names, and notes. A UUID wins over what names several."""
    found: dict[str, tuple[int, T]] = {}
    notes = []
    for name, value in values.items():
        meant = named(name, devices)
        for device in meant:
            if device.id not in found or len(meant) < found[device.id][0]:
                found[device.id] = (len(meant), value)
        if not meant:
            notes.append(_unknown(key, name, devices))
    return {device_id: value for device_id, (_, value) in found.items()}, tuple(notes)


def _union(names: Iterable[str], devices: Sequence[Device]) -> tuple[set[str], list[str]]:
    """The ids that `names` mean, and the names that mean nothing."""
    meant = {name: named(name, devices) for name in names}
    return {d.id for found in meant.values() for d in found}, [name for name, found in meant.items() if not found]


def _unknown(key: str, name: str, devices: Sequence[Device]) -> str:
    several = [device.id for device in devices if device.id.startswith(name)] if name else []
    what = "is the beginning of several UUIDs" if len(several) > 1 else "is no GPU here"
    here = ", ".join(f"{device.id} ({device.name}, {device.pci_bus_id or 'bus unknown'})" for device in devices)
    return f"{key}: {name!r} {what}; there {'is' if len(devices) == 1 else 'are'} {here or 'none'}"


def _bus_id(text: str) -> tuple[int, int, int] | None:
    found = _BUS_ID.fullmatch(text.strip())
    return (int(found[1] or "0", 16), int(found[2], 16), int(found[3], 16)) if found else None
