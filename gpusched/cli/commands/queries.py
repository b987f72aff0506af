"""Queries to the daemon: `windows`, `show`, `logs`, `devices`, `top`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from gpusched.cli.commands.batches import load_config
from gpusched.cli.sources import of_batch, of_window, to_daemon
from gpusched.client.connection import Connection, connect
from gpusched.client.drawing.listing import Cell, ago, device_cell, iso, on_terminal, print_json, print_listing
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.text import clean
from gpusched.client.link import HungUp
from gpusched.core.totals import device_object
from gpusched.errors import DONE, UsageError
from gpusched.protocol import DeviceStatus, Snapshot, WindowLine
from gpusched.streams import when_gone

if TYPE_CHECKING:
    from rich.console import RenderableType


# -- windows -----------------------------------------------------------------------------------------------------------


def windows(options: argparse.Namespace) -> int:
    """Print the windows of a batch."""
    with of_batch(options, options.batch) as (source, batch_id):
        lines = source.windows(batch_id, status=options.status)
        if options.json:
            print_json({"batch_id": batch_id, "windows": [_window_object(line) for line in lines]})
            return DONE
        rows = [
            [
                line.key.label,
                line.status,
                line.attempts,
                line.slot.index if line.slot else None,
                device_cell(line.slot.device_id) if line.slot else None,
                _seconds(line),
                line.reason,
            ]
            for line in lines
        ]
    print_listing(["window", "status", "attempts", "slot", "device", "seconds", "reason"], rows, styles=STYLES)
    return DONE


def _seconds(line: WindowLine) -> float | None:
    """The duration of the last launch, if it has ended."""
    if line.started_at is None or line.ended_at is None:
        return None
    return round(max(0.0, line.ended_at - line.started_at), 3)


def _window_object(line: WindowLine) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(line)
    del fields["key"], fields["slot"]
    if not line.point:
        del fields["point"]
    slot, device = (line.slot.index, line.slot.device_id) if line.slot else (None, None)
    return {"window": str(line.key), "window_label": line.key.label} | fields | {"slot": slot, "device": device}


def show(options: argparse.Namespace) -> int:
    """Print all details of a window."""
    with of_window(options, options.window) as (source, batch_id, label):
        detail = source.window(batch_id, label)
        logs_dir = source.state_dir / "logs" / batch_id
    if options.json:
        attempts = [
            msgspec.to_builtins(attempt) | {"log": str(logs_dir / f"{label}.{attempt.attempt}.log")}
            for attempt in detail.attempts
        ]
        window = _window_object(detail.window) | {"plan": detail.plan, "state": detail.state}
        window |= {"batch": device_object(detail.device, detail.choice), "data_notes": detail.notes}
        window |= {"parameters": detail.parameters} if detail.parameters else {}
        print_json(window | {"story": detail.story, "attempts": attempts})
        return DONE
    from gpusched.client.drawing.details import window_details
    from gpusched.client.drawing.terminal import open_console

    console = open_console()
    for line in window_details(detail, logs_dir, ago if on_terminal() else iso):
        console.print(line, soft_wrap=True)
    return DONE


#: remedies by kind of hindrance
_REMEDIES = {
    "batch": "`gpusched release {batch}` lets it go on",
    "window": "`gpusched release {batch}/{label}` lets it go on",
    "workers": "`gpusched release {batch} --set run.workers=N` changes that",
    "turn": "`gpusched priority {batch} N` changes that",
}


def explain(options: argparse.Namespace) -> int:
    """Print the state of a window, and if it waits, a line for each reason."""
    with of_window(options, options.window) as (source, batch_id, label):
        told = source.explain(batch_id, label)
    if options.json:
        print_json({"window": options.window} | msgspec.to_builtins(told))
        return DONE
    lines = [f"{told.status}: {told.summary}"]
    for hindrance in told.hindrances:
        remedy = _REMEDIES.get(hindrance.kind, "").format(batch=batch_id, label=label)
        lines.append(f"{hindrance.text}; {remedy}" if remedy else hindrance.text)
    lines += [f"{about.device_id}: {about.reason or 'nothing against it'}" for about in told.devices]
    for line in lines:
        print(clean(line))  # noqa: T201
    return DONE


def logs(options: argparse.Namespace) -> int:
    """Print the stdout and stderr of a window's process."""
    left: list[bool] = []
    silent = True
    with of_window(options, options.window) as (source, batch_id, label):

        def leave() -> None:
            left.append(True)
            source.abort()

        if options.follow:
            when_gone(sys.stdout, leave)
        try:
            for chunk in source.log(batch_id, label, attempt=options.attempt, follow=options.follow):
                _write(chunk.data)
                silent = silent and not chunk.data
        except HungUp:
            if not left:
                raise
    if silent and not left:
        print(f"{options.window} has written nothing to stdout or stderr", file=sys.stderr)  # noqa: T201
    return DONE


def _write(data: bytes) -> None:
    """Write bytes to stdout unchanged, or to a terminal without control characters."""
    if sys.stdout.isatty():
        text = data.decode("utf-8", "replace")
        data = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text).encode()
    sys.stdout.flush()
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]


# -- devices -----------------------------------------------------------------------------------------------------------


def devices(options: argparse.Namespace) -> int:
    """Print the devices, the windows that hold their slots, and their last readings."""
    with to_daemon(options) as daemon:
        print_devices(daemon.devices(), as_json=options.json)
    return DONE


def print_devices(statuses: tuple[DeviceStatus, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"devices": [_device_object(device) for device in statuses]})
        return
    rows: list[list[Cell]] = []
    for device in statuses:
        reading = device.reading
        rows.append(
            [
                device_cell(device.device.id),
                device.device.name,
                device.health,
                f"{len(device.allocations)}/{device.width}",
                _percent(reading.utilisation if reading else None),
                _mebibytes(reading.memory_used_bytes if reading else None),
                _mebibytes(reading.memory_free_bytes if reading else None),
                _mebibytes(device.reserved_bytes) if reading else None,
                _mebibytes(device.foreign_bytes),
                _mebibytes(device.device.memory_total_bytes),
                reading.temperature_c if reading else None,
                reading.power_w if reading else None,
                device.reason or (f"for {time.time() - device.since_at:.0f} s" if device.health == "trying" else ""),
                ", ".join(str(key) for _, key in sorted(device.allocations.items())),
            ]
        )
    columns = [
        "device",
        "name",
        "health",
        "slots",
        "use",
        "used",
        "free",
        "reserved",
        "foreign",
        "memory",
        "temp",
        "watt",
        "reason",
        "running",
    ]
    print_listing(columns, rows, styles=STYLES)


def _device_object(device: DeviceStatus) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(device)
    about: dict[str, Any] = fields.pop("device")
    del fields["allocations"]
    running = [{"slot": index, "window": str(key)} for index, key in sorted(device.allocations.items())]
    used = device.reading.memory_used_bytes if device.reading else None
    use = {"slots": device.width, "slots_used": len(running), "memory_used_bytes": used, "running": running}
    return about | fields | use


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.0f}%"


def _mebibytes(count: int | None) -> str | None:
    return None if count is None else f"{count / 2**20:.0f}M"


# -- live --------------------------------------------------------------------------------------------------------------


class NoTerminal(UsageError):
    problem = "top needs a terminal"
    remedy = "`gpusched top --once` prints one frame anywhere; `gpusched status --json` is for programs"


def top(options: argparse.Namespace) -> int:
    """Show the daemon at work, live."""
    from gpusched.client.drawing.terminal import open_console, takes_keys

    console = open_console()
    socket = load_config(options).config.daemon.socket
    if options.directory is not None or options.once or options.json:
        snapshot, name = _snapshot(options)
        if options.json:
            print_json(snapshot)
        else:
            console.print(_one_frame(snapshot, name), end="")
        return DONE
    if not takes_keys(console):
        raise NoTerminal
    # Without a daemon this raises before the screen opens.
    connect(socket).close()
    from gpusched.client.top.app import Top

    Top(console, socket).run(mouse=False)
    return DONE


def _snapshot(options: argparse.Namespace) -> tuple[Snapshot, str]:
    """The state of the daemon or of a run's directory, and a title for it."""
    from gpusched.client.drawing.dashboard import title

    if options.directory is not None:
        with of_batch(options, f"{options.directory}/.") as (source, _):
            assert not isinstance(source, Connection)
            return source.snapshot(), f"gpusched run, {options.directory}"
    with to_daemon(options) as daemon:
        return daemon.subscribe().snapshot, title(daemon)


def _one_frame(snapshot: Snapshot, title: str) -> RenderableType:
    from gpusched.client.drawing.dashboard import Frame
    from gpusched.client.views.overview import Overview

    overview, now = Overview(), time.monotonic()
    overview.load(snapshot, now)
    return Frame(overview=overview, monotonic=now, title=title, fill=False)
