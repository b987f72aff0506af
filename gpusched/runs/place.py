"""Where the store of a run is. Light: a command finds out here whether there is one before it loads what reads it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from gpusched.config import Config, run_state_dir
from gpusched.errors import InputError
from gpusched.files import is_directory, is_file
from gpusched.store import STORE


class NoRun(InputError):
    problem = "{path} is not the directory of a run"
    remedy = "name the output directory of `gpusched run`, or a batch of the daemon: `gpusched status` lists them"


class NoDirectory(NoRun):
    problem = "there is no directory {path}"


class NothingPlanned(NoRun):
    problem = "the run into {path} ended before its windows were planned"
    remedy = "give the same `gpusched run` again"


class Unreachable(NoRun):
    problem = "{path} cannot be looked at: {why}"
    remedy = "check the path, and that its file system is mounted"


class RunNotYours(NoRun):
    problem = "the records of the run in {path} cannot be read: {why}"
    remedy = (
        "they are for the user who ran it; `gpusched compare` and `load_results` need only its results, which others"
        " may be able to read"
    )


def store_of(state_dir: Path, directory: Path) -> Path:
    """The path of the store of the runs into `directory`. Raises NoRun, NoDirectory, RunNotYours, Unreachable."""
    path = state_dir / STORE
    try:
        if not is_file(path):
            raise NoRun(path=directory) if is_directory(directory) else NoDirectory(path=directory)
    except PermissionError as error:
        raise RunNotYours(path=directory, why=error.strerror) from None
    except OSError as error:
        raise Unreachable(path=directory, why=error.strerror) from None
    return path


def is_run(config: Config, directory: Path) -> bool:
    """Whether a directory is that of a run, as far as this user can see."""
    with contextlib.suppress(NoRun):
        store_of(run_state_dir(config, directory.absolute()), directory)
        return True
    return False
