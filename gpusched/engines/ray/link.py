"""The daemon's side of the bridge process: it is started here, and frames go to it in batches."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from gpusched import __version__, programs
from gpusched.config import Config
from gpusched.engines.ray import connection, frames
from gpusched.engines.ray.connection import Gathering

#: seconds for which orders gather: each batch costs Ray milliseconds of CPU
LINGER_S = 0.02


class Bridge:
    """The bridge process, and the batches of frames that go to it."""

    def __init__(
        self,
        program: programs.Program,
        log: Path,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        hear: Callable[[frames.Tidings], None],
    ) -> None:
        self.log = log
        self._program = program
        reader, self._writer = streams
        self._reading = asyncio.get_running_loop().create_task(_read(reader, hear))
        self._outgoing: dict[str, list[bytes]] = {}
        self._flushing = Gathering(self._flush, LINGER_S)

    @classmethod
    async def start(cls, config: Config, state_dir: Path, hear: Callable[[frames.Tidings], None]) -> Bridge:
        """Start a bridge; `hear` is called with its tidings, and with `Failed` when it has ended. Raises OSError."""
        logs = state_dir / "nodes"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with theirs, (logs / "bridge.log").open("ab") as log:
            command = [config.engine.python or sys.executable, "-P", "-m", "gpusched.engines.ray.bridge"]
            command += [str(theirs.fileno()), config.engine.address, str(logs)]
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
            program = programs.start(
                command, stdout=log, stderr=log, environment=environment, kept_open=(theirs.fileno(),)
            )
        return cls(program, logs / "bridge.log", await connection.opened(ours), hear)

    def send(self, host: str, frame: bytes, *, may_wait: bool = False) -> None:
        """Send a frame, with all others of this turn of the loop; one for which nobody waits may wait for others."""
        self._outgoing.setdefault(host, []).append(frame)
        self._flushing.due(may_wait=may_wait)

    def release(self, host: str) -> None:
        """Let a node go; the bridge says that it is down, and holds it again after a while."""
        connection.write(self._writer, frames.Release(host=host))

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, {}
        for host, batch in outgoing.items():
            connection.write(self._writer, frames.Carry(host=host, frames=tuple(batch)))

    async def close(self) -> None:
        """End the bridge, and with it the nodes' actors; return when it is gone."""
        self._reading.cancel()
        self._flushing.cancel()
        self._writer.close()
        for patience_s, signum in ((10.0, signal.SIGTERM), (5.0, signal.SIGKILL), (5.0, signal.SIGKILL)):
            if await asyncio.to_thread(programs.ended, self._program, patience_s) is not None:
                return
            programs.signal_group(self._program, signum)


async def _read(reader: asyncio.StreamReader, hear: Callable[[frames.Tidings], None]) -> None:
    why = "the bridge has ended"
    while (data := await connection.next_frame(reader)) is not None:
        try:
            tidings = frames.tidings_decoder.decode(data)
        except msgspec.MsgspecError:
            why = f"the bridge is not understood here: gpusched {__version__} must be installed for engine.python"
            break
        hear(tidings)
    hear(frames.Failed(why=why))
