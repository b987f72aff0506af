"""What the daemon is told: `cancel`, `hold`, `release`, `retry`, `drain`, `resume`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from gpusched.cli.queries import print_devices, to_daemon
from gpusched.cli.service import status_object
from gpusched.client.connection import Connection
from gpusched.client.listing import print_json
from gpusched.errors import DONE
from gpusched.protocol import Changed

_Change = Callable[[Connection, str, str | None], Changed]


def cancel(options: argparse.Namespace) -> int:
    """End what runs of a batch or window, and drop what waits."""
    return _change(options, Connection.cancel, "cancelled")


def hold(options: argparse.Namespace) -> int:
    """Start nothing more of a batch or window."""
    return _change(options, Connection.hold, "held")


def release(options: argparse.Namespace) -> int:
    """Let a held batch or window go on."""
    return _change(options, Connection.release, "released")


def retry(options: argparse.Namespace) -> int:
    """Run again what failed, timed out, was lost or cancelled."""
    return _change(options, Connection.retry, "queued again")


def _change(options: argparse.Namespace, change: _Change, done: str) -> int:
    batch_id, _, label = options.target.partition("/")
    with to_daemon(options) as daemon:
        changed = change(daemon, batch_id, label or None)
    if options.json:
        print_json(status_object(changed.batch) | {"changed": changed.windows})
        return DONE
    noun = "window" if changed.windows == 1 else "windows"
    print(f"{batch_id}: {changed.windows} {noun} {done}; the batch is {changed.batch.state}")  # noqa: T201
    return DONE


def drain(options: argparse.Namespace) -> int:
    """Place nothing more on a device, or on any."""
    with to_daemon(options) as daemon:
        print_devices(daemon.drain(options.on), as_json=options.json)
    return DONE


def resume(options: argparse.Namespace) -> int:
    """Open a device again, or all of them."""
    with to_daemon(options) as daemon:
        print_devices(daemon.resume(options.on), as_json=options.json)
    return DONE
