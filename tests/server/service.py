"""A daemon process for the tests of this directory: `python -m tests.server.service DIRECTORY [SLOTS]`."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from gpusched.config import Cache, Config, Daemon, Devices, Hooks, Metrics, Run
from gpusched.core.events import BatchAccepted, ChangeAdvanced
from gpusched.engines.local import groups, leftovers, link, process
from gpusched.errors import GpuschedError
from gpusched.service import admission, clients, heartbeat, main, manager, server
from gpusched.service.journal import Journal
from gpusched.supervisor.followers import News


def config(directory: Path, slots: int) -> Config:
    """All that the daemon reads of its configuration, everything below `directory`."""
    return Config(
        run=Run(output=directory / "runs"),
        devices=Devices(cpu_slots=slots),
        cache=Cache(dir=directory / "cache"),
        daemon=Daemon(
            state_dir=directory / "state",
            socket=directory / "run" / "s",
            idle_launcher_s=60.0,
            group=os.environ.get("GPUSCHED_TEST_GROUP", ""),
            stop_limit_s=float(os.environ.get("GPUSCHED_TEST_STOP_LIMIT_S", "300")),
        ),
        hooks=msgspec.json.decode(os.environ.get("GPUSCHED_TEST_HOOKS", "{}"), type=Hooks),
        metrics=Metrics(listen=os.environ.get("GPUSCHED_TEST_METRICS", "")),
    )


_WITH_CONSTANTS = (admission, clients, groups, heartbeat, leftovers, link, main, manager, process, server)


def change_constants() -> None:
    """Limits that a test cannot wait for, or cannot reach, are closer in its daemon."""
    for name, value in json.loads(os.environ["GPUSCHED_TEST_CONSTANTS"]).items():
        modules = [module for module in _WITH_CONSTANTS if hasattr(module, name)]
        assert modules, name
        for module in modules:
            setattr(module, name, value)


def hang_at(fatal: Callable[[News], bool]) -> None:
    """Have the turn with this news hang, once it is durable, and the service manager told that it does."""
    follow = Journal.follow
    manager_address = os.environ["NOTIFY_SOCKET"]

    def follow_or_hang(self: Journal, news: News) -> None:
        follow(self, news)
        if fatal(news):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
                notices.sendto(b"hanging", manager_address)
            signal.pause()

    Journal.follow = follow_or_hang  # type: ignore[method-assign]


if __name__ == "__main__":
    change_constants()
    if hanging := os.environ.get("GPUSCHED_TEST_HANGING_BATCH"):
        hang_at(lambda news: isinstance(news, BatchAccepted) and news.batch.id == hanging)
    if changed := os.environ.get("GPUSCHED_TEST_HANGING_CHANGE"):
        hang_at(lambda news: isinstance(news, ChangeAdvanced) and news.batch_id == changed and news.recorded)
    try:
        sys.exit(main.serve(config(Path(sys.argv[1]), int(sys.argv[2]))))
    except GpuschedError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
