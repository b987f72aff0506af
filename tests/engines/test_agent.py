"""The agent of a node, by itself."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import anyio

from gpusched import __version__
from gpusched.engines.ray import connection, frames
from gpusched.engines.ray.agent import Agent


async def test_an_error_in_a_callback_ends_the_agent(tmp_path: Path) -> None:
    """Its windows have no tasks that could fail: one might have no end, and its slot would never be free."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    reports, other = await asyncio.open_unix_connection(sock=ours)
    place = str(tmp_path)
    begin = frames.Begin(
        host="n1", version=__version__, cwd=place, state_dir=place, logs_dir=place, cache_dir=place,
        workload="tests.devices.workloads:writes", allow_cpu_opencl=False, standing=False,
    )  # fmt: skip
    running = asyncio.create_task(Agent(begin, None, writer).run(reader))
    loop = asyncio.get_running_loop()
    try:
        with anyio.fail_after(30):
            joined = await connection.next_frame(reports)
            assert joined is not None
            assert isinstance(frames.reports_decoder.decode(joined)[0], frames.Joined)
            loop.call_soon(lambda: 1 / 0)
            await running
    finally:
        loop.set_exception_handler(None)
        writer.close()
        other.close()
