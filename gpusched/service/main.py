"""The service: `gpusched daemon`, from its start to a planned end.

Signals and messages to the service manager are in `manager`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from gpusched import __version__, files
from gpusched.config import Config
from gpusched.core.events import BatchAccepted, BatchFinished, BatchHeld, BatchReleased, WindowMoved
from gpusched.engines.opening import look_here
from gpusched.errors import DONE, GpuschedError, StoreError, StoreUnwritable, one_error
from gpusched.protocol.places import listening_path
from gpusched.service.admission import Admission
from gpusched.service.forgetting import Forgetting
from gpusched.service.hub import Hub
from gpusched.service.journal import Journal, start_logging
from gpusched.service.listener import Listener
from gpusched.service.manager import FAILED, Service
from gpusched.service.metrics import Metrics
from gpusched.service.notify import Notifier
from gpusched.service.requests import Requests
from gpusched.service.server import Server
from gpusched.service.stages import Stages
from gpusched.service.territory import Territory
from gpusched.service.warmth import Warmth
from gpusched.store import STORE
from gpusched.supervisor.followers import TurnEnded
from gpusched.supervisor.runtime import opened

#: the limit on open files that the daemon sets, if it may: it needs two for each window, one for each client
MAX_DESCRIPTORS = 16384

log = logging.getLogger("gpusched.daemon")


class StateDirectoryShared(StoreError):
    problem = "{path} is open to others and holds other things than a daemon's ({name})"
    remedy = "name a directory of its own, which is made if it is missing: daemon.state_dir in the configuration"


def serve(config: Config) -> int:
    """Run the service until a signal stops it; return the exit code. Raises GpuschedError if it cannot start."""
    start_logging()
    try:
        with one_error():
            anyio.run(_serve, config)
    except GpuschedError:
        raise
    except Exception:
        log.exception("the daemon failed")
        return FAILED
    return DONE


async def _serve(config: Config) -> None:
    began = time.monotonic()
    notifier = Notifier.from_environment()
    _raise_descriptor_limit()
    if (mode := _output_mode(config)) is not None:
        os.umask(0o777 & ~mode)  # the launcher and its windows inherit it; private files have modes of their own
    async with AsyncExitStack() as stack:
        stack.callback(notifier.close)
        _make_private(config.daemon.state_dir)
        runtime = await stack.enter_async_context(opened(config, config.daemon.state_dir, look_here(config), Journal()))
        listener = Listener(listening_path(config.daemon.socket), config.daemon.group or None)
        stack.callback(listener.close)
        hub, service = Hub(runtime), Service(notifier, runtime)
        runtime.followers.add(hub)
        runtime.followers.add(service, TurnEnded)
        if config.metrics.listen:
            metrics = Metrics(runtime)
            stack.enter_context(metrics.served(config.metrics.listen))
            runtime.followers.add(metrics, BatchAccepted, WindowMoved)
        runtime.supervisor.recover()
        admission = Admission(runtime, _territory(config, listener))
        forgetting = Forgetting(runtime, admission)
        stages = Stages(runtime, admission, hub.renew)
        runtime.followers.add(stages, BatchFinished, BatchHeld, BatchReleased)
        server = Server(listener, Requests(runtime, hub, admission, forgetting, stages), state_dir=runtime.state_dir)
        tasks = await stack.enter_async_context(runtime.working())
        if config.daemon.warm:
            warmth = Warmth(runtime)
            runtime.followers.add(warmth, BatchFinished)
            tasks.start_soon(warmth.run)
        for work in (service.obey_signals, service.keep_turning, server.run, forgetting.run, stages.run):
            tasks.start_soon(work)
        await runtime.supervisor.committed()
        pool = runtime.supervisor.scheduler.pool
        log.info(
            "ready version=%s pid=%d socket=%s state=%s devices=%d slots=%d unfinished=%d seconds=%.3f",
            *(__version__, os.getpid(), listener.path, runtime.state_dir),
            *(len(pool.devices), sum(state.device.capacity for state in pool.devices.values())),
            *(runtime.supervisor.scheduler.unfinished, time.monotonic() - began),
        )
        gc.freeze()  # modules and functions are never garbage: no collection need look at them again
        notifier.ready(service.summary())
        await runtime.supervisor.stopped()
        with anyio.move_on_after(service.deadline - time.monotonic()):
            await runtime.hooks.finished()
        service.report()


def _territory(config: Config, listener: Listener) -> Territory:
    # The parent of a configured socket is not private: it may be any directory.
    own = () if config.daemon.socket else (listener.path.parent,)
    return Territory(
        output_root=config.run.output.absolute(),
        private=(config.daemon.state_dir, config.cache.dir, *own),
        roots=config.daemon.roots,
        workloads=config.daemon.workloads,
        output_group=listener.group,
        output_mode=_output_mode(config),
    )


def _output_mode(config: Config) -> int | None:
    return int(config.daemon.output_mode, 8) if config.daemon.output_mode else None


def _make_private(directory: Path) -> None:
    """Make the state directory, or restrict it to this user. Raises StateDirectoryShared, StoreUnwritable."""
    try:
        files.make_private_directory(directory)
        if directory.stat().st_mode & 0o077:
            names = sorted({path.name for path in directory.iterdir()} - {"lost+found"})
            if names and not any(name.startswith(STORE) for name in names):
                raise StateDirectoryShared(path=directory, name=names[0])
            directory.chmod(0o700)
    except OSError as error:
        raise StoreUnwritable(path=directory, cause=error.strerror or error) from error


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
