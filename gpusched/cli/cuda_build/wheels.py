"""An installed distribution saved as a wheel, which pip can install again without a package index."""

from __future__ import annotations

import os
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

from gpusched.errors import InputError

#: files that an installer adds to those of a distribution
_OF_THE_INSTALLER = frozenset({"INSTALLER", "REQUESTED", "direct_url.json"})


class NotKept(InputError):
    problem = "the installed {name} cannot be kept, so it is not replaced: {why}"
    remedy = "install it by pip first: `pip install --force-reinstall --no-deps {name}`"


def keep(distribution: Distribution, directory: Path) -> Path:
    """Write the wheel into `directory`, whole or not at all. Raises NotKept, OSError.

    A wheel is an archive of the installed files, without byte code and scripts: pip makes those when it installs it.
    """
    name, version = distribution.name, distribution.version
    listed = distribution.files
    if not listed:
        raise NotKept(name=name, why="its files are not listed")
    tag = next(
        (line[5:] for line in (distribution.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")), ""
    )
    if not tag:
        raise NotKept(name=name, why="nothing says which machines it is for")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-{tag}.whl"
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for entry in listed:
                    # scripts are outside the packages' directory, and pip makes them
                    if ".." in entry.parts or entry.suffix == ".pyc" or entry.name in _OF_THE_INSTALLER:
                        continue
                    source = Path(str(distribution.locate_file(entry)))
                    if source.is_file():
                        archive.write(source, str(entry))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
