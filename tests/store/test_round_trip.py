"""Any history of any windows comes back from the store as it was recorded."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gpusched.core.events import BatchAccepted, Record
from gpusched.core.model import Slot, WindowResult
from gpusched.core.states import (
    Cancelled,
    Failed,
    Failure,
    Finished,
    Held,
    Lost,
    Outcome,
    Queued,
    Reused,
    Running,
    Skipped,
    Starting,
    State,
    Stopping,
    Succeeded,
    TimedOut,
)
from gpusched.core.statuses import status_of
from gpusched.store.store import Store
from tests.store.samples import FAILURE, RESULT, SLOT, accepted, batch, key, moved, plan, run

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
seconds = st.floats(0, 1e10)
counts = st.integers(1, 9)
slots = st.builds(Slot, st.integers(0, 31), texts)
pids = st.integers(1, 1 << 22)
failures = st.builds(Failure, kind=st.sampled_from(["raised", "killed"]), message=texts, traceback=texts)
results = st.builds(
    WindowResult,
    artifacts_path=texts,
    metrics=st.dictionaries(texts, st.none() | st.floats(allow_nan=False, allow_infinity=False) | texts, max_size=3),
    sample_counts=st.dictionaries(texts, st.integers(0, 1 << 40), max_size=2),
    fingerprint=st.none() | texts,
    device_type=st.sampled_from(["cpu", "gpu", "cuda"]),
    device=texts,
    phases=st.dictionaries(texts, seconds, max_size=2),
    seconds=seconds,
)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Succeeded, result=results),
    st.builds(Reused, result=results),
    st.builds(Skipped, reason=texts),
    st.builds(Failed, failure=failures),
    st.builds(TimedOut, seconds=seconds),
    st.just(Cancelled()),
    st.builds(Lost, failure=failures),
)
states: st.SearchStrategy[State] = st.one_of(
    st.builds(Queued, attempt=counts),
    st.builds(Held, attempt=counts),
    st.builds(Starting, attempt=counts, slot=slots, to_hold=st.booleans()),
    st.builds(Running, attempt=counts, slot=slots, pid=pids, started_at=seconds),
    st.builds(
        Stopping,
        attempt=counts,
        slot=slots,
        pid=st.none() | pids,
        reason=st.sampled_from(["cancelled", "timed_out", "interrupted"]),
    ),
    st.builds(Finished, attempts=st.integers(0, 9), outcome=outcomes),
)


@settings(max_examples=40)
@given(
    st.lists(states, min_size=1, max_size=4).flatmap(
        lambda first: st.tuples(
            st.just(first), st.lists(st.tuples(st.integers(0, len(first) - 1), states, texts, seconds), max_size=12)
        )
    ),
    st.booleans(),
)
def test_recorded_states_are_recovered(
    history: tuple[list[State], list[tuple[int, State, str, float]]], together: bool
) -> None:
    now, moves = list(history[0]), history[1]
    plans = [plan(number) for number in range(len(now))]
    records: list[Record] = []
    for number, new, reason, at in moves:
        ending = RESULT if isinstance(new, Finished) else None
        records.append(moved(key(number), now[number], new, reason=reason, at=at, ending=ending))
        now[number] = new
    accepted = BatchAccepted(batch=batch(), windows=tuple(zip(plans, history[0], strict=True)), at=1.0)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gpusched.db"
        with Store.open(path) as store:
            store.record([accepted])
            for group in [records] if together else [[record] for record in records]:
                store.record(group)
        with Store.open(path) as store:
            (recovered,) = store.unfinished()
            assert recovered.windows == tuple(zip(plans, now, strict=True))
            (row,) = store.batches()
            names = [status_of(state) for state in now]
            assert row.counts == {name: names.count(name) for name in names}
            finished = list(store.finished_windows("b"))
            assert len(finished) == sum(isinstance(state, Finished) for state in now)
            for number in range(len(now)):
                told = [(line.reason, line.at) for line in store.story(key(number))]
                assert told == [(reason, at) for n, _, reason, at in moves if n == number]


def test_losses_are_attempts_that_began_and_were_interrupted_since_the_window_was_last_finished(
    tmp_path: Path,
) -> None:
    interrupted = Failure(kind="interrupted", message="the supervisor ended")
    lost = Finished(attempts=2, outcome=Lost(failure=interrupted))

    def losses(store: Store) -> dict[str, int]:
        (recovered,) = store.unfinished()
        return recovered.losses

    with Store.open(tmp_path / "state.db") as store:
        store.record([accepted(windows=2)])
        # Finished as lost, and retried: that is past.
        store.record(run(key(0), attempt=1, ending=interrupted))
        starting = Starting(attempt=2, slot=SLOT)
        store.record([moved(key(0), Queued(attempt=2), starting), moved(key(0), starting, lost, ending=interrupted)])
        store.record([moved(key(0), lost, Queued(attempt=3))])
        # Interrupted once, failed by itself once, killed before it began once, and running now.
        store.record(run(key(0), attempt=3, ending=interrupted) + run(key(0), attempt=4, ending=FAILURE))
        starting = Starting(attempt=5, slot=SLOT)
        back = moved(key(0), starting, Queued(attempt=6), ending=interrupted)
        store.record([moved(key(0), Queued(attempt=5), starting), back])
        assert losses(store) == {}, "it is not active"
        store.record(run(key(0), attempt=6)[:2])
        assert losses(store) == {key(0).label: 2}
        store.record(run(key(1))[:1])
        assert losses(store) == {key(0).label: 2}, "the other one has not begun"
