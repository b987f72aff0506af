"""Shell completion: commands and options from the parser, batches, windows and devices from the daemon.

argcomplete provides the shell's side: its script runs `gpusched` with `_ARGCOMPLETE` in the environment. Every error
here is swallowed and only leaves fewer words to choose from: a shell that waits for a word must not see a message.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NoReturn, get_args

import msgspec

from gpusched.cli import parser
from gpusched.client.connection import Connection, connect
from gpusched.config import SECTIONS, load
from gpusched.core.model import DeviceChoice
from gpusched.core.statuses import STATUSES
from gpusched.errors import DONE

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
    CompletionFinder()(whole, always_complete_options=False)
    raise SystemExit(DONE)


# -- words to choose from ----------------------------------------------------------------------------------------------


def _from_daemon(words: Callable[[Connection, str], Iterable[str]]) -> Callable[..., list[str]]:
    """A completer that offers the words that the daemon sends in time."""

    def completer(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        offered: list[str] = []
        before = signal.signal(signal.SIGALRM, _give_up)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        try:
            with connect(_socket(parsed_args)) as daemon:
                offered.extend(islice((word for word in words(daemon, prefix) if word.startswith(prefix)), MOST_WORDS))
        except Exception:  # noqa: S110
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return offered

    return completer


def _give_up(*_: object) -> NoReturn:
    raise TimeoutError


def _socket(options: argparse.Namespace) -> Any:
    socket = getattr(options, "socket", None)
    flags = [("daemon.socket", socket, "--socket")] if socket else []
    return load(path=getattr(options, "config", None), flags=flags).config.daemon.socket


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


def _devices(daemon: Connection, prefix: str) -> Iterator[str]:
    devices = daemon.devices()
    yield from sorted({device.device.host for device in devices} - {""})
    for device in devices:
        yield device.device.id


def _settings(prefix: str, **_: Any) -> list[str]:
    """`section.key=` of every setting."""
    fields = msgspec.structs.fields
    return [f"{name}.{field.encode_name}=" for name, section in SECTIONS.items() for field in fields(section)]


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

    def words(daemon: Connection, prefix: str) -> Iterator[str]:
        for line in daemon.results(parsed_args.batch):
            if line.metrics:
                yield from (name for name in flat(line) if name not in COLUMNS)
                return

    return _from_daemon(words)(prefix, parsed_args)


def _fixed(*words: str) -> Callable[..., tuple[str, ...]]:
    return lambda **_: words


#: completers by the name of the argument
_COMPLETERS: dict[str, Callable[..., Any]] = {
    "batch": _from_daemon(_batches),
    "a": _from_daemon(_batches),
    "after": _from_daemon(_batches),
    "b": _from_daemon(_batches),
    "window": _from_daemon(_windows),
    "target": _from_daemon(_targets),
    "on": _from_daemon(_devices),
    "set": _settings,
    "sort": _columns,
    "metric": _metrics,
    "device": _fixed(*get_args(DeviceChoice)),
    "status": _fixed(*STATUSES),
}
