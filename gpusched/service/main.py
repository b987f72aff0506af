"""The service: `gpusched daemon`, from its start to a planned end.

Signals and messages to the service manager are in `manager`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from gpusched import __version__
from gpusched.config import Config
from gpusched.devices.host import read_host
from gpusched.devices.memory import HostMemory
from gpusched.devices.nvidia.accounting import Accountant
from gpusched.devices.nvidia.inventory import Inventory
from gpusched.devices.nvidia.sampler import Sampler
from gpusched.devices.slots import build_pool, choose, look
from gpusched.engines.condition import Condition
from gpusched.engines.local import leftovers
from gpusched.engines.local.launcher import Launcher
from gpusched.engines.local.warm_up import WarmUp, launcher_environment
from gpusched.errors import DONE, GpuschedError, StoreUnwritable, one_error
from gpusched.protocol.places import listening_path
from gpusched.service import views
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
from gpusched.service.territory import Territory
from gpusched.store.store import Store
from gpusched.supervisor.choice import Chooser
from gpusched.supervisor.fleet import Fleet
from gpusched.supervisor.followers import Followers
from gpusched.supervisor.hooks import Hooks
from gpusched.supervisor.supervisor import Supervisor

#: the limit on open files that the daemon sets, if it may: it needs two for each window, one for each client
MAX_DESCRIPTORS = 16384

log = logging.getLogger("gpusched.daemon")


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
    state_dir = config.daemon.state_dir
    async with AsyncExitStack() as stack:
        stack.callback(notifier.close)
        store = stack.enter_context(Store.open(state_dir / "state.db"))
        _make_private(state_dir)
        listener = Listener(listening_path(config.daemon.socket), config.daemon.group or None)
        stack.callback(listener.close)
        journal, condition = Journal(), Condition()
        condition.heard_by(journal.follow)
        earlier, undead = await leftovers.end_earlier(store.mark)
        if earlier:
            log.warning("ended what an earlier daemon had left pids=%s", ",".join(map(str, earlier)))
        launcher = await stack.enter_async_context(
            Launcher(
                log_path=state_dir / "launcher.log",
                idle_timeout_s=config.daemon.idle_launcher_s,
                environment=launcher_environment(config),
                mark=store.mark,
                condition=condition,
            )
        )
        discovery = look()
        warm_up = WarmUp(launcher, workload=config.run.workload, log_path=state_dir / "warm_up.log")
        pool = build_pool(config, choose(config, discovery), learned=store.learned())
        for note in pool.notes:
            log.warning("%s", note)
        hooks = Hooks(config.hooks.command, config.hooks.timeout_s, store.batch)
        followers = Followers(journal, hooks)
        logs_dir = state_dir / "logs"
        accountant = Accountant(pool.devices)
        stack.callback(accountant.close)
        memory = HostMemory()
        supervisor = Supervisor(
            store=store,
            launcher=launcher,
            devices=pool.devices,
            untried=pool.gpus,
            logs_dir=logs_dir,
            cache_dir=config.cache.dir,
            followers=followers,
            account=accountant.account,
            memory=memory,
            condition=condition,
        )
        hub = Hub(store, condition, supervisor.scheduler.pool)
        followers.add(hub)
        condition.heard_by(hub.follow)
        sampler = Sampler(pool.devices, inventory=Inventory(look, discovery))
        fleet = Fleet(
            config,
            pool,
            warm_up,
            learned=store.learned(),
            post=supervisor.post,
            on_note=lambda note: log.warning("%s", note),
            watch=sampler.watch,
        )
        followers.add(fleet)
        service = Service(notifier, supervisor, condition, config.daemon.stop_limit_s, trying=fleet.trying)
        followers.add(service)
        chooser = Chooser(
            launcher,
            fleet,
            supervisor.estimates,
            remembered=store.timings,
            keep=store.keep_timing,
            scratch=state_dir,
            cache_dir=config.cache.dir,
        )
        chooser.sweep()
        admission = Admission(
            store=store,
            supervisor=supervisor,
            launcher=launcher,
            warm_up=warm_up,
            fleet=fleet,
            chooser=chooser,
            territory=Territory(
                output_root=config.run.output.absolute(),
                # The parent of a configured socket is not private: it may be any directory.
                private=(state_dir, config.cache.dir, *(() if config.daemon.socket else (listener.path.parent,))),
                roots=config.daemon.roots,
                workloads=config.daemon.workloads,
            ),
            cache_dir=config.cache.dir,
            logs_dir=logs_dir,
            condition=condition,
        )
        if config.metrics.listen:
            metrics = Metrics(
                batches=store.batches,
                devices=lambda: views.devices(supervisor.scheduler.pool),
                launcher_starts=lambda: launcher.starts,
                troubles=lambda: condition.troubles,
            )
            stack.enter_context(metrics.served(config.metrics.listen))
            followers.add(metrics)
        supervisor.recover()
        forgetting = Forgetting(
            store=store,
            supervisor=supervisor,
            admission=admission,
            logs_dir=logs_dir,
            keep_days=config.daemon.keep_days,
        )
        requests = Requests(store=store, supervisor=supervisor, hub=hub, admission=admission, forgetting=forgetting)
        server = Server(listener, requests, state_dir=state_dir)

        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(service.obey_signals)
        tasks.start_soon(supervisor.run)
        tasks.start_soon(server.run)
        tasks.start_soon(fleet.run)
        tasks.start_soon(sampler.run, supervisor.post, fleet.notice)
        tasks.start_soon(read_host, supervisor.post, memory)
        tasks.start_soon(hooks.run)
        tasks.start_soon(forgetting.run, config.cache)
        tasks.start_soon(service.keep_turning)
        for pid in undead:
            tasks.start_soon(leftovers.watch, pid, condition)
        await supervisor.committed()
        slots = sum(device.capacity for device in pool.devices)
        log.info(
            "ready version=%s pid=%d socket=%s state=%s devices=%d slots=%d unfinished=%d seconds=%.3f",
            *(__version__, os.getpid(), listener.path, state_dir, len(pool.devices), slots),
            *(supervisor.scheduler.unfinished, time.monotonic() - began),
        )
        notifier.ready(service.summary())
        await supervisor.stopped()
        with anyio.move_on_at(service.deadline - time.monotonic() + anyio.current_time()):
            await hooks.finished()
        service.report()
        tasks.cancel_scope.cancel()


def _make_private(directory: Path) -> None:
    """Restrict the state directory to the daemon's own user."""
    try:
        if directory.stat().st_mode & 0o077:
            directory.chmod(0o700)
    except OSError as error:
        raise StoreUnwritable(path=directory, cause=error.strerror or error) from error


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
