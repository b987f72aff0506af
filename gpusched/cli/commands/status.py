"""`status`: the batches of the daemon, or one batch on one screen; tab-separated or JSON for programs."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from gpusched.cli.notes import notes_object, print_notes, print_worth
from gpusched.cli.objects import status_object
from gpusched.cli.sources import of_batch, to_daemon, way_on
from gpusched.cli.telling import tell
from gpusched.client.connection import Connection
from gpusched.client.drawing.listing import Cell, iso, on_terminal, print_json, print_listing
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.trouble import remedy
from gpusched.client.views.failures import FailureGroup, by_reason, failed_window
from gpusched.client.views.standing import Wanted, standing, why_held
from gpusched.core.statuses import FAILURES, totals
from gpusched.core.totals import device_object
from gpusched.errors import DONE
from gpusched.protocol import BatchDetail, BatchStatus, Trouble, WindowLine
from gpusched.users import user_name

if TYPE_CHECKING:
    from gpusched.cli.sources import Source

#: batches that are listed on a terminal, unless --all or --limit says otherwise
SHOWN = 20
#: windows of a batch that its screen reads to find the slowest, and those that failed
MOST_READ = 5000


def status(options: argparse.Namespace) -> int:
    """Print the status of one batch, or of all."""
    if options.batch is not None:
        with of_batch(options, options.batch) as (source, batch_id):
            _one(source, batch_id, as_json=options.json)
    else:
        with to_daemon(options) as daemon:
            _all(daemon, options)
    return DONE


# -- one batch ---------------------------------------------------------------------------------------------------------


def _one(source: Source, batch_id: str, *, as_json: bool) -> None:
    detail = source.batch(batch_id, notes=True)
    batch, choice = detail.batch, detail.choice
    results: list[WindowLine] = []
    troubles = source.ping().troubles if isinstance(source, Connection) else ()
    if as_json:
        where = device_object(choice.device if choice else detail.spec.device, choice)
        print_json(status_object(batch) | where | notes_object(detail.notes))
    elif on_terminal():
        results = _print_screen(source, detail)
    else:
        _print_rows([batch])
        if choice is not None and choice.reason:
            print(choice.reason, file=sys.stderr)  # noqa: T201
        if (why := why_held(batch)) is not None:
            print(f"Held: {why}; {way_on(source, batch)}")  # noqa: T201
        elif batch.waits:
            print(f"It waits {batch.waits}")  # noqa: T201
        _print_failures(source, batch)
    if not as_json:
        print_notes(detail.notes)
        print_worth(detail, results)
    _tell(troubles)
    if not isinstance(source, Connection) and source.is_left:
        tell(
            "warning", "no process is at work on it: the run was killed, or left before its end", way_on(source, batch)
        )


def _failures(source: Source, batch: BatchStatus) -> list[FailureGroup]:
    ended = [status for status in FAILURES if batch.counts.get(status)]
    lines = (line for status in ended for line in source.windows(batch.id, status=status))
    return by_reason(map(failed_window, lines))


def _print_failures(source: Source, batch: BatchStatus) -> None:
    """Print the failures of a batch by reason on stderr, since programs read the listing on stdout."""
    from gpusched.client.drawing.standing import Failures
    from gpusched.client.drawing.terminal import open_console

    if groups := _failures(source, batch):
        shown = Failures(groups=groups, logs_dir=source.state_dir / "logs" / batch.id)
        open_console(stderr=True).print(shown, crop=False)


def _print_screen(source: Source, detail: BatchDetail) -> list[WindowLine]:
    """Print the screen of a batch; return its results, unless there are too many to read."""
    from gpusched.client.drawing.standing import BatchScreen, Seen
    from gpusched.client.drawing.terminal import open_console
    from gpusched.client.views.batch import BatchView

    batch, choice = detail.batch, detail.choice
    few = 0 < sum(batch.counts.values()) <= MOST_READ
    results = [line for line in source.results(batch.id) if line.seconds is not None] if few else []
    groups = _failures(source, batch)
    view, now = BatchView(), time.monotonic()
    snapshot = source.subscribe(batch.id).snapshot if isinstance(source, Connection) else source.snapshot()
    view.load(snapshot, batch.id, now)
    screen = BatchScreen(
        seen=Seen(batch=batch, view=view, owner=user_name(batch.owner), monotonic=now),
        groups=groups,
        slowest=sorted(
            (line for line in results if line.status != "cancelled"), key=lambda line: -(line.seconds or 0.0)
        ),
        logs_dir=source.state_dir / "logs" / batch.id,
        device=choice.reason if choice else "",
        way_on=way_on(source, batch),
    )
    open_console().print(screen, crop=False)
    return results


# -- all batches -------------------------------------------------------------------------------------------------------


def _all(daemon: Connection, options: argparse.Namespace) -> None:
    people = on_terminal() and not options.json
    limit = options.limit if options.limit is not None else SHOWN if people and not options.all else None
    wanted = Wanted(name=options.name or "", state=options.state)
    matches = wanted.pick(daemon.batches())
    batches = msgspec.structs.replace(wanted, limit=limit).pick(matches)
    pong = daemon.ping()
    if options.json:
        about = {
            "socket": str(daemon.path),
            "pid": daemon.daemon.pid,
            "version": daemon.daemon.version,
            "started_at": daemon.daemon.started_at,
        }
        daemon_object = about | msgspec.structs.asdict(pong)
        print_json({"daemon": daemon_object, "batches": [status_object(batch) for batch in batches]})
        return
    if people:
        _print_table(daemon, batches, len(matches) - len(batches))
    else:
        _print_rows(batches)
    if pong.trying:
        print(f"trying {pong.trying}", file=sys.stderr)  # noqa: T201
    _tell(pong.troubles)


def _print_table(daemon: Connection, batches: list[BatchStatus], more: int) -> None:
    from gpusched.client.drawing.standing import BatchTable, Seen
    from gpusched.client.drawing.terminal import open_console
    from gpusched.client.views.overview import Overview

    overview, now = Overview(), time.monotonic()
    if any(standing(batch) == "running" for batch in batches):
        overview.load(daemon.subscribe().snapshot, now)
    seen = [
        Seen(batch=batch, view=overview.batches.get(batch.id), owner=user_name(batch.owner), monotonic=now)
        for batch in batches
    ]
    open_console().print(BatchTable(batches=seen, more=more))


def _print_rows(batches: list[BatchStatus]) -> None:
    """Print one tab-separated line for each batch, in the order of acceptance."""
    rows: list[list[Cell]] = []
    _, *outcomes = totals({})
    for batch in batches:
        sums, counts = totals(batch.counts), status_object(batch)
        done = f"{sums['total'] - counts['waiting'] - counts['running']}/{sums['total']}"
        numbers = map(sums.__getitem__, outcomes)
        rows.append(
            [batch.id, batch.state, done, counts["running"], *numbers, iso(batch.submitted_at), batch.output_dir]
        )
    print_listing(["batch", "state", "done", "running", *outcomes, "submitted", "output"], rows, styles=STYLES)


def _tell(troubles: tuple[Trouble, ...]) -> None:
    """Print the troubles on stderr, so that programs can still parse the listing on stdout."""
    for trouble in troubles:
        tell("warning", trouble.text, remedy(trouble))
