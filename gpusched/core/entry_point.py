"""Entry points: the names of workloads, `[DIRECTORY:]module:function`."""

from __future__ import annotations

import re

import msgspec

#: a module in a directory may have a file's name that Python cannot spell, such as `train-v2`
_ENTRY = re.compile(
    r"(?:(?P<directory>/[^:\0]*):(?P<file>\w[\w.-]*)|(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*))"
    r":(?P<function>[A-Za-z_]\w*)",
    re.ASCII,
)


class EntryPoint(msgspec.Struct, frozen=True):
    """A workload function: where it is imported from."""

    module: str
    function: str
    #: absolute path of the directory that holds the module; empty: it is installed, or on the search path
    directory: str = ""

    @property
    def name(self) -> str:
        """The function, wherever its module lies."""
        return f"{self.module}:{self.function}"


def entry_point(workload: str) -> EntryPoint | None:
    """The parts of a workload's name; None if it is not one."""
    match = _ENTRY.fullmatch(workload)
    if match is None or ".." in (match["directory"] or "").split("/"):
        return None
    return EntryPoint(match["file"] or match["module"], match["function"], match["directory"] or "")
