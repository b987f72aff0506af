"""Views for clients: stages of the store, devices of the pool and moves as values of the protocol; listings cut."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

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
from gpusched.core.model import WindowKey
from gpusched.core.pool import Pool
from gpusched.core.reasons import Explanation, Hindrance, summary
from gpusched.core.states import Failed, Failure, Finished, Lost, State
from gpusched.core.statuses import status_of
from gpusched.core.worth import is_constant
from gpusched.protocol import (
    BatchAnnounced,
    BatchStatus,
    Delta,
    DeviceStatus,
    Explained,
    Submit,
    WindowLine,
)
from gpusched.store.rows import bounded, bounded_failure
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
    yield from (stage_status(store, row) for row in staged.values())


#: the last that the calendar has in every zone; a stage may wait for a later one, and is to be listed all the same
_LAST_INSTANT = dt.datetime(9999, 12, 30, tzinfo=dt.UTC).timestamp()


def stage_status(store: Store, row: StagedRow) -> BatchStatus:
    """A stage, as a batch without windows."""
    request = requested(row)
    return BatchStatus(
        id=row.batch_id,
        output_dir=row.output_dir,
        submitted_at=row.submitted_at,
        state="waiting" if row.held is None else "held",
        held_reason=row.held,
        waits=_waits(request, list(dict.fromkeys(_held(store, request.after)))),
        finished_at=None,
        counts={},
        at=clock.wall(),
    )


def requested(row: StagedRow) -> Submit:
    """The request that a stage is."""
    return msgspec.json.decode(row.request, type=Submit)


def _held(store: Store, names: Iterable[str]) -> Iterator[str]:
    """Those of the batches that are held, and those that keep a stage among them from starting."""
    for name in names:
        batch, stage = store.batch(name), store.staged.row(name)
        if stage is not None and (batch is None or batch.state == "finished"):
            yield from [name] if stage.held is not None else _held(store, requested(stage).after)
        elif batch is not None and batch.state == "held":
            yield name


def _waits(request: Submit, held: Sequence[str]) -> str:
    """The end of a stage's wait, in words. `held`: the batches that have to be released for it."""
    waits = []
    if request.after:
        many = len(request.after) > 1
        succeeded, finished = ("have succeeded", "are finished") if many else ("has succeeded", "is finished")
        verb = succeeded if request.only_if == "succeeded" else finished
        waits.append(f"until {' and '.join(request.after)} {verb}")
    if held:
        commands = " and ".join(f"`gpusched release {name}`" for name in held)
        waits[-1] += f" ({' and '.join(held)} {'are' if len(held) > 1 else 'is'} held: {commands})"
    if request.not_before:
        at = min(max(request.not_before, 0.0), _LAST_INSTANT)
        waits.append(f"until {dt.datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S%z}")
    return " and ".join(waits)


def listed(line: WindowLine) -> WindowLine:
    """A line of the store with its reason cut."""
    if (failure := line.failure) is not None:
        message = failure.message[: REASON_CHARS - len(f"{failure.kind}: ")]
        return msgspec.structs.replace(line, failure=_brief(failure, message))
    if line.why is not None and len(line.why) > REASON_CHARS:
        return msgspec.structs.replace(line, why=line.why[:REASON_CHARS])
    return line


def _brief(failure: Failure, message: str) -> Failure:
    return Failure(kind=failure.kind, message=message, source_line=failure.source_line)


def explained(key: WindowKey, state: State, explanation: Explanation | None, unwritable: str | None) -> Explained:
    """What a window does. `explanation`: the scheduler's; None: only the store remembers it, so its batch is finished.

    `unwritable`: why the store cannot be written.
    """
    if explanation is None:
        explanation = Explanation(status=status_of(state), summary=summary(state))
    if unwritable is not None and not isinstance(state, Finished):
        store = Hindrance("store", f"nothing is launched while the store cannot be written: {unwritable}")
        explanation = msgspec.structs.replace(explanation, hindrances=(store, *explanation.hindrances))
    return Explained(key=key, explanation=explanation)


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
            brief = _brief(failure, failure.message[:REASON_CHARS])
            return msgspec.structs.replace(move, new=Finished(attempts=attempts, outcome=type(outcome)(failure=brief)))
        case _:
            return move


def delta(update: Update) -> Delta | None:
    """The delta of an update for subscribers, without the windows of a batch and with failures cut to a bounded size.

    None for changes of terms and progress of changes: no view shows them.
    """
    match update:
        case BatchAltered() | ChangeAdvanced() | ChangeMade() | WindowsAdded():
            return None
        case BatchAccepted():
            return BatchAnnounced(batch=_announced(update))
        case WindowMoved():
            ending = update.ending
            if isinstance(ending, Failure):
                ending = bounded_failure(ending)
            return msgspec.structs.replace(update, old=bounded(update.old), new=bounded(update.new), ending=ending)
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
