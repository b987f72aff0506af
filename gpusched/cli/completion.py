"""Shell completion: commands and options from the parser, batches, windows and devices from the daemon or from runs.

argcomplete provides the shell's side: its script runs `gpusched` with `_ARGCOMPLETE` in the environment. Every error
here is swallowed and only leaves fewer words to choose from: a shell that waits for a word must not see a message.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, get_args

import msgspec

from gpusched.cli import parser
from gpusched.client.connection import Connection, connect
from gpusched.config import SECTIONS, Config, load
from gpusched.config.schema import LIGHTGBM
from gpusched.config.workloads import BUILT_IN_KEYS
from gpusched.core.model import DeviceChoice
from gpusched.core.statuses import STATUSES
from gpusched.errors import DONE
from gpusched.protocol import WindowLine
from gpusched.runs.place import is_run
from gpusched.teacher.parameters import CANONICAL
from gpusched.teacher.schema import OWNED

#: seconds that the daemon has to answer, and the most words that are offered
PATIENCE_S = 0.5
MOST_WORDS = 2000


def completion(options: argparse.Namespace) -> int:
    """Print the script that a shell has to source."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["gpusched"], shell=options.shell))  # noqa: T201
    return DONE


def complete() -> NoReturn:
    """Answer the shell, and exit."""
    from argcomplete.finders import CompletionFinder

    whole, commands = parser.build()
    for command in commands.choices.values():
        for action in command._actions:
            if completer := _COMPLETERS.get(action.dest):
                action.completer = completer
    # Options are offered only after a dash: before one, they would hide the batches.
    CompletionFinder()(whole, always_complete_options=False, validator=_is_offered)
    raise SystemExit(DONE)


def _is_offered(word: str, prefix: str) -> bool:
    """Whether a word is offered: a name that is not UTF-8 cannot be sent, and would keep all others from being sent."""
    return word.startswith(prefix) and word.isprintable()


# -- words to choose from ----------------------------------------------------------------------------------------------


#: gives words that begin as the typed part of one
_Source = Callable[[str, argparse.Namespace], Iterable[str]]


def _sent(words: Callable[[Connection, str], Iterable[str]]) -> _Source:
    """A source of words that the daemon sends."""

    def source(prefix: str, options: argparse.Namespace) -> Iterator[str]:
        with connect(_config(options).daemon.socket) as daemon:
            yield from words(daemon, prefix)

    return source


def _in_time(*sources: _Source) -> Callable[..., list[str]]:
    """A completer that offers the words of those sources that answer in time."""

    def completer(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        return [word for words in sources for word in _offered(words(prefix, parsed_args), prefix)]

    return completer


def _offered(words: Iterable[str], prefix: str) -> list[str]:
    offered: list[str] = []
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        offered.extend(islice((word for word in words if word.startswith(prefix)), MOST_WORDS))
    except Exception:  # noqa: S110
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return offered


def _give_up(*_: object) -> NoReturn:
    raise TimeoutError


def _config(options: argparse.Namespace) -> Config:
    socket = getattr(options, "socket", None)
    flags = [("daemon.socket", socket, "--socket")] if socket else []
    return load(path=getattr(options, "config", None), flags=flags).config


def _batches(daemon: Connection, prefix: str) -> Iterator[str]:
    for batch in reversed(daemon.batches()):
        yield batch.id


def _windows(daemon: Connection, prefix: str) -> Iterator[str]:
    """The batches, or, once a batch is typed, its windows."""
    batch_id, slash, _ = prefix.partition("/")
    if not slash:
        for batch in _batches(daemon, prefix):
            yield f"{batch}/"
    else:
        for line in daemon.windows(batch_id):
            yield str(line.key)


def _targets(daemon: Connection, prefix: str) -> Iterator[str]:
    return _windows(daemon, prefix) if "/" in prefix else _batches(daemon, prefix)


def _runs(prefix: str, options: argparse.Namespace) -> Iterator[str]:
    """The directories of runs, and those that have some in them."""
    if options.command == "priority":
        return
    config = _config(options)
    above = os.path.dirname(prefix)  # noqa: PTH120  # a Path forgets the `./` that was typed
    for name in _directories(Path(above)):
        path = os.path.join(above, name)  # noqa: PTH118
        if is_run(config, Path(path)):
            yield path
        elif any(is_run(config, Path(f"{path}/{below}")) for below in _directories(Path(path))):
            yield f"{path}/"


def _windows_of_runs(prefix: str, options: argparse.Namespace) -> Iterator[str]:
    """The directories of runs, or, once one is typed, its windows."""
    config, directory = _config(options), prefix.rpartition("/")[0]
    if not directory or not is_run(config, Path(directory)):
        for run in _runs(prefix, options):
            yield f"{run.rstrip('/')}/"
        return
    from gpusched.cli.sources import records_of  # for few words

    with records_of(config, Path(directory)) as records:
        for line in records.windows(records.batch_id):
            yield f"{directory}/{line.key.label}"


def _targets_of_runs(prefix: str, options: argparse.Namespace) -> Iterator[str]:
    """As of `_runs` and `_windows_of_runs`, for the command that takes runs."""
    if options.command == "retry":
        directory = prefix.rpartition("/")[0]
        typed = directory and is_run(_config(options), Path(directory))
        yield from (_windows_of_runs if typed else _runs)(prefix, options)


def _directories(place: Path) -> list[str]:
    """The subdirectories that are not hidden; none where this user may not look."""
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return []


def _devices(daemon: Connection, prefix: str) -> Iterator[str]:
    devices = daemon.devices()
    yield from sorted({device.device.host for device in devices} - {""})
    for device in devices:
        yield device.device.id


def _settings(prefix: str, **_: Any) -> list[str]:
    """`section.key=` of every setting."""
    fields = msgspec.structs.fields
    own = [f"{name}.{field.encode_name}=" for name, section in SECTIONS.items() for field in fields(section)]
    return [*own, *_of_lightgbm()]


def _parameters(prefix: str, **_: Any) -> list[str]:
    """`section.key=` of every setting of the built-in workload."""
    return [*(f"{key}=" for key in BUILT_IN_KEYS), *_of_lightgbm()]


def _of_lightgbm() -> list[str]:
    return [f"{LIGHTGBM}.{name}=" for name in sorted(set(CANONICAL.values()) - OWNED.keys())]


def _columns(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The columns that `results` can sort by: those of its table by symbol, or all that the batch has."""
    from gpusched.cli.commands.results import COLUMNS
    from gpusched.cli.summaries import SYMBOL_COLUMNS

    if parsed_args.by_symbol:
        return [name for name in SYMBOL_COLUMNS if name.startswith(prefix)]
    return [*COLUMNS, *_metrics(prefix, parsed_args)]


def _metrics(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The metrics of the first window that has any."""
    from gpusched.cli.commands.results import COLUMNS, flat

    def names(lines: Iterable[WindowLine]) -> Iterator[str]:
        line = next((line for line in lines if line.metrics), None)
        yield from (name for name in (flat(line) if line is not None else ()) if name not in COLUMNS)

    def of_run(prefix: str, options: argparse.Namespace) -> Iterator[str]:
        from gpusched.cli.sources import records_of

        with records_of(_config(options), Path(options.batch)) as records:
            yield from names(records.results(records.batch_id))

    of_batch = _sent(lambda daemon, prefix: names(daemon.results(parsed_args.batch)))
    return _in_time(of_run if is_run(_config(parsed_args), Path(parsed_args.batch)) else of_batch)(prefix, parsed_args)


def _fixed(*words: str) -> Callable[..., tuple[str, ...]]:
    return lambda **_: words


#: completers by the name of the argument
_COMPLETERS: dict[str, Callable[..., Any]] = {
    "batch": _in_time(_sent(_batches), _runs),
    "batches": _in_time(_sent(_batches)),
    "a": _in_time(_sent(_batches), _runs),
    "after": _in_time(_sent(_batches)),
    "b": _in_time(_sent(_batches), _runs),
    "window": _in_time(_sent(_windows), _windows_of_runs),
    "target": _in_time(_sent(_targets), _targets_of_runs),
    "on": _in_time(_sent(_devices)),
    "set": _settings,
    "param": _parameters,
    "sort": _columns,
    "by": _columns,
    "per": _columns,
    "best": _metrics,
    "metric": _metrics,
    "device": _fixed(*get_args(DeviceChoice)),
    "status": _fixed(*STATUSES),
}
