"""Queries to the daemon: `windows`, `show`, `logs`, `devices`, `top`."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gpusched.cli.commands.batches import load_config
from gpusched.cli.sources import of_batch, of_window, to_daemon
from gpusched.client.connection import Connection, connect
from gpusched.client.drawing.listing import Cell, ago, device_cell, iso, on_terminal, print_json, print_listing
from gpusched.client.drawing.logs import WROTE_NOTHING
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.plain import clean, clean_lines
from gpusched.client.host import look_at_host
from gpusched.client.link import HungUp
from gpusched.client.views.host import HostView
from gpusched.client.views.standing import way_on
from gpusched.core.logs import log_name
from gpusched.core.reasons import Explanation
from gpusched.core.samples import Sample
from gpusched.core.totals import device_object
from gpusched.errors import DONE, GpuschedError, UsageError
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
        rows: list[list[Cell]] = [
            [
                line.key.label,
                line.status,
                line.attempts,
                line.slot.number if line.slot else None,
                device_cell(line.slot.device_id) if line.slot else None,
                _seconds(line),
                line.reason,
                line.slot.node if line.slot else "",
            ]
            for line in lines
        ]
    columns = ["window", "status", "attempts", "slot", "device", "seconds", "reason", "node"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    print_listing(columns, rows, styles=STYLES, chief="reason")
    return DONE


def _seconds(line: WindowLine) -> float | None:
    """The duration of the last launch, if it has ended."""
    if line.started_at is None or line.ended_at is None:
        return None
    return round(max(0.0, line.ended_at - line.started_at), 3)


def _window_object(line: WindowLine) -> dict[str, Any]:
    slot = line.slot
    return {
        "window": str(line.key),
        "window_label": line.key.label,
        "symbol": line.symbol,
        "start": line.start,
        "end": line.end,
        "status": line.status,
        "moved_at": line.moved_at,
        "usable_rows": line.usable_rows,
        "attempts": line.attempts,
        "pid": line.pid,
        "started_at": line.started_at,
        "ended_at": line.ended_at,
        "reason": line.reason,
        "failure": line.kind,
        "source_line": line.failure.source_line if line.failure else "",
        "remedy": line.remedy,
        **({"point": line.point} if line.point else {}),
        "slot": slot.number if slot else None,
        "device": slot.device_id if slot else None,
        **({"node": slot.node} if slot and slot.node else {}),
    }


def show(options: argparse.Namespace) -> int:
    """Print all details of a window."""
    with of_window(options, options.window) as (source, batch_id, label):
        detail = source.window(batch_id, label)
        logs_dir = source.state_dir / "logs" / batch_id
    if options.json:
        attempts = [
            msgspec.to_builtins(attempt) | {"log": str(logs_dir / log_name(label, attempt.attempt))}
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
    """Print the state of a window, or of a stage, and if it waits, a line for each reason."""
    batch_id, label, explanation = "", "", _stage_explained(options)
    if explanation is None:
        with of_window(options, options.window) as (source, batch_id, label):
            explanation = source.explain(batch_id, label)
    if options.json:
        print_json({"window": options.window} | msgspec.to_builtins(explanation))
        return DONE
    lines = [f"{explanation.status}: {explanation.summary}"]
    for hindrance in explanation.hindrances:
        remedy = _REMEDIES.get(hindrance.kind, "").format(batch=batch_id, label=label)
        lines.append(f"{hindrance.text}; {remedy}" if remedy else hindrance.text)
    lines += [f"{about.device_id}: {about.reason or 'nothing against it'}" for about in explanation.devices]
    for line in lines:
        print(clean(line))  # noqa: T201
    return DONE


def _stage_explained(options: argparse.Namespace) -> Explanation | None:
    """Why a stage has no windows yet; None for a name of no stage."""
    if "/" in options.window:
        return None
    with contextlib.suppress(GpuschedError), of_batch(options, options.window) as (source, batch_id):
        batch = source.batch(batch_id).batch
        if batch.waits:
            why = f"waits {batch.waits}" if batch.held_reason is None else f"{batch.held_reason}; {way_on(batch)}"
            return Explanation(status=batch.state, summary=why)
    return None


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
            shown = _for_terminal() if sys.stdout.isatty() else None
            for chunk in source.log(batch_id, label, attempt=options.attempt, follow=options.follow):
                _write(shown(chunk.data) if shown else chunk.data)
                silent = silent and not chunk.data
        except HungUp:
            if not left:
                raise
    if silent and not left:
        print(f"{options.window} {WROTE_NOTHING}", file=sys.stderr)  # noqa: T201
    return DONE


def _for_terminal() -> Callable[[bytes], bytes]:
    """A function that makes pieces of a log harmless; a character may be cut in two by their ends."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return lambda data: clean_lines(decoder.decode(data)).encode()


def _write(data: bytes) -> None:
    """Write bytes to stdout unchanged."""
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
    columns, rows = [*_DEVICE_COLUMNS], [_device_row(device) for device in statuses]
    if any(device.device.host for device in statuses):  # the UUID of a GPU does not tell its node
        columns.append("node")
        rows = [[*row, device.device.host] for row, device in zip(rows, statuses, strict=True)]
    print_listing(columns, rows, styles=STYLES)


_DEVICE_COLUMNS = (
    *("device", "name", "health", "slots", "use", "used", "free", "reserved", "foreign", "memory", "temp", "watt"),
    *("reason", "running"),
)


def _device_row(device: DeviceStatus) -> list[Cell]:
    reading = device.reading
    return [
        device_cell(device.device.id),
        device.device.name,
        device.health,
        f"{device.busy}/{device.width}" + (f" +{device.ahead}" if device.ahead else ""),
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


def _device_object(device: DeviceStatus) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(device)
    about: dict[str, Any] = fields.pop("device")
    del fields["allocations"]
    held = sorted(device.allocations.items())
    running = [{"slot": index if index >= 0 else None, "window": str(key)} for index, key in held]
    used = device.reading.memory_used_bytes if device.reading else None
    use = {"slots": device.width, "slots_used": device.busy, "memory_used_bytes": used, "running": running}
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
        seen = _seen(options)
        if options.json:
            print_json(seen.snapshot)
        else:
            console.print(_one_frame(seen), end="")
        return DONE
    if not takes_keys(console):
        raise NoTerminal
    # Without a daemon this raises before the screen opens.
    connect(socket).close()
    from gpusched.client.top.app import Top

    Top(console, socket).run()
    return DONE


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the daemon or of a run's directory."""

    snapshot: Snapshot
    title: str
    #: readings of the last minutes
    samples: tuple[Sample, ...] = ()
    #: the machine now; None for a run, which may have been on another machine
    host: HostView | None = None


def _seen(options: argparse.Namespace) -> _Seen:
    from gpusched.client.drawing.dashboard import title

    if options.directory is not None:
        with of_batch(options, f"{options.directory}/.") as (source, _):
            assert not isinstance(source, Connection)
            return _Seen(snapshot=source.snapshot(), title=f"gpusched run, {options.directory}")
    with to_daemon(options) as daemon:
        samples, host = daemon.history(), look_at_host(Path(daemon.daemon.state_dir))
        return _Seen(snapshot=daemon.subscribe().snapshot, title=title(daemon), samples=samples, host=host)


def _one_frame(seen: _Seen) -> RenderableType:
    from gpusched.client.drawing.dashboard import Frame
    from gpusched.client.views.overview import Overview

    overview, now = Overview(), time.monotonic()
    overview.load(seen.snapshot, now)
    overview.remember(seen.samples)
    clock = "" if seen.host is None else time.strftime("%H:%M:%S")
    return Frame(overview=overview, monotonic=now, title=seen.title, clock=clock, host=seen.host, fill=False)
