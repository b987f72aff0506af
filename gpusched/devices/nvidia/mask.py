"""The devices that an operator's `CUDA_VISIBLE_DEVICES` leaves to the pool. Pure; NVML is read elsewhere.

The rules are CUDA's own:

- unset: all; empty: none;
- entries are ordinals, or UUIDs that `nvidia-smi -L` shows (`GPU-…` may be cut short while it stays unique), and the
  list ends at the first entry that names no device, so `0,2,-1,1` shows 0 and 2
  (CUDA programming guide, appendix on environment variables, CUDA_VISIBLE_DEVICES);
- a number ends before its first other character (`1gpu2` is 1), the first entry decides whether the list consists of
  numbers or of UUIDs, and naming a device twice hides all devices (not documented by NVIDIA; observed and tested by
  PyTorch: `torch.cuda._parse_visible_devices` and `TestVisibleDeviceParses`).

Three rules differ on purpose, because the pool pins each process itself:

- ordinals always count in PCI order, regardless of `CUDA_DEVICE_ORDER`;
- an entry that names a GPU in MIG mode allows all of its instances, while CUDA would show a process only the first;
- a GPU that does not answer keeps its ordinal and ends no list. Otherwise its failure would give the pool a GPU that
  the mask hides, or hide those that are well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

_NUMBER = re.compile(r"[+-]?[0-9]+")
#: entries with which people (-1) or Slurm (in a job without GPUs) end a list, or hide everything, on purpose
_ON_PURPOSE = ("-1", "NoDevFiles")


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A physical GPU, with the UUIDs by which a mask can name it."""

    #: empty: the GPU does not answer
    uuid: str
    #: UUIDs of its MIG instances; None: not in MIG mode, the GPU is used as a whole
    instances: tuple[str, ...] | None = None

    @property
    def usable(self) -> tuple[str, ...]:
        if not self.uuid:
            return ()
        return (self.uuid,) if self.instances is None else self.instances


class Visible(msgspec.Struct, frozen=True, kw_only=True):
    """UUIDs of GPUs and MIG instances in the mask's order, and a sentence about a mistake in the mask."""

    uuids: tuple[str, ...]
    problem: str | None = None


def visible(mask: str | None, inventory: Sequence[Gpu]) -> Visible:
    """The devices of `inventory` (all GPUs, in PCI order) that `mask` leaves visible."""
    if mask is None:
        return Visible(uuids=tuple(uuid for gpu in inventory for uuid in gpu.usable))
    entries = [entry.strip() for entry in mask.split(",")]
    if entries == [""]:
        return Visible(uuids=())
    by_uuid = entries[0].startswith(("GPU-", "MIG-"))
    uuids: dict[str, None] = {}
    for entry in entries:
        named = _by_uuid(entry, inventory) if by_uuid else _by_ordinal(entry, inventory)
        if named is None:
            problem = None if entry in _ON_PURPOSE else f"{entry!r} names no device here, so the list ends before it"
            return Visible(uuids=tuple(uuids), problem=problem)
        if any(uuid in uuids for uuid in named):
            return Visible(uuids=(), problem=f"{entry!r} names a device for the second time, which hides all devices")
        uuids |= dict.fromkeys(named)
    return Visible(uuids=tuple(uuids))


def _by_ordinal(entry: str, inventory: Sequence[Gpu]) -> tuple[str, ...] | None:
    number = _NUMBER.match(entry)
    if number is None or not 0 <= int(number[0]) < len(inventory):
        return None
    return inventory[int(number[0])].usable


def _by_uuid(entry: str, inventory: Sequence[Gpu]) -> tuple[str, ...] | None:
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    if any(entry in (gpu.instances or ()) for gpu in inventory):
        return (entry,)
    named = [gpu for gpu in inventory if gpu.uuid.startswith(entry)]
    if not named and not all(gpu.uuid for gpu in inventory):
        return ()  # it may be the one that does not answer
    return named[0].usable if len(named) == 1 else None
