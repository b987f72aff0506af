"""The command line's grammar: commands and their options."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpusched import __version__
from gpusched.cli import groups
from gpusched.cli.examples import examples
from gpusched.cli.setting_options import SETTING_OPTIONS, TRAIN_OPTIONS
from gpusched.cli.usage import Parser
from gpusched.command import WORKLOAD as COMMAND
from gpusched.errors import USAGE
from gpusched.files import is_text


def build(*names: str) -> tuple[Parser, Any]:
    """The parser, and its commands: `choices` maps names to parsers. `names`: of the commands it is to know (all)."""
    common = Parser(add_help=False)
    group = common.add_argument_group("everywhere")
    # SUPPRESS, so that an option before the command is not overwritten by its default after it.
    group.add_argument(
        "--config", type=Path, metavar="PATH", default=argparse.SUPPRESS, help="configuration file (./config.toml)"
    )
    group.add_argument(
        "--socket", metavar="PATH", default=argparse.SUPPRESS, help="the daemon's socket (where it is found)"
    )
    group.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        default=argparse.SUPPRESS,
        help="any setting of config.toml (repeatable)",
    )
    group.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")

    parser = Parser(prog="gpusched", description=_DESCRIPTION, epilog=_EPILOG, parents=[common], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"gpusched {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True, title="commands")
    for name in names or COMMANDS:
        handler, text, add = COMMANDS[name]
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
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
    # The parsers of all commands would take as long to make as a quarter of the imports.
    parser, commands = build(*(name for name in arguments[:1] if name in COMMANDS))
    if not arguments:
        parser.print_help()
        raise SystemExit(USAGE)
    if (odd := next(itertools.filterfalse(is_text, arguments), None)) is not None:
        parser.error(f"the argument {odd!r} is not UTF-8 text")
    arguments, words = _split(list(arguments))
    options, rest = parser.parse_known_args(arguments)
    if rest:
        commands.choices[options.command].error(f"unrecognized arguments: {rest[0]}")
    command = commands.choices[options.command]
    if "symbols_file" in options:
        given = getattr(options, "reuse_from", None) or []
        if options.symbols_file is None and options.symbols is None and given and not Path(given[-1]).is_dir():
            options.symbols_file = given.pop()  # the words behind --reuse-from end with it
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


_DESCRIPTION = "Train thousands of short LightGBM windows, one isolated process each, on every GPU of this machine."
_EPILOG = "`gpusched COMMAND --help` has examples; (…) behind an option is its default."
_SETTINGS = groups.settings(*SETTING_OPTIONS)
#: where windows run is the daemon's own setting, and `bench` is for this machine
_SETTINGS_BUT_ENGINE = groups.settings(*(name for name in SETTING_OPTIONS if name != "engine"))
_DATA = groups.settings("data_root", title="data")

#: command → (handler `module:function` of this package, help, groups of arguments)
COMMANDS: dict[str, tuple[str, str, tuple[groups.Group, ...]]] = {
    "demo": (
        "commands.demo:demo",
        "write sample data (real daily bars), then run it",
        (groups.directory, groups.as_json),
    ),
    "plan": (
        "commands.batches:plan",
        "show which windows would run, and which would be skipped and why",
        (
            groups.symbols,
            groups.program,
            groups.output,
            groups.existing,
            groups.naming,
            _SETTINGS,
            groups.sweep,
            groups.timeline,
            groups.as_json,
        ),
    ),
    "run": (
        "commands.batches:run",
        "train a batch here and now, without a daemon",
        (
            groups.symbols,
            groups.program,
            groups.output,
            groups.existing,
            groups.naming,
            groups.top,
            _SETTINGS,
            groups.sweep,
            groups.as_json,
        ),
    ),
    "bench": (
        "commands.bench:bench",
        "run the same windows with one slot and with all, and tell what limits them",
        (groups.symbols, _SETTINGS_BUT_ENGINE, groups.sweep, groups.repeat, groups.as_json),
    ),
    "train": (
        "commands.train:train",
        "train one window in this process, as a slot does",
        (groups.window, groups.settings(*TRAIN_OPTIONS), groups.as_json),
    ),
    "daemon": ("commands.service:daemon", "the service: accept batches and run them", ()),
    "submit": (
        "commands.service:submit",
        "hand a batch to the daemon, and print its id",
        (
            groups.symbols,
            groups.program,
            groups.output,
            groups.existing,
            groups.naming,
            groups.stage,
            groups.wait,
            _SETTINGS_BUT_ENGINE,
            groups.sweep,
            groups.as_json,
        ),
    ),
    "wait": (
        "commands.stages:wait",
        "wait until batches are finished; the exit code is that of the worst",
        (groups.several, groups.as_json),
    ),
    "status": ("commands.status:status", "the state of batches", (groups.maybe_batch, groups.batches, groups.as_json)),
    "windows": (
        "commands.queries:windows",
        "the windows of a batch",
        (groups.batch, groups.status_filter, groups.as_json),
    ),
    "show": ("commands.queries:show", "all details of a window", (groups.one_window, groups.as_json)),
    "explain": (
        "commands.queries:explain",
        "why a window waits, device by device",
        (groups.one_window, groups.as_json),
    ),
    "logs": ("commands.queries:logs", "the output of a window", (groups.one_window, groups.log)),
    "results": (
        "commands.results:results",
        "finished windows and their metrics",
        (groups.batch, groups.tables, groups.as_json),
    ),
    "report": (
        "commands.report:report",
        "one HTML page: what the models are worth, and where the time went",
        (groups.batch, groups.report, groups.as_json),
    ),
    "compare": (
        "commands.compare:compare_batches",
        "the same windows of two batches side by side, and their differences",
        (groups.two, groups.as_json),
    ),
    "top": ("commands.queries:top", "a live view of the daemon, with keys to control it", (groups.once,)),
    "cancel": (
        "commands.control:cancel",
        "end the running windows of a batch, and drop the waiting ones",
        (groups.target, groups.as_json),
    ),
    "hold": (
        "commands.control:hold",
        "start no more windows of a batch; those that run go on",
        (groups.target, groups.as_json),
    ),
    "release": ("commands.control:release", "let a held batch or window go on", (groups.target, groups.as_json)),
    "retry": ("commands.control:retry", "run failed or cancelled windows again", (groups.again, groups.as_json)),
    "priority": (
        "commands.control:priority",
        "place a batch before or behind others",
        (groups.priority, groups.as_json),
    ),
    "forget": (
        "commands.forget:forget",
        "remove finished batches from the daemon's records",
        (groups.forget, groups.as_json),
    ),
    "devices": ("commands.queries:devices", "devices, their slots and their health", (groups.as_json,)),
    "nodes": ("commands.nodes:nodes", "the nodes of a Ray cluster, and those that are not used", (groups.as_json,)),
    "drain": (
        "commands.control:drain",
        "start no more windows on a device or a node; those there go on",
        (groups.maybe_device, groups.as_json),
    ),
    "resume": (
        "commands.control:resume",
        "let windows start on a drained device or node again",
        (groups.maybe_device, groups.as_json),
    ),
    "completion": ("completion:completion", "print the completion script of a shell", (groups.shell,)),
    "doctor": (
        "commands.doctor:doctor",
        "what works here, and what to do about the rest",
        (_DATA, groups.cuda_build, groups.as_json),
    ),
    "config": ("commands.settings:show", "the configuration in force, and where it comes from", (groups.as_json,)),
}
