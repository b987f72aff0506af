"""The launcher comes, refuses, dies, goes; its supervisor dies."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from gpusched.core.model import WindowResult
from gpusched.engines.engine import LauncherLost, LaunchRefused, WorkloadNotLoadable
from gpusched.engines.local.launcher import Confines, Launcher, Uninstalled
from gpusched.worker.messages import MAX_PACKET_BYTES, ProcessEnd
from tests.worker.support import REPOSITORY, WORKLOADS, Bench, Fifo, bench, descriptors, exited, runs

MakeFifo = Callable[[str], Fifo]


async def test_it_starts_on_first_use_and_serves_every_window(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert b.launcher_pid is None
        await b.run("nothing")
        first = b.launcher_pid
        await b.run("nothing")
        assert b.launcher_pid == first


async def test_it_leaves_when_idle_and_comes_back(tmp_path: Path) -> None:
    async with bench(tmp_path, idle_timeout_s=0.01) as b:
        await b.run("nothing")
        first = b.launcher_pid
        if first is not None:
            await exited(os.pidfd_open(first))
        assert (await b.run("nothing")).exit_code == 0
        assert b.launcher_pid != first


async def test_of_all_idle_launchers_only_the_one_to_keep_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(task, directory, report): ...\n")
    kept, other = f"{WORKLOADS}:nothing", f"{tmp_path}:mine:f"
    async with (
        Launcher(search_path=REPOSITORY, idle_timeout_s=0.01, kept=(kept, ()), windows_each=0) as launcher,
        bench(tmp_path) as b,
    ):
        process = await launcher.fork(b.job(kept), Confines(log_path=b.log, env={}))  # another one is started beside it
        first = launcher.pids(kept)[0]
        await process.wait(b.messages.append)
        await asyncio.gather(*launcher._growing.values())
        await launcher.preload(other)
        await asyncio.gather(*[leaves for link, leaves in launcher._tending.items() if link.pid != first])
        assert launcher.pids(kept) == [first], "it has been idle for longer than the others"
        assert launcher.starts == 3


async def test_it_does_not_leave_while_a_window_runs(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path, idle_timeout_s=0.0) as b:
        process = await b.fork("hangs", fifo=said.path)
        await said.number()
        launcher = b.launcher_pid
        assert (await b.run("nothing", "NEIGHBOUR")).exit_code == 0
        assert b.launcher_pid == launcher
        process.signal(signal.SIGKILL)
        await process.wait(b.messages.append)


async def test_a_large_request_without_a_descriptor_for_it_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(name: str, flags: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with bench(tmp_path, idle_timeout_s=0.0) as b:
        process = await b.fork("hangs", fifo="/dev/null")  # its launcher stays
        before = descriptors(os.getpid())
        with monkeypatch.context() as few:
            few.setattr(os, "memfd_create", no_descriptor)
            with pytest.raises(OSError, match="Too many open files"):
                await b.fork("nothing", "LARGE", more="x" * MAX_PACKET_BYTES)
        assert descriptors(os.getpid()) == before
        launcher = b.launcher_pid
        assert launcher is not None
        process.signal(signal.SIGKILL)
        await process.wait(b.messages.append)
        await exited(os.pidfd_open(launcher))  # nothing is owed any more


async def test_whoever_waits_for_a_request_that_cannot_be_sent_hears_of_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.run("nothing")
        ((link,),) = b.launcher._links.values()
        link._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        with pytest.raises(LauncherLost):
            await b.run("nothing", "SECOND", more="x" * (MAX_PACKET_BYTES // 2))
        assert (await b.run("nothing", "THIRD")).exit_code == 0


async def test_preload(tmp_path: Path) -> None:
    imports = tmp_path / "imports"
    (tmp_path / "once.py").write_text(f"open({str(imports)!r}, 'a').write('imported\\n')\ndef f(*task): ...\n")
    async with bench(tmp_path) as b:
        assert await b.launcher.preload(f"{tmp_path}:once:f") > 0
        await b.launcher.preload(f"{tmp_path}:once:f")
    assert imports.read_text() == "imported\n"


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ("nowhere_to_be_found:f", "No module named 'nowhere_to_be_found'; the search path is /"),
        ("tests.worker.workloads:missing", "the module has no such function"),
        ("tests.worker.workloads", "not of the form package.module:function"),
        ("broken:f", "importing broken failed: ZeroDivisionError"),
        ("wordy:f", "importing wordy failed: ValueError"),
        ("ends:f", "importing ends failed: SystemExit: 2; what it does as a program belongs below"),
    ],
)
async def test_a_workload_that_cannot_be_loaded(tmp_path: Path, workload: str, message: str) -> None:
    (tmp_path / "broken.py").write_text("1/0\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(2)\n")  # the launcher died of it
    (tmp_path / "wordy.py").write_text("raise ValueError('+é' * 30_000)\n")  # its answer comes in pieces
    async with Launcher(search_path=tmp_path, environment={**os.environ, "PYTHONPATH": str(REPOSITORY)}) as launcher:
        with pytest.raises(WorkloadNotLoadable, match=message) as caught:
            await launcher.preload(workload)
        assert "Traceback" in caught.value.traceback
        async with bench(tmp_path) as b:
            with pytest.raises(WorkloadNotLoadable, match=message):
                await launcher.fork(
                    b.job(workload) if ":" in workload else b.job(":x"), Confines(log_path=b.log, env={})
                )


async def test_a_workload_of_very_many_files_is_looked_at_as_any(tmp_path: Path) -> None:
    names = [f"m{number:03}_{'x' * 100}" for number in range(500)]
    for name in names:
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "many.py").write_text("".join(f"import {name}\n" for name in names))
    async with Launcher(search_path=tmp_path) as launcher:
        with pytest.raises(WorkloadNotLoadable, match="no such function"):
            await launcher.preload("many:f")
        ((link,),) = launcher._links.values()
        assert not link.is_outdated
        (tmp_path / f"{names[-1]}.py").write_text("changed = True\n")
        assert link.is_outdated


async def test_a_workload_that_was_mended_can_be_loaded(tmp_path: Path) -> None:
    module = tmp_path / "mended.py"
    module.write_text("1/0\n")
    async with Launcher(search_path=tmp_path) as launcher:
        with pytest.raises(WorkloadNotLoadable):
            await launcher.preload("mended:f")
        module.write_text("def f(task, directory, report): ...\n")
        await launcher.preload("mended:f")


async def test_gpusched_that_was_uninstalled_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's own words would be of a module that it cannot find, from the end of a log."""
    monkeypatch.setattr("gpusched.engines.local.launcher._VERSION_FILE", tmp_path / "gone" / "__init__.py")
    async with Launcher() as launcher:
        with pytest.raises(Uninstalled, match=f"gpusched is not installed in {tmp_path}/gone any more"):
            await launcher.preload(f"{WORKLOADS}:nothing")


async def test_a_launcher_with_threads_refuses(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\n"
        "def f(task, directory, report): ...\n"
        "def preload():\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    async with Launcher(search_path=tmp_path) as launcher, bench(tmp_path) as b:
        with pytest.raises(LaunchRefused, match=r"importing the workload started: (python|Thread-1)"):
            await launcher.fork(b.job("threaded:f"), Confines(log_path=b.log, env={}))
        process = await launcher.fork(b.job("nothing"), Confines(log_path=b.log, env={}))
        assert (await process.wait(b.messages.append)).exit_code == 0, "the windows of another module do not mind"


async def test_a_workload_finds_the_packages_that_the_built_in_one_keeps_away(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import lightgbm\n"
        "import pandas\n"
        "from gpusched.workload import Result\n"
        "def train(task, directory, report):\n"
        "    rows = pandas.DataFrame({'a': range(100)})\n"
        "    lightgbm.Dataset(rows, rows.a > 50, params={'verbosity': -1}).construct()\n"
        "    return Result(metrics={}, sample_counts={}, metadata={}, phases={})\n"
    )
    async with Launcher(search_path=tmp_path) as launcher, bench(tmp_path) as b:
        await launcher.preload("gpusched.teacher:train_window")
        process = await launcher.fork(b.job("mine:train"), Confines(log_path=b.log, env={}))
        assert (await process.wait(b.messages.append)).exit_code == 0, b.last
        assert launcher.starts == 2


@pytest.mark.parametrize("workload", ["replaces_its_streams", "replaces_its_streams_and_raises"])
async def test_a_window_that_spoils_its_streams_harms_no_other(tmp_path: Path, fifo: MakeFifo, workload: str) -> None:
    """It did not get to its end, took itself for the launcher, and killed the other windows."""
    said = fifo("said")
    async with bench(tmp_path) as b:
        other = await b.fork("hangs", "OTHER", fifo=said.path)
        await said.number()
        end = await b.run(workload)
        assert end.exit_code == (0 if workload == "replaces_its_streams" else 1)
        assert runs(other.pid)
        other.signal(signal.SIGTERM)
        assert (await other.wait(b.messages.append)).signal == signal.SIGTERM


async def test_when_the_launcher_dies_its_windows_die_and_the_next_one_has_a_new_launcher(
    tmp_path: Path, fifo: MakeFifo
) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        first = await b.fork("hangs", "ONE", fifo=said.path)
        second = await b.fork("has_child", "TWO", fifo=said.path)
        pids = {await said.number(), await said.number(), await said.number()}
        assert {first.pid, second.pid} < pids
        launcher = b.launcher_pid
        assert launcher is not None

        os.kill(launcher, signal.SIGKILL)
        ends = [await first.wait(b.messages.append), await second.wait(b.messages.append)]
        assert ends == [ProcessEnd(launcher_lost=True)] * 2
        assert not any(runs(pid) for pid in pids)

        assert (await b.run("nothing")).exit_code == 0
        assert b.launcher_pid != launcher


async def test_a_launcher_that_dies_before_it_answers(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        preloading = asyncio.ensure_future(b.launcher.preload("tests.worker.workloads:nothing"))
        forking = asyncio.ensure_future(b.fork("nothing"))
        await anyio.lowlevel.checkpoint()
        assert b.launcher_pid is not None
        os.kill(b.launcher_pid, signal.SIGKILL)
        for answer in (preloading, forking):
            with pytest.raises(LauncherLost, match="the launcher process died \\(exit status -9\\)"):
                await answer
        assert (await b.run("nothing")).exit_code == 0


async def test_a_launcher_that_hangs_can_be_killed(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    (tmp_path / "hanging.py").write_text(
        "import signal\n"
        "def f(task, directory, report): ...\n"
        "def preload():\n"
        f"    open({said.path!r}, 'w').write('1\\n')\n"
        "    signal.pause()\n"
    )
    async with Launcher(search_path=tmp_path) as launcher, bench(tmp_path) as b:
        forking = asyncio.ensure_future(launcher.fork(b.job("hanging:f"), Confines(log_path=b.log, env={})))
        await said.number()
        launcher.kill("hanging:f")
        with pytest.raises(LauncherLost):
            await forking
        launcher.kill("hanging:f")


async def test_a_launcher_that_cannot_start_says_why(tmp_path: Path) -> None:
    # A directory that hides the package itself: its message has to reach the user.
    (tmp_path / "gpusched").mkdir()
    (tmp_path / "gpusched" / "__init__.py").write_text("raise ImportError('not this one')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    log = tmp_path / "launcher.log"
    async with Launcher(environment=environment, log_path=log) as launcher, bench(tmp_path) as b:
        with pytest.raises(LauncherLost, match="not this one"):
            await launcher.fork(b.job("nothing"), Confines(log_path=b.log, env={}))


async def test_a_file_in_the_working_directory_shadows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise ImportError('shadowed')")
    monkeypatch.chdir(tmp_path)
    async with bench(tmp_path) as b:
        assert (await b.run("nothing")).exit_code == 0
    async with Launcher(search_path=tmp_path, environment={**os.environ, "PYTHONPATH": str(REPOSITORY)}) as launcher:
        await launcher.preload("tests.worker.workloads:nothing")


async def test_a_request_too_long_for_a_packet(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert (await b.run("nothing", padding="x" * 1_000_000)).exit_code == 0
        assert isinstance(b.last, WindowResult)


async def test_requests_wait_while_the_launcher_is_busy(tmp_path: Path) -> None:
    """More of them than the socket holds: none is lost, and the loop is not blocked."""
    async with bench(tmp_path) as b, anyio.create_task_group() as tasks:
        await b.run("nothing")
        assert b.launcher_pid is not None
        os.kill(b.launcher_pid, signal.SIGSTOP)
        for number in range(30):
            tasks.start_soon(_run_padded, b, number)
        await anyio.lowlevel.checkpoint()
        os.kill(b.launcher_pid, signal.SIGCONT)
    assert sum(isinstance(message, WindowResult) for message in b.messages) == 31


async def _run_padded(b: Bench, number: int) -> None:
    assert (await b.run("nothing", f"S{number}", padding="x" * 50_000)).exit_code == 0


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from tests.worker.support import bench

async def main():
    async with bench(Path(sys.argv[1])) as b:
        await b.fork("ignores_term", "ONE", fifo=sys.argv[2])
        await b.fork("has_child", "TWO", fifo=sys.argv[2])
        print(b.launcher_pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def _start_supervisor(directory: Path, said: Fifo) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(directory), said.path],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        text=True,
    )


async def test_when_the_supervisor_is_killed_nothing_is_left(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    supervisor = _start_supervisor(tmp_path, said)
    with supervisor:
        assert supervisor.stdout is not None
        pids = [await said.number() for _ in range(3)]
        pids.append(int(supervisor.stdout.readline()))
        watched = [os.pidfd_open(pid) for pid in pids]
        supervisor.kill()
    for descriptor in watched:
        await exited(descriptor)


async def test_when_supervisor_and_launcher_are_killed_together_no_window_is_left(
    tmp_path: Path, fifo: MakeFifo
) -> None:
    said = fifo("said")
    supervisor = _start_supervisor(tmp_path, said)
    with supervisor:
        assert supervisor.stdout is not None
        pids = [await said.number() for _ in range(3)]
        launcher = int(supervisor.stdout.readline())
        leaders = [os.pidfd_open(pid) for pid in pids if os.getpgid(pid) == pid]
        os.kill(launcher, signal.SIGSTOP)  # so that it cannot tidy up
        supervisor.kill()
        os.kill(launcher, signal.SIGKILL)
    for descriptor in leaders:
        await exited(descriptor)
    for pid in pids:  # the grandchild, which only a supervisor would have found
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
