"""The outcome of a batch as `run --json` writes it: a contract with the programs that read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gpusched.core.model import Choice, DeviceChoice


def batch_object(batch_id: str, output_dir: str, totals: dict[str, int], seconds: float) -> dict[str, Any]:
    """The object with which the output of `run --json` and `status BATCH --json` ends."""
    done = sum(totals.values()) - totals["total"]
    return {
        "batch_id": batch_id,
        "output_dir": output_dir,
        "windows": totals,
        "seconds": round(seconds, 3),
        "windows_per_second": round(done / seconds, 3) if seconds > 0 else 0.0,
    }


def worth_object(constants: int) -> dict[str, int]:
    """The number of models that predict a constant, as an entry of the object of totals; empty if there are none."""
    return {"constant_models": constants} if constants else {}


def device_object(device: DeviceChoice, choice: Choice | None) -> dict[str, Any]:
    """The device of a batch, and the choice of `auto`: its reason, and the expected duration on each device type."""
    about: dict[str, Any] | None = None if choice is None else msgspec.to_builtins(choice)
    if about is not None:
        del about["device"]
    return {"device": device, "device_choice": about}


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """The values of nested objects with the names that lead to them: `limits.timeout_s`."""
    rows: list[tuple[str, object]] = []
    for name, inner in value.items():
        rows += flat(inner, f"{prefix}{name}.") if isinstance(inner, dict) else [(prefix + name, inner)]
    return rows
