"""The commands that are of use after a batch: where its results are, why windows failed, how it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from gpusched.core.statuses import APPLIES_TO, FAILURES, tally


def next_commands(name: str, counts: Mapping[str, int], *, left: Literal["", "retry", "release"]) -> list[str]:
    """The commands for the batch or directory `name`, whose windows ended so. `left` is as in `mending_commands`."""
    looking = [f"gpusched {command} {name}" for command in ("results", "report")]
    return (looking if tally(counts, ("succeeded", "reused")) else []) + mending_commands(name, counts, left=left)


def mending_commands(name: str, counts: Mapping[str, int], *, left: Literal["", "retry", "release"]) -> list[str]:
    """The commands that show why windows have no results, and have them run again; none if nothing is missing.

    `left` is the command by which windows that are not finished go on; empty if all are finished.
    """
    told = FAILURES if tally(counts, ("succeeded", "reused")) else (*FAILURES, "skipped")
    commands = [f"windows {name} --status {status}" for status in told if counts.get(status)][:1]
    if again := left or ("retry" if tally(counts, APPLIES_TO["retry"]) else ""):
        commands.append(f"{again} {name}")
    return [f"gpusched {command}" for command in commands]
