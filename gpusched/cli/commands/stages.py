"""`wait`: wait for batches; and the options by which `submit` has a batch wait for others."""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path
from typing import Any, Literal, TypedDict

from gpusched.cli.commands.batches import load_config
from gpusched.cli.objects import status_object
from gpusched.cli.sources import reach
from gpusched.cli.verdict import exit_code, is_nothing
from gpusched.client.connection import Connection
from gpusched.client.drawing.listing import print_json
from gpusched.client.following import follow
from gpusched.core.statuses import totals
from gpusched.errors import DONE, INTERRUPTED, NOTHING_TO_TRAIN, UsageError


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

    Without an offset it is local time. Raises BadInstant.
    """
    if text is None:
        return 0.0
    try:
        if len(text) <= len("18:00:00"):
            now = dt.datetime.now().astimezone()
            moment = dt.datetime.combine(now.date(), dt.time.fromisoformat(text)).astimezone()
            return (moment if moment > now else moment + dt.timedelta(days=1)).timestamp()
        return dt.datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise BadInstant(text=text) from None


def wait(options: argparse.Namespace) -> int:
    """Wait until batches are finished or held; the exit code is that of the worst."""
    socket = load_config(options).config.daemon.socket
    codes, ended = [], []
    try:
        for batch_id in options.batches:
            code, status = wait_for(socket, batch_id)
            codes.append(code)
            ended.append(status)
            if not options.json:
                sums = ", ".join(f"{count} {name}" for name, count in totals_of(status).items() if count)
                print(f"{batch_id}: {status['state']}, {sums or 'nothing'}", flush=True)  # noqa: T201
    except KeyboardInterrupt:
        return INTERRUPTED
    if options.json:
        print_json(ended)
    return max(codes, default=DONE)


def totals_of(status: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in status["windows"].items() if name != "total"}


def wait_for(socket: Path | None, batch_id: str) -> tuple[int, dict[str, Any]]:
    """Wait until a batch is finished or held; the exit code that it stands for, and its status.

    Raises GpuschedError.
    """
    with reach(socket) as followed, reach(socket) as asked:
        subscription = followed.subscribe(batch_id)
        # Asked after the subscription began: what ends it later is among the updates.
        if asked.batch(batch_id).batch.state in ("waiting", "open"):
            follow(subscription, batch_id)
        return _ended(asked, batch_id)


def _ended(daemon: Connection, batch_id: str) -> tuple[int, dict[str, Any]]:
    detail = daemon.batch(batch_id)
    batch, sums = detail.batch, totals(detail.batch.counts)
    if batch.state == "finished":
        refused = sum(line.kind == "bad_data" for line in daemon.windows(batch_id, status="failed"))
        if is_nothing(sums, refused):
            return NOTHING_TO_TRAIN, status_object(batch)
    allowed = detail.spec.limits.max_failure_rate
    return exit_code(sums, allowed, held=batch.state == "held"), status_object(batch)
