"""Views for clients: rows of the store and devices of the pool as values of the protocol."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import msgspec

from gpusched import clock
from gpusched.core.events import (
    BatchAccepted,
    BatchAltered,
    ChangeAdvanced,
    ChangeMade,
    Update,
    WindowMoved,
    WindowsAdded,
)
from gpusched.core.model import Batch, DataNote
from gpusched.core.pool import Pool
from gpusched.core.reasons import Explanation, Hindrance, summary
from gpusched.core.states import Active, Ending, Failed, Failure, Finished, Lost, Reused, State, Succeeded
from gpusched.core.statuses import attempt_of, name_of, reason_of, status_of
from gpusched.core.worth import is_constant
from gpusched.protocol import (
    AttemptLine,
    BatchAnnounced,
    BatchStatus,
    Delta,
    DeviceStatus,
    Explained,
    ResultLine,
    StoryLine,
    Submit,
    WindowDetail,
    WindowLine,
)
from gpusched.store.rows import WindowRow, bounded
from gpusched.store.staged import StagedRow
from gpusched.store.store import Store

#: windows in a snapshot that have left their slots for good, and, separately, windows that have failed
RECENT_WINDOWS = 64
#: characters of a reason in a listing; the window's details have all of it
REASON_CHARS = 500


def batch_status(batch: BatchStatus) -> BatchStatus:
    """The batch with the time by the daemon's clock."""
    return msgspec.structs.replace(batch, at=clock.wall())


def batches(store: Store) -> Iterator[BatchStatus]:
    """All batches in the order of acceptance, then those that wait for it: the stages."""
    staged = {row.batch_id: row for row in store.staged.rows()}
    for batch in store.batches():
        if batch.state != "finished":
            staged.pop(batch.id, None)
        if batch.id not in staged:
            yield batch_status(batch)
    yield from map(stage_status, staged.values())


def stage_status(row: StagedRow) -> BatchStatus:
    """A stage, as a batch without windows."""
    return BatchStatus(
        id=row.batch_id,
        output_dir=row.output_dir,
        submitted_at=row.submitted_at,
        state="waiting" if row.held is None else "held",
        held_reason=row.held,
        waits=_waits(requested(row)),
        finished_at=None,
        counts={},
        at=clock.wall(),
    )


def requested(row: StagedRow) -> Submit:
    """The request that a stage is."""
    return msgspec.json.decode(row.request, type=Submit)


def _waits(request: Submit) -> str:
    """The end of a stage's wait, in words."""
    waits = []
    if request.after:
        many = len(request.after) > 1
        succeeded, finished = ("have succeeded", "are finished") if many else ("has succeeded", "is finished")
        verb = succeeded if request.only_if == "succeeded" else finished
        waits.append(f"until {' and '.join(request.after)} {verb}")
    if request.not_before:
        waits.append(f"until {dt.datetime.fromtimestamp(request.not_before).astimezone():%Y-%m-%d %H:%M:%S%z}")
    return " and ".join(waits)


def window_line(row: WindowRow) -> WindowLine:
    window, state, attempt = row.plan.window, row.state, row.last_attempt
    launched = attempt_of(state) if isinstance(state, Active | Finished) else attempt_of(state) - 1
    failure = _failure(state)
    return WindowLine(
        key=row.key,
        symbol=window.symbol,
        start=window.start,
        end=window.end,
        status=status_of(state),
        moved_at=row.moved_at,
        usable_rows=row.plan.usable_rows,
        attempts=launched,
        slot=attempt.slot if attempt else None,
        pid=attempt.pid if attempt else None,
        started_at=attempt.started_at if attempt else None,
        ended_at=attempt.ended_at if attempt else None,
        reason=_reason(state),
        failure=None if failure is None else failure.kind,
        source_line="" if failure is None else failure.source_line,
        remedy=row.plan.remedy if isinstance(state, Finished) else "",
        point=window.point,
    )


def result_line(row: WindowRow) -> ResultLine:
    assert isinstance(row.state, Finished)
    window, outcome, attempt = row.plan.window, row.state.outcome, row.last_attempt
    result = outcome.result if isinstance(outcome, Succeeded | Reused) else None
    usage, failure = attempt.usage if attempt else None, _failure(row.state)
    seconds = None
    if attempt and attempt.ended_at is not None:
        seconds = max(0.0, attempt.ended_at - (attempt.started_at or attempt.placed_at))
    began, ended = (attempt.started_at, attempt.ended_at) if attempt else (None, None)
    training = result.training if result else None
    if training is not None:
        seconds, began, ended = training.seconds, training.started_at, training.started_at + training.seconds
    slot = attempt.slot.number if attempt else training.slot if training else None
    node = attempt.slot.node if attempt else training.node if training else ""
    return ResultLine(
        key=row.key,
        symbol=window.symbol,
        start=window.start,
        end=window.end,
        status=name_of(outcome),
        finished_at=row.moved_at,
        attempts=training.attempts if training else row.state.attempts,
        seconds=seconds,
        device=attempt.slot.device_id if attempt else result.device if result else None,
        slot=slot,
        node=node,
        artifacts_path=result.artifacts_path if result else None,
        metrics=result.metrics if result else None,
        sample_counts=result.sample_counts if result else None,
        constant=result.constant if result else None,
        started_at=began,
        ended_at=ended,
        phases=result.phases if result else None,
        cpu_seconds=usage.cpu_seconds if usage else None,
        peak_memory_bytes=usage.peak_memory_bytes if usage else None,
        device_memory_bytes=usage.device_memory_bytes if usage else None,
        device_seconds=usage.device_seconds if usage else None,
        reason=_reason(row.state),
        failure=None if failure is None else failure.kind,
        point=window.point,
    )


def window_detail(
    row: WindowRow,
    story: list[StoryLine],
    attempts: list[AttemptLine],
    notes: tuple[DataNote, ...],
    batch: Batch,
) -> WindowDetail:
    return WindowDetail(
        window=window_line(row),
        plan=row.plan,
        state=row.state,
        story=tuple(story),
        attempts=tuple(attempts),
        device=batch.device,
        choice=batch.choice,
        notes=notes,
        parameters=batch.spec.points.get(row.plan.window.point, {}),
    )


def explained(row: WindowRow, told: Explanation | None, unwritable: str | None) -> Explained:
    """What a window does. `told` by the scheduler; None: only the store remembers it, so its batch is finished.

    `unwritable`: why the store cannot be written.
    """
    if told is None:
        told = Explanation(status=status_of(row.state), summary=summary(row.state))
    if unwritable is not None and not isinstance(row.state, Finished):
        store = Hindrance("store", f"nothing is launched while the store cannot be written: {unwritable}")
        told = msgspec.structs.replace(told, hindrances=(store, *told.hindrances))
    return Explained(key=row.key, explanation=told)


def devices(pool: Pool) -> tuple[DeviceStatus, ...]:
    """The devices of the pool, in its order."""
    return tuple(
        DeviceStatus(
            device=state.device,
            health=state.health,
            reason=state.reason,
            slots=tuple(state.slots),
            width=state.width,
            allocations={index: allocation.key for index, allocation in sorted(state.allocations.items())},
            reading=state.reading,
            reserved_bytes=(state.host.memory if state.device.kind == "host" else state.memory).reserved_bytes,
            foreign_bytes=state.foreign_bytes(),
            since_at=state.since,
        )
        for state in pool.devices.values()
    )


def ending(move: WindowMoved) -> WindowMoved:
    """A window's last move, with its message cut as in a listing."""
    match move.new:
        case Finished(attempts=attempts, outcome=Failed(failure=failure) | Lost(failure=failure) as outcome):
            brief = Failure(kind=failure.kind, message=failure.message[:REASON_CHARS], source_line=failure.source_line)
            return msgspec.structs.replace(move, new=Finished(attempts=attempts, outcome=type(outcome)(failure=brief)))
        case _:
            return move


def delta(update: Update) -> Delta | None:
    """The delta of an update for subscribers, without the windows of a batch and with failures cut to a bounded size.

    None for changes of terms and progress of changes: no view shows them, and clients of 0.1 know no such frame.
    """
    match update:
        case BatchAltered() | ChangeAdvanced() | ChangeMade() | WindowsAdded():
            return None
        case BatchAccepted():
            return BatchAnnounced(batch=_announced(update))
        case WindowMoved():
            return msgspec.structs.replace(
                update, old=bounded(update.old), new=bounded(update.new), ending=_bounded_ending(update.ending)
            )
        case _:
            return update


def _announced(record: BatchAccepted) -> BatchStatus:
    return BatchStatus(
        id=record.batch.id,
        output_dir=record.batch.output_dir,
        submitted_at=record.batch.submitted_at,
        state="open",
        held_reason=None,
        finished_at=None,
        constants=sum(is_constant(state) for _, state in record.windows) if record.counts.get("reused") else 0,
        counts=record.counts,
        owner=record.batch.owner,
    )


def _bounded_ending(ending: Ending | None) -> Ending | None:
    if not isinstance(ending, Failure):
        return ending
    state = bounded(Finished(attempts=1, outcome=Failed(failure=ending)))
    assert isinstance(state, Finished)
    assert isinstance(state.outcome, Failed)
    return state.outcome.failure


def _failure(state: State) -> Failure | None:
    outcome = state.outcome if isinstance(state, Finished) else None
    return outcome.failure if isinstance(outcome, Failed | Lost) else None


def _reason(state: State) -> str | None:
    reason = reason_of(state.outcome) if isinstance(state, Finished) else None
    return None if reason is None else reason[:REASON_CHARS]
