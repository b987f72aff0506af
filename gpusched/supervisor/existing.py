"""Results that are there before a batch: copies those in other directories, protects those of other parameters."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from gpusched import outputs
from gpusched.core.model import Existing, PlannedWindow
from gpusched.core.planning import Plan
from gpusched.core.wording import counted
from gpusched.directories import NotOurs
from gpusched.errors import InputError, WouldReplace

#: results that are copied at once: each waits for the disk most of the time
AT_ONCE = 4


class NamesAlike(InputError):
    problem = "{one} and {other} would have their results in one place: the file system of {path} ignores case"
    remedy = "give another directory with -o, or train them in two batches into two directories"


def refuse_to_replace(plan: Plan, existing: Existing, output_dir: Path) -> None:
    """Raise WouldReplace if results of other parameters stand in the places of a batch's, and may not be replaced."""
    if not existing.replace and (count := plan.to_replace_others):
        raise WouldReplace(results=counted(count, "result"), path=output_dir)


def refuse_alike(plan: Plan, output_dir: Path) -> None:
    """Raise NamesAlike if the results of two windows would be in one directory, of a file system that ignores case."""
    names = {f"{one.window.symbol} {one.window.point}".strip() for one in plan.windows}
    spellings: dict[str, str] = {}
    for name in sorted(names):
        other = spellings.setdefault(name.casefold(), name)
        if other != name and outputs.ignores_case(output_dir):
            raise NamesAlike(one=other, other=name, path=output_dir)


async def taken_over(
    plan: Plan,
    existing: Existing,
    output_dir: Path,
    *,
    guarded: bool = False,
) -> tuple[Plan, tuple[str, ...]]:
    """Copy the results that a plan reuses from other directories; return it with their new places, and notes.

    A window whose result cannot be copied, or turns out to be damaged, is trained.
    """
    windows = list(plan.windows)
    todo = iter([n for n, window in enumerate(windows) if _is_elsewhere(window, output_dir)])
    sources = Counter[Path]()

    async def copy(numbers: Iterator[int]) -> None:
        for number in numbers:
            source = _place(windows[number])
            # Where others' results are wanted, somebody has said so.
            own = str(source.parent) not in existing.reuse_from
            take = partial(_taken, windows[number], output_dir, own=own, guarded=guarded)
            windows[number] = await anyio.to_thread.run_sync(take)
            if windows[number].committed is not None:
                sources[source.parent] += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(copy, todo)
    notes = [
        f"{counted(count, 'result was', 'results were')} copied from {directory}"
        for directory, count in sources.items()
    ]
    return msgspec.structs.replace(plan, windows=tuple(windows)), (*notes, *_hints(plan))


def _hints(plan: Plan) -> Iterator[str]:
    """A sentence about results that need not be trained again: where the most of them are known to be."""
    places = Counter(window.known_in for window in plan.to_train if window.known_in)
    for directory, count in places.most_common(1):
        subject = "The result of 1 window is" if count == 1 else f"The results of {count} windows are"
        yield f"{subject} known in {directory}: `--reuse-from {shlex.quote(directory)}` copies instead of training"


def _is_elsewhere(window: PlannedWindow, output_dir: Path) -> bool:
    return window.committed is not None and _place(window).parent != output_dir


def _place(window: PlannedWindow) -> Path:
    assert window.committed is not None
    return Path(window.committed.artifacts_path)


def _taken(window: PlannedWindow, output_dir: Path, *, own: bool, guarded: bool) -> PlannedWindow:
    result = window.committed
    assert result is not None
    assert result.fingerprint is not None
    try:
        path = outputs.take_over(_place(window), output_dir, result.fingerprint, own=own, guarded=guarded)
    except (OSError, NotOurs, RecursionError):
        path = None
    if path is None:
        return msgspec.structs.replace(window, committed=None)
    return msgspec.structs.replace(window, committed=msgspec.structs.replace(result, artifacts_path=str(path)))
