"""`plan` and `run`: from a symbols file to a plan or to trained windows, without a daemon."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gpusched.cli.notes import notes_object
from gpusched.cli.outcomes import outlives_its_reader
from gpusched.cli.replacing import asking
from gpusched.cli.verdict import Untrained, exit_code, nothing_to_train
from gpusched.client.batches import given_terms, refuse_dates_twice, require_name
from gpusched.client.programs import with_code, with_command
from gpusched.client.sweep import asked_points, origin_of_parameter, origins_of_points, with_points
from gpusched.client.symbols import STDIN, Named, read_symbols, typed_symbols
from gpusched.config import (
    BUILT_IN_WORKLOAD,
    BadValue,
    Config,
    Loaded,
    batch_spec,
    load,
    origins_of,
    path_problem,
    stray_variables,
)
from gpusched.core import planning
from gpusched.core.estimates import GUESS_FACTOR
from gpusched.core.model import BatchSpec, Existing, PlannedWindow
from gpusched.core.totals import device_object
from gpusched.directories import temporary_place
from gpusched.errors import InputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from gpusched.client.drawing.plan import PlanTable
    from gpusched.protocol import Snapshot
    from gpusched.runs.forecast import Forecast
    from gpusched.runs.run import Run


class BadPath(UsageError):
    problem = "{text!r} cannot be used: {why}"
    remedy = "give another path"


class NoTimelineHere(UsageError):
    problem = "--timeline does not go with --json, which has the dates of all windows"
    remedy = "leave one of them out"


class NoDataRoot(InputError):
    problem = "the data root {path} cannot be read: {why}"
    remedy = "give --data-root, or set data.root in config.toml"


class NotLoadable(InputError):
    problem = "LightGBM does not train: {why}"
    remedy = "{first}; `gpusched doctor` looks at the rest"


class NoTopHere(UsageError):
    problem = "--top needs a terminal, and does not go with --json"
    remedy = "leave it out: then progress is shown as lines, or not at all with --json"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """The request for a batch on the command line."""

    config: Config
    spec: BatchSpec
    #: name that the batch id is made from: the stem of the symbols file, "stdin" or the symbols
    source: str
    name: str | None
    #: the directory of -o, or None
    output: Path | None
    #: sentences for people about the symbols file and the settings
    notes: tuple[str, ...]
    #: names of the terms that are not defaults: given by a flag, the environment or a file
    terms: tuple[str, ...] = ()
    #: `section.key` of the workload's settings → where the value was given
    origins: dict[str, str] = {}
    existing: Existing = Existing()

    def say_notes(self, console: Console) -> None:
        """Print the notes, without control characters: they contain file names."""
        from gpusched.client.drawing.plain import clean

        for note in self.notes:
            console.print(clean(note))

    @property
    def digest(self) -> str:
        return planning.digest(self.spec, str(self.output) if self.output else None)

    @property
    def batch_id(self) -> str:
        """The name that was given, or one that batches of other symbols and dates have, too, and so their directory."""
        return self.name or planning.batch_id(self.source, planning.settings_digest(self.spec))

    @property
    def output_dir(self) -> Path:
        return self.output or self.config.run.output / self.batch_id

    @property
    def run(self) -> Run:
        """The batch of the arguments, to be run or forecast without a daemon."""
        from gpusched.runs.run import Run

        return Run(
            config=self.config,
            spec=self.spec,
            batch_id=self.batch_id,
            digest=self.digest,
            output_dir=self.output_dir,
            existing=self.existing,
            origins=self.origins,
        )


class NotADirectory(InputError):
    problem = "--reuse-from {path}: {why}"
    remedy = "name the output directory of an earlier batch"


def existing_asked(options: argparse.Namespace, config: Config) -> Existing:
    """The wishes of `--reuse-from` and `--replace`. Raises BadPath, NotADirectory."""
    directories = tuple(map(given_path, getattr(options, "reuse_from", None) or ()))
    for directory in directories:
        try:
            os.scandir(directory).close()
        except OSError as error:
            raise NotADirectory(path=directory, why=error.strerror or error) from None
    return Existing(
        reuse_from=tuple(map(str, directories)),
        reuse_known=config.run.reuse_known,
        replace=getattr(options, "replace", True),
    )


def load_config(options: argparse.Namespace) -> Loaded:
    return load(path=getattr(options, "config", None), flags=options.flags)


def given_path(text: str) -> Path:
    """The absolute path of an argument. Raises BadPath."""
    path = Path(text).absolute()
    if why := path_problem(str(path)):
        raise BadPath(text=str(path), why=why)
    return path


def ask(options: argparse.Namespace) -> Ask:
    """Read the configuration and the symbols. Raises GpuschedError."""
    given_path(".")  # where the data and the results are unless another place is named
    loaded = load_config(options)
    config = with_code(loaded.config)
    named = _symbols(options)
    require_name(options.name, option="--name")
    refuse_dates_twice(named, [(key, flag) for key, _, flag in options.flags])
    spec = batch_spec(config, named.symbols, windows=named.asked.windows, priority=options.priority or 0)
    spec, notes = with_command(spec, loaded)
    params, file = options.param or (), options.params and given_path(options.params)
    swept = asked_points(params, file, options.sample, options.seed)
    try:
        spec = with_points(spec, named.asked.points, swept)
    except BadValue as error:
        rows = (str(file), swept) if file else (str(options.symbols_file), named.asked.points)
        error.place = error.place or origin_of_parameter(str(error.details["key"]), params, *rows)
        raise
    places = origins_of_points(params, str(file or options.symbols_file), spec)
    return Ask(
        config=config,
        spec=spec,
        source=named.source,
        name=options.name,
        output=given_path(options.output) if options.output else None,
        notes=(*stray_variables(), *named.notes, *_notes_on_settings(spec), *notes),
        terms=given_terms(loaded, options.priority),
        origins=origins_of(spec.workload, loaded.origins | places),
        existing=existing_asked(options, config),
    )


def _notes_on_settings(spec: BatchSpec) -> tuple[str, ...]:
    """Notes on settings that are allowed, but perhaps unintended."""
    if spec.workload != BUILT_IN_WORKLOAD or spec.device == "cpu":
        return ()
    from gpusched.teacher.schema import DIFFERS, differs_on_gpus

    return (DIFFERS,) if differs_on_gpus(spec.settings["lightgbm"]) else ()


def _symbols(options: argparse.Namespace) -> Named:
    """The symbols of `--symbols`, of stdin or of the symbols file."""
    if (typed := getattr(options, "symbols", None)) is not None:
        return typed_symbols(typed)
    return read_symbols(None if options.symbols_file == STDIN else given_path(options.symbols_file))


def check_data_root(spec: BatchSpec) -> None:
    """Raise NoDataRoot unless the data root can be listed, or there is none, as for a command."""
    if not spec.data_root:
        return
    try:
        os.scandir(spec.data_root).close()
    except OSError as error:
        raise NoDataRoot(path=spec.data_root, why=error.strerror or error) from None


def check_libraries(workload: str) -> None:
    """Raise NotLoadable if LightGBM cannot be loaded, with the cause and remedy that the doctor shows."""
    from gpusched.teacher.installed import missing_library, remedy_for

    why = missing_library() if workload == BUILT_IN_WORKLOAD else None
    if why is not None:
        raise NotLoadable(why=why, first=remedy_for(why) or "reinstall LightGBM")


def plan(options: argparse.Namespace) -> int:
    """Print the plan of a batch; no window is started."""
    import anyio

    from gpusched.client.drawing.plan import PlanTable
    from gpusched.client.drawing.terminal import open_console
    from gpusched.client.drawing.timeline import Timeline, boundary
    from gpusched.runs.forecast import forecast

    if options.timeline and options.json:
        raise NoTimelineHere
    request = ask(options)
    check_libraries(request.spec.workload)
    check_data_root(request.spec)
    console, errors = open_console(), open_console(stderr=True)
    request.say_notes(errors)
    foreseen = anyio.run(forecast, request.run, errors.print)
    made = foreseen.plan
    if options.json:
        print(json.dumps(plan_object(request, foreseen)))  # noqa: T201
    else:
        bars = Timeline(plan=made, boundary=boundary(request.spec.settings)) if options.timeline else None
        _print_plan(PlanTable(plan=made, bars=bars, every_window=options.windows), foreseen, console, errors)
    if not made.to_train and not made.to_reuse:
        raise nothing_to_train(map(Untrained.planned, made.windows))
    # Refused windows count as failed: a run would end with this exit code even if all others succeeded.
    expected = {"total": len(made.windows), "failed": len(made.to_fail)}
    return exit_code(expected, request.spec.limits.max_failure_rate, held=False)


def _estimate(foreseen: Forecast) -> str:
    """The expected time in words: a guess is a range."""
    from gpusched.client.drawing.text import duration

    if foreseen.seconds is None:
        return "unknown (no window of this workload has been trained into this directory yet)"
    if foreseen.learned or not foreseen.seconds:
        return duration(foreseen.seconds)
    least, most = foreseen.seconds / GUESS_FACTOR, foreseen.seconds * GUESS_FACTOR
    why = "a guess: no window like these has been trained into this directory yet"
    return f"{f'{duration(least)} to' if least >= 0.1 else 'up to'} {duration(most)} ({why})"


def _print_plan(table: PlanTable, foreseen: Forecast, console: Console, errors: Console) -> None:
    """Print a plan: on a terminal as its table; in a pipe as bars, if it has some, or by window."""
    from gpusched.client.drawing.plan import plan_line, plan_rows
    from gpusched.client.drawing.summary import notes_lines

    if foreseen.choice is not None and foreseen.choice.reason:
        errors.print(foreseen.choice.reason)
    estimate = f"Estimated time: {_estimate(foreseen)}"
    if console.is_terminal:
        console.print(table)
        console.print(estimate)
        return
    if table.bars is not None:
        console.print(table.bars, soft_wrap=False)
    else:
        for row in plan_rows(foreseen.plan):
            print(row)  # noqa: T201
    errors.print(plan_line(foreseen.plan))
    for line in notes_lines(foreseen.plan.notes):
        errors.print(line)
    errors.print(estimate)


def plan_object(request: Ask, foreseen: Forecast) -> dict[str, Any]:
    """The plan as `plan --json` prints it."""
    made, choice = foreseen.plan, foreseen.choice
    return {
        "batch_id": request.batch_id,
        "output_dir": str(request.output_dir),
        "windows": [_planned(window) for window in made.windows],
        "totals": {
            "total": len(made.windows),
            "train": len(made.to_train),
            "reuse": len(made.to_reuse),
            "skip": len(made.to_skip),
        }
        | ({"fail": len(made.to_fail)} if made.to_fail else {})
        | ({"replace": made.to_replace} if made.to_replace else {})
        | ({"move_aside": made.to_move_aside} if made.to_move_aside else {}),
        "estimated_seconds": foreseen.seconds and round(foreseen.seconds, 3),
        **({} if foreseen.learned or foreseen.seconds is None else {"estimate_factor": GUESS_FACTOR}),
        **device_object(choice.device if choice else request.spec.device, choice),
    } | notes_object(made.notes)


def _planned(planned: PlannedWindow) -> dict[str, Any]:
    window = planned.window
    return {
        "symbol": window.symbol,
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
        "window_label": window.label,
        "bars": planned.bars,
        "usable_rows": planned.usable_rows,
        "action": planning.action(planned),
        "reason": planning.reason_of_plan(planned) or None,
    } | ({"remedy": planned.remedy} if planned.remedy else {})


@outlives_its_reader
def run(options: argparse.Namespace) -> int:
    """Train a batch in this terminal."""
    return run_request(ask(options), as_json=options.json, in_top=options.top)


def run_request(request: Ask, *, as_json: bool, in_top: bool = False, advises: bool = True) -> int:
    """Run what is asked for, as `run_here` does."""
    if request.notes:
        from gpusched.client.drawing.terminal import open_console

        request.say_notes(open_console(stderr=True))

    def begin(existing: Existing) -> int:
        run = msgspec.structs.replace(request.run, existing=existing)
        return run_here(run, as_json=as_json, in_top=in_top, advises=advises)

    return asking(begin, request.existing)


def run_here(
    run: Run, *, as_json: bool, in_top: bool = False, advises: bool = True, snapshot: Snapshot | None = None
) -> int:
    """Plan and train a batch, show its progress and summary, and return the exit code. Raises GpuschedError.

    `advises`: say at the end which commands look at the results. `snapshot`: the batch as it is, if it is taken up.
    """
    import anyio

    from gpusched.cli.onlooker import Onlooker
    from gpusched.runs.run import run_batch

    if in_top and as_json:
        raise NoTopHere
    console = None if as_json else _console(in_top=in_top)
    if in_top:
        temporary_place()  # its socket is there: without one the run would fail once windows train
    check_libraries(run.spec.workload)
    check_data_root(run.spec)
    onlooker = Onlooker(run, console, advises=advises)
    if console is not None:
        console.print(f"Batch directory: {run.output_dir}", soft_wrap=True)
    with onlooker.screen:
        if snapshot is not None:
            onlooker.screen.load(snapshot, run.batch_id)
        ended = anyio.run(run_batch, run, onlooker, onlooker.watch if in_top else None)
    return onlooker.conclude(ended)


def _console(*, in_top: bool) -> Console:
    """The console of a run that is drawn. Raises NoTopHere."""
    from gpusched.client.drawing.terminal import open_console, takes_keys  # rich, which `--json` can do without

    console = open_console()
    if in_top and not takes_keys(console):
        raise NoTopHere
    return console
