"""`plan` and `run`: from a symbols file to a plan or to trained windows, without a daemon."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gpusched.cli.notes import notes_object
from gpusched.cli.outcomes import outlives_its_reader
from gpusched.cli.sweep import asked_points, at_points, origins_of_points
from gpusched.cli.symbols import STDIN, named_symbols
from gpusched.cli.verdict import Untrained, exit_code, is_nothing, nothing_to_train, refused_object
from gpusched.config import (
    BUILT_IN_WORKLOAD,
    Config,
    Loaded,
    batch_spec,
    load,
    origins_of,
    path_problem,
    run_state_dir,
    terms,
)
from gpusched.core import planning
from gpusched.core.model import BatchSpec, PlannedWindow
from gpusched.core.planning import Plan
from gpusched.core.totals import batch_object, device_object
from gpusched.errors import INTERRUPTED, InputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from gpusched.runs.forecast import Forecast


class BadName(UsageError):
    problem = "--name {name!r} cannot name a batch: {why}"
    remedy = "give another name"


class BadPath(UsageError):
    problem = "{text!r} cannot be used: {why}"
    remedy = "give another path"


class NoTimelineHere(UsageError):
    problem = "--timeline does not go with --json, which has the dates of all windows"
    remedy = "leave one of them out"


class DatesTwice(UsageError):
    problem = "{flag} does not go with {file}, which has the dates of each window"
    remedy = "leave it out, or give a file of symbols, one a line"


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

    def say_notes(self, console: Console) -> None:
        """Print the notes, without control characters: they contain file names."""
        from gpusched.client.drawing.text import clean

        for note in self.notes:
            console.print(clean(note), soft_wrap=True)

    @property
    def digest(self) -> str:
        return planning.digest(self.spec, str(self.output) if self.output else None)

    @property
    def batch_id(self) -> str:
        return self.name or planning.batch_id(self.source, self.digest)

    @property
    def output_dir(self) -> Path:
        return self.output or self.config.run.output / self.batch_id


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
    loaded = load_config(options)
    config = loaded.config
    named = named_symbols(options, given_path(options.symbols_file) if _names_file(options) else None)
    if options.name is not None and (why := planning.name_problem(options.name)):
        raise BadName(name=options.name, why=why)
    windows, points = named.asked.windows, asked_points(options)
    if windows:
        if flag := next((flag for key, _, flag in options.flags if key.startswith("windows.")), None):
            raise DatesTwice(flag=flag, file=options.symbols_file)
        windows, points = at_points(windows, named.asked.points, points, options.symbols_file)
    spec = batch_spec(config, named.symbols, windows=windows, points=points, priority=options.priority or 0)
    given = [name for key, (name, _) in terms(config).items() if key in loaded.origins]
    return Ask(
        config=config,
        spec=spec,
        source=named.source,
        name=options.name,
        output=given_path(options.output) if options.output else None,
        notes=(*named.notes, *_notes_on_settings(spec)),
        terms=(*given, *(["priority"] if options.priority is not None else [])),
        origins=origins_of(spec.workload, loaded.origins | origins_of_points(options, points)),
    )


def _notes_on_settings(spec: BatchSpec) -> tuple[str, ...]:
    """Notes on settings that are allowed, but perhaps unintended."""
    if spec.workload != BUILT_IN_WORKLOAD or spec.device == "cpu":
        return ()
    from gpusched.teacher.schema import DIFFERS, differs_on_gpus

    return (DIFFERS,) if differs_on_gpus(spec.settings["lightgbm"]) else ()


def _names_file(options: argparse.Namespace) -> bool:
    return options.symbols_file not in (None, STDIN)


def check_data_root(spec: BatchSpec) -> None:
    """Raise NoDataRoot unless the data root can be listed."""
    try:
        os.scandir(spec.data_root).close()
    except OSError as error:
        raise NoDataRoot(path=spec.data_root, why=error.strerror or error) from None


def check_libraries(workload: str) -> None:
    """Raise NotLoadable if LightGBM cannot be loaded, with the cause and remedy that the doctor shows."""
    from gpusched.teacher.runtime import missing_library, remedy_for

    why = missing_library() if workload == BUILT_IN_WORKLOAD else None
    if why is not None:
        raise NotLoadable(why=why, first=remedy_for(why) or "reinstall LightGBM")


def plan(options: argparse.Namespace) -> int:
    """Print the plan of a batch, window by window; no window is started."""
    import anyio

    from gpusched.client.drawing import terminal as render
    from gpusched.runs.forecast import forecast

    if options.timeline and options.json:
        raise NoTimelineHere
    request = ask(options)
    check_libraries(request.spec.workload)
    check_data_root(request.spec)
    console, errors = render.open_console(), render.open_console(stderr=True)
    request.say_notes(errors)
    on_note = partial(errors.print, soft_wrap=True)
    foreseen = anyio.run(
        partial(forecast, request.config, request.spec, request.output_dir, origins=request.origins, on_note=on_note)
    )
    made = foreseen.plan
    if options.json:
        print(json.dumps(plan_object(request, foreseen)))  # noqa: T201
    else:
        _print_plan(foreseen, console, errors, request.spec.settings if options.timeline else None)
    if not made.to_train and not made.to_reuse:
        raise nothing_to_train(map(Untrained.planned, made.windows))
    # Refused windows count as failed: a run would end with this exit code even if all others succeeded.
    expected = {"total": len(made.windows), "failed": len(made.to_fail)}
    return exit_code(expected, request.spec.limits.max_failure_rate, held=False)


def _print_plan(
    foreseen: Forecast, console: Console, errors: Console, drawn_by: Mapping[str, Any] | None = None
) -> None:
    """Print a plan window by window, or as a timeline by the settings `drawn_by`."""
    from gpusched.client.drawing import terminal as render
    from gpusched.client.drawing.timeline import boundary, timeline

    bars = None if drawn_by is None else timeline(foreseen.plan, boundary(drawn_by))

    if foreseen.choice is not None and foreseen.choice.reason:
        errors.print(foreseen.choice.reason, soft_wrap=True)
    by = "" if foreseen.learned else " (a guess: no window like these has been trained into this directory yet)"
    estimate = f"Estimated time: {render.duration(foreseen.seconds)}{by}"
    if console.is_terminal:
        console.print(render.plan_table(foreseen.plan, bars))
        console.print(estimate)
    else:
        if bars is not None:
            console.print(bars, soft_wrap=False)
        for row in render.plan_rows(foreseen.plan) if bars is None else ():
            print(row)  # noqa: T201
        errors.print(render.plan_line(foreseen.plan))
        for line in render.notes_lines(foreseen.plan.notes):
            errors.print(line, soft_wrap=True)
        errors.print(estimate, soft_wrap=True)


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
        "estimated_seconds": round(foreseen.seconds, 3),
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


def run_request(request: Ask, *, as_json: bool, in_top: bool = False) -> int:
    """Plan and train a batch, show its progress and summary, and return the exit code. Raises GpuschedError."""
    import anyio

    from gpusched.client.drawing import terminal as render
    from gpusched.client.views.batch import BatchView
    from gpusched.runs.run import run_batch

    console, errors = render.open_console(), render.open_console(stderr=True)
    if in_top and (as_json or not render.takes_keys(console)):
        raise NoTopHere
    check_libraries(request.spec.workload)
    check_data_root(request.spec)
    request.say_notes(errors)
    view, plans = BatchView(), list[Plan]()
    screen = render.RunScreen(errors if as_json else console, view, quiet=as_json)

    #: functions that show a note: also that of the `top` screen, while it is open
    shown: list[Callable[[str], None]] = [screen.note]

    def interrupted(count: int) -> None:
        note = {
            1: "Draining: the running windows may finish, no other starts; interrupt again to stop them.",
            2: "Stopping the running windows.",
        }.get(count, "Leaving, whatever hangs.")
        for show in shown:
            show(note)

    async def train() -> Any:
        return await run_batch(
            request.config,
            request.spec,
            batch_id=request.batch_id,
            digest=request.digest,
            output_dir=request.output_dir,
            origins=request.origins,
            observe=screen.update,
            on_plan=planned,
            on_interrupt=interrupted,
            on_survey=screen.planning,
            on_note=screen.note,
            watch=watch if in_top else None,
        )

    async def watch(socket: Path, over: anyio.Event) -> None:
        from gpusched.client.top.app import Top

        with screen.paused():
            top = Top(console, socket, words=f"gpusched run, {request.output_dir}")
            shown.append(top.say)
            await top.run_until(over.wait())
            shown.remove(top.say)

    def planned(made: Plan) -> None:
        plans.append(made)
        screen.planned(made)

    if not as_json:
        console.print(f"Batch directory: {request.output_dir}", soft_wrap=True)
    with screen:
        ended = anyio.run(train)
    totals = view.totals()
    if as_json:
        summary = batch_object(request.batch_id, str(request.output_dir), totals, ended.seconds)
        summary |= refused_object(view.every_refusal()) | notes_object(plans[0].notes if plans else {})
        print(json.dumps(summary))  # noqa: T201
    else:
        logs_dir = run_state_dir(request.config, request.output_dir) / "logs"
        console.print(
            render.summary(
                view,
                ended.seconds,
                held_reason=ended.held_reason,
                interrupted=ended.interrupted,
                logs_dir=logs_dir,
                settings=request.spec.settings,
            )
        )
    if ended.interrupted:
        return INTERRUPTED
    if plans and is_nothing(totals, view.refused):
        raise nothing_to_train(
            Untrained.planned(window, view.reason_of(window.window.label)) for window in plans[0].windows
        )
    return exit_code(totals, request.spec.limits.max_failure_rate, held=ended.held_reason is not None)
