"""The meaning of a name on the command line: a batch of the daemon, or one that was run into a directory.

A path, or the name of a directory with a run, leads to the records of that run, without a daemon. Any other name is the
daemon's; where there is no daemon, or no such batch, it may be that of a run below `run.output`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpusched import __version__
from gpusched.cli.commands.batches import load_config
from gpusched.cli.telling import tell
from gpusched.client.connection import Connection, NoDaemon, connect
from gpusched.client.views import standing
from gpusched.config import Config, run_state_dir
from gpusched.errors import DaemonError, InputError, UsageError
from gpusched.protocol import BatchStatus
from gpusched.runs.place import NoRun, NothingPlanned, RunNotYours, is_run, store_of

if TYPE_CHECKING:
    from gpusched.runs.records import Records

    Source = Connection | Records


class NotAWindow(UsageError):
    problem = "{name!r} does not name a window"
    remedy = "give BATCH/LABEL, such as mine/AAPL_2022-01-01_to_2022-06-29; `gpusched windows BATCH` lists them"


class RunWithoutLabel(NotAWindow):
    problem = "{name} does not name a window, but a run"
    remedy = "give {name}/LABEL; `gpusched windows {name}` lists them"


class RunsBelow(NoRun):
    problem = "{path} is not the directory of a run, but {runs} in it {verb}"
    remedy = "name one of them: the newest is {newest}"


class OnlyARun(UsageError):
    problem = "{command} is for batches of the daemon, and {name} is the directory of a run"
    remedy = "{instead}"


#: by a command for batches of the daemon: its counterpart for a run
_INSTEAD = {
    "cancel": "Ctrl-C where it runs lets the windows finish that have started, a second one ends them",
    "hold": "Ctrl-C where it runs has it start no more, `gpusched retry {name}` goes on; `run --top` has a key",
    "release": "`gpusched retry {name}` goes on with it",
    "priority": "a run has no other batches to go before or behind",
    "forget": "no daemon knows of it: its records, logs and results are that directory, which you may remove",
    "wait": "it ends with the command that runs it; `gpusched status {name}` shows how it stands",
}


class NeitherHereNorThere(DaemonError):
    problem = "{name} is no directory of a run, and no daemon answers at {tried}"
    remedy = "name the output directory of `gpusched run`, or start the daemon with `gpusched daemon`"


def reach(socket: Path | None) -> Connection:
    """A connection to the daemon; prints a warning on stderr if its version differs. Raises DaemonError."""
    connection = connect(socket)
    theirs = connection.daemon.version
    if theirs != __version__:
        tell(
            "warning",
            f"the daemon at {connection.path} is gpusched {theirs}, and this is {__version__}",
            "restart the daemon after an upgrade (`systemctl restart gpusched`), or use the same version for both",
        )
    return connection


def to_daemon(options: argparse.Namespace) -> Connection:
    """A connection to the daemon of the configuration, or to the first one found."""
    explicit = load_config(options).config.daemon.socket
    connection = reach(explicit)
    if explicit is None and sys.stderr.isatty():
        print(f"daemon at {connection.path}", file=sys.stderr)  # noqa: T201
    return connection


@contextlib.contextmanager
def about(options: argparse.Namespace, *names: str) -> Iterator[None]:
    """Ask the daemon for batches that it alone can have. Raises OnlyARun or NothingPlanned where one is a run."""
    try:
        yield
    except (NoDaemon, InputError) as error:
        config = load_config(options).config
        for name in filter(None, names):
            # A batch of the daemon has no slash in its name; one that it does not know may be called like a run.
            if is_run(config, Path(name)) and ("/" in name or isinstance(error, NoDaemon)):
                shown = shlex.quote(name)
                if options.command not in _INSTEAD:  # `retry` has looked there for the records of a run
                    raise NothingPlanned(path=shown) from None
                raise OnlyARun(
                    command=options.command, name=shown, instead=_INSTEAD[options.command].format(name=shown)
                ) from None
        raise


@contextlib.contextmanager
def of_batch(options: argparse.Namespace, name: str) -> Iterator[tuple[Source, str]]:
    """Where a batch is known, and its id there. Raises NoRun, NeitherHereNorThere."""
    config = load_config(options).config
    if "/" in name or name in (".", ".."):
        try:
            records = records_of(config, Path(name))
        except NoRun:
            _refuse_directory_of_runs(config, name)
            raise
        with records as run:
            yield run, run.batch_id
        return
    with _named(options, config, name) as source:
        yield source, name if isinstance(source, Connection) else source.batch_id


@contextlib.contextmanager
def of_window(options: argparse.Namespace, name: str) -> Iterator[tuple[Source, str, str]]:
    """Where a window is known, and its batch's id and its label there. Raises NotAWindow, and as `of_batch`."""
    batch, slash, label = name.rstrip("/").rpartition("/")
    config = load_config(options).config
    if is_run(config, Path(name)) and not (batch and is_run(config, Path(batch))):
        raise RunWithoutLabel(name=shlex.quote(name.rstrip("/")))
    if not (batch and slash and label):
        raise NotAWindow(name=name)
    with of_batch(options, batch) as (source, batch_id):
        yield source, batch_id, label


def run_at(options: argparse.Namespace, name: str) -> Records | None:
    """The records of a run, by its directory or as `of_batch` finds it; None if the name can only be the daemon's.

    Raises RunNotYours.
    """
    config = load_config(options).config
    try:
        return records_of(config, Path(name))
    except RunNotYours:
        if "/" in name:
            raise
    except NoRun:
        if "/" in name:
            return None
    with contextlib.suppress(NoRun):
        store_of(run_state_dir(config, (config.run.output / name).absolute()), config.run.output / name)
        source = _named(options, config, name)
        if not isinstance(source, Connection):
            return source
        source.close()
    return None


def way_on(source: Source, batch: BatchStatus) -> str:
    """How a batch that is held goes on: a sentence with the command."""
    if isinstance(source, Connection):
        return standing.way_on(batch)
    return f"`gpusched retry {shlex.quote(str(source.directory))}` goes on with it"


def _named(options: argparse.Namespace, config: Config, name: str) -> Source:
    """The records of the run into the directory `name`; or the daemon; or the run `name` below `run.output`.

    Raises NeitherHereNorThere, NothingPlanned.
    """
    with contextlib.suppress(NoRun):
        return records_of(config, Path(name))
    run: Records | None = None
    with contextlib.suppress(NoRun):
        run = records_of(config, config.run.output / name)
    try:
        daemon = to_daemon(options)
    except NoDaemon as error:
        if run is None:
            if is_run(config, Path(name)):
                raise NothingPlanned(path=shlex.quote(name)) from None
            _refuse_directory_of_runs(config, name)
            raise NeitherHereNorThere(name=name, tried=error.details["tried"]) from None
        return run
    if run is not None and all(batch.id != name for batch in daemon.batches()):
        daemon.close()
        return run
    return daemon


def _refuse_directory_of_runs(config: Config, name: str) -> None:
    """Raise RunsBelow for a directory that has directories of runs in it, such as `run.output`."""
    with contextlib.suppress(OSError):
        below = [entry for entry in os.scandir(name) if is_run(config, Path(entry.path))]
        if below:
            newest = max(below, key=lambda entry: entry.stat().st_mtime).path
            runs, verb = ("a directory", "is") if len(below) == 1 else (f"{len(below)} directories", "are")
            raise RunsBelow(path=name, runs=runs, verb=verb, newest=shlex.quote(newest))


def records_of(config: Config, directory: Path) -> Records:
    """The records of the run into `directory`. Raises NoRun, NoDirectory, RunNotYours."""
    state_dir = run_state_dir(config, directory.absolute())
    store_of(state_dir, directory)
    from gpusched.runs.records import Records  # slow to import: commands that ask a daemon do not need it

    return Records(state_dir, directory)
