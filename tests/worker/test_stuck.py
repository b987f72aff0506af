"""Processes that do not die, launchers that hang, and the processes of a killed launcher."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from gpusched.core.model import WindowResult
from gpusched.engines import attendance
from gpusched.engines.condition import Condition
from gpusched.engines.local import groups, leftovers, link, proc, process
from gpusched.protocol import Trouble
from gpusched.worker.mark import MARK
from gpusched.worker.messages import ProcessEnd
from tests.waiting import PATIENCE_S
from tests.worker.support import Fifo, bench, exists, exited, runs, undying

MakeFifo = Callable[[str], Fifo]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of seconds take moments."""
    monkeypatch.setattr(link, "WATCH_S", 0.02)
    monkeypatch.setattr(leftovers, "WATCH_S", 0.02)
    monkeypatch.setattr(link, "STOPPED_S", 0.1)
    set_grace(monkeypatch, 0.5)


def set_grace(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for module in (groups, process, attendance):
        monkeypatch.setattr(module, "KILL_GRACE_S", seconds)


class Looks:
    """Waits for looks at processes by the supervisor's watch over their launcher."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count = 0
        self._more = anyio.Event()
        look = process.Process.look

        def counted(self_: process.Process, strays: Callable[[], list[int]], *, launcher_stopped: bool) -> bool:
            self._count += 1
            self._more.set()
            return look(self_, strays, launcher_stopped=launcher_stopped)

        monkeypatch.setattr(process.Process, "look", counted)

    async def several(self) -> None:
        """Wait until there have been twice as many as fit into `STOPPED_S`."""
        last = self._count + 2 * int(link.STOPPED_S / link.WATCH_S)
        while self._count < last:
            self._more = anyio.Event()
            await self._more.wait()


@pytest.fixture
def looks(impatient: None, monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


async def test_a_signal_needs_no_launcher_that_answers(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        window = await b.fork("has_child", fifo=said.path)
        child, leader = await said.number(), await said.number()
        watched = [os.pidfd_open(pid) for pid in (child, leader)]
        assert b.launcher_pid is not None
        os.kill(b.launcher_pid, signal.SIGSTOP)
        window.signal(signal.SIGKILL)
        for descriptor in watched:
            await exited(descriptor)
        os.kill(b.launcher_pid, signal.SIGCONT)
        assert (await window.wait(b.messages.append)).signal == signal.SIGKILL


async def test_a_window_that_was_stopped_can_obey_a_term(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        window = await b.fork("hangs", fifo=said.path)
        os.kill(await said.number(), signal.SIGSTOP)
        window.signal(signal.SIGTERM)
        assert (await window.wait(b.messages.append)).signal == signal.SIGTERM


def test_a_signal_does_not_reach_a_stranger() -> None:
    """A number that is somebody else's by now: here that of a process which is nobody's window."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        groups.signal_group(stranger.pid, os.getppid(), signal.SIGKILL)
        assert stranger.poll() is None
        groups.signal_group(stranger.pid, os.getpid(), signal.SIGKILL)
        assert stranger.wait() == -signal.SIGKILL
        groups.signal_group(stranger.pid, os.getpid(), signal.SIGKILL)  # there is none any more


@pytest.mark.parametrize("leads", [True, False], ids=["in its group", "before it leads a group"])
async def test_a_window_that_does_not_die_is_told_of_and_waited_for(
    tmp_path: Path, fifo: MakeFifo, looks: Looks, monkeypatch: pytest.MonkeyPatch, leads: bool
) -> None:
    if not leads:
        monkeypatch.setattr(proc, "members", lambda group: [])
    said = fifo("said")
    told: list[str] = []
    heard = anyio.Event()
    ends: list[ProcessEnd] = []

    def on_stuck(what: str) -> None:
        told.append(what)
        heard.set()

    async with bench(tmp_path) as b:
        window = await b.fork("hangs", fifo=said.path)

        async def wait() -> None:
            ends.append(await window.wait(b.messages.append, on_stuck))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            with undying(await said.number()):
                window.signal(signal.SIGKILL)
                await heard.wait()
                assert (await b.run("nothing")).exit_code == 0, "the launcher goes on"
                await looks.several()
                assert not ends
    assert told == ["does not die (state t in ptrace_stop)"]
    assert ends[0].signal == signal.SIGKILL


@pytest.mark.usefixtures("impatient")
async def test_so_is_one_whose_child_does_not_die_when_it_ends_by_itself(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    told: list[str] = []
    heard = anyio.Event()

    def on_stuck(what: str) -> None:
        told.append(what)
        heard.set()

    async with bench(tmp_path) as b:
        window = await b.fork("has_daemon", fifo=said.path)
        (daemon,) = {await said.number(), await said.number()} - {window.pid}
        waiting = asyncio.ensure_future(window.wait(b.messages.append, on_stuck))
        with undying(daemon):
            os.kill(window.pid, signal.SIGTERM)
            await heard.wait()
            assert not waiting.done()
        assert not (await waiting).killed
    assert told == [f"its process {daemon} does not die (state t in ptrace_stop)"]


@pytest.mark.usefixtures("impatient")
async def test_a_launcher_that_hangs_is_replaced(tmp_path: Path, fifo: MakeFifo) -> None:
    said, back = fifo("said"), fifo("back")
    condition = Condition()
    told: list[tuple[Trouble, bool]] = []
    condition.heard_by(lambda change: told.append((change.trouble, change.present)))
    async with bench(tmp_path, condition=condition) as b:
        window = await b.fork("waits", fifo=said.path, back=back.path)
        await said.number()
        stopped = b.launcher_pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        back.answer()
        assert (await window.wait(b.messages.append)).launcher_lost
        assert isinstance(b.last, WindowResult), "what it had said is heard"
        assert (await b.run("nothing")).exit_code == 0
        assert b.launcher_pid != stopped
    assert [(trouble.kind, trouble.about, present) for trouble, present in told] == [
        ("launcher", str(stopped), True),
        ("launcher", str(stopped), False),
    ]
    assert told[0][0].text == (
        f"the launcher process {stopped} hangs (state T in do_signal_stop): it is killed with its windows,"
        " which go back to the queue"
    )


@pytest.mark.parametrize("name", ["has_daemon", "has_child"])
@pytest.mark.usefixtures("impatient")
async def test_so_is_one_that_was_stopped_before_it_could_kill_the_rest(
    tmp_path: Path, fifo: MakeFifo, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The rest of a window was taken for a stubborn process, and a stopped launcher kept its slots for ever."""
    monkeypatch.setattr(link, "STOPPED_S", 1.0)  # later than the report of a stubborn process
    said = fifo("said")
    told: list[str] = []
    async with bench(tmp_path) as b:
        window = await b.fork(name, fifo=said.path)
        (rest,) = {await said.number(), await said.number()} - {window.pid}
        watched = os.pidfd_open(rest)
        stopped = b.launcher_pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        os.kill(window.pid, signal.SIGKILL)
        with anyio.fail_after(PATIENCE_S):
            assert (await window.wait(b.messages.append, told.append)).launcher_lost
            await exited(watched)
    assert told == []


@pytest.mark.parametrize("name", ["has_daemon", "has_child"])
@pytest.mark.usefixtures("impatient")
async def test_so_is_one_that_says_nothing_while_the_rest_of_a_window_lives(
    tmp_path: Path, fifo: MakeFifo, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its windows' processes were taken for ones that do not die, although nobody had killed them."""
    set_grace(monkeypatch, 2.0)  # half of it is time enough to die on a busy machine
    monkeypatch.setattr(link, "HANG_S", 0.1)
    said = fifo("said")
    told: list[str] = []
    async with bench(tmp_path) as b:
        window = await b.fork(name, fifo=said.path)
        (rest,) = {await said.number(), await said.number()} - {window.pid}
        watched = os.pidfd_open(rest)
        assert b.launcher_pid is not None
        os.kill(b.launcher_pid, signal.SIGUSR1)
        os.kill(window.pid, signal.SIGKILL)
        assert (await window.wait(b.messages.append, told.append)).launcher_lost
        await exited(watched)
    assert told == []


async def test_a_launcher_that_is_stopped_and_owes_nothing_is_left_alone(
    tmp_path: Path, fifo: MakeFifo, looks: Looks
) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        window = await b.fork("hangs", fifo=said.path)
        await said.number()
        launcher = b.launcher_pid
        assert launcher is not None
        os.kill(launcher, signal.SIGSTOP)
        await looks.several()
        assert b.launcher_pid == launcher
        os.kill(launcher, signal.SIGCONT)
        window.signal(signal.SIGKILL)
        await window.wait(b.messages.append)


@pytest.mark.parametrize("name", ["has_daemon", "has_program"])
async def test_what_left_its_window_dies_with_the_launcher(tmp_path: Path, fifo: MakeFifo, name: str) -> None:
    """Nothing of attempt 1 runs beside attempt 2."""
    said = fifo("said")
    async with bench(tmp_path) as b:
        window = await b.fork(name, fifo=said.path)
        (daemon,) = {await said.number(), await said.number()} - {window.pid}
        assert b.launcher_pid is not None
        os.kill(b.launcher_pid, signal.SIGKILL)
        assert await window.wait(b.messages.append) == ProcessEnd(launcher_lost=True)
        assert not runs(daemon)
        assert not exists(window.pid) or not runs(window.pid)


@pytest.mark.usefixtures("impatient")
async def test_an_orphan_that_does_not_die_keeps_its_window_and_no_other(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    told: list[str] = []
    heard = anyio.Event()

    def on_stuck(what: str) -> None:
        told.append(what)
        heard.set()

    async with bench(tmp_path) as b:
        stuck = await b.fork("hangs", "STUCK", fifo=said.path)
        await said.number()
        other = await b.fork("hangs", "OTHER", fifo=said.path)
        await said.number()
        waiting = asyncio.ensure_future(stuck.wait(b.messages.append, on_stuck))
        with undying(stuck.pid):
            assert b.launcher_pid is not None
            os.kill(b.launcher_pid, signal.SIGKILL)
            assert (await other.wait(b.messages.append)).launcher_lost
            await heard.wait()
            assert not waiting.done()
        assert (await waiting).launcher_lost
    assert told == ["does not die (state t in ptrace_stop)"]


@pytest.mark.usefixtures("impatient")
async def test_a_leftover_that_does_not_die_is_trouble_until_it_does(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    condition = Condition()
    async with bench(tmp_path, condition=condition) as b:
        window = await b.fork("has_daemon", fifo=said.path)
        (daemon,) = {await said.number(), await said.number()} - {window.pid}
        with undying(daemon):
            assert b.launcher_pid is not None
            os.kill(b.launcher_pid, signal.SIGKILL)
            assert (await window.wait(b.messages.append)).launcher_lost
            (trouble,) = condition.troubles
            assert (trouble.kind, trouble.about) == ("leftover", str(daemon))
            assert "does not die (state t in ptrace_stop)" in trouble.text
    assert condition.troubles == ()


@pytest.mark.usefixtures("impatient")
async def test_one_that_nobody_waits_for_any_more_is_trouble_until_it_is_gone(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    condition = Condition()
    told = anyio.Event()
    condition.heard_by(lambda change: told.set())
    async with bench(tmp_path, condition=condition) as b:
        window = await b.fork("hangs", fifo=said.path)
        with undying(await said.number()):
            with anyio.move_on_after(0):
                await window.wait(b.messages.append)
            await told.wait()
            (trouble,) = condition.troubles
            assert (trouble.kind, trouble.about) == ("leftover", str(window.pid))
            assert trouble.text == f"the process {window.pid} of a window does not die (state t in ptrace_stop)"
        assert (await b.run("nothing")).exit_code == 0
        await window._ended
        assert condition.troubles == ()


async def test_leaving_at_once_says_what_is_left(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        window = await b.fork("hangs", "STUCK", fifo=said.path)
        other = await b.fork("has_daemon", "OTHER", fifo=said.path)
        pids = {await said.number(), await said.number(), await said.number()}
        waiting = [asyncio.ensure_future(each.wait(b.messages.append)) for each in (window, other)]
        with undying(window.pid):
            left = await b.launcher.abandon()
            assert left == [window.pid]
            assert [(await each).launcher_lost for each in waiting] == [True, True]
        assert not any(runs(pid) for pid in pids - {window.pid})


async def test_a_launcher_that_is_left_is_reaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies of its SIGKILL while its mark cannot be found any more."""

    async def nothing(mark: str, within_s: float) -> tuple[list[int], list[int]]:
        return [], []

    async with bench(tmp_path) as b:
        await b.run("nothing")
        pid = b.launcher_pid
        assert pid is not None
        monkeypatch.setattr(leftovers, "end", nothing)
        await b.launcher.abandon()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_mark_is_told_from_one_that_only_begins_like_it() -> None:
    with subprocess.Popen(["sleep", "1000"], env={MARK: "a-1/2/3"}) as program:
        try:
            assert leftovers.find("a-1") == leftovers.find("a-1/2/3") == [program.pid]
            assert leftovers.find("a") == leftovers.find("a-1/2/3/4") == leftovers.find("2") == []
        finally:
            program.kill()


def test_a_survivor_is_named_though_its_environment_cannot_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the environment of a process that hangs in the kernel hangs as well."""
    end_of_test = threading.Event()
    with subprocess.Popen(["sleep", "1000"]) as program:
        looks = iter([[program.pid]])

        def find(mark: str) -> list[int]:
            if pids := next(looks, None):
                return pids
            end_of_test.wait()
            return []

        monkeypatch.setattr(leftovers, "find", find)
        monkeypatch.setattr(leftovers, "_kill", lambda pid, mark: None)
        try:
            assert anyio.run(leftovers.end, "mark", 0.05) == ([program.pid], [program.pid])
        finally:
            end_of_test.set()
            program.kill()


def test_a_process_that_dies_has_lost_its_mark_before_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted as one that does not die: its environment goes first, with its memory."""
    marked = iter([[4711], []])
    lives = iter([True, True, False])
    monkeypatch.setattr(leftovers, "find", lambda mark: next(marked, []))
    monkeypatch.setattr(leftovers, "_kill", lambda pid, mark: None)
    monkeypatch.setattr(proc, "lives", lambda pid: next(lives, False))
    assert anyio.run(leftovers.end, "mark", 20.0) == ([4711], [])
