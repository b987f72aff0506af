"""The fleet: the GPUs that the pool may use, from their first trial to the moment they vanish.

A GPU is tried before windows get it, while everything else goes on. If it does not train, it is tried again: when it
has more free memory, or was reset; at a `resume`; at a request for its device type; and otherwise more and more rarely.
A GPU that appears is tried and joins the pool, one that vanishes leaves. The scheduler receives all of this as events;
the fleet only decides when to try.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Literal

import anyio
import anyio.abc

from gpusched.core.events import (
    DeviceRead,
    DeviceVanished,
    Event,
    NodeJoined,
    NodeLost,
    NodeSilent,
    TrialBegan,
    TrialEnded,
)
from gpusched.core.memory import LEAST_DEVICE_BYTES
from gpusched.core.model import Device, DeviceChoice, DeviceType
from gpusched.devices.kind import Answers, Note
from gpusched.devices.naming import Selected
from gpusched.devices.processors import usable_cores
from gpusched.devices.slots import PoolPlan, PoolRules
from gpusched.engines.engine import Engine, Found, Gone, Heard, Noticed, Silent, Verdict, name_among
from gpusched.supervisor.followers import News

#: seconds until a GPU that does not train is tried again: after the first failure, then doubled each time, up to
RETRY_S, RARE_RETRY_S = 15.0, 900.0
#: seconds between the messages to people who wait for a trial
TELL_S = 1.0
#: seconds between two trials of a GPU whose free memory keeps growing: for each failure so far, and at most
PATIENCE_S, MOST_PATIENCE_S = 5.0, 60.0


class _Gpu:
    """One GPU, and the state of its trials."""

    def __init__(self, device: Device, found: Device) -> None:
        self.device = device
        #: as its driver told of it, before slots were planned
        self.found = found
        self.state: Literal["untried", "trying", "trains", "fails"] = "untried"
        self.verdict: Verdict | None = None
        self.failures = 0
        #: monotonic instants of the last trial, and of the next one if it fails
        self.tried_at = 0.0
        self.retry_at = math.inf
        #: the least free memory read since its trial failed
        self.free_bytes: int | None = None


class Fleet:
    """The GPUs of an engine. `post` hands an event to the supervisor, `on_note` a sentence to people."""

    def __init__(
        self, rules: PoolRules, engine: Engine, *, post: Callable[[Event], None], on_note: Callable[[Note], None]
    ) -> None:
        """Post the devices that were found at the start; GPUs among them are not tried yet."""
        self._rules = rules
        self._engine = engine
        self._post = post
        self._on_note = on_note
        #: by host: its processors, and notes on its GPUs that are missing or limited
        self._processors: dict[str, Device] = {}
        self._notes: dict[str, tuple[Note, ...]] = {}
        self._gpus: dict[str, _Gpu] = {}
        #: ids of all that were ever tried: another trial is of one that has failed, was reset, or was away
        self._tried: set[str] = set()
        self._nudge = anyio.Event()
        #: set and replaced whenever a trial has ended
        self._ended = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None
        for found in engine.machines:
            self._join(found)

    # -- the present devices -------------------------------------------------------------------------------------------

    @property
    def pool(self) -> PoolPlan:
        """The devices that train, the processors among them, with notes on the others."""
        trains = tuple(gpu.device for gpu in self._gpus.values() if gpu.state == "trains")
        return PoolPlan(
            devices=(*trains, *self._processors.values()),
            notes=(*(note for notes in self._notes.values() for note in notes), *self._trial_notes()),
            cores=usable_cores(),
        )

    @property
    def untried(self) -> tuple[Device, ...]:
        """GPUs whose first trial has not begun, or whose trial is under way."""
        return tuple(gpu.device for gpu in self._gpus.values() if gpu.state in ("untried", "trying"))

    async def settled(self) -> None:
        """Wait until no trial is under way."""
        while self.untried:
            await self._ended.wait()

    async def require(self, wanted: DeviceChoice, on_trial: Callable[[str], None] = lambda trying: None) -> None:
        """Raise NoDevice unless a batch that asks for `wanted` can be trained here.

        Waits for the trials on which this depends; `on_trial` is called with their names every `TELL_S` seconds.
        """
        if wanted in ("gpu", "cuda") and not self.pool.gpus:
            self._try(gpu for gpu in self._gpus.values() if gpu.state == "fails")
        if wanted in ("gpu", "cuda", "mixed") or (wanted == "auto" and not self.pool.device_types(wanted)):
            while self.untried:
                on_trial(self.trying())
                with anyio.move_on_after(TELL_S):
                    await self.settled()
        self.pool.require(wanted)

    def device_types(self, wanted: DeviceChoice) -> tuple[DeviceType, ...]:
        """The device types with which a batch that asks for `wanted` may be trained, pending trials included."""
        certain = self.pool.device_types(wanted)
        possible: tuple[DeviceType, ...] = ("cuda", "gpu") if wanted == "auto" and self.untried else ()
        return tuple(sorted({*certain, *possible}))

    def trying(self) -> str:
        """The GPUs whose trials are under way, for people; empty if there are none."""
        now = time.monotonic()
        under_way = (gpu for gpu in self._gpus.values() if gpu.state == "trying")
        return ", ".join(f"{gpu.device.id} ({now - gpu.tried_at:.0f} s)" for gpu in under_way)

    def _trial_notes(self) -> list[Note]:
        verdicts = {id_: gpu.verdict for id_, gpu in self._gpus.items() if gpu.verdict is not None}
        notes = (verdict.note(name_among(verdict.device, verdicts)) for verdict in verdicts.values())
        return list(dict.fromkeys(note for note in notes if note))

    # -- trials --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Try GPUs whenever that is due, until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._try(gpu for gpu in self._gpus.values() if gpu.state == "untried")
            while True:
                await self._until_due()
                now = time.monotonic()
                self._try(gpu for gpu in self._gpus.values() if gpu.state == "fails" and gpu.retry_at <= now)

    async def _until_due(self) -> None:
        self._nudge = anyio.Event()
        due = min((gpu.retry_at for gpu in self._gpus.values() if gpu.state == "fails"), default=math.inf)
        with anyio.move_on_after(max(0.0, due - time.monotonic())):
            await self._nudge.wait()

    def _try(self, gpus: Iterable[_Gpu]) -> None:
        begun = tuple(gpus)
        if self._tasks is None or not begun:
            return
        for gpu in begun:
            gpu.state, gpu.tried_at, gpu.free_bytes = "trying", time.monotonic(), None
            self._post(TrialBegan(device=gpu.device))
        self._tasks.start_soon(self._judge, tuple(gpu.device for gpu in begun))

    async def _judge(self, devices: tuple[Device, ...]) -> None:
        notes = self._trial_notes()
        again = self._tried & {device.id for device in devices}
        self._tried |= {device.id for device in devices}
        await self._engine.judge(devices, self._rules.wanted, self._hear, afresh=again)
        for note in self._trial_notes():
            if note not in notes:
                self._on_note(note)

    def _hear(self, verdict: Verdict) -> None:
        gpu = self._gpus.get(verdict.device.id)
        if gpu is None or gpu.state != "trying":
            return  # the GPU has vanished meanwhile
        gpu.verdict = verdict
        if verdict.trains:
            gpu.state, gpu.device, gpu.failures = "trains", verdict.device, 0
        else:
            gpu.state, gpu.failures = "fails", gpu.failures + 1
            gpu.retry_at = time.monotonic() + min(RETRY_S * 2 ** (gpu.failures - 1), RARE_RETRY_S)
        self._post(TrialEnded(device=gpu.device, why=None if verdict.trains else verdict.why))
        self._wake()

    def _wake(self) -> None:
        """Wake everyone who waits for the end of a trial, and the loop that waits for the next one to be due."""
        ended, self._ended = self._ended, anyio.Event()
        ended.set()
        self._nudge.set()

    # -- requests and news ---------------------------------------------------------------------------------------------

    def resume(self, device_id: str) -> bool:
        """Try a GPU again unless it trained last time; return whether a trial decides about it now."""
        gpu = self._gpus.get(device_id)
        if gpu is None or gpu.state == "trains":
            return False
        if gpu.state == "fails":
            self._try([gpu])
        else:
            self._post(TrialBegan(device=gpu.device))  # undoes a drain during the trial
        return True

    def _retry(self, gpu: _Gpu, at: float = 0.0) -> None:
        if gpu.state == "fails":
            gpu.retry_at = min(gpu.retry_at, at)
            self._nudge.set()

    def follow(self, news: News) -> None:
        """Retry a GPU that does not train if its free memory has grown."""
        if type(news) is not DeviceRead:
            return
        gpu, free = self._gpus.get(news.reading.device_id), news.reading.memory_free_bytes
        if gpu is None or gpu.state != "fails" or free is None:
            return
        gpu.free_bytes = free if gpu.free_bytes is None else min(gpu.free_bytes, free)
        if free >= gpu.free_bytes + LEAST_DEVICE_BYTES:
            self._retry(gpu, gpu.tried_at + min(PATIENCE_S * gpu.failures, MOST_PATIENCE_S))

    def notice(self, noticed: Noticed) -> None:
        """Follow the engine's news: a GPU answers again, a machine's devices have changed, or a node comes or goes."""
        match noticed:
            case Answers(device_id=device_id):
                gpu = self._gpus.get(device_id)
                if gpu is not None and gpu.state == "trains":
                    self._try([gpu])
                elif gpu is not None:
                    self._retry(gpu)
            case Found() if noticed.machine.host in self._processors:
                self._take_in(noticed)
            case Found():
                self._join(noticed)
            case Silent(host=host, reason=reason):
                self._post(NodeSilent(host=host, reason=reason))
            case Heard(host=host):
                self._post(NodeJoined(host=host, devices=()))
            case Gone(host=host, reason=reason):
                self._gpus = {id_: gpu for id_, gpu in self._gpus.items() if gpu.device.host != host}
                del self._processors[host], self._notes[host]
                self._post(NodeLost(host=host, reason=reason))
                self._watch()

    def _join(self, found: Found) -> None:
        """Take in the devices of a machine that is new."""
        host = found.machine.host
        selected = self._rules.select(found.discovery)
        here = {device.id: device for device in selected.devices}
        plan = self._rules.pool(selected, found.machine)
        gpus = [device for device in plan.devices if device.kind != "host"]
        (self._processors[host],) = (device for device in plan.devices if device.kind == "host")
        self._notes[host] = plan.notes
        self._gpus |= {device.id: _Gpu(device, here[device.id]) for device in gpus}
        for note in plan.notes:
            self._on_note(note)
        self._post(NodeJoined(host=host, devices=plan.devices, trying=frozenset(plan.gpus)))
        self._try(self._gpus[device.id] for device in gpus)
        self._watch()

    def _take_in(self, found: Found) -> None:
        """Drop the GPUs of a machine that have vanished, and try those that have appeared.

        One that takes another number of processes, since its compute mode was changed, is another.
        """
        host, discovery = found.machine.host, found.discovery
        selected = self._rules.select(discovery)
        here = {device.id: device for device in selected.devices}
        host_gpus = {id_: gpu for id_, gpu in self._gpus.items() if gpu.device.host == host}
        absent = [gpu.device for id_, gpu in host_gpus.items() if id_ not in here]
        gone = [device.id for device in absent if discovery.complete or device.pci_bus_id in discovery.answered]
        other = [id_ for id_, gpu in host_gpus.items() if id_ in here and here[id_].capacity != gpu.found.capacity]
        reasons = dict.fromkeys(gone, "it is not there any more, or may not be used")
        for device_id, reason in (reasons | dict.fromkeys(other, "its compute mode was changed")).items():
            del self._gpus[device_id], host_gpus[device_id]
            self._post(DeviceVanished(device_id=device_id, reason=reason))
        for note in selected.notes:
            if note not in self._notes[host]:
                self._on_note(note)
        self._notes[host] = selected.notes
        new = tuple(device for device in selected.devices if device.id not in host_gpus)
        if new:
            staying = tuple(here.get(id_, gpu.device) for id_, gpu in host_gpus.items())
            planned = self._rules.pool(Selected((*staying, *new)), found.machine)
            joining = {device.id for device in new}
            gpus = [_Gpu(device, here[device.id]) for device in planned.devices if device.id in joining]
            self._gpus |= {gpu.device.id: gpu for gpu in gpus}
            self._try(gpus)
        for gpu in self._gpus.values():
            self._retry(gpu)  # the change may have cured it
        self._watch()

    def _watch(self) -> None:
        self._engine.watch(gpu.device for gpu in self._gpus.values())
        self._wake()
