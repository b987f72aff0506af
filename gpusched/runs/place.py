"""Where the store of a run is. Light: a command finds out here whether there is one before it loads what reads it."""

from __future__ import annotations

from pathlib import Path

from gpusched.errors import InputError

#: name of a run's store within its state directory
STORE = "state.db"


class NoRun(InputError):
    problem = "{path} is not the directory of a run"
    remedy = "name the output directory of `gpusched run`, or a batch of the daemon: `gpusched status` lists them"


class NoDirectory(NoRun):
    problem = "there is no directory {path}"


def store_of(state_dir: Path, directory: Path) -> Path:
    """The path of the store of the runs into `directory`. Raises NoRun, NoDirectory."""
    path = state_dir / STORE
    if not path.is_file():
        raise NoRun(path=directory) if directory.is_dir() else NoDirectory(path=directory)
    return path
