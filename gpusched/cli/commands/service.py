"""`daemon` and `submit`: run the service, and submit batches to it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gpusched.cli.commands.batches import Ask, ask, load_config
from gpusched.cli.notes import notes_object, print_notes
from gpusched.cli.objects import status_object
from gpusched.cli.outcomes import outlives_its_reader
from gpusched.cli.sources import reach
from gpusched.cli.verdict import Untrained, exit_code, is_nothing, nothing_to_train, refused_object
from gpusched.client.batches import refuse_the_daemons
from gpusched.client.connection import Connection, connect
from gpusched.client.drawing.listing import print_json
from gpusched.client.following import follow
from gpusched.client.views.reasons import Reasons, bare_reason
from gpusched.core.planning import replacing
from gpusched.core.statuses import totals
from gpusched.errors import DONE, INTERRUPTED
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
    from gpusched.cli.commands.stages import instant, wait_for
    from gpusched.client.drawing import terminal as render

    refuse_the_daemons(key for key, _, _ in options.flags)
    request = ask(options)
    errors = render.open_console(stderr=True)
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
        submitted = daemon.submit(
            request.spec,
            source=request.source,
            name=request.name,
            output_dir=request.output,
            terms=request.terms,
            origins=request.origins,
            after=tuple(options.after or ()),
            only_if=options.only_if,
            not_before=instant(options.not_before),
            on_survey=on_survey,
            on_trial=on_trial,
        )
        if waiting and errors.is_terminal:
            errors.print()
        if submitted.choice is not None and submitted.choice.reason:
            errors.print(submitted.choice.reason, soft_wrap=True)
        if not (options.wait and options.json):
            _say(submitted, as_json=options.json)
        batch = submitted.batch
        if batch.state == "waiting":
            errors.print(f"It {batch.held_reason}", soft_wrap=True)
            if not options.wait:
                return DONE
            code, status = wait_for(request.config.daemon.socket, batch.id)
            if options.json:
                print_json(status)
            return code
        if not options.json and not options.wait and submitted.how != "known":
            _say_about_the_data(daemon, batch, errors)
        for note in submitted.notes:
            errors.print(note, soft_wrap=True)
        if submitted.changes:
            errors.print(f"It goes on with {'; '.join(submitted.changes)}", soft_wrap=True)
        if batch.held_reason is not None:
            errors.print(f"Held: {batch.held_reason}; `gpusched release {batch.id}` lets it go on", soft_wrap=True)
        return _wait(daemon, request, submitted, as_json=options.json) if options.wait else DONE


def _say_about_the_data(daemon: Connection, batch: BatchStatus, errors: Console) -> None:
    """Print the notes on the data, and whether there is nothing to train."""
    from gpusched.client.drawing.terminal import notes_lines

    for line in notes_lines(daemon.batch(batch.id, notes=True).notes):
        errors.print(line, soft_wrap=True)
    sums = totals(batch.counts)
    if batch.state == "finished" and is_nothing(sums, sums["failed"]):
        errors.print(f"Nothing to train: `gpusched windows {batch.id}` has the reasons", soft_wrap=True)


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


# -- waiting -----------------------------------------------------------------------------------------------------------


def _wait(daemon: Connection, request: Ask, submitted: Submitted, *, as_json: bool) -> int:
    """Show a batch until it is finished or held. Ctrl-C ends the display, not the batch."""
    from gpusched.client.drawing import terminal as render
    from gpusched.client.views.batch import BatchView

    batch_id, began = submitted.batch.id, time.monotonic()
    view = BatchView()
    screen = render.RunScreen(render.open_console(stderr=as_json), view)
    try:
        subscription = daemon.subscribe(batch_id)
        if as_json:
            follow(subscription, batch_id)
        else:
            with screen:
                follow(subscription, batch_id, lambda snapshot: screen.load(snapshot, batch_id), screen.update)
    except KeyboardInterrupt:
        screen.note(
            f"Detached: {batch_id} goes on. `gpusched status {batch_id}` shows how it stands,"
            f" `gpusched cancel {batch_id}` ends it."
        )
        return INTERRUPTED
    # The first connection is taken by the subscription.
    with connect(daemon.path) as daemon:
        detail = daemon.batch(batch_id, notes=True)
        batch = detail.batch
        skipped = list(daemon.windows(batch_id, status="skipped"))
        refused = [line for line in daemon.windows(batch_id, status="failed") if line.failure == "bad_data"]
        if as_json:
            reasons = Reasons()
            for line in refused:
                reasons.add(bare_reason(line), line.symbol)
            print_json(status_object(batch) | refused_object(reasons) | notes_object(detail.notes))
        else:
            view.complete(skipped, refused)
            summary = render.summary(
                view,
                time.monotonic() - began,
                held_reason=batch.held_reason,
                interrupted=False,
                logs_dir=Path(daemon.daemon.state_dir) / "logs",
                spec=detail.spec,
            )
            render.open_console().print(summary)
            print_notes(detail.notes)
    sums = totals(batch.counts)
    if batch.state == "finished" and is_nothing(sums, len(refused)):
        raise nothing_to_train(map(Untrained.line, [*skipped, *refused]))
    return exit_code(sums, request.spec.limits.max_failure_rate, held=batch.state == "held")
