"""Snapshots, their deltas, and logs that are followed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from gpusched.client.connection import Connection
from gpusched.core.events import BatchFinished, BatchHeld, BatchReleased, BatchReopened, WindowMoved
from gpusched.core.model import Limits, WindowKey
from gpusched.core.states import Finished, Running
from gpusched.core.statuses import name_of
from gpusched.errors import InputError
from gpusched.protocol import BatchAnnounced, Snapshot
from tests.server.support import Daemon, finished, frame, label, read_frame, until

# -- following ---------------------------------------------------------------------------------------------------------


def test_a_snapshot_and_its_deltas_have_no_gap(daemon: Daemon, name: str) -> None:
    """Subscriptions that begin at any moment of a batch count the same in the end."""
    with daemon.connect() as connection, daemon.connect() as first:
        everything = first.subscribe()
        spec = daemon.spec("A", "BAD", windows=20, limits=Limits(breaker_failures=0))
        connection.submit(spec, source="s", name=name)
        links: list[Connection] = []
        subscriptions = []
        while connection.batch(name).batch.state != "finished" and len(links) < 100:
            links.append(daemon.connect())
            subscriptions.append(links[-1].subscribe(name))
        seen = until(everything, lambda delta: isinstance(delta, BatchFinished) and delta.batch_id == name)
        (announced,) = [d for d in seen if isinstance(d, BatchAnnounced) and d.batch.id == name]
        assert announced.batch.counts == {"queued": 40}
        followed = [(announced.batch.counts, seen)]
        for subscription in subscriptions:
            (batch,) = subscription.snapshot.batches
            deltas = [] if batch.state == "finished" else until(subscription, lambda d: isinstance(d, BatchFinished))
            followed.append((batch.counts, deltas))
        for link in links:
            link.close()
    assert len(followed) > 2
    for counts, deltas in followed:
        assert counted(counts, deltas, name) == {"succeeded": 20, "failed": 20}


def counted(counts: dict[str, int], deltas: Sequence[object], name: str) -> dict[str, int]:
    """The counts of a snapshot, carried on by the deltas."""
    for delta in deltas:
        if isinstance(delta, WindowMoved) and delta.key.batch_id == name:
            for state, change in ((delta.old, -1), (delta.new, 1)):
                status = name_of(state.outcome if isinstance(state, Finished) else state)
                counts = counts | {status: counts.get(status, 0) + change}
    return {status: count for status, count in counts.items() if count}


def test_a_subscription_to_a_batch_is_about_that_batch(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower, daemon.fifo() as release:
        connection.submit(daemon.spec("FIFO"), source="s", name=name)
        subscription = follower.subscribe(name)
        assert [line.key for line in subscription.snapshot.active] == [WindowKey(name, label("FIFO"))]
        other = connection.submit(daemon.spec("A", windows=5), source="other")
        finished(daemon, other.batch.id)
        connection.change("hold", name)
        connection.change("release", name)
        release()
        seen = until(subscription, lambda delta: isinstance(delta, BatchFinished))
        connection.change("retry", name)
    assert not [d for d in seen if isinstance(d, WindowMoved) and d.key.batch_id != name]
    assert [type(d) for d in seen if isinstance(d, BatchHeld | BatchReleased | BatchReopened)] == [
        BatchHeld,
        BatchReleased,
    ]


def test_a_change_to_many_windows_is_through_when_it_is_answered_and_told_as_it_goes(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower:
        connection.drain(None)
        try:
            connection.submit(daemon.spec("A", windows=2500), source="s", name=name)
            subscription = follower.subscribe(name)
            changed = connection.change("cancel", name)
            assert (changed.windows, changed.batch.counts) == (2500, {"cancelled": 2500})
            told = until(subscription, lambda delta: isinstance(delta, BatchFinished | Snapshot))
            assert isinstance(told[-1], Snapshot) or sum(isinstance(d, WindowMoved) for d in told) == 2500
            changed = connection.change("retry", name)
            assert (changed.windows, changed.batch.counts) == (2500, {"queued": 2500})
            connection.change("cancel", name)
        finally:
            connection.resume(None)


def test_pending_never_waits(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower:
        subscription = follower.subscribe()
        while subscription.pending():
            pass
        connection.submit(daemon.spec("A"), source="s", name=name)
        finished(daemon, name)
        seen: list[object] = []
        while not any(isinstance(delta, BatchFinished) for delta in seen):
            seen += subscription.pending()


def test_a_log_is_followed_through_all_attempts(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower:
        connection.drain(None)
        connection.submit(daemon.spec("DIELATER"), source="s", name=name)
        log = follower.log(name, label("DIELATER"), follow=True)
        connection.resume(None)
        chunks = list(log)
    assert [chunk.attempt for chunk in chunks] == [1, 2]
    assert {chunk.data for chunk in chunks} == {f"attempt at {label('DIELATER')}\n".encode()}


def test_a_log_is_followed_while_it_is_written(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower, daemon.fifo() as release:
        connection.submit(daemon.spec("FIFO"), source="s", name=name)
        log = follower.log(name, label("FIFO"), follow=True)
        assert next(log).data.startswith(b"attempt at")
        release()
        assert list(log) == []
        with pytest.raises(InputError, match="attempt 7 left none"):
            list(connection.log(name, label("FIFO"), attempt=7))


def test_a_window_that_was_never_launched_has_no_log(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection:
        connection.submit(daemon.spec("SKIP"), source="s", name=name)
        for follow in (False, True):
            with pytest.raises(InputError, match="has no log: it was never launched"):
                list(connection.log(name, label("SKIP"), follow=follow))


def test_a_client_that_goes_during_the_survey_takes_its_batch_with_it(daemon: Daemon, name: str) -> None:
    """Nothing was promised to anybody yet."""
    spec = daemon.spec(*[f"S{number}" for number in range(50)])
    with daemon.greeted() as link:
        request = {"spec": msgspec.to_builtins(spec), "source": "s", "name": name}
        link.sendall(frame(type="submit", **request))
        assert read_frame(link)["type"] == "surveyed"
    with daemon.connect() as connection:
        how = connection.submit(spec, source="s", name=name).how
        assert how in ("new", "known")  # it may have been too late
        connection.change("cancel", name)


def test_progress_is_shown(daemon: Daemon, name: str) -> None:
    with daemon.connect() as connection, daemon.connect() as follower, daemon.fifo() as release:
        everything = follower.subscribe()
        connection.submit(daemon.spec("FIFO"), source="s", name=name)
        until(
            everything, lambda d: isinstance(d, WindowMoved) and isinstance(d.new, Running) and d.key.batch_id == name
        )
        with daemon.connect() as late:
            subscription = late.subscribe(name)
            told = subscription.snapshot.progress or until(subscription, lambda d: hasattr(d, "rounds"))[-1:]
            assert [(report.phase, report.round, report.rounds) for report in told] == [("train", 1, 2)]  # type: ignore[union-attr]
        release()
    assert finished(daemon, name).counts == {"succeeded": 1}
