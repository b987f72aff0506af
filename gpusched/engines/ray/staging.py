"""Files between a supervisor and nodes that share none with it: inputs to them, results and logs back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from gpusched import files
from gpusched.artifacts import NotAsListed, NotCommittable, Partial, lies_within
from gpusched.command import imports
from gpusched.core.model import Batch, PlannedWindow, WindowResult
from gpusched.directories import NotOurs
from gpusched.engines.engine import LaunchRefused, WorkloadNotLoadable
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.local.jobs import task_of
from gpusched.engines.ray import frames
from gpusched.engines.ray.commits import Commits
from gpusched.engines.ray.members import Member
from gpusched.engines.ray.scratch import StagedFile, digest_of, staged_file
from gpusched.engines.tasks import Tasks
from gpusched.errors import LaunchError
from gpusched.metadata import METADATA, metadata_of
from gpusched.worker.messages import Error, InputFiles, InputsJob, PipeMessage
from gpusched.workload import Task

#: bytes of inputs in an order
STAGE_BYTES = 4 << 20
#: sets of inputs whose files are known without a new look
MOST_KNOWN = 256
#: seconds for which committed results gather before their nodes are told
TELL_S = 1.0


#: reads a file of a result on a node, from an offset on
Fetch = Callable[[str, int], Coroutine[None, None, bytes]]


class Inputs(msgspec.Struct, frozen=True):
    """The files that the windows of a symbol need."""

    root: str
    digest: str
    files: tuple[StagedFile, ...]


class Staging:
    """Sends inputs to nodes, and commits the results that come back."""

    def __init__(self, here: LocalEngine) -> None:
        """`here` is the supervisor's machine, where the data and the outputs are."""
        self._here = here
        #: by batch, symbol and settings
        self._digests: dict[tuple[str, str, str], asyncio.Future[str]] = {}
        self._known: OrderedDict[str, Inputs] = OrderedDict()
        self._commits = Commits()
        #: committed results that their nodes need not keep, and have not been told of: labels by output directory
        self._kept: dict[Member, dict[str, list[str]]] = {}
        self._due: asyncio.TimerHandle | None = None
        #: tasks that tell nodes of such results
        self._telling = Tasks()

    # -- inputs --------------------------------------------------------------------------------------------------------

    async def stage(self, node: Member, batch: Batch, planned: PlannedWindow) -> str:
        """See to it that a node has the inputs of a window; return their digest. Raises LaunchError, OSError."""
        task = task_of(batch, planned, self._here.cache_dir)
        digest = await self._digest(batch, task)
        if digest not in node.inputs:
            inputs = self._known.get(digest) or await self._look(batch.spec.workload, task)
            node.inputs[digest] = asyncio.ensure_future(_send(node, inputs))
            node.inputs[digest].add_done_callback(partial(_forget_failure, node, digest))
        await asyncio.shield(node.inputs[digest])
        return digest

    def forget(self, batch_id: str) -> None:
        self._digests = {key: digest for key, digest in self._digests.items() if key[0] != batch_id}

    async def _digest(self, batch: Batch, task: Task) -> str:
        key = (batch.id, task.symbol, hashlib.sha256(msgspec.json.encode(task.settings)).hexdigest())
        if (pending := self._digests.get(key)) is not None:
            return await asyncio.shield(pending)
        pending = self._digests[key] = asyncio.get_running_loop().create_future()
        try:
            pending.set_result((await self._look(batch.spec.workload, task)).digest)
        except BaseException as error:
            del self._digests[key]
            pending.set_exception(LaunchRefused(reason=str(error)) if isinstance(error, Exception) else error)
            pending.exception()  # others may wait for it, or nobody
            raise
        return pending.result()

    async def _look(self, workload: str, task: Task) -> Inputs:
        """Have the workload name its inputs, and look at them."""
        said: list[PipeMessage] = []
        job = InputsJob(workload=workload, task=task, imports=imports(workload, task.settings))
        how = await self._here.inspect(job, said.append, log="inputs.log")
        match said[-1] if said else None:
            case InputFiles(names=names):
                inputs = await anyio.to_thread.run_sync(_inputs, task.data_root, names)
            case Error(kind="bad_parameters", message=why, traceback=traceback):
                raise WorkloadNotLoadable(message=why, traceback=traceback)
            case Error(message=why):
                raise LaunchRefused(reason=f"the inputs of {task.symbol} are not known: {why}")
            case _:
                raise LaunchRefused(reason=f"the process that looked for the inputs of {task.symbol} ended with {how}")
        self._known[inputs.digest] = inputs
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return inputs

    # -- results -------------------------------------------------------------------------------------------------------

    async def receive(self, node: Member, batch: Batch, label: str, sent: dict[str, bytes]) -> WindowResult | Error:
        """Check the files of a result and commit them; a failure to commit is an error of the attempt."""

        async def fetch(name: str, offset: int) -> bytes:
            order = frames.Fetch(id=node.number(), output_dir=batch.output_dir, label=label, name=name, offset=offset)
            data: bytes = (await node.asked(order)).data
            return data

        commit = partial(_commit, batch, label, sent, fetch)
        try:
            result = await self._commits.made(commit)
        except (OSError, ValueError, NotOurs, NotCommittable, NotAsListed, LaunchRefused) as error:
            return Error(kind="raised", message=f"its result could not be committed: {error}", traceback="")
        self._kept.setdefault(node, {}).setdefault(batch.output_dir, []).append(label)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(TELL_S, self._tell)
        return result

    def _tell(self) -> None:
        """Tell the nodes of the results that have gathered: each order costs a node a thread's turn."""
        if self._due is not None:
            self._due.cancel()
        self._due, kept, self._kept = None, self._kept, {}
        for node, results in kept.items():
            self._telling.start(_tell(node, results))

    def tell_of(self, node: Member, output_dir: str, label: str) -> None:
        """Tell a node now, if a result of this name is to be told of: another one may take its place."""
        if label in self._kept.get(node, {}).get(output_dir, ()):
            self._tell()

    async def settle(self) -> None:
        """Wait until the nodes have forgotten the results that are committed here."""
        self._tell()
        if self._telling:
            await asyncio.wait(self._telling)

    async def finish(
        self, node: Member, batch: Batch, label: str, log: str, ended: frames.Ended
    ) -> WindowResult | Error | None:
        """Commit the result that came with the end of a window, or keep the log of one that failed, which may outlive
        its node.
        """
        if ended.files:
            return await self.receive(node, batch, label, ended.files)
        if ended.log:
            with contextlib.suppress(OSError):
                await anyio.to_thread.run_sync(_write_log, self._here.log_path(log), ended.log)
        return None


def _inputs(root: str, names: tuple[str, ...]) -> Inputs:
    inputs = tuple(staged_file(Path(root), name) for name in names)
    return Inputs(root, digest_of(inputs), inputs)


async def _send(node: Member, inputs: Inputs) -> None:
    """Send inputs to a node that lacks them. Raises LaunchError, OSError."""
    if (await node.asked(frames.Stage(id=node.number(), digest=inputs.digest))).complete:
        return
    orders = _orders(inputs)
    while (pieces := await anyio.to_thread.run_sync(next, orders, None)) is not None:
        await node.asked(frames.Stage(id=node.number(), digest=inputs.digest, pieces=tuple(pieces)))
    await node.asked(frames.Stage(id=node.number(), digest=inputs.digest, last=True))


async def _tell(node: Member, results: dict[str, list[str]]) -> None:
    """Tell a node that results are committed; one that is lost prunes its scratch directory when it comes back."""
    with contextlib.suppress(LaunchError):
        await node.asked(frames.Kept(id=node.number(), results=results))


def _forget_failure(node: Member, digest: str, sent: asyncio.Future[None]) -> None:
    """The next window that needs the inputs sends them again."""
    if sent.cancelled() or sent.exception() is not None:
        node.inputs.pop(digest, None)


def _orders(inputs: Inputs) -> Iterator[list[frames.Piece]]:
    """The files in pieces, as many at a time as an order may hold."""
    pieces: list[frames.Piece] = []
    room = STAGE_BYTES
    for staged in inputs.files:
        with Path(inputs.root, staged.name).open("rb") as file:
            for number in count():
                offset, data = file.tell(), file.read(room)
                if data or number == 0:
                    pieces.append(frames.Piece(name=staged.name, mtime_ns=staged.mtime_ns, offset=offset, data=data))
                room -= len(data)
                if not data:
                    break
                if room == 0:
                    yield pieces
                    pieces, room = [], STAGE_BYTES
    if pieces:
        yield pieces


def _commit(batch: Batch, label: str, sent: dict[str, bytes], fetch: Fetch) -> WindowResult:
    """Write and commit a result, in a worker thread. Raises OSError, NotOurs, NotCommittable, NotAsListed, LaunchError,
    and ValueError for a name that no file can have.

    `fetch` reads on in a file that was not sent.
    """
    metadata = metadata_of(sent.get(METADATA, b""))
    if metadata is None or (metadata.label, metadata.workload) != (label, batch.spec.workload):
        raise NotAsListed(f"its metadata.json is not that of {label}")
    if strange := [name for name in metadata.files if not lies_within(name)]:
        raise NotAsListed(f"{strange[0]!r} does not lie within its directory")
    result = Partial(Path(batch.output_dir), label, guarded=batch.guarded)
    try:
        for name, file in metadata.files.items():
            path = result.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                out.write(sent.get(name, b""))
                while out.tell() < file.bytes and (data := anyio.from_thread.run(fetch, name, out.tell())):
                    out.write(data)
        path = result.commit(metadata)
    except BaseException:
        result.discard()
        raise
    return msgspec.structs.replace(metadata.result(path), moved_aside=result.moved_aside)


def _write_log(path: Path, text: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_whole(path, [text], mode=0o600, durable=False)
