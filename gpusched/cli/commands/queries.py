"""Queries to the daemon: `status`, `windows`, `show`, `logs`, `devices`, `top`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from gpusched.cli.commands.batches import load_config
from gpusched.cli.commands.service import reach, status_object
from gpusched.cli.notes import notes_object, print_notes, print_worth
from gpusched.cli.sources import of_batch, of_window, to_daemon
from gpusched.client.connection import Connection, connect
from gpusched.client.drawing.listing import Cell, ago, device_cell, iso, on_terminal, print_json, print_listing
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.text import clean
from gpusched.client.drawing.trouble import remedy
from gpusched.client.link import HungUp
from gpusched.core.statuses import totals
from gpusched.core.totals import device_object
from gpusched.errors import DONE, UsageError
from gpusched.protocol import BatchDetail, BatchStatus, DeviceStatus, Snapshot, Trouble, WindowLine
from gpusched.runs.records import Records
from gpusched.streams import when_gone

if TYPE_CHECKING:
    from rich.console import RenderableType


# -- batches -----------------------------------------------------------------------------------------------------------


def status(options: argparse.Namespace) -> int:
    """Print the status of one batch, or of all."""
    if options.batch is not None:
        with of_batch(options, options.batch) as (source, batch_id):
            _print_batch(source.batch(batch_id, notes=True), as_json=options.json)
            if isinstance(source, Connection):
                _print_troubles(source.ping().troubles)
        return DONE
    with to_daemon(options) as daemon:
        batches = daemon.batches()
        if options.json:
            about = {
                "socket": str(daemon.path),
                "pid": daemon.daemon.pid,
                "version": daemon.daemon.version,
                "started_at": daemon.daemon.started_at,
            }
            print_json(
                {
                    "daemon": about | msgspec.structs.asdict(daemon.ping()),
                    "batches": [status_object(batch) for batch in batches],
                }
            )
        else:
            _print_batches(batches)
            pong = daemon.ping()
            if pong.trying:
                print(f"trying {pong.trying}", file=sys.stderr)  # noqa: T201
            _print_troubles(pong.troubles)
        return DONE


def _print_batch(detail: BatchDetail, *, as_json: bool) -> None:
    batch, choice = detail.batch, detail.choice
    if as_json:
        where = device_object(choice.device if choice else detail.spec.device, choice)
        print_json(status_object(batch) | where | notes_object(detail.notes))
        return
    _print_batches([batch])
    print_notes(detail.notes)
    print_worth(detail)
    if choice is not None and choice.reason:
        print(choice.reason, file=sys.stderr)  # noqa: T201
    if batch.held_reason is not None:
        print(f"Held: {batch.held_reason}; `gpusched release {batch.id}` lets it go on")  # noqa: T201


def _print_troubles(troubles: tuple[Trouble, ...]) -> None:
    """Print the troubles on stderr, so that programs can still parse the listing on stdout."""
    for trouble in troubles:
        print(f"Trouble: {clean(trouble.text)}\n  {remedy(trouble)}".rstrip(), file=sys.stderr)  # noqa: T201


def _print_batches(batches: list[BatchStatus] | tuple[BatchStatus, ...]) -> None:
    rows: list[list[Cell]] = []
    _, *outcomes = totals({})
    for batch in batches:
        sums, counts = totals(batch.counts), status_object(batch)
        ended = sums["total"] - counts["waiting"] - counts["running"]
        submitted = ago(batch.submitted_at, batch.at) if on_terminal() else iso(batch.submitted_at)
        done = f"{ended}/{sums['total']}"
        rows.append(
            [batch.id, batch.state, done, counts["running"], *map(sums.get, outcomes), submitted, batch.output_dir]
        )
    print_listing(["batch", "state", "done", "running", *outcomes, "submitted", "output"], rows, styles=STYLES)


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
    """Print what a window does, and why it waits if it does, a line for each reason."""
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
    with of_window(options, options.window) as (source, batch_id, label):

        def leave() -> None:
            left.append(True)
            source.abort()

        if options.follow:
            when_gone(sys.stdout, leave)
        try:
            for chunk in source.log(batch_id, label, attempt=options.attempt, follow=options.follow):
                _write(chunk.data)
        except HungUp:
            if not left:
                raise
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
    from gpusched.client.drawing.dashboard import title
    from gpusched.client.drawing.terminal import open_console, takes_keys

    console = open_console()
    socket = load_config(options).config.daemon.socket
    if options.directory is not None:
        with of_batch(options, f"{options.directory}/.") as (source, _):
            assert isinstance(source, Records)
            console.print(_one_frame(source.snapshot(), f"gpusched run, {options.directory}"), end="")
        return DONE
    if options.once:
        with reach(socket) as daemon:
            console.print(_one_frame(daemon.subscribe().snapshot, title(daemon)), end="")
        return DONE
    if not takes_keys(console):
        raise NoTerminal
    # Without a daemon this raises before the screen opens.
    connect(socket).close()
    from gpusched.client.top.app import Top

    Top(console, socket).run(mouse=False)
    return DONE


def _one_frame(snapshot: Snapshot, title: str) -> RenderableType:
    from gpusched.client.drawing.dashboard import Frame
    from gpusched.client.views.overview import Overview

    overview, now = Overview(), time.monotonic()
    overview.load(snapshot, now)
    return Frame(overview=overview, monotonic=now, title=title, fill=False)
