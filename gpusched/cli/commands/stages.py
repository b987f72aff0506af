"""`wait`: wait for batches; and the options by which `submit` has a batch wait for others."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict

from gpusched import clock
from gpusched.cli.commands.batches import load_config
from gpusched.cli.next_commands import mending_commands
from gpusched.cli.objects import status_object
from gpusched.cli.sources import about, reach
from gpusched.cli.standstill import follow_to_end
from gpusched.cli.verdict import exit_code, is_nothing
from gpusched.client.connection import Connection
from gpusched.client.drawing.listing import print_json
from gpusched.client.views.standing import way_on
from gpusched.core.statuses import totals
from gpusched.errors import DONE, INTERRUPTED, NOTHING_TO_TRAIN, UsageError
from gpusched.protocol import BatchStatus


class BadInstant(UsageError):
    problem = "--not-before {text!r} is no time"
    remedy = "write 18:00 (today or tomorrow), or 2024-12-31T18:00"


class AfterNothing(UsageError):
    problem = "--if says how the batches of --after have to end, and none is given"
    remedy = "give --after BATCH, or leave it out"


class Stage(TypedDict):
    """When a batch may start: the arguments of `Connection.submit`."""

    after: tuple[str, ...]
    only_if: Literal["succeeded", "finished"]
    not_before: float


def stage(options: argparse.Namespace) -> Stage:
    """The conditions of `--after`, `--if` and `--not-before`. Raises UsageError."""
    if options.only_if and not options.after:
        raise AfterNothing
    return Stage(
        after=tuple(options.after or ()),
        only_if="finished" if options.only_if == "finished" else "succeeded",
        not_before=instant(options.not_before),
    )


def instant(text: str | None) -> float:
    """Seconds since the epoch of a time of day, the next one to come, or of a date and time; 0 for None.

    Without an offset it is local time; one that summer time leaves out is as much later. Raises BadInstant.
    """
    if text is None:
        return 0.0
    try:
        if len(text) <= len("18:00:00"):
            now = clock.wall()
            moment = dt.datetime.combine(dt.datetime.fromtimestamp(now), dt.time.fromisoformat(text))
            # A day later by the calendar, which is 23 or 25 hours where summer time begins or ends.
            return (moment if moment.timestamp() > now else moment + dt.timedelta(days=1)).timestamp()
        return dt.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise BadInstant(text=text) from None


def wait(options: argparse.Namespace) -> int:
    """Wait until batches are finished or held; the exit code is that of the worst."""
    socket = load_config(options).config.daemon.socket
    codes, ended = [], []
    left = list(options.batches)
    try:
        for batch_id in options.batches:
            with about(options, batch_id):
                code, batch = wait_for(socket, batch_id)
            codes.append(code)
            ended.append(batch)
            left.remove(batch_id)
            if not options.json:
                _say(batch)
    except KeyboardInterrupt:
        print(f"Detached, and nothing else: `gpusched wait {' '.join(left)}` waits again", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    if options.json:
        print_json(list(map(status_object, ended)))
    return max(codes, default=DONE)


def _say(batch: BatchStatus) -> None:
    """Print how a batch ended, and on stderr how it gets the results that are missing."""
    sums = totals(batch.counts)
    total = sums.pop("total")
    sums["left"] = total - sum(sums.values())
    counted = ", ".join(f"{count} {name}" for name, count in sums.items() if count)
    print(f"{batch.id}: {batch.state}, {counted or 'nothing'}", flush=True)  # noqa: T201
    held = batch.state == "held"
    if held:
        print(f"{batch.id} is held: {batch.held_reason}; {way_on(batch)}", file=sys.stderr)  # noqa: T201
    for command in mending_commands(batch.id, batch.counts, left="release" if held else ""):
        print(f"  {command}", file=sys.stderr)  # noqa: T201


def wait_for(socket: Path | None, batch_id: str) -> tuple[int, BatchStatus]:
    """Wait until a batch is finished or held; the exit code that it stands for, and its status.

    Raises GpuschedError.
    """
    say = partial(print, file=sys.stderr)
    with reach(socket) as followed, reach(socket) as asked:
        subscription = followed.subscribe(batch_id)
        # Asked after the subscription began: what ends it later is among the updates.
        batch = asked.batch(batch_id).batch
        if batch.state in ("waiting", "open"):
            follow_to_end(subscription, batch_id, say, lambda held: say(f"{batch_id} is held: {held}"))
        return _ended(asked, batch_id)


def _ended(daemon: Connection, batch_id: str) -> tuple[int, BatchStatus]:
    detail = daemon.batch(batch_id)
    batch, sums = detail.batch, totals(detail.batch.counts)
    if batch.state == "finished":
        refused = sum(line.kind == "bad_data" for line in daemon.windows(batch_id, status="failed"))
        if is_nothing(sums, refused):
            return NOTHING_TO_TRAIN, batch
    allowed = detail.spec.limits.max_failure_rate
    return exit_code(sums, allowed, held=batch.state == "held"), batch
