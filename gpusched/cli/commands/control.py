"""Commands that change the daemon's batches and devices: `cancel`, `hold`, `release`, `retry`, `priority`, `drain`,
`resume`.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gpusched.cli.commands.batches import load_config, run_here
from gpusched.cli.commands.queries import print_devices
from gpusched.cli.objects import status_object
from gpusched.cli.sources import about, run_at, to_daemon
from gpusched.cli.telling import tell
from gpusched.client.drawing.listing import print_json
from gpusched.config import terms
from gpusched.core.model import Batch
from gpusched.core.statuses import PARTICIPLES, WindowVerb, applies, status_of, words
from gpusched.core.terms import NO_TERMS, Terms, with_terms
from gpusched.core.wording import counted
from gpusched.errors import DONE, UsageError
from gpusched.runs.place import NoRun

if TYPE_CHECKING:
    from gpusched.runs.records import Records
    from gpusched.runs.run import Run


class NotATerm(UsageError):
    problem = "{command} cannot change {key}, which defines the batch"
    remedy = (
        "`gpusched submit SYMBOLS_FILE --set {key}=…` makes a new batch with it; only limits and run.workers can change"
    )


class NotToBeTriedAgain(UsageError):
    problem = "{label} has not failed: its status is {status}"
    remedy = "windows that failed, timed out, were lost or cancelled can be run again"


class UnfinishedRun(UsageError):
    problem = "the run into {directory} was not finished"
    remedy = "`gpusched retry {directory}` goes on with all of its windows"


class CopiedRun(UsageError):
    problem = "{directory} was copied or moved: its records are of the run into {there}"
    remedy = "`gpusched retry {directory}` takes it up where it is now, with all windows that have no result there"


class LimitOfOneWindow(UsageError):
    problem = "{key} is a limit of a whole run, not of one of its windows"
    remedy = "`gpusched retry {directory} --set {key}=…` trains the windows without a result there"


class NoSettingHere(UsageError):
    problem = "{command} uses no setting, and {key} is one"
    remedy = "leave it out; `gpusched retry BATCH --set {key}=…` and `release` change limits and run.workers"


def cancel(options: argparse.Namespace) -> int:
    """End the running windows of a batch (or one window), and drop the waiting ones."""
    refuse_settings(options)
    return _change(options, "cancel")


def hold(options: argparse.Namespace) -> int:
    """Start nothing more of a batch or window."""
    refuse_settings(options)
    return _change(options, "hold")


def release(options: argparse.Namespace) -> int:
    """Let a held batch or window go on, maybe on other terms."""
    return _change(options, "release", _terms(options))


def retry(options: argparse.Namespace) -> int:
    """Run windows again that failed, timed out, were lost or cancelled, maybe on other terms."""
    if (records := run_at(options, options.target)) is not None:
        return _retry_run(options, records)
    directory, _, label = options.target.rpartition("/")
    if directory and (records := run_at(options, directory)) is not None:
        return _retry_window(options, records, label)
    return _change(options, "retry", _terms(options))


def _retry_run(options: argparse.Namespace, records: Records) -> int:
    """Run the unfinished windows of a run, here and now."""
    with records:
        batch = records.accepted()
    return run_here(_run_again(options, batch, records.directory), as_json=options.json)


def _retry_window(options: argparse.Namespace, records: Records, label: str) -> int:
    """Run one window of a finished run again, here and now, and leave the others as they are."""
    directory = records.directory
    with records:
        batch, snapshot = records.accepted(), records.snapshot()
        state = records.window(batch.id, label).state
    if (key := next(iter(_settings(options)), None)) is not None:
        raise LimitOfOneWindow(key=key, directory=shlex.quote(str(directory)))
    if records.copied_from is not None:  # the window would be run into the directory that the records name
        raise CopiedRun(directory=shlex.quote(str(directory)), there=records.copied_from)
    if not applies("retry", state):
        raise NotToBeTriedAgain(label=label, status=words(status_of(state)))
    if snapshot.batches[0].state != "finished":
        raise UnfinishedRun(directory=shlex.quote(str(directory)))
    run = msgspec.structs.replace(_run_again(options, batch, directory), again=label)
    return run_here(run, as_json=options.json, snapshot=snapshot)


def _run_again(options: argparse.Namespace, batch: Batch, directory: Path) -> Run:
    from gpusched.runs.run import Run

    return Run(
        config=load_config(options).config,
        spec=with_terms(batch.spec, _terms(options)),
        batch_id=batch.id,
        digest=batch.digest,
        output_dir=directory.absolute(),
    )


def priority(options: argparse.Namespace) -> int:
    """Place a batch before or behind others."""
    refuse_settings(options)
    with about(options, options.batch), to_daemon(options) as daemon:
        changed = daemon.change("alter", options.batch, terms={"priority": options.priority})
    if options.json:
        print_json(status_object(changed.batch) | {"changes": changed.changes})
    else:
        print(f"{options.batch}: {'; '.join(changed.changes) or f'its priority is {options.priority}'}")  # noqa: T201
    return DONE


def _settings(options: argparse.Namespace) -> list[str]:
    """The settings given by flags, except those that say where the daemon is."""
    return [key for key, _, _ in options.flags if not key.startswith("daemon.")]


def refuse_settings(options: argparse.Namespace) -> None:
    """Raise NoSettingHere for a setting that would be silently ignored."""
    for key in _settings(options):
        raise NoSettingHere(command=options.command, key=key)


def _terms(options: argparse.Namespace) -> dict[str, Any]:
    """The terms of a batch that flags give. Raises NotATerm for any other setting."""
    term_of = terms(load_config(options).config)
    given = _settings(options)
    for key in given:
        if key not in term_of:
            raise NotATerm(command=options.command, key=key)
    return dict(term_of[key] for key in given)


def _change(options: argparse.Namespace, verb: WindowVerb, given: Terms = NO_TERMS) -> int:
    batch_id, _, label = options.target.partition("/")
    with about(options, options.target, options.target.rpartition("/")[0]):
        if options.target.startswith(("/", ".")):  # no batch of a daemon has such a name
            raise NoRun(path=shlex.quote(options.target))
        with to_daemon(options) as daemon:
            changed = daemon.change(verb, batch_id, label or None, terms=given)
    if changed.not_durable is not None:
        tell("warning", changed.not_durable, "it has taken effect, but is lost if the daemon ends before it is written")
    if options.json:
        answer = status_object(changed.batch) | {"changed": changed.windows}
        answer |= {"changes": changed.changes} if changed.changes else {}
        print_json(answer | ({"note": changed.note} if changed.note else {}))
        return DONE
    if changed.changes:
        print(f"{batch_id}: {'; '.join(changed.changes)}")  # noqa: T201
    if changed.batch.waits:
        print(f"{batch_id}: it {'will not be started' if verb == 'cancel' else 'is looked at again'}")  # noqa: T201
        return DONE
    if changed.note:
        print(f"{batch_id}: {changed.note}")  # noqa: T201
        return DONE
    windows = counted(changed.windows, "window")
    print(f"{batch_id}: {windows} {PARTICIPLES[verb]}; the batch is {changed.batch.state}")  # noqa: T201
    return DONE


def drain(options: argparse.Namespace) -> int:
    """Place nothing more on a device, or on all devices."""
    refuse_settings(options)
    with to_daemon(options) as daemon:
        print_devices(daemon.drain(options.on), as_json=options.json)
    return DONE


def resume(options: argparse.Namespace) -> int:
    """Open a device again, or all devices."""
    refuse_settings(options)
    with to_daemon(options) as daemon:
        print_devices(daemon.resume(options.on), as_json=options.json)
    return DONE
