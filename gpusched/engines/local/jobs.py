"""The job of a window's process."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gpusched.command import imports
from gpusched.config.schema import BUILT_IN_WORKLOAD
from gpusched.config.workloads import settings_at
from gpusched.core.model import CPU, Batch, Device, PlannedWindow, Window
from gpusched.core.placement import type_on
from gpusched.worker.messages import WindowJob
from gpusched.workload import Task

#: sections of the settings that bars and labels depend on
_OF_LABELS = ("data.", "labels.")


def task_of(batch: Batch, planned: PlannedWindow, cache_dir: Path) -> Task:
    """The task of a window, on no device yet."""
    spec, window = batch.spec, planned.window
    return Task(
        symbol=window.symbol,
        start=window.start,
        end=window.end,
        data_root=spec.data_root,
        cache_dir=str(cache_dir),
        settings=settings_at(spec, window.point),
        name=window.label,
        after=spec.after,
    )


def window_job(batch: Batch, planned: PlannedWindow, device: Device, cache_dir: Path) -> WindowJob:
    """The job of training a window of `batch` on `device`."""
    task = msgspec.structs.replace(
        task_of(batch, planned, cache_dir),
        device_type=type_on(device, batch.device),
        device=CPU if device.kind == "host" else device.id,
        threads=device.threads,
    )
    return WindowJob(
        workload=batch.spec.workload,
        task=task,
        output_dir=batch.output_dir,
        guarded=batch.guarded,
        imports=imports(batch.spec.workload, task.settings),
        shares=_shares(batch, planned.window),
    )


def _shares(batch: Batch, window: Window) -> str:
    """A name for the windows of a sweep that have their labels file in common; empty where there can be no others."""
    parameters = batch.spec.points.get(window.point, {})
    of_labels = {key: value for key, value in parameters.items() if key.startswith(_OF_LABELS)}
    if len(of_labels) == len(parameters) or batch.spec.workload != BUILT_IN_WORKLOAD:
        return ""
    name = (batch.id, window.symbol, window.start, window.end, of_labels)
    return msgspec.json.encode(name, order="sorted").decode()
