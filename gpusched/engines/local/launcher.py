"""The supervisor's side of the launcher.

`Launcher.fork` starts a window's process, and `Process.wait` follows it to its end. The processes are forked from a
launcher process of their workload module (and of the set of modules that commands have preloaded), since the side
effects of importing one module (a thread, a blocked package) must not reach another's windows. A launcher process is
started on first use (by `early`, which may also have done so ahead of it), replaced when it has died or the workload's
code has changed, and exits when idle. Where many windows run at a time it gets others beside it: a fork keeps it busy
for a millisecond or more. `link` is the connection to one launcher process, `process` one process that it has forked.
Everything here runs in asyncio's event loop, whose readers cost less per window than a task would.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import msgspec

import gpusched
from gpusched import __version__, files
from gpusched.engines.attendance import Attendant, Awaited
from gpusched.engines.condition import Condition
from gpusched.engines.engine import LauncherLost, Upgraded
from gpusched.engines.local import early, leftovers
from gpusched.engines.local.early import Early, Started
from gpusched.engines.local.link import Link
from gpusched.engines.local.logs import Logs, end_of_log
from gpusched.engines.local.process import Process
from gpusched.errors import LaunchError
from gpusched.worker.messages import Claim, Fork, Job, Needs, ProcessEnd

log = logging.getLogger("gpusched.daemon")

#: seconds that `aclose` waits at most for processes that do not die
CLOSE_LIMIT_S = 15.0
#: seconds that `abandon` waits for the processes that it has killed
ABANDON_S = 1.0
#: windows that a launcher process has when another one is started beside it
WINDOWS_EACH = 12
#: limit of a log's size, unless another is given
LOG_LIMIT_BYTES = 10 << 20

_LOG_CHARS = 2000
_VERSION_FILE = Path(gpusched.__file__)

#: a workload's module, and the modules that are imported beside it
_Key = tuple[str, tuple[str, ...]]


class Confines(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process runs, and within which limits."""

    #: its output is appended to this file
    log_path: Path
    #: environment on top of the launcher's own; None removes a variable
    env: dict[str, str | None]
    #: CPUs that it may run on; empty: all of the launcher's
    cpus: tuple[int, ...] = ()
    #: of its private writable memory; None: unlimited
    memory_limit_bytes: int | None = None
    #: a log that grows beyond this loses its middle; 0: no limit
    log_limit_bytes: int = LOG_LIMIT_BYTES


class LauncherAbandoned(LaunchError):
    """The supervisor leaves without waiting any longer."""

    problem = "the launcher was left behind: the supervisor had to leave"
    remedy = "the next start ends what is left of it"


class Uninstalled(LaunchError):
    """The files of gpusched are gone, for good or for the moment that an upgrade takes."""

    problem = "gpusched is not installed in {path} any more, so no process can be launched"
    remedy = "install it there again, then restart the daemon (`systemctl restart gpusched`): nothing is lost"


class Launcher:
    """Forks window processes through launcher processes, which are started and end as needed.

    Use as an async context manager: leaving it kills the processes that still run, and returns when they are gone or
    after `CLOSE_LIMIT_S`.

    `log_path`: file for the launcher processes' own output; None: discarded.
    `search_path`: directory appended to their `sys.path`, for a user's own workload module.
    `idle_timeout_s`: seconds after which a launcher process without windows exits; None: never.
    `kept`: a workload, and the modules imported beside it: one launcher process for these stays although it is idle.
    `mark`: an environment variable's value by which descendants are found after their launcher has died; see
    `leftovers`.
    `windows_each`: windows that a launcher process has when another one is started.
    """

    def __init__(
        self,
        *,
        log_path: Path | None = None,
        search_path: Path | None = None,
        idle_timeout_s: float | None = 60.0,
        kept: tuple[str, tuple[str, ...]] | None = None,
        environment: Mapping[str, str] | None = None,
        mark: str | None = None,
        condition: Condition | None = None,
        windows_each: int = WINDOWS_EACH,
    ) -> None:
        self._log_path = log_path
        self._own_log = log_path or Path(os.devnull)
        self._early_logs: dict[Link, int] = {}
        self._search_path = search_path
        self._idle_timeout_s = idle_timeout_s
        self._kept: _Key | None = None if kept is None else (_module(kept[0]), kept[1])
        self._environment = dict(os.environ if environment is None else environment)
        self._mark = f"{mark or 'none'}/{os.getpid()}-{secrets.token_hex(4)}"
        self._condition = condition or Condition()
        self.logs = Logs()
        self.windows_each = windows_each
        #: connections to launcher processes that may fork
        self._links: dict[_Key, list[Link]] = {}
        #: tasks that start another one; one that has failed stays, so that it is not tried for each window
        self._growing: dict[_Key, asyncio.Task[None]] = {}
        self._tending: dict[Link, asyncio.Task[None]] = {}
        self._last_id = 0
        #: exit status of the launcher process that died last
        self._last_status = 0
        #: number of launcher processes started so far
        self.starts = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.aclose()

    async def aclose(self) -> None:
        """Kill all window processes; return when they and the launcher processes are gone, or after a time limit."""
        self._stop_growing()
        for link in self._tending:
            link.retire()
        if self._tending:
            await asyncio.wait(self._tending.values(), timeout=CLOSE_LIMIT_S)
        if self._tending:
            await self.abandon()

    async def abandon(self) -> list[int]:
        """Kill everything and wait only a moment; return the pids of the processes that are still there.

        Everyone who waits for a process is told that it is gone.
        """
        self._stop_growing()
        links = list(self._tending)
        tending = list(self._tending.values())
        for link, task in self._tending.items():
            link.abandon(LauncherAbandoned())
            task.cancel()
        self._tending.clear()
        self._links.clear()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*tending, return_exceptions=True)
            _, left = await leftovers.end(self._mark, ABANDON_S)
            for link in links:
                await link.reap(ABANDON_S)
        return left

    def kill(self, workload: str, imports: tuple[str, ...] = ()) -> None:
        """Kill the launcher processes that owe an answer, since they hang: each open request ends with LauncherLost."""
        for link in self._links.get((_module(workload), imports), ()):
            if link.has_requests:
                link.kill()

    def pids(self, workload: str, imports: tuple[str, ...] = ()) -> list[int]:
        """The launcher processes that may fork windows of `workload`, the first one first."""
        return [link.pid for link in self._links.get((_module(workload), imports), ()) if not link.closed]

    def loss(self) -> LauncherLost:
        """The error that says how the last launcher process died."""
        return LauncherLost(status=self._last_status, log=_end_of_log(self._log_path))

    async def preload(self, workload: str, needed_by: Needs = "window", imports: tuple[str, ...] = ()) -> float:
        """Import the workload's modules that `needed_by` needs into its launcher process; return the seconds it took.

        A window also needs `imports`. Raises WorkloadNotLoadable, LauncherLost.
        """
        return await self._connected(workload, imports).preload(workload, needed_by, imports)

    async def fork(self, job: Job, confines: Confines) -> Awaited[Process, ProcessEnd]:
        """Start a process as `start` does, and wait until it exists. The caller must await `wait` of it.

        Raises WorkloadNotLoadable, LaunchRefused, LauncherLost; OSError if the log cannot be opened.
        """

        def on_stuck(process: Process, trouble: str) -> None:
            sentence = f"the process {process.pid} of a {job.__struct_config__.tag} {trouble}"
            self._condition.tell("leftover", str(process.pid), sentence)

        awaited: Awaited[Process, ProcessEnd] = Awaited(on_stuck)
        self.start(job, awaited, confines)
        return await awaited.launched()

    def start(
        self,
        job: Job,
        attendant: Attendant[Process, ProcessEnd],
        confines: Confines,
        *,
        read_after_s: float = 0.0,
    ) -> None:
        """Start a process for `job`; `attendant` hears of it.

        Its messages are read once it has run for `read_after_s`, or has ended. Raises LaunchError; OSError if the log
        cannot be opened.
        """
        self._last_id += 1
        request = Fork(
            id=self._last_id,
            job=job,
            env=confines.env,
            cpus=confines.cpus,
            memory_limit_bytes=confines.memory_limit_bytes,
        )
        log_path = confines.log_path
        log = self.logs.open(log_path, confines.log_limit_bytes)
        try:
            link = self._connected(job.workload, job.imports)
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except BaseException:
            os.close(log)
            self.logs.close(log_path)
            raise
        os.set_blocking(read_end, False)

        def close_log(pid: int) -> int:
            self._condition.clear("leftover", str(pid))
            return self.logs.close(log_path)

        process = Process(link.pid, read_end, attendant, close_log, read_after_s=read_after_s)
        try:
            link.fork(request, process, (write_end, log))
        except OSError as error:
            process.set_refused(error)
            return
        if len(link.processes) > self.windows_each:
            self._grow(job.workload, job.imports)

    # -- the launcher process ------------------------------------------------------------------------------------------

    def _connected(self, workload: str, imports: tuple[str, ...]) -> Link:
        """The launcher process that has the fewest windows; the first one is started."""
        key = (_module(workload), imports)
        links = self._links.setdefault(key, [])
        while links:
            link = min(links, key=lambda link: len(link.processes))
            if not link.closed and not link.is_outdated:
                return link
            links.remove(link)
            if not link.closed:
                log.info("its code has changed, so a new launcher takes over workload=%s", workload)
                link.leave_when_idle()
        self._growing.pop(key, None)
        links.append(self._open(key, stays=key == self._kept))
        return links[0]

    def _grow(self, workload: str, imports: tuple[str, ...]) -> None:
        """Start another launcher process, since all have many windows. It forks some once it has made its imports."""
        key = (_module(workload), imports)
        if key not in self._growing:
            self._growing[key] = asyncio.get_running_loop().create_task(self._grown(key, workload, imports))

    async def _grown(self, key: _Key, workload: str, imports: tuple[str, ...]) -> None:
        link = None
        try:
            link = self._open(key)
            await link.preload(workload, "window", imports)
        except (LaunchError, OSError) as error:
            log.warning("no further launcher could be started workload=%s error=%s", workload, error)
            if link is not None:
                link.retire()
            return
        self._links[key].append(link)
        self._growing.pop(key, None)

    def _stop_growing(self) -> None:
        for growing in self._growing.values():
            growing.cancel()

    def _open(self, key: _Key, *, stays: bool = False) -> Link:
        self.starts += 1
        mark = f"{self._mark}/{self.starts}"
        claimed = early.claim(key[0]) if not key[1] else None
        started = claimed.started if claimed else self._start(mark)
        link = Link(started, mark, None if stays else self._idle_timeout_s, self._condition)
        if claimed:
            self._adopt(link, claimed, mark)
        self._tending[link] = asyncio.get_running_loop().create_task(self._tend(key, link))
        return link

    def _start(self, mark: str) -> Started:
        if (installed := _installed_version()) not in (None, __version__):
            raise Upgraded(running=__version__, installed=installed)
        if not _VERSION_FILE.exists():
            raise Uninstalled(path=_VERSION_FILE.parent)
        search_path = () if self._search_path is None else (str(self._search_path),)
        log = self._open_log()
        try:
            return early.start(log, self._environment, mark, *search_path)
        except BaseException:
            self.logs.close(self._own_log)
            raise
        finally:
            os.close(log)

    def _adopt(self, link: Link, claimed: Early, mark: str) -> None:
        """Send a launcher process that was started early the orders that others get at their start."""
        new = {name: value for name, value in self._environment.items() if os.environ.get(name) != value}
        link.send(Claim(mark=mark, environment=new), (self._open_log(),))
        self._early_logs[link] = claimed.log

    def _open_log(self) -> int:
        return self.logs.open(self._own_log, LOG_LIMIT_BYTES)

    async def _tend(self, key: _Key, link: Link) -> None:
        """Follow a launcher process to its end, and clean up after it."""
        await link.closing()
        self._last_status = await link.bury()
        if link in self._early_logs:
            self._keep(self._early_logs.pop(link))
        await link.bereave(self.loss())
        self.logs.close(self._own_log)
        del self._tending[link]
        if link in self._links.get(key, ()):
            self._links[key].remove(link)

    def _keep(self, early_log: int) -> None:
        """Append to the log the output of a launcher process from before it was adopted: why it has died, if it has."""
        with open(early_log, "rb") as written, contextlib.suppress(OSError):
            written.seek(0)
            log = self._open_log()
            files.write(log, written.read(LOG_LIMIT_BYTES))
            os.close(log)
            self.logs.close(self._own_log)


def _module(workload: str) -> str:
    """The module of an entry point `package.module:function`, with the directory that it may name."""
    return workload.rpartition(":")[0]


def _installed_version() -> str | None:
    """The version of gpusched's files, which a new launcher would have; None while they are being replaced."""
    try:
        match = re.search(r"^__version__ = \"(.+)\"$", _VERSION_FILE.read_text("utf-8"), re.MULTILINE)
    except OSError:
        return None
    return match[1] if match else None


def _end_of_log(path: Path | None) -> str:
    return end_of_log(path)[-_LOG_CHARS:] if path is not None else "(not kept)"
