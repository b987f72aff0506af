"""`daemon` and `submit`: run the service, and submit batches to it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from gpusched.cli.commands.batches import Ask, ask, load_config
from gpusched.cli.objects import status_object
from gpusched.cli.outcomes import outlives_its_reader
from gpusched.cli.replacing import asking
from gpusched.cli.sources import reach
from gpusched.cli.verdict import is_nothing
from gpusched.client.batches import refuse_the_daemons
from gpusched.client.connection import Connection
from gpusched.client.drawing.listing import print_json
from gpusched.client.views import standing
from gpusched.core.model import Existing
from gpusched.core.planning import replacing
from gpusched.core.statuses import totals
from gpusched.errors import DONE
from gpusched.protocol import BatchStatus, Submitted

if TYPE_CHECKING:
    from rich.console import Console

_HOW = {
    "new": "accepted",
    "known": "at work already: this is the same batch",
    "again": "accepted again: what is finished and unchanged is reused",
}


def daemon(options: argparse.Namespace) -> int:
    """Serve until a signal stops the daemon."""
    from gpusched.service.main import serve

    return serve(load_config(options).config)


@outlives_its_reader
def submit(options: argparse.Namespace) -> int:
    """Submit a batch to the daemon; with `--wait`, show it until it ends."""
    from gpusched.client.drawing.terminal import open_console

    refuse_the_daemons(key for key, _, _ in options.flags)
    request = ask(options)
    errors = open_console(stderr=True)
    request.say_notes(errors)

    def on_survey(done: int, total: int) -> None:
        if errors.is_terminal:
            errors.print(f"Looking at the data: {done}/{total} symbols", end="\n" if done == total else "\r")

    waiting: list[str] = []

    def on_trial(trying: str) -> None:
        if errors.is_terminal or not waiting:  # the daemon repeats it
            errors.print(f"Waiting: trying {trying}", end="\r" if errors.is_terminal else "\n", soft_wrap=True)
        waiting.append(trying)

    with reach(request.config.daemon.socket) as daemon:
        submitted = _hand_over(daemon, request, options, on_survey, on_trial)
        if waiting and errors.is_terminal:
            errors.print()
        _tell(daemon, submitted, options, errors)
        if not options.wait:
            return DONE
        from gpusched.cli.waiting import Wait

        return Wait(request.spec, submitted.batch.id, as_json=options.json).code(daemon)


def _hand_over(
    daemon: Connection,
    request: Ask,
    options: argparse.Namespace,
    on_survey: Callable[[int, int], None],
    on_trial: Callable[[str], None],
) -> Submitted:
    """Submit a batch, again if somebody agrees to the replacement of results. Raises GpuschedError."""
    from gpusched.cli.commands.stages import stage

    conditions = stage(options)

    def hand_over(existing: Existing) -> Submitted:
        return daemon.submit(
            request.spec,
            source=request.source,
            name=request.name,
            output_dir=request.output,
            terms=request.terms,
            origins=request.origins,
            existing=existing,
            **conditions,
            on_survey=on_survey,
            on_trial=on_trial,
        )

    return asking(hand_over, request.existing)


def _tell(daemon: Connection, submitted: Submitted, options: argparse.Namespace, errors: Console) -> None:
    """Tell the outcome of the batch, but for the lines that `--wait` shows anyway."""
    batch = submitted.batch
    if submitted.choice is not None and submitted.choice.reason:
        errors.print(submitted.choice.reason)
    if not (options.wait and options.json):
        _say(submitted, as_json=options.json)
    if batch.state == "waiting" and not options.wait:
        errors.print(f"It waits {batch.waits}")
    elif not options.json and not options.wait and submitted.how != "known":
        _say_about_the_data(daemon, batch, errors)
    for note in submitted.notes:
        errors.print(note)
    if submitted.changes:
        errors.print(f"It goes on with {'; '.join(submitted.changes)}")
    if not options.wait and (why := standing.why_held(batch)) is not None:
        errors.print(f"Held: {why}; {standing.way_on(batch)}")


def _say_about_the_data(daemon: Connection, batch: BatchStatus, errors: Console) -> None:
    """Print the notes on the data, and whether there is nothing to train."""
    from gpusched.client.drawing.summary import notes_lines

    for line in notes_lines(daemon.batch(batch.id, notes=True).notes):
        errors.print(line)
    sums = totals(batch.counts)
    if batch.state == "finished" and is_nothing(sums, sums["failed"]):
        errors.print(f"Nothing to train: `gpusched windows {batch.id}` has the reasons")


def _say(submitted: Submitted, *, as_json: bool) -> None:
    """Print the id alone on stdout, for scripts, and the rest on stderr; or all as JSON."""
    batch = submitted.batch
    if as_json:
        answer = status_object(batch) | {"how": submitted.how}
        answer |= {"replaces": submitted.replaces} if submitted.replaces else {}
        answer |= {"changes": submitted.changes} if submitted.changes else {}
        print_json(answer | ({"moves_aside": submitted.moves_aside} if submitted.moves_aside else {}))
        return
    print(batch.id, flush=True)  # noqa: T201
    replacements = replacing(submitted.replaces, submitted.moves_aside)
    if replacements:
        print("; ".join(replacements), file=sys.stderr)  # noqa: T201
    print(  # noqa: T201
        f"{_HOW[submitted.how]}; it writes to {batch.output_dir}\n`gpusched status {batch.id}` shows how it goes",
        file=sys.stderr,
    )
