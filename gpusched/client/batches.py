"""Batches from Python: `gpusched.submit`, and `gpusched.Batch`, which it returns.

They ask the daemon over the connection that the commands use, and raise the errors that the commands print. A notebook
may go on while its batch runs: nothing here keeps a connection open between two calls.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gpusched
from gpusched.client.arguments import id_of, instant_of, of_type, params_of, plain, require_one_of, symbols_of
from gpusched.client.connection import Connection, connect
from gpusched.client.following import follow
from gpusched.client.programs import with_code, with_command
from gpusched.client.sweep import Params, given_points, origins_of_points, with_points
from gpusched.client.symbols import Named, given_symbols, read_symbols, typed_symbols
from gpusched.config import Loaded, batch_spec, load, origins_of, terms
from gpusched.core.model import Existing
from gpusched.core.planning import name_problem
from gpusched.core.statuses import UNFINISHED, tally
from gpusched.errors import TOO_MANY_FAILURES, GpuschedError, UsageError
from gpusched.protocol import BatchStatus

if TYPE_CHECKING:
    import pandas as pd

#: sections that only the daemon reads, from its own configuration
_THE_DAEMONS = ("devices", "cache", "daemon", "hooks", "metrics")


class TheDaemons(UsageError):
    problem = "{key} is the daemon's own setting, and submit cannot change it"
    remedy = "set it in the daemon's configuration, and restart the daemon; {otherwise}"


class BadName(UsageError):
    problem = "{option} {name!r} cannot name a batch: {why}"
    remedy = "give another name"


class DatesTwice(UsageError):
    problem = "{flag} does not go with {file}, which has the dates of each window"
    remedy = "leave it out, or give a file of symbols, one a line"


class WaitedTooLong(GpuschedError):
    exit_code = TOO_MANY_FAILURES
    problem = "{batch_id} is not finished after {seconds} s: {left} of {total} windows are left"
    remedy = "wait longer: the batch goes on"


def refuse_the_daemons(keys: Iterable[str]) -> None:
    """Raise TheDaemons for a setting of a batch that only the daemon reads, from its own configuration."""
    for key in keys:
        if key == "run.output":
            raise TheDaemons(key=key, otherwise="-o names the output directory of this batch")
        if (key.partition(".")[0] in _THE_DAEMONS and key != "daemon.socket") or key == "run.state_dir":
            raise TheDaemons(key=key, otherwise="`gpusched run` uses it for a batch of its own")


def require_name(name: str | None, *, option: str = "name") -> None:
    """Raise BadName if a batch cannot have the name; `option` is how it was given."""
    if name is not None and (why := name_problem(name)):
        raise BadName(option=option, name=name, why=why)


def refuse_dates_twice(named: Named, given: Iterable[tuple[str, str]]) -> None:
    """Raise DatesTwice for a setting of dates beside a windows file. `given` are keys, and where each was given."""
    if named.asked.windows and (flag := next((flag for key, flag in given if key.startswith("windows.")), None)):
        raise DatesTwice(flag=flag, file=f"{named.source}, a windows file")


def given_terms(loaded: Loaded, priority: int | None) -> tuple[str, ...]:
    """The names of the terms that were given, by a flag, the environment or a file."""
    given = [name for key, (name, _) in terms(loaded.config).items() if key in loaded.origins]
    return (*given, *(["priority"] if priority is not None else []))


def submit(
    symbols: str | os.PathLike[str] | Iterable[str],
    *,
    start: dt.date | str | None = None,
    end: dt.date | str | None = None,
    settings: Mapping[str, Any] | None = None,
    params: Params = (),
    output: str | os.PathLike[str] | None = None,
    replace: bool = False,
    name: str | None = None,
    priority: int | None = None,
    after: Batch | str | Iterable[Batch | str] = (),
    only_if: Literal["succeeded", "finished"] = "succeeded",
    not_before: dt.datetime | None = None,
    config: str | os.PathLike[str] | None = None,
    socket: str | os.PathLike[str] | None = None,
) -> Batch:
    """Hand a batch to the daemon; it is durable when this returns. The same call again is the same batch.

    `symbols` is a list of them, a text such as "AAPL,MSFT", or a `Path` of a file of symbols or of windows. `start` and
    `end` are the first and the last day. `settings` has any settings of config.toml by name, such as
    `{"data.root": "bars", "windows.days": 90, "run.workload": "./mine.py:train", "workload.alpha": 0.1}`; it takes
    precedence over the environment, and that over `config`, a configuration file, which is looked for as the commands
    do. Paths start at the current directory. `params` makes a sweep: the values of settings, of which every combination
    is trained, such as `{"lightgbm.num_leaves": [15, 31], "labels.horizon": [5, 7]}`, or a list of such points one by
    one. `output` is the directory of the results, where those of other settings are kept unless `replace` says
    otherwise, `name` the batch's id, and `socket` the daemon's. The batch is planned and started when all batches in
    `after` have succeeded, or are finished if `only_if` says so, and not before the instant `not_before`: local time if
    it has no zone.

    Raises GpuschedError: ConfigError for a setting, InputError for symbols and refusals of the daemon (among them
    ReplacementRefused), UsageError, and DaemonError if none answers.
    """
    given = _given({"windows.start": start, "windows.end": end} | dict(settings or {}))
    name, priority = of_type("name", name, str, "a text"), of_type("priority", plain(priority), int, "a whole number")
    require_one_of("only_if", only_if, ("succeeded", "finished"))
    require_name(name)
    flags = [(key, value, f"settings[{key!r}]") for key, value in given.items()]
    loaded = load(path=None if config is None else Path(config), flags=flags)
    named = _named(symbols_of(symbols))
    refuse_dates_twice(named, [(key, flag) for key, _, flag in flags])
    place = loaded.config.daemon.socket if socket is None else Path(socket).absolute()
    with connect(place) as daemon:
        spec = batch_spec(with_code(loaded.config), named.symbols, windows=named.asked.windows, priority=priority or 0)
        spec, notes = with_command(spec, loaded)
        spec = with_points(spec, named.asked.points, given_points(params_of(params)))
        places = origins_of_points((), "params", spec)
        submitted = daemon.submit(
            spec,
            source=named.source,
            name=name,
            output_dir=None if output in (None, "") else Path(output).absolute(),
            terms=given_terms(loaded, priority),
            after=_ids(after),
            only_if=only_if,
            not_before=instant_of(not_before),
            origins=origins_of(spec.workload, loaded.origins | places),
            existing=Existing(reuse_known=loaded.config.run.reuse_known, replace=replace),
        )
        return Batch(submitted.batch.id, socket=daemon.path, notes=(*named.notes, *notes, *submitted.notes))


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a file would have them. Raises TheDaemons."""
    given = {key: value for key, value in plain(settings).items() if value is not None}
    refuse_the_daemons(given)
    return given


def _ids(batches: Batch | str | Iterable[Batch | str]) -> tuple[str, ...]:
    several = [batches] if isinstance(batches, Batch | str) else batches
    return tuple(one.id if isinstance(one, Batch) else id_of(one) for one in several)


def _named(symbols: str | os.PathLike[str] | Iterable[str]) -> Named:
    if isinstance(symbols, str):
        return typed_symbols(symbols)
    return read_symbols(Path(symbols).absolute()) if isinstance(symbols, os.PathLike) else given_symbols(symbols)


class Batch:
    """A batch of the daemon, by its id. Every method raises GpuschedError; an unknown id is an InputError."""

    def __init__(
        self, batch_id: str, *, socket: str | os.PathLike[str] | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        """`socket` is the daemon's; without it, the daemon is found as the commands find it."""
        self.id = id_of(batch_id)
        #: sentences for people about the symbols and the request
        self.notes = notes
        self._socket = load().config.daemon.socket if socket is None else Path(socket)

    def __repr__(self) -> str:
        return f"Batch({self.id!r})"

    def status(self) -> BatchStatus:
        """State (`waiting`, `open`, `held` or `finished`), windows by status (`counts`), output directory and times."""
        with self._connected() as daemon:
            return daemon.batch(self.id).batch

    def wait(self, timeout: float | None = None) -> BatchStatus:
        """Wait until the batch is finished, or held (`state` says which); at most `timeout` seconds.

        Raises WaitedTooLong at the timeout, StageCancelled, and HungUp if the daemon exits meanwhile: the batch is
        safe, and can be waited for again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._connected() as daemon:
            ended = follow(daemon.subscribe(self.id), self.id, deadline=deadline)
        status = self.status()
        if not ended and status.state in ("waiting", "open"):
            total = sum(status.counts.values())
            raise WaitedTooLong(
                batch_id=self.id, seconds=f"{timeout:g}", left=tally(status.counts, UNFINISHED), total=total
            )
        return status

    def results(self) -> pd.DataFrame:
        """The windows that are finished so far, as `gpusched.load_results` has them. Raises NoResults."""
        return gpusched.load_results(self.status().output_dir)

    def cancel(self) -> int:
        """End running windows and drop waiting ones; return how many. Results that are there stay."""
        with self._connected() as daemon:
            return daemon.change("cancel", self.id).windows

    def _connected(self) -> Connection:
        return connect(self._socket)
