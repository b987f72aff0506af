"""`submit --wait`: shows a batch of the daemon until it ends, and tells its end as `run` tells the end of a run."""

from __future__ import annotations

from pathlib import Path

from gpusched.cli.next_commands import next_commands
from gpusched.cli.notes import notes_object, print_notes
from gpusched.cli.objects import status_object
from gpusched.cli.standstill import Standstill, follow_to_end
from gpusched.cli.verdict import Untrained, exit_code, is_nothing, nothing_to_train, refused_object
from gpusched.client.connection import Connection, connect
from gpusched.client.drawing.listing import print_json
from gpusched.client.drawing.summary import Summary
from gpusched.client.drawing.terminal import RunScreen, open_console
from gpusched.client.following import follow
from gpusched.client.views.batch import BatchView
from gpusched.client.views.reasons import Reasons, bare_reason
from gpusched.client.views.standing import way_on
from gpusched.core.events import Update, WindowMoved
from gpusched.core.model import BatchSpec
from gpusched.core.states import Finished, Succeeded
from gpusched.core.statuses import totals
from gpusched.core.worth import imports_note
from gpusched.errors import INTERRUPTED
from gpusched.protocol import BatchDetail, Snapshot, WindowLine


class Wait:
    """Shows a batch until it is finished or held. Ctrl-C ends the display, not the batch."""

    def __init__(self, spec: BatchSpec, batch_id: str, *, as_json: bool) -> None:
        self._spec = spec
        self._batch_id = batch_id
        self._as_json = as_json
        self._view = BatchView()
        self._screen = RunScreen(open_console(stderr=as_json), self._view)
        self._standstill = Standstill(self._view, self._say_held)
        #: whether it was told that imports take longer than the training
        self._told = False

    def code(self, daemon: Connection) -> int:
        """Wait, print how the batch ended, and return the exit code. Raises GpuschedError, such as NothingToTrain.

        The connection is taken by the subscription.
        """
        batch_id = self._batch_id
        try:
            subscription = daemon.subscribe(batch_id)
            if self._as_json:
                follow_to_end(subscription, batch_id, self._screen.note, self._say_held)
            else:
                with self._screen:
                    follow(subscription, batch_id, self._load, self._see)
        except KeyboardInterrupt:
            self._screen.note(
                f"Detached: {batch_id} goes on. `gpusched status {batch_id}` shows how it stands,"
                f" `gpusched cancel {batch_id}` ends it."
            )
            return INTERRUPTED
        with connect(daemon.path) as daemon:
            detail = daemon.batch(batch_id, notes=True)
            if detail.batch.waits:
                return self._never_started(detail)
            skipped = list(daemon.windows(batch_id, status="skipped"))
            refused = [line for line in daemon.windows(batch_id, status="failed") if line.kind == "bad_data"]
        if self._as_json:
            _print_object(detail, refused)
        else:
            self._print_summary(detail, skipped, refused, Path(daemon.daemon.state_dir) / "logs")
        batch, sums = detail.batch, totals(detail.batch.counts)
        if batch.state == "finished" and is_nothing(sums, len(refused)):
            raise nothing_to_train(map(Untrained.line, [*skipped, *refused]))
        return exit_code(sums, self._spec.limits.max_failure_rate, held=batch.state == "held")

    def _say_held(self, held: str) -> None:
        self._screen.note(f"Held: {held}")

    def _load(self, snapshot: Snapshot) -> None:
        self._screen.load(snapshot, self._batch_id)
        self._standstill.look()
        for moved in snapshot.ended:  # windows that had ended before anybody looked on
            if moved.key.batch_id == self._batch_id:
                self._look_for_imports(moved)

    def _see(self, update: Update) -> None:
        self._screen.update(update)
        self._standstill.look()
        self._look_for_imports(update)

    def _look_for_imports(self, update: Update) -> None:
        match update:
            case WindowMoved(key=key, new=Finished(outcome=Succeeded(result=result))) if not self._told:
                if note := imports_note(self._spec, key.label, result.phases, result.seconds):
                    self._told = True
                    self._screen.note(note)

    def _never_started(self, detail: BatchDetail) -> int:
        """Tell of a stage that is held before it has been planned."""
        batch = detail.batch
        self._screen.note(f"Held: {batch.held_reason}; {way_on(batch)}")
        if self._as_json:
            print_json(status_object(batch))
        return exit_code(totals({}), self._spec.limits.max_failure_rate, held=True)

    def _print_summary(
        self, detail: BatchDetail, skipped: list[WindowLine], refused: list[WindowLine], logs_dir: Path
    ) -> None:
        batch = detail.batch
        self._view.complete(skipped, refused)
        summary = Summary(
            view=self._view,
            seconds=self._screen.seconds,
            held_reason=batch.held_reason,
            interrupted=False,
            way_on=way_on(batch),
            logs_dir=logs_dir,
            spec=detail.spec,
        )
        console = open_console()
        console.print(summary, crop=False)
        console.print(f"Results  {batch.output_dir}", soft_wrap=True)
        for command in next_commands(batch.id, batch.counts, left="release" if batch.state == "held" else ""):
            console.print(f"  {command}", soft_wrap=True)
        print_notes(detail.notes)


def _print_object(detail: BatchDetail, refused: list[WindowLine]) -> None:
    reasons = Reasons()
    for line in refused:
        reasons.add(bare_reason(line), line.symbol)
    print_json(status_object(detail.batch) | refused_object(reasons) | notes_object(detail.notes))
