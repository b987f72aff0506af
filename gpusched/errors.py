"""The error catalogue: the mistakes and faults that a user may meet, each with the next step.

Each class is one entry. `problem` states the fault, `remedy` the next step; both are `str.format` templates over the
keyword arguments of the constructor. `place` is where it happened (`file:line`, a key, a window) and comes first in the
message. The user never sees a traceback of one of these: `gpusched.cli.run` prints its `sentence` and its `hint`, and
exits with `error.exit_code`.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

DONE = 0
TOO_MANY_FAILURES = 1
USAGE = 2
NO_DAEMON = 3
BAD_INPUT = 4
NOTHING_TO_TRAIN = 5
INTERRUPTED = 130


class GpuschedError(Exception):
    """Base of every error that gpusched reports to a user in a sentence instead of a traceback."""

    exit_code: ClassVar[int] = BAD_INPUT
    problem: ClassVar[str] = "{problem}"
    remedy: ClassVar[str] = "{remedy}"

    def __init__(self, *, place: str | None = None, **details: object) -> None:
        self.place = place
        self.details = details
        super().__init__(str(self))

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own calls the class with `args`, which would break the pool of processes that it was raised in.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    @property
    def sentence(self) -> str:
        """The place and the fault."""
        problem = self.problem.format(**self.details)
        return f"{self.place}: {problem}" if self.place else problem

    @property
    def hint(self) -> str:
        """The next step."""
        return self.remedy.format(**self.details)

    def __str__(self) -> str:
        return f"{self.sentence}\n  {self.hint}" if self.hint else self.sentence


class UsageError(GpuschedError):
    """The command line is not valid."""

    exit_code = USAGE


class InputError(GpuschedError):
    """Symbols, data or paths that cannot be used."""


class ConfigError(GpuschedError):
    """A configuration file, environment variable or flag that cannot be used."""


class ReplacementRefused(InputError):
    """There are results of other parameters in the places of a batch's."""


class WouldReplace(ReplacementRefused):
    problem = "{results} of other parameters in {path} would be replaced"
    remedy = "give this one another directory with -o, or `--replace` those results"


class StoreError(GpuschedError):
    """The durable store cannot be opened or written."""


class StoreCorrupt(StoreError):
    """The file is damaged, or not a store."""

    problem = "{path} is not a sound store: {cause}"
    remedy = (
        "move it aside (with its -wal and -shm) and submit the batches again: artifacts are safe in their directories"
        " and will be reused"
    )


class StoreNewer(StoreError):
    problem = "{path} was written by a newer gpusched (store version {version}, this one reads up to {supported})"
    remedy = "upgrade gpusched, or give this one another store"


class StoreLocked(StoreError):
    problem = "{path} is in use by {holder}"
    remedy = "only one supervisor at a time can write a store: wait until that one is done, or stop it"


class StoreReplaced(StoreError):
    """Another file has the store's name; the open one, which holds the records, no longer has a name."""

    problem = "{path} was replaced while it was in use"
    remedy = "stop this supervisor before you put another store in its place; committed results are found again"


class StoreUnlockable(StoreError):
    problem = "{path} cannot be locked: its file system has no file locks ({cause})"
    remedy = (
        "keep it on a local disk, which the results need not be on: `--set run.state_dir=/var/tmp/gpusched` for `run`,"
        " daemon.state_dir for the daemon"
    )


class StoreUnwritable(StoreError):
    problem = "{path} cannot be read and written: {cause}"
    remedy = (
        "check the owner and the mode of the file and its directory, and that the file system is mounted read-write"
    )


class StoreFull(StoreError):
    """The transaction was rolled back; the store is unchanged."""

    problem = "{path} cannot grow: {cause}"
    remedy = "make room on that file system (`df -h`, `quota`), nothing is lost"


class LaunchError(GpuschedError):
    """The launcher could not be started or has gone."""


class DaemonError(GpuschedError):
    """The daemon cannot be reached or refuses a request."""

    exit_code = NO_DAEMON


def similar(name: str, names: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The names that `name` may be a typing error of, the likeliest first; `cutoff` is the least similarity, 0 to 1."""
    import difflib  # needed for errors only

    return difflib.get_close_matches(name, list(names), n=most, cutoff=cutoff)


def did_you_mean(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The end of a sentence about an unknown name, `; did you mean 'run'?`; empty if no name is similar."""
    near = similar(name, names, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


def reworded(error: Exception) -> str:
    """Msgspec's "Expected `int` >= 1 - at `$.days`" with the field first: `days: expected int >= 1`."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    expected, _, field = str(error).replace("`", "").partition(" - at $.")
    return f"{field}: {expected[:1].lower()}{expected[1:]}" if field else expected


@contextmanager
def one_error() -> Iterator[None]:
    """Let the first GpuschedError, or else OSError, out of the exception groups that task groups wrap it in."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors = group.subgroup(GpuschedError) or group.subgroup(OSError)
        while isinstance(errors, BaseExceptionGroup):
            errors = errors.exceptions[0]  # type: ignore[assignment]  # a group or, at last, the error itself
        raise errors or group from group


def in_words(error: BaseException) -> str:
    """An unforeseen error in a few words: the first of a group; with the file name, if it is about a file."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return f"{type(error).__name__}: {error}"
