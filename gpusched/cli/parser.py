"""The command line's grammar: commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpusched import __version__
from gpusched.cli.examples import examples
from gpusched.cli.setting_options import SETTING_OPTIONS, TRAIN_OPTIONS
from gpusched.cli.usage import Parser
from gpusched.command import WORKLOAD as COMMAND
from gpusched.errors import USAGE


def build() -> tuple[Parser, Any]:
    """The parser, and its commands: `choices` maps names to parsers."""
    common = Parser(add_help=False)
    group = common.add_argument_group("everywhere")
    # SUPPRESS, so that an option before the command is not overwritten by its default after it.
    group.add_argument("--config", type=Path, metavar="PATH", default=argparse.SUPPRESS, help="configuration file")
    group.add_argument("--socket", metavar="PATH", default=argparse.SUPPRESS, help="the daemon's socket")
    group.add_argument(
        "--set", action="append", metavar="KEY=VALUE", default=argparse.SUPPRESS, help="any setting of config.toml"
    )
    group.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")

    parser = Parser(prog="gpusched", description=__doc_line__, parents=[common], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"gpusched {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True, title="commands")
    for name, (handler, text, add) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            parents=[common],
            allow_abbrev=False,
            epilog=examples(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(handler=handler)
        for addition in add:
            addition(command)
        command.usage = command.brief_usage()
    parser.usage = parser.brief_usage()
    return parser, commands


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command; `handler` names its function, `flags` are the settings it gave.

    Raises UsageError, and SystemExit once help is printed: on request, and where there are no arguments at all.
    """
    parser, commands = build()
    if not arguments:
        parser.print_help()
        raise SystemExit(USAGE)
    arguments, words = _split(list(arguments))
    options, rest = parser.parse_known_args(arguments)
    if rest:
        commands.choices[options.command].error(f"unrecognized arguments: {rest[0]}")
    command = commands.choices[options.command]
    if "symbols_file" in options:
        if options.symbols_file is None and options.symbols is None:
            command.error("the following arguments are required: SYMBOLS_FILE")
        if options.symbols_file is not None and options.symbols is not None:
            command.error("give SYMBOLS_FILE or --symbols, not both")
    if words:
        if "command_line" not in options:
            command.error(f"there is nothing to run behind `--`: {words[0]!r}")
        if options.command_line is not None:
            command.error("give the command with --command or behind `--`, not both")
        options.command_line = tuple(words)
    options.flags = _flags(options, command)
    return options


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments before the first `--`, and the words of a command behind it."""
    if "--" not in arguments:
        return arguments, []
    index = arguments.index("--")
    return arguments[:index], arguments[index + 1 :]


def _flags(options: argparse.Namespace, command: argparse.ArgumentParser) -> list[tuple[str, Any, str]]:
    """The settings given by options: (`section.key`, value, flag)."""
    flags: list[tuple[str, Any, str]] = []
    for text in getattr(options, "set", []):
        key, equals, value = text.partition("=")
        if not equals:
            command.error(f"--set {text}: expected KEY=VALUE, such as --set lightgbm.num_leaves=31")
        flags.append((key.strip(), value.strip(), "--set"))
    for name, (key, _, _) in SETTING_OPTIONS.items():
        value = getattr(options, name, None)
        if value is not None:
            flags.append((key, value, f"--{name.replace('_', '-')}"))
    if getattr(options, "command_line", None) is not None:
        flags += [("run.workload", COMMAND, "--command"), ("command.line", options.command_line, "--command")]
    if getattr(options, "socket", None):
        flags.append(("daemon.socket", options.socket, "--socket"))
    return flags


# -- groups of arguments -----------------------------------------------------------------------------------------------


def _settings(*names: str) -> Any:
    def add(command: argparse.ArgumentParser) -> None:
        group = command.add_argument_group("windows")
        for name in names:
            _, metavar, text = SETTING_OPTIONS[name]
            if metavar:
                group.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=text)
            else:
                group.add_argument(f"--{name.replace('_', '-')}", action="store_const", const="true", help=text)

    return add


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, and nothing else")


def _top(command: argparse.ArgumentParser) -> None:
    command.add_argument("--top", action="store_true", help="show it in the screen of `top`, with its keys")


def _symbols(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "symbols_file",
        nargs="?",
        metavar="SYMBOLS_FILE",
        help="one symbol a line, # starts a comment; or windows, one JSON object a line; - is stdin",
    )
    command.add_argument("--symbols", metavar="A,B,…", help="the symbols themselves, in place of a file")


def _timeline(command: argparse.ArgumentParser) -> None:
    command.add_argument("--timeline", action="store_true", help="draw the windows as bars over time, not as a list")


def _sweep(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("sweep: every window at each point")
    group.add_argument(
        "--param", action="append", metavar="KEY=V1,V2", help="values of a setting, such as lightgbm.num_leaves=15,31"
    )
    group.add_argument("--params", metavar="FILE", help="points one by one: CSV with a heading, or JSON lines")
    group.add_argument("--sample", type=int, metavar="N", help="so many points of the grid, drawn at random (all)")
    group.add_argument("--seed", type=int, metavar="N", help="the draw of --sample (0)")


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", metavar="DIR", help="where the artifacts go (<run.output>/<batch id>)")


def _command(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--command",
        dest="command_line",
        metavar="'PROGRAM …'",
        help="what a window runs, with {symbol}, {start}, {end}, {output_dir}, …; also behind `--` (run.workload)",
    )


def _name(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", help="the batch's id (made from the symbols file and the settings)")
    command.add_argument("--priority", type=int, help="batches with a higher one go first (0)")


def _window(command: argparse.ArgumentParser) -> None:
    for name, text in (("symbol", "symbol"), ("start_date", "first day"), ("end_date", "last day")):
        command.add_argument(name, metavar=name.removesuffix("_date").upper(), help=text)
    command.add_argument("-o", "--output", metavar="DIR", required=True, help="where the artifacts go")


def _directory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "directory", nargs="?", default="gpusched-demo", metavar="DIR", help="must not exist yet (./gpusched-demo)"
    )
    command.add_argument("--workers", metavar="N", help="windows that may run at once; 0: one per slot")
    command.set_defaults(output=None, name=None, priority=None, param=None, params=None, sample=None, seed=None)


def _wait(command: argparse.ArgumentParser) -> None:
    command.add_argument("--wait", action="store_true", help="show it until it ends, and end with its exit code")


def _stage(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("when")
    group.add_argument("--after", action="append", metavar="BATCH", help="start when that batch is done (repeatable)")
    group.add_argument(
        "--if",
        dest="only_if",
        choices=("succeeded", "finished"),
        default="succeeded",
        help="how the batches of --after have to end (succeeded)",
    )
    group.add_argument("--not-before", metavar="TIME", help="start at 18:00, or at 2024-12-31T18:00")


def _several(command: argparse.ArgumentParser) -> None:
    command.add_argument("batches", nargs="+", metavar="BATCH", help="ids of batches")


def _batch(command: argparse.ArgumentParser) -> None:
    command.add_argument("batch", metavar="BATCH|DIR", help="id of the batch, or the output directory of a run")


def _maybe_batch(command: argparse.ArgumentParser) -> None:
    command.add_argument("batch", nargs="?", metavar="BATCH|DIR", help="a batch, or a run's directory (all batches)")


def _batches(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", metavar="PART", help="only batches with this in their id")
    states = ("running", "waiting", "held", "finished", "failed")
    command.add_argument("--state", choices=states, help="only these; failed: those with failures")
    command.add_argument("--limit", type=int, metavar="N", help="at most so many (on a terminal 20)")
    command.add_argument("--all", action="store_true", help="all of them, on a terminal too")


def _status_filter(command: argparse.ArgumentParser) -> None:
    command.add_argument("--status", metavar="STATUS", help="only this status: queued, running, succeeded, failed, …")


def _one_window(command: argparse.ArgumentParser) -> None:
    command.add_argument("window", metavar="BATCH/LABEL", help="a window of a batch, or of a run: DIR/LABEL")


def _log(command: argparse.ArgumentParser) -> None:
    command.add_argument("-f", "--follow", action="store_true", help="go on until the window is finished")
    command.add_argument("--attempt", type=int, metavar="N", help="that attempt, from 1 (the last one)")


def _csv(command: argparse.ArgumentParser) -> None:
    command.add_argument("--csv", action="store_true", help="print CSV, one column for each metric")
    command.add_argument("--parquet", metavar="FILE", help="write a parquet file (needs pyarrow)")
    command.add_argument("--sort", metavar="COLUMN", help="largest first, text from A to Z (in the order of finishing)")
    command.add_argument("--reverse", action="store_true", help="reverse the order; rows without a value stay last")
    command.add_argument("--by-symbol", action="store_true", help="mean, spread, best and worst of a metric by symbol")
    command.add_argument("--by", metavar="COLUMN,…", help="mean, median and spread of a metric by values of parameters")
    command.add_argument("--metric", metavar="COLUMN", help="the metric of --by and --by-symbol (validation_auc)")
    command.add_argument("--best", metavar="COLUMN", help="only the windows where it is largest (--reverse: least)")
    command.add_argument("--per", metavar="COLUMN,…", help="the best one for each value of these, such as symbol")


def _report(command: argparse.ArgumentParser) -> None:
    command.add_argument("batch", metavar="BATCH|DIR", help="id of the batch, or the output directory of a run")
    command.add_argument("other", nargs="?", metavar="OTHER", help="another one, to be shown beside it")
    command.add_argument("-o", "--output", metavar="FILE", help="the file to write (<batch id>.html)")
    command.add_argument("--metric", metavar="NAME", help="the metric of the figures (validation_auc)")


def _two(command: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        command.add_argument(name, metavar=name.upper(), help="id of a batch, or the directory of its results")
    command.add_argument("--metric", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    command.add_argument("--windows", action="store_true", help="list all windows, not only the greatest differences")


def _shell(command: argparse.ArgumentParser) -> None:
    command.add_argument("shell", choices=("bash", "zsh", "fish"), help='use: eval "$(gpusched completion bash)"')


def _target(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", metavar="BATCH[/LABEL]", help="a batch, or one window of it")


def _again(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", metavar="BATCH[/LABEL]|DIR", help="a batch, a window of it, or a run's directory")


def _forget(command: argparse.ArgumentParser) -> None:
    command.add_argument("batches", nargs="*", metavar="BATCH", help="finished batches")
    command.add_argument("--older-than", metavar="AGE", help="all that finished at least that long ago: 30d, 12h, 2w")
    command.add_argument("--results", action="store_true", help="their results, too: they can only be trained again")


def _priority(command: argparse.ArgumentParser) -> None:
    command.add_argument("batch", metavar="BATCH", help="id of the batch")
    command.add_argument("priority", type=int, metavar="N", help="batches with a higher one go first")


def _repeat(command: argparse.ArgumentParser) -> None:
    command.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each kind (3)")
    command.set_defaults(output=None, name=None, priority=None)


def _build(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--build-cuda",
        action="store_true",
        help="build LightGBM with CUDA, try it, and put it in the place of this one",
    )
    command.add_argument("--arch", metavar="LIST", help="compute capabilities to build for, such as 86,90 (the GPUs')")
    command.add_argument("--yes", action="store_true", help="build without asking")


def _once(command: argparse.ArgumentParser) -> None:
    how = command.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="print one frame, and end")
    how.add_argument("--json", action="store_true", help="print one snapshot as JSON, and end")
    command.add_argument("directory", nargs="?", metavar="DIR", help="the output directory of a run: one frame of it")


def _maybe_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("on", nargs="?", metavar="DEVICE", help="id or the start of one (all devices)")


__doc_line__ = "Train thousands of short LightGBM windows, one isolated process each, on every GPU of this machine."
_ALL_SETTINGS = _settings(*(name for name in SETTING_OPTIONS if name != "engine"))
_ENGINE = _settings("engine")

#: command → (handler `module:function` of this package, help, groups of arguments)
COMMANDS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "demo": ("commands.demo:demo", "write sample data (real daily bars), then run it", (_directory, _json)),
    "plan": (
        "commands.batches:plan",
        "show which windows would run, and which would be skipped and why",
        (_symbols, _command, _output, _name, _ALL_SETTINGS, _ENGINE, _sweep, _timeline, _json),
    ),
    "run": (
        "commands.batches:run",
        "train a batch here and now, without a daemon",
        (_symbols, _command, _output, _name, _top, _ALL_SETTINGS, _ENGINE, _sweep, _json),
    ),
    "bench": (
        "commands.bench:bench",
        "time the same windows with one slot and with all, and name the limit",
        (_symbols, _ALL_SETTINGS, _sweep, _repeat, _json),
    ),
    "train": (
        "commands.train:train",
        "train one window in this process, as a slot does",
        (_window, _settings(*TRAIN_OPTIONS), _json),
    ),
    "daemon": ("commands.service:daemon", "the service: accept batches and run them", ()),
    "submit": (
        "commands.service:submit",
        "hand a batch to the daemon, and print its id",
        (_symbols, _command, _output, _name, _stage, _wait, _ALL_SETTINGS, _sweep, _json),
    ),
    "wait": ("commands.stages:wait", "wait until batches are done, and end as the worst", (_several, _json)),
    "status": ("commands.status:status", "the state of batches", (_maybe_batch, _batches, _json)),
    "windows": ("commands.queries:windows", "the windows of a batch", (_batch, _status_filter, _json)),
    "show": ("commands.queries:show", "all details of a window", (_one_window, _json)),
    "explain": ("commands.queries:explain", "why a window waits, device by device", (_one_window, _json)),
    "logs": ("commands.queries:logs", "the output of a window", (_one_window, _log)),
    "results": ("commands.results:results", "finished windows and their metrics", (_batch, _csv, _json)),
    "report": ("commands.report:report", "a batch as one HTML file: timeline, devices, metrics", (_report, _json)),
    "compare": (
        "commands.compare:compare_batches",
        "the same windows of two batches side by side, and their differences",
        (_two, _json),
    ),
    "top": ("commands.queries:top", "a live view of the daemon, with keys to control it", (_once,)),
    "cancel": ("commands.control:cancel", "end running windows, drop waiting ones", (_target, _json)),
    "hold": ("commands.control:hold", "start nothing more of it", (_target, _json)),
    "release": ("commands.control:release", "let a held batch or window go on", (_target, _json)),
    "retry": ("commands.control:retry", "run failed or cancelled windows again", (_again, _json)),
    "priority": ("commands.control:priority", "place a batch before or behind others", (_priority, _json)),
    "forget": (
        "commands.forget:forget",
        "remove finished batches from the daemon's records",
        (_forget, _json),
    ),
    "devices": ("commands.queries:devices", "devices, their slots and their health", (_json,)),
    "drain": ("commands.control:drain", "place nothing more on a device", (_maybe_device, _json)),
    "resume": ("commands.control:resume", "open a device again", (_maybe_device, _json)),
    "completion": ("completion:completion", "print the completion script of a shell", (_shell,)),
    "doctor": ("commands.doctor:doctor", "what works here, and what to do about the rest", (_build, _json)),
    "config": ("commands.settings:show", "the configuration in force, and where it comes from", (_json,)),
}
