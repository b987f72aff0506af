"""A supervisor whose store cannot be written, or whose windows do not die or print too much."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpusched.core.events import ChangeRequested, WindowMoved
from gpusched.core.states import Cancelled, Finished, Running
from gpusched.engines import attendance
from gpusched.engines.local import groups, link, process
from gpusched.errors import StoreFull
from gpusched.store.store import Store
from tests.store.samples import RESULT
from tests.supervisor.support import make_batch, plan, supervised
from tests.worker.support import Fifo, runs, undying

MakeFifo = Callable[[str], Fifo]


@contextlib.contextmanager
def full(store: Store) -> Iterator[None]:
    """Nothing can be committed."""

    def refuse(*_: object) -> None:
        raise StoreFull(path=store.path, cause="no room")

    store.record = refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del store.record


async def test_with_a_full_disk_nothing_is_launched_and_what_is_cancelled_ends(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    store = Store.open(tmp_path / "state" / "state.db")
    async with supervised(tmp_path, slots=1, store=store) as b:
        await b.supervisor.submit(make_batch(tmp_path, "hangs", settings={"fifo": said.path}), plan(2))
        pid = await said.number()
        with full(store):
            b.supervisor.post(ChangeRequested(verb="cancel", batch_id="b", label=plan(1)[0].window.label))
            await b.when(lambda: b.supervisor.scheduler.state(b.key(0)) == Finished(attempts=1, outcome=Cancelled()))
            assert not runs(pid)
            assert b.supervisor.unwritten
            assert b.outcomes() == ["cancelled", "starting"], "it has the slot, and is not launched"
            assert not b.supervisor.attempts
            b.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
            await b.when(lambda: not b.supervisor.scheduler.active)
        await b.finished()
        assert b.outcomes() == ["cancelled", "cancelled"]
        assert [line.new for line in store.story(b.key(1))] == ["starting", "stopping", "cancelled"]


@pytest.mark.parametrize("ends", ["mended", pytest.param("cancelled", marks=pytest.mark.thorough)])
async def test_windows_whose_logs_cannot_be_made_are_told_of(tmp_path: Path, ends: str) -> None:
    async with supervised(tmp_path, slots=1) as b:
        in_the_way = b.engine.log_path("b")
        in_the_way.parent.mkdir(exist_ok=True)
        in_the_way.touch()
        await b.supervisor.submit(make_batch(tmp_path, "nothing"), plan(2))
        await b.when(lambda: bool(b.engine.condition.troubles))
        (trouble,) = b.engine.condition.troubles
        assert (trouble.kind, trouble.about) == ("log", "b")
        assert trouble.text == f"no window of b can be started: {in_the_way}: Not a directory"
        if ends == "mended":
            in_the_way.unlink()
        else:
            b.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await b.finished()
        assert b.outcomes() == ["succeeded" if ends == "mended" else "cancelled"] * 2
        assert b.engine.condition.troubles == ()


async def test_it_can_be_left_with_a_full_disk_and_the_next_one_goes_on(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    store = Store.open(tmp_path / "state" / "state.db")
    batch = make_batch(tmp_path, "hangs", settings={"fifo": said.path})
    with contextlib.ExitStack() as stack:
        async with supervised(tmp_path, slots=1, store=store) as b:
            await b.supervisor.submit(batch, plan(2))
            await said.number()
            stack.enter_context(full(store))
            b.supervisor.shut_down(drain=False)
            await b.supervisor.stopped()
            assert b.supervisor.unwritten
    async with supervised(tmp_path, slots=1, recover=True) as b:
        await said.number()
        moved = await b.moved_to(Running)
        assert moved.new.attempt == 2  # type: ignore[union-attr]


async def test_a_launch_that_waited_for_room_is_not_made_once_the_supervisor_is_told_to_stop(tmp_path: Path) -> None:
    """Room came with the signal, and a window started that `run` had promised not to start."""
    store = Store.open(tmp_path / "state" / "state.db")
    async with supervised(tmp_path, slots=1, store=store) as b:
        with full(store):
            b.supervisor.hand_over(make_batch(tmp_path, "nothing"), plan(1))
            await b.when(lambda: b.supervisor.unwritten > 0)
            b.supervisor.shut_down(drain=True)
        await b.supervisor.stopped()
        assert [line.new for line in store.story(b.key(0))] == ["starting", "queued"]


async def test_a_check_that_waits_for_a_commit_keeps_nobody(tmp_path: Path) -> None:
    """The second signal to stop was obeyed only at the limit: the check for results could not begin."""
    store = Store.open(tmp_path / "state" / "state.db")
    with contextlib.ExitStack() as stack:
        async with supervised(tmp_path, slots=1, store=store) as b:
            stack.enter_context(full(store))
            b.supervisor.hand_over(make_batch(tmp_path, "nothing"), plan(1, committed=RESULT))
            await b.when(lambda: b.supervisor.unwritten > 0)
            b.supervisor.shut_down(drain=False)
            await b.supervisor.stopped()


@pytest.mark.parametrize(("kill_grace_s", "within_s"), [(60.0, 1.0), (0.2, 3600.0)], ids=["the limit", "in vain"])
async def test_it_leaves_what_does_not_die_and_says_so(
    tmp_path: Path, fifo: MakeFifo, monkeypatch: pytest.MonkeyPatch, kill_grace_s: float, within_s: float
) -> None:
    """At the limit, or as soon as there is nothing else to wait for."""
    for module in (groups, process, attendance):
        monkeypatch.setattr(module, "KILL_GRACE_S", kill_grace_s)
    monkeypatch.setattr(link, "WATCH_S", 0.05)
    said = fifo("said")
    async with supervised(tmp_path, slots=1) as b:
        await b.supervisor.submit(make_batch(tmp_path, "hangs", settings={"fifo": said.path}, grace_s=0.1), plan(1))
        pid = await said.number()
        with undying(pid):
            b.supervisor.shut_down(drain=False, within_s=within_s)
            await b.supervisor.stopped()
            assert [(left.pid, left.window) for left in b.supervisor.left_behind] == [(pid, b.key(0))]
        told = [update.reason for update in b.updates if isinstance(update, WindowMoved)]
        assert ("does not die (state t in ptrace_stop)" in told) == (within_s > 1.0)
        assert [trouble.about for trouble in b.engine.condition.troubles] == ([str(b.key(0))] if within_s > 1.0 else [])


async def test_what_is_left_out_of_a_log_is_told(tmp_path: Path) -> None:
    async with supervised(tmp_path, slots=1) as b:
        batch = make_batch(tmp_path, "prints_much", log_limit_bytes=100_000)
        await b.supervisor.submit(batch, plan(1))
        moved = await b.moved_to(Finished)
        assert moved.reason == "trained; 1.8 MiB of its log are left out (run.log_limit_mb)"
        log = b.supervisor.attempts.log_path(moved.key, 1).read_bytes()
        assert len(log) <= 100_000
        assert log.startswith(b"x" * 99 + b"\n")
        assert log.endswith(b"to stderr\n")
