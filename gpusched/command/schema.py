"""The settings of a command: the keys of `Task.settings`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gpusched.command import placeholders
from gpusched.workload import BadParameters

Code = Annotated[int, Meta(ge=0, le=255)]
Module = Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]


class ExitCodes(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
):
    """The meaning of exit codes, for a program that reports no result. Any other code is a failure to be retried."""

    success: tuple[Code, ...] = (0,)
    #: there is nothing to train on
    skip: tuple[Code, ...] = (2,)
    #: no retry can help
    permanent: tuple[Code, ...] = (3,)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command, found and checked."""

    #: the program's absolute path, and its arguments with their placeholders
    argv: Annotated[tuple[str, ...], Meta(min_length=1, max_length=10_000)]
    #: absolute path of the directory in which it runs
    directory: str
    exit_codes: ExitCodes = ExitCodes()
    #: modules that the launcher imports; the script then runs in a fork of it
    preload: tuple[Module, ...] = ()
    #: values of `{param.NAME}` by their names
    param: dict[str, bool | int | float | str] = {}


def split(line: str | tuple[str, ...]) -> tuple[str, ...]:
    """The words of a command: text is split as a shell would, and nothing else of a shell is done.

    Raises BadParameters.
    """
    if not isinstance(line, str):
        return line
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise BadParameters(f"{line!r} cannot be split into words: {error}") from None


def check(argv: tuple[str, ...], codes: ExitCodes) -> None:
    """Raise BadParameters for words or exit codes that cannot be used."""
    if not argv or not argv[0]:
        raise BadParameters("there is no command: give it with --command, or behind `--`")
    if any("\0" in word for word in argv):
        raise BadParameters("a command has no null characters")
    if "{" in argv[0] or "}" in argv[0]:
        raise BadParameters(f"the program itself ({argv[0]!r}) takes no placeholder")
    placeholders.check(argv[1:])
    meanings: dict[int, str] = {}
    for meaning in ExitCodes.__struct_fields__:
        for code in getattr(codes, meaning):
            if meanings.setdefault(code, meaning) != meaning:
                raise BadParameters(f"exit code {code} cannot mean both {meanings[code]} and {meaning}")


def parse_settings(raw: Mapping[str, Any]) -> Settings:
    """Check settings. Raises BadParameters."""
    try:
        settings = msgspec.convert(dict(raw), Settings)
    except msgspec.ValidationError as error:
        raise BadParameters(f"the settings of a command: {error}") from None
    if not settings.argv[0].startswith("/") or not settings.directory.startswith("/"):
        raise BadParameters("the settings of a command: the program and the directory are absolute paths")
    check(settings.argv, settings.exit_codes)
    return settings
