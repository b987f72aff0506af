"""The service: `gpusched daemon`, from its start to a planned end.

The first SIGTERM or SIGINT drains: nothing more is placed, running windows finish, and what takes longer than
`DRAIN_S` is stopped and goes back to the queue. The second one stops them at once. SIGHUP does nothing: the
configuration is read at the start.

The watchdog of the service manager is fed by the supervisor's turns and by nothing else. An idle supervisor is given
an empty turn now and then; one that hangs in a turn is not heard of again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from gpusched import __version__
from gpusched.config import Config
from gpusched.core.events import DeviceLost, DeviceRead, HostRead, TimePassed, Update
from gpusched.daemon import views
from gpusched.daemon.accounting import Accountant
from gpusched.daemon.admission import Admission
from gpusched.daemon.choice import Chooser
from gpusched.daemon.fleet import Fleet
from gpusched.daemon.forgetting import Forgetting
from gpusched.daemon.hooks import Hooks
from gpusched.daemon.host import read_host
from gpusched.daemon.hub import Hub
from gpusched.daemon.inventory import Inventory
from gpusched.daemon.journal import Journal, start_logging
from gpusched.daemon.launcher import Launcher
from gpusched.daemon.listener import Listener, listening_path
from gpusched.daemon.memory import HostMemory
from gpusched.daemon.metrics import Metrics
from gpusched.daemon.notify import Notifier
from gpusched.daemon.pool import build_pool, choose, look
from gpusched.daemon.requests import Requests
from gpusched.daemon.sampler import Sampler
from gpusched.daemon.server import Server
from gpusched.daemon.store import Store
from gpusched.daemon.supervisor import Supervisor
from gpusched.daemon.warm_up import WarmUp, launcher_environment
from gpusched.errors import DONE, GpuschedError, StoreError, StoreUnwritable, one_error

#: seconds that running windows have to finish by themselves when the daemon is told to stop
DRAIN_S = 300.0
#: the service manager is asked for this much time again and again while the daemon stops
EXTENSION_S = 30.0
#: seconds between the empty turns of an idle supervisor; less if the watchdog wants to hear more often
TURN_S = 10.0
#: descriptors: two for each window, one for each client
MAX_DESCRIPTORS = 16384

#: what the daemon ends with when it fails through a fault of its own
FAILED = 1

log = logging.getLogger("gpusched.daemon")


def serve(config: Config) -> int:
    """Run the service until it is told to stop; the exit code. Raises GpuschedError if it cannot start."""
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
        launcher = await stack.enter_async_context(
            Launcher(
                log_path=state_dir / "launcher.log",
                idle_timeout_s=config.daemon.idle_launcher_s,
                environment=launcher_environment(config),
            )
        )
        found = look()
        warm_up = WarmUp(launcher, workload=config.run.workload, log_path=state_dir / "warm_up.log")
        pool = build_pool(config, choose(config, found), learned=store.learned())
        for note in pool.notes:
            log.warning("%s", note)
        hub, journal = Hub(store), Journal()
        metrics: Metrics | None = None
        hooks = Hooks(config.hooks.command, config.hooks.timeout_s, store.batch)

        def observe(update: Update) -> None:
            journal.follow(update)
            hub.publish(update)
            hooks.follow(update)
            if metrics is not None:
                metrics.follow(update)

        service = Service(notifier)
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
            observe=observe,
            account=accountant.account,
            memory=memory,
            on_turn=service.on_turn,
        )
        hub.show(supervisor.scheduler.pool)
        sampler = Sampler(pool.devices, inventory=Inventory(look, found))
        fleet = Fleet(
            config,
            pool,
            warm_up,
            learned=store.learned(),
            post=supervisor.post,
            on_note=lambda note: log.warning("%s", note),
            watch=sampler.watch,
        )
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
            output_root=config.run.output.absolute(),
            cache_dir=config.cache.dir,
            logs_dir=logs_dir,
        )
        if config.metrics.listen:
            metrics = Metrics(
                batches=store.batches,
                devices=lambda: views.devices(supervisor.scheduler.pool),
                launcher_starts=lambda: launcher.starts,
                trouble=lambda: admission.trouble,
            )
            stack.enter_context(metrics.served(config.metrics.listen))
        service.bind(supervisor, admission)
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

        def deliver(event: DeviceRead | DeviceLost | HostRead) -> None:
            supervisor.post(event)
            if isinstance(event, DeviceRead):
                hub.report(event.reading)
                fleet.read(event)

        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(service.obey_signals)
        tasks.start_soon(supervisor.run)
        tasks.start_soon(server.run)
        tasks.start_soon(fleet.run)
        tasks.start_soon(sampler.run, deliver, fleet.notice)
        tasks.start_soon(read_host, deliver, memory)
        tasks.start_soon(hooks.run)
        tasks.start_soon(forgetting.run, config.cache)
        tasks.start_soon(service.keep_turning)
        await supervisor.committed()
        slots = sum(device.capacity for device in pool.devices)
        log.info(
            "ready version=%s pid=%d socket=%s state=%s devices=%d slots=%d unfinished=%d seconds=%.3f",
            *(__version__, os.getpid(), listener.path, state_dir, len(pool.devices), slots),
            *(supervisor.scheduler.unfinished, time.monotonic() - began),
        )
        notifier.ready(service.summary())
        await supervisor.stopped()
        await hooks.finished()
        log.info("stopped unfinished=%d", supervisor.scheduler.unfinished)
        tasks.cancel_scope.cancel()


class Service:
    """The daemon as its service manager sees it: signals in; readiness, signs of life and a line of status out."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._supervisor: Supervisor
        self._admission: Admission
        watchdog_s = notifier.watchdog_s
        self._turn_s = TURN_S if watchdog_s is None else min(TURN_S, watchdog_s / 3)
        self._told_at = 0.0

    def bind(self, supervisor: Supervisor, admission: Admission) -> None:
        self._supervisor = supervisor
        self._admission = admission

    def on_turn(self, problem: StoreError | None) -> None:
        """A turn has ended: the loop that does the work is alive, whether or not the store can be written."""
        trouble = None if problem is None else str(problem).partition("\n")[0]
        changed = trouble != self._admission.trouble
        if changed:
            if trouble is not None:
                log.error("nothing moves until the store can be written problem=%r", trouble)
            else:
                log.info("the store can be written again")
            self._admission.trouble = trouble
        now = time.monotonic()
        if changed or now - self._told_at >= min(1.0, self._turn_s / 2):
            self._told_at = now
            if self._notifier.watchdog_s is not None:
                self._notifier.alive()
            self._notifier.status(self.summary())

    def summary(self) -> str:
        scheduler, admission = self._supervisor.scheduler, self._admission
        text = f"{scheduler.active} windows running, {scheduler.unfinished} not finished"
        if trying := admission.fleet.trying():
            text = f"{text}; trying {trying}"
        if admission.draining:
            text = f"stopping: {text}"
        return f"{text}; {admission.trouble}" if admission.trouble else text

    async def keep_turning(self) -> None:
        """Have a turn made now and then when nothing happens, and while stopping ask for the time that it takes."""
        while True:
            await anyio.sleep(min(self._turn_s, EXTENSION_S / 3))
            self._supervisor.post(TimePassed())
            if self._admission.draining:
                self._notifier.extend_timeout(EXTENSION_S)

    async def obey_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async with anyio.create_task_group() as tasks:
                async for number in received:
                    if number == signal.SIGHUP:
                        log.info("SIGHUP does nothing: restart the daemon to have it read its configuration")
                    elif not self._admission.draining:
                        self._drain(number)
                        tasks.start_soon(self._stop_later)
                    else:
                        self._stop(f"a second {signal.Signals(number).name}")

    def _drain(self, number: int) -> None:
        name, active = signal.Signals(number).name, self._supervisor.scheduler.active
        log.info("stopping when the running windows have finished signal=%s active=%d", name, active)
        self._admission.draining = True
        self._notifier.stopping()
        self._notifier.extend_timeout(EXTENSION_S)
        self._notifier.status(self.summary())
        self._supervisor.shut_down(drain=True)

    async def _stop_later(self) -> None:
        await anyio.sleep(DRAIN_S)
        self._stop(f"windows that still run after {DRAIN_S:g} s")

    def _stop(self, why: str) -> None:
        active = self._supervisor.scheduler.active
        log.warning("stopping now, running windows go back to the queue reason=%r active=%d", why, active)
        self._notifier.extend_timeout(EXTENSION_S)
        self._supervisor.shut_down(drain=False)


def _make_private(directory: Path) -> None:
    """What the daemon keeps is for its own user only."""
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
