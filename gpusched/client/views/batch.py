"""The view of one batch, kept up to date from its supervisor's updates. Pure; nothing is drawn here.

It never asks and never waits: things that no update has told are unknown. Each update costs the same however large the
batch is, except the first, which names the windows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from gpusched.client.views.pace import Pace
from gpusched.client.views.reasons import Reasons, bare_reason
from gpusched.client.views.window import FinishedWindow, RunningWindow, ended_window
from gpusched.core.events import (
    BatchAccepted,
    BatchFinished,
    BatchHeld,
    BatchReleased,
    BatchReopened,
    ProgressReported,
    Update,
    WindowMoved,
)
from gpusched.core.model import Slot
from gpusched.core.planning import with_remedy
from gpusched.core.states import Active, Failed, Failure, Finished, Held, Outcome, Queued, Running, Skipped
from gpusched.core.statuses import FAILURES, OUTCOMES, name_of, tally, totals
from gpusched.core.updates import batch_of
from gpusched.core.worth import is_constant
from gpusched.protocol import Snapshot, WindowLine

#: failures that are kept in full; the first ones, since the later ones mostly say the same
KEPT_FAILURES = 1000
#: finished windows that are kept to be shown
KEPT_RECENT = 32


class BatchView:
    """One batch. Updates of other batches are passed over."""

    def __init__(self) -> None:
        #: empty until the first update, whose batch this is
        self.batch_id = ""
        self.output_dir = ""
        #: uid of its owner; None: root or the daemon's own user
        self.owner: int | None = None
        self.total = 0
        #: by the name of the outcome
        self.counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        #: by slot index
        self.running: dict[int, RunningWindow] = {}
        #: device and node by slot index, of every slot that has been seen at work
        self.devices: dict[int, tuple[str, str]] = {}
        #: windows that are held, each by itself or with the batch
        self.held = 0
        self.held_reason: str | None = None
        #: of a stage that has not started: until when, in words
        self.waits = ""
        self.finished = False
        #: attempts that failed and were followed by another one
        self.retries = 0
        #: the last ones to finish, the latest at the end
        self.recent: deque[FinishedWindow] = deque(maxlen=KEPT_RECENT)
        #: how many windows were skipped, by reason, without the parts that are particular to each window
        self.skips = Reasons()
        #: of the windows that have failed without a launch, reason and symbol by label
        self._unlaunched: dict[str, tuple[str, str]] = {}
        #: of the first windows that were skipped when they ran, the reason by label
        self._skipped: dict[str, str] = {}
        #: models that predict a constant
        self.constants = 0
        #: windows that have failed for their data, launched or not
        self.refused = 0
        self._failures: dict[str, FinishedWindow] = {}
        self._slot_of: dict[str, int] = {}
        self._pace = Pace()

    def apply(self, update: Update, monotonic: float) -> None:
        """Take in an update that arrived at the instant `monotonic`."""
        batch_id = batch_of(update)
        if not self.batch_id and batch_id is not None:
            self.batch_id = batch_id
        if batch_id != self.batch_id:
            return
        match update:
            case ProgressReported():
                self._progressed(update)
            case WindowMoved():
                self._moved(update, monotonic)
            case BatchAccepted():
                self._accepted(update)
            case BatchHeld(reason=reason):
                self.held_reason = reason
            case BatchReleased():
                self.held_reason = None
                self._pace.pause()
            case BatchReopened():
                self.finished = False
                self._pace.pause()
            case BatchFinished():
                self.finished = True

    def load(self, snapshot: Snapshot, batch_id: str, monotonic: float) -> None:
        """Start anew from a snapshot, at the instant `monotonic`. Windows that ended long before are only counted."""
        self.batch_id = batch_id
        self.running, self._slot_of = {}, {}
        for batch in snapshot.batches:
            if batch.id == batch_id:
                self.output_dir, self.held_reason, self.owner = batch.output_dir, batch.held_reason, batch.owner
                self.waits = batch.waits if batch.state == "waiting" else ""
                self.total = sum(batch.counts.values())
                self.counts = {name: batch.counts.get(name, 0) for name in OUTCOMES}
                self.held = batch.counts.get("held", 0)
                self.finished, self.constants = batch.state == "finished", batch.constants
        for window in snapshot.active:
            if window.key.batch_id == batch_id and window.slot is not None:
                since = monotonic - max(0.0, snapshot.at - (window.started_at or window.moved_at))
                self._occupy(window.key.label, window.slot, window.attempts, window.status, since)
        for report in snapshot.progress:
            if report.key.batch_id == batch_id:
                self._progressed(report)
        for moved in snapshot.failed:
            if moved.key.batch_id == batch_id:
                self._failures[moved.key.label] = ended_window(moved)
        self._load_ends([moved for moved in snapshot.ended if moved.key.batch_id == batch_id], snapshot.at, monotonic)

    def _load_ends(self, ended: list[WindowMoved], at: float, monotonic: float) -> None:
        """Take in the windows that finished lately, and the rate that follows from them."""
        if ended:
            self.recent.clear()
            self._pace.clear()
        windows = [(ended_window(moved), monotonic - max(0.0, at - moved.at)) for moved in ended]
        for window, _ in windows:
            self.recent.append(window)
            if window.outcome == "succeeded":
                self._pace.trained(window.seconds)
        ends = [(end, window.seconds) for window, end in reversed(windows) if window.outcome != "cancelled"]
        since = min((window.since for window in self.running.values()), default=None)
        self._pace.load(ends, since, monotonic)

    def complete(self, skipped: Iterable[WindowLine], refused: Collection[WindowLine]) -> None:
        """Learn why windows were skipped or have failed for their data, which a snapshot does not say."""
        self.skips = Reasons()
        for window in skipped:
            self.skips.add(with_remedy(window.reason or "", window.remedy), window.symbol)
        unlaunched = (window for window in refused if not window.attempts)
        self._unlaunched = {window.key.label: (bare_reason(window), window.symbol) for window in unlaunched}
        self.refused = len(refused)

    @property
    def failures(self) -> list[FinishedWindow]:
        """The first `KEPT_FAILURES` windows that failed, timed out or were lost."""
        return list(self._failures.values())

    def reason_of(self, label: str) -> str | None:
        """Why a window that ran was not trained; None if it was, or the reason is not kept."""
        failure = self._failures.get(label)
        return failure.reason if failure is not None else self._skipped.get(label)

    @property
    def unlaunched(self) -> int:
        """Windows that have failed without a launch."""
        return len(self._unlaunched)

    def refusals(self) -> Reasons:
        """Why those windows have failed that were never launched: their data are refused."""
        reasons = Reasons()
        for reason, symbol in self._unlaunched.values():
            reasons.add(reason, symbol)
        return reasons

    def every_refusal(self) -> Reasons:
        """Why windows have failed for their data, launched or not; of the launched ones only the first count."""
        reasons = self.refusals()
        for window in self.failures:
            if window.kind == "bad_data":
                reasons.add(window.reason, "")
        return reasons

    @property
    def last_finished(self) -> FinishedWindow | None:
        return self.recent[-1] if self.recent else None

    @property
    def slots(self) -> int:
        """The number of slots that are known of."""
        return max(self.devices, default=-1) + 1

    @property
    def expected_s(self) -> float | None:
        """Seconds that a window takes on its slot, the median of those trained lately; None while there are few."""
        return self._pace.expected_s

    @property
    def done(self) -> int:
        """Windows that are finished."""
        return sum(self.counts.values())

    @property
    def trained(self) -> int:
        """Windows that went through a slot to their end, well or not."""
        return tally(self.counts, ("succeeded", *FAILURES)) - self.unlaunched

    def totals(self) -> dict[str, int]:
        """Counts as the command's JSON has them: windows that timed out or were lost have failed."""
        return totals(self.counts) | {"total": self.total}

    def rate(self, monotonic: float) -> float:
        """Windows per second that left their slots lately; 0 while none has."""
        return self._pace.rate(monotonic)

    def eta_s(self, monotonic: float) -> float | None:
        """Seconds until the last window is finished at the present rate; None while that cannot be said."""
        if self.finished:
            return 0.0
        rate = self.rate(monotonic)
        if rate <= 0 or self.held_reason is not None or not self.total:
            return None
        return max(0, self.total - self.done) / rate

    def eta_error_s(self, monotonic: float) -> float | None:
        """The standard error of `eta_s`; None while that cannot be said."""
        eta, error = self.eta_s(monotonic), self._pace.relative_error(self.total - self.done)
        return None if eta is None or error is None else eta * error

    # -- updates -----------------------------------------------------------------------------------------------------

    def _accepted(self, update: BatchAccepted) -> None:
        """The same id again means that a finished batch was replaced, so nothing of it counts any more."""
        self.output_dir = update.batch.output_dir
        self.total = len(update.windows)
        self.counts = dict.fromkeys(OUTCOMES, 0)
        self.held = sum(isinstance(state, Held) for _, state in update.windows)
        self.finished, self.held_reason, self.retries, self.refused = False, None, 0, 0
        self.running, self._slot_of, self._failures, self._unlaunched = {}, {}, {}, {}
        self.skips, self._skipped, self.constants = Reasons(), {}, 0
        self.recent.clear()
        self._pace.clear()
        for planned, state in update.windows:
            self.constants += is_constant(state)
            if isinstance(state, Finished):
                self.counts[name_of(state.outcome)] += 1
                if isinstance(state.outcome, Skipped):
                    self.skips.add(with_remedy(state.outcome.reason, planned.remedy), planned.window.symbol)
                if isinstance(state.outcome, Failed):
                    window = planned.window
                    self._unlaunched[window.label] = (state.outcome.failure.message, window.symbol)
                self.refused += _is_refused(state.outcome)

    def _moved(self, update: WindowMoved, monotonic: float) -> None:
        label, old, new = update.key.label, update.old, update.new
        ran = None
        self.constants += is_constant(new) - is_constant(old)
        self.held += isinstance(new, Held) - isinstance(old, Held)
        if isinstance(old, Active) and not isinstance(new, Active):
            self._slot_of.pop(label, None)
            ran = self.running.pop(old.slot.index, None)
        elif isinstance(old, Active) and isinstance(new, Active) and old.slot != new.slot:
            self._seated(label, old.slot, new.slot)
        if isinstance(old, Finished):
            self.counts[name_of(old.outcome)] -= 1
            self.refused -= _is_refused(old.outcome)
            self._failures.pop(label, None)
            self._unlaunched.pop(label, None)
        if isinstance(new, Active):
            running = self.running.get(new.slot.index)
            if not isinstance(old, Active) or running is None or running.label != label:
                self._placed(label, new, monotonic)
            elif not isinstance(new, Running) or running.phase == "starting":
                running.phase = name_of(new)
        elif isinstance(new, Finished):
            self._finished(update, new, ran, monotonic)
        elif isinstance(new, Queued) and isinstance(update.ending, Failure):
            self.retries += 1

    def _placed(self, label: str, state: Active, monotonic: float) -> None:
        self._occupy(label, state.slot, state.attempt, name_of(state), monotonic)
        self._pace.placed(monotonic)

    def _occupy(self, label: str, slot: Slot, attempt: int, phase: str, since: float) -> None:
        if not slot.waits:
            self.devices[slot.index] = slot.device_id, slot.node
        self._slot_of[label] = slot.index
        self.running[slot.index] = RunningWindow(
            label=label,
            slot=slot.index,
            device=slot.device_id,
            node=slot.node,
            attempt=attempt,
            phase=phase,
            since=since,
        )

    def _seated(self, label: str, place: Slot, slot: Slot) -> None:
        """A window that was ahead has got a slot."""
        if (window := self.running.pop(place.index, None)) is not None:
            window.slot = self._slot_of[label] = slot.index
            self.running[slot.index] = window
            self.devices[slot.index] = slot.device_id, slot.node

    def _progressed(self, update: ProgressReported) -> None:
        slot = self._slot_of.get(update.key.label)
        running = self.running.get(slot) if slot is not None else None
        # A window that is being stopped may still report; that it is being stopped matters more.
        if running is not None and running.attempt == update.attempt and running.phase != "stopping":
            running.phase, running.round, running.rounds = update.phase, update.round, update.rounds

    def _finished(self, update: WindowMoved, new: Finished, ran: RunningWindow | None, monotonic: float) -> None:
        outcome, old = new.outcome, update.old
        name = name_of(outcome)
        self.counts[name] += 1
        self.refused += _is_refused(outcome)
        if not isinstance(old, Active) and name == "cancelled":
            # Where it waited.
            return
        window = ended_window(update, None if ran is None else monotonic - ran.since)
        self.recent.append(window)
        if isinstance(outcome, Skipped):
            self.skips.add(outcome.reason, "")
            if len(self._skipped) < KEPT_FAILURES:
                self._skipped[window.label] = outcome.reason
        if name == "succeeded":
            self._pace.trained(window.seconds)
        if name in FAILURES and len(self._failures) < KEPT_FAILURES:
            self._failures[window.label] = window
        if name != "cancelled" and isinstance(old, Active):
            self._pace.ended(monotonic)


def _is_refused(outcome: Outcome) -> bool:
    """Whether a window has failed for its data."""
    return isinstance(outcome, Failed) and outcome.failure.kind == "bad_data"
