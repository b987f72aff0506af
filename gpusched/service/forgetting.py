"""Forgetting: remove finished batches, their records, logs and, on request, results.

A batch is first marked in one small commit, and nobody sees it from then on. Then its results (on request), its logs
and its records are removed, in pieces between the turns of the loop. A removal that a kill interrupts is completed when
the daemon starts again. Only provable results of gpusched are removed: see `outputs.remove_results`.

Batches that finished `daemon.keep_days` ago are forgotten automatically, without their results, and so are bars in the
cache that have not been used for long.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from gpusched import outputs
from gpusched.errors import GpuschedError, InputError
from gpusched.protocol import BatchStatus, Forgotten, summed
from gpusched.service.admission import Admission
from gpusched.service.clients import Peer
from gpusched.service.pruning import DAY_S, prune_bars
from gpusched.service.territory import foreign
from gpusched.supervisor import index
from gpusched.supervisor.runtime import Runtime

#: seconds between searches for old batches and bars, and before the first search
LOOK_S = 3600.0
#: windows whose records are removed, or whose results are checked, in one piece: in less than 50 ms
PIECE_WINDOWS = 100

log = logging.getLogger("gpusched.daemon")


class NotFinished(InputError):
    problem = "batch {batch} is not finished"
    remedy = "`gpusched cancel {batch}` ends it; then it can be forgotten"


class ResultsShared(InputError):
    problem = "the results of {batch} cannot be removed: batch {other} has its own in {path}, too"
    remedy = "forget {other} first, or leave out --results"


class ResultsOfAnother(InputError):
    problem = "the results of {batch} were written for another user"
    remedy = "leave out --results, or ask that user or the daemon's operator"


class Forgetting:
    """Removes batches by request, or when they are `daemon.keep_days` old (0: never)."""

    def __init__(self, runtime: Runtime, admission: Admission) -> None:
        self._engine = runtime.engine
        self._store = runtime.store
        self._supervisor = runtime.supervisor
        self._admission = admission
        self._cache = runtime.config.cache
        self._keep_s = runtime.config.daemon.keep_days * DAY_S

    # -- by request --------------------------------------------------------------------------------------------------

    async def forget(self, batch_id: str, *, results: bool, peer: Peer | None = None) -> Forgotten:
        """Forget one batch, which must exist. Raises NotFinished, ResultsShared, ResultsOfAnother, StoreError."""
        if results and not self._may_remove(peer, batch_id):
            raise ResultsOfAnother(batch=batch_id)
        places = await self._places() if results else {}
        for path, batches in places.items():
            if batch_id in batches and (others := batches - {batch_id}):
                raise ResultsShared(batch=batch_id, other=min(others), path=path)
        return await self._forget(batch_id, results=results)

    async def forget_older(self, seconds: float, *, results: bool, peer: Peer | None = None) -> Forgotten:
        """Forget every batch that finished more than `seconds` ago.

        Results are kept if a younger batch has the same directory, or if they were written for another client.
        """
        old = self._older_than(time.time() - seconds)
        places = await self._places() if results else {}
        shared = {id_ for batches in places.values() if batches - {row.id for row in old} for id_ in batches}
        if results:
            shared |= {row.id for row in old if not self._may_remove(peer, row.id)}
        parts: list[Forgotten] = []
        for row in old:
            with contextlib.suppress(NotFinished):  # it has been retried or submitted again meanwhile
                parts.append(await self._forget(row.id, results=results and row.id not in shared))
        kept = tuple(row.output_dir for row in old if row.id in shared)
        return msgspec.structs.replace(summed(parts), kept=summed(parts).kept + kept)

    def _may_remove(self, peer: Peer | None, batch_id: str) -> bool:
        """Whether a client may remove the results of a batch: its own, or any if it is root or the daemon's user."""
        client = foreign(peer)
        return client is None or client == self._store.client_of(batch_id)[0]

    async def _forget(self, batch_id: str, *, results: bool) -> Forgotten:
        async with self._admission.one_at_a_time(batch_id), contextlib.AsyncExitStack() as stack:
            async with self._admission.changing:
                row = self._store.batch(batch_id)
                if row is None or row.state != "finished" or self._admission.at_work(batch_id):
                    raise NotFinished(batch=batch_id)
                if results:
                    await stack.enter_async_context(self._admission.clearing(batch_id, Path(row.output_dir)))
                self._store.mark_forgotten(batch_id, results=results)
                self._supervisor.drop(batch_id)
            log.info("batch forgotten batch=%s results=%s", batch_id, results)
            return await self._remove(batch_id, Path(row.output_dir), results=results)

    def _older_than(self, wall: float) -> list[BatchStatus]:
        return [row for row in self._store.batches() if row.finished_at is not None and row.finished_at < wall]

    async def _places(self) -> dict[str, set[str]]:
        """Real path of a result directory → the ids of its batches."""
        outputs = [(row.id, row.output_dir) for row in self._store.batches()]
        return await anyio.to_thread.run_sync(_by_place, outputs)

    # -- by age ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Complete interrupted removals, then search for old batches and bars every `LOOK_S`."""
        while True:
            marked: list[tuple[str, str, bool]] = []
            with self._logged():
                marked = self._store.forgotten()
            for mark in marked:
                with self._logged():
                    await self._complete(*mark)
            wall, began = time.time(), time.monotonic()
            await anyio.sleep(LOOK_S)
            with self._logged():
                await anyio.to_thread.run_sync(prune_bars, self._cache)
                # After a jump of the clock all batches may look too old, or too young.
                steady = abs((time.time() - wall) - (time.monotonic() - began)) < LOOK_S
                if self._keep_s and steady:
                    await self.forget_older(self._keep_s, results=False)

    async def _complete(self, batch_id: str, output_dir: str, results: bool) -> None:
        """Complete an interrupted removal, unless a submission has begun the batch anew since it was found."""
        async with self._admission.one_at_a_time(batch_id), contextlib.AsyncExitStack() as stack:
            still = (batch_id, output_dir, results) in self._store.forgotten()
            if not still or batch_id in self._supervisor.arrivals:  # an arriving batch is marked, too
                return
            if results:
                await stack.enter_async_context(self._admission.clearing(batch_id, Path(output_dir)))
            await self._remove(batch_id, Path(output_dir), results=results)

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        try:
            yield
        except (GpuschedError, OSError) as error:
            log.warning("what is old could not be removed error=%r", str(error).partition("\n")[0])

    # -- removing ----------------------------------------------------------------------------------------------------

    async def _remove(self, batch_id: str, output_dir: Path, *, results: bool) -> Forgotten:
        removed, kept = 0, list[str]()
        if results:
            _, guarded = self._store.client_of(batch_id)
            remove_results = partial(outputs.remove_results, output_dir, guarded=guarded)
            async for piece in self._results(batch_id):
                gone, stays = await anyio.to_thread.run_sync(remove_results, piece)
                removed += gone
                kept += [str(output_dir / label) for label in stays]
            await anyio.to_thread.run_sync(partial(index.remove, output_dir, batch_id, guarded=guarded))
        await self._engine.remove_logs(batch_id)
        windows = 0
        while piece_windows := self._store.remove_forgotten(batch_id, PIECE_WINDOWS):
            windows += piece_windows
            await anyio.lowlevel.checkpoint()
        return Forgotten(batches=(batch_id,), windows=windows, results=removed, kept=tuple(kept))

    async def _results(self, batch_id: str) -> AsyncIterator[dict[str, str | None]]:
        """The batch's results in pieces: label → fingerprint."""
        piece: dict[str, str | None] = {}
        for number, line in enumerate(self._store.finished_windows(batch_id)):
            if number % PIECE_WINDOWS == 0:
                await anyio.lowlevel.checkpoint()  # there may be no result among very many windows
            if line.result is not None:
                piece[line.key.label] = line.result.fingerprint
            if len(piece) == PIECE_WINDOWS:
                yield piece
                piece = {}
        yield piece


def _by_place(outputs: list[tuple[str, str]]) -> dict[str, set[str]]:
    places: dict[str, set[str]] = {}
    for batch_id, path in outputs:
        places.setdefault(os.path.realpath(path), set()).add(batch_id)
    return places
