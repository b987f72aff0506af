"""Placement: the reasons against giving a window to a device, and the order of the devices without any.

A rule answers a device and the demand of a window with the reason against that device, in words for people, or with
None. The window gets the device with the least `score` among those against which no rule has a reason; the same
reasons are what `gpusched explain` shows. To change a rule, read this module and `gpusched.core.ledger`, which has what
is known of a device; a new rule goes into `NEEDS`, or into `STANDING` if it does not depend on the demand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import msgspec

from gpusched.core.ledger import DeviceState
from gpusched.core.memory import NOTHING, Need
from gpusched.core.model import Device, DeviceChoice, DeviceType


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """The needs of a window of a device."""

    wanted: DeviceChoice
    #: of the device's own memory
    device: Need = NOTHING
    #: of the memory of the device's host
    host: Need = NOTHING


#: a sort key, the smaller the better; its last item, a slot index, belongs to one device only
Score = tuple[float, int, float, int]


def score(state: DeviceState) -> Score:
    """Fewest allocated slots relative to the width, most free memory net of reservations, least used, lowest slot.

    The device must have a free slot.
    """
    return (
        len(state.allocations) / state.width,
        -(state.memory.free_bytes() or 0),
        state.utilisation,
        state.next,
    )


# -- rules -------------------------------------------------------------------------------------------------------------


def unsuitable(state: DeviceState, demand: Demand) -> str | None:
    if suits(state.device, demand.wanted):
        return None
    return "not offered to `auto`" if demand.wanted == "auto" else f"the batch asks for {demand.wanted!r}"


def closed(state: DeviceState, _: Demand) -> str | None:
    return None if state.health == "open" else f"{state.health}: {state.reason}" if state.reason else state.health


def taken(state: DeviceState, _: Demand) -> str | None:
    if state.has_free:
        return None
    return f"all {state.width} slots are taken" if state.width > 1 else "its slot is taken"


def no_memory(state: DeviceState, demand: Demand) -> str | None:
    return None if state.memory.room_for(demand.device) else state.memory.lack(demand.device)


def no_host_memory(state: DeviceState, demand: Demand) -> str | None:
    memory = state.host.memory
    return None if memory.room_for(demand.host) else f"memory of {state.host.title}: {memory.lack(demand.host)}"


Rule = Callable[[DeviceState, Demand], str | None]
#: rules that do not look at the demand: the pool leaves the devices against which they have a reason out of its order
STANDING: tuple[Rule, ...] = (closed, taken)
#: rules that look at the demand: the pool asks them of each device on offer until one has no reason against it
NEEDS: tuple[Rule, ...] = (no_memory, no_host_memory)
#: all rules, in the order in which people are told of their reasons
RULES: tuple[Rule, ...] = (unsuitable, *STANDING, *NEEDS)


def objection(state: DeviceState, demand: Demand, rules: tuple[Rule, ...] = RULES) -> str | None:
    """The first reason that one of `rules` has against giving a window of this demand to the device, or None."""
    for rule in rules:
        if (reason := rule(state, demand)) is not None:
            return reason
    return None


# -- LightGBM's device types, which are compared and not understood ----------------------------------------------------


def suits(device: Device, wanted: DeviceChoice) -> bool:
    """Whether a batch that asked for `wanted` may run on `device`. Depends on its kind, type and `auto` alone."""
    match wanted:
        case "auto":
            return device.auto
        case "mixed":
            return True
        case "cpu":
            return device.kind == "host"
        case "cuda":
            return device.lightgbm_type == "cuda"
        case "gpu":
            # OpenCL comes with every NVIDIA driver; whether LightGBM was built with it shows when a window tries.
            return device.kind != "host"
        case _ as never:
            assert_never(never)


def type_on(device: Device, wanted: DeviceChoice) -> DeviceType:
    """The device type passed to LightGBM for a window on `device`, of a batch that asked for `wanted`."""
    return device.lightgbm_type if wanted == "auto" or wanted == "mixed" else wanted


def types_for(wanted: DeviceChoice) -> tuple[DeviceType, ...]:
    """All device types with which a batch that asked for `wanted` may be trained, on any machine."""
    return ("cpu", "gpu", "cuda") if wanted == "auto" or wanted == "mixed" else (wanted,)
