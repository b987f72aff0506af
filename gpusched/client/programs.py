"""The program of a batch, as this client finds it: its command from PATH, its workload's module from here."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from gpusched.command import WORKLOAD, lookup, placeholders
from gpusched.command.schema import Settings, split
from gpusched.config import BadValue, Config, Loaded
from gpusched.core.entry_point import entry_point
from gpusched.core.model import BatchSpec
from gpusched.errors import InputError
from gpusched.files import is_file
from gpusched.workload import BadParameters

#: words that a shell would act upon, behind which there would be a file, a program, or a value
_MEANT_FOR_SHELL = re.compile(r"\d?(>>?|<)(&\d)?|\|\|?|&&?|;|\$\w+(/.*)?|~(/.*)?")


class NoWorkloadFile(InputError):
    problem = "there is no workload in {path}: {why}"
    remedy = "name it as --workload ./file.py:function, or as package.module:function"


def with_code(config: Config) -> Config:
    """The configuration with the directory of its workload's code, if that is here. Raises NoWorkloadFile."""
    entry = entry_point(config.run.workload)
    assert entry is not None
    place = Path(entry.directory or Path.cwd()).joinpath(*entry.module.split("."))
    try:
        is_here = is_file(place.with_name(f"{place.name}.py")) or is_file(place / "__init__.py")
    except PermissionError as error:
        raise NoWorkloadFile(path=f"{place}.py", why=error.strerror) from None
    if entry.directory and not is_here:
        raise NoWorkloadFile(path=f"{place}.py", why="No such file")
    located = f"{Path.cwd()}:{entry.name}"
    if entry.directory or not is_here or entry_point(located) is None or entry.module.partition(".")[0] == "gpusched":
        return config
    return msgspec.structs.replace(config, run=msgspec.structs.replace(config.run, workload=located))


def with_command(spec: BatchSpec, loaded: Loaded) -> tuple[BatchSpec, tuple[str, ...]]:
    """A batch with its command looked up, and notes for people; as it is if its workload is no command.

    Raises BadValue, InputError.
    """
    if spec.workload != WORKLOAD:
        return spec, ()
    command = loaded.config.command
    try:
        words = split(command.line)
        settings = lookup.found(words, command.exit_codes, command.preload, Path.cwd(), os.environ.get("PATH", ""))
    except BadParameters as error:
        key = "command.exit_codes" if "exit code" in str(error) else "command.line"
        raise BadValue(place=loaded.origins.get(key), key=key, why=error) from None
    has_data, origin = "data.root" in loaded.origins, loaded.origins.get("command.line")
    if "data_root" in placeholders.used(settings.argv[1:]) and not has_data:
        raise BadValue(place=origin, key="command.line", why="{data_root} has no value: give --data-root")
    spec = msgspec.structs.replace(
        spec, settings=msgspec.to_builtins(settings), data_root=spec.data_root if has_data else ""
    )
    notes = _notes(settings, has_data=has_data)
    if isinstance(command.line, str) and (meant := next(filter(_MEANT_FOR_SHELL.fullmatch, words), None)):
        notes.insert(0, f"{meant!r} is a word for {lookup.name(settings)}: a command has no shell, `sh -c '…'` is one")
    return spec, tuple(notes)


def _notes(settings: Settings, *, has_data: bool) -> list[str]:
    name, notes = lookup.name(settings), []
    if lookup.is_python(settings) and 2 in settings.exit_codes.skip:
        notes.append(
            f"Exit code 2 of {name} means that there is nothing to train on (command.exit_codes); argparse ends with it"
            " for wrong arguments, too, which is told by its usage message"
        )
    if not has_data:
        notes.append(f"No --data-root is given: results are reused without regard to the data that {name} reads")
    if "output_dir" not in placeholders.used(settings.argv[1:]):
        notes.append(f"{name} is not told {{output_dir}}: what it writes elsewhere is not kept")
    return notes
