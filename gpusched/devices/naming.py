"""Find the devices that a person names: by UUID or its unique prefix, PCI bus id, or model name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gpusched.config import Slots
from gpusched.core.model import Device
from gpusched.devices.kind import Note

#: `00000000:41:00.0` as nvidia-smi writes it, `0000:41:00.0` as lspci does, or `41:00.0`
_BUS_ID = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-7])?", re.IGNORECASE)


class Selected(msgspec.Struct, frozen=True):
    """Devices in the order of the inventory, and a sentence for each name that matches none of them."""

    devices: tuple[Device, ...]
    notes: tuple[Note, ...] = ()


def named(name: str, devices: Iterable[Device]) -> tuple[Device, ...]:
    """The devices that `name` matches: one by UUID, all parts of a card by bus id, all of a model by name."""
    devices = tuple(devices)
    if exact := tuple(device for device in devices if device.id == name):
        return exact
    if bus_id := _bus_id(name):
        return tuple(device for device in devices if _bus_id(device.pci_bus_id) == bus_id)
    if same_name := tuple(device for device in devices if device.name.casefold() == name.strip().casefold()):
        return same_name
    if name.startswith(("GPU-", "MIG-")):
        matches = tuple(device for device in devices if device.id.startswith(name))
        return matches if len(matches) == 1 else ()
    return ()


def select(devices: Sequence[Device], include: Sequence[str], exclude: Sequence[str]) -> Selected:
    """The `devices` that `include` names (all if it is empty), without those that `exclude` names."""
    included, missed = _union(include, devices)
    excluded, missed_too = _union(exclude, devices)
    chosen = tuple(d for d in devices if (d.id in included or not include) and d.id not in excluded)
    notes = [_unknown("devices.include", name, devices) for name in missed]
    notes += [_unknown("devices.exclude", name, devices) for name in missed_too]
    if devices and not chosen:
        notes.append(Note("devices.include and devices.exclude leave no GPU"))
    return Selected(chosen, tuple(notes))


def slots_by_device(table: Mapping[str, Slots], devices: Sequence[Device]) -> tuple[dict[str, Slots], tuple[Note, ...]]:
    """Slots by device id, from the configuration's table by names, and notes.

    If several names match a device, the one that matches the fewest devices wins: a UUID before a model's name.
    """
    chosen: dict[str, tuple[int, Slots]] = {}
    notes = []
    for name, slots in table.items():
        matches = named(name, devices)
        for device in matches:
            if device.id not in chosen or len(matches) < chosen[device.id][0]:
                chosen[device.id] = (len(matches), slots)
        if not matches:
            notes.append(_unknown("devices.slots_by_device", name, devices))
    return {device_id: slots for device_id, (_, slots) in chosen.items()}, tuple(notes)


def _union(names: Iterable[str], devices: Sequence[Device]) -> tuple[set[str], list[str]]:
    """The ids that `names` match, and the names that match nothing."""
    by_name = {name: named(name, devices) for name in names}
    unmatched = [name for name, matches in by_name.items() if not matches]
    return {device.id for matches in by_name.values() for device in matches}, unmatched


def _unknown(key: str, name: str, devices: Sequence[Device]) -> Note:
    several = [device.id for device in devices if device.id.startswith(name)] if name else []
    problem = "is the beginning of several UUIDs" if len(several) > 1 else "is no GPU here"
    here = ", ".join(f"{device.id} ({device.name}, {device.pci_bus_id or 'bus unknown'})" for device in devices)
    return Note(f"{key}: {name!r} {problem}", f"there {'is' if len(devices) == 1 else 'are'} {here or 'none'}")


def _bus_id(text: str) -> tuple[int, int, int] | None:
    """Domain, bus and device of a PCI bus id; None if `text` is none."""
    match = _BUS_ID.fullmatch(text.strip())
    return (int(match[1] or "0", 16), int(match[2], 16), int(match[3], 16)) if match else None
