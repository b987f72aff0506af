"""The code of a workload: a digest of its sources, and the states of its files, by which a later change is noticed.

Its sources are those of its module and of all that this imports from the same directory (wherever in a file the import
stands); the version of an installed distribution counts as well. They are read before the import, so that an edit
meanwhile is noticed. gpusched's own workloads have versions of their own, which they put into their fingerprints.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from gpusched.core.entry_point import EntryPoint
from gpusched.files import is_file
from gpusched.worker.messages import Stamp

#: names of directories of installed packages: if a workload is one of them, the other packages there are not its code
_INSTALLED = ("site-packages", "dist-packages")
#: its own files and versions are not a workload's code
_GPUSCHED = "gpusched"


class Code(msgspec.Struct, frozen=True):
    """The code of a module."""

    #: hex; None: it is gpusched's own, or was not found
    digest: str | None = None
    files: tuple[Stamp, ...] = ()
    #: the directory from which its neighbours are imported; None: not found
    base: Path | None = None
    #: the directory below which its sources lie; None: not found, or a lone file among installed ones
    root: Path | None = None


def is_own(path: Path, root: Path) -> bool:
    """Whether a directory holds a workload's sources: `root` or one below, but not gpusched or an installed package."""
    if not path.is_relative_to(root):
        return False
    parts = path.relative_to(root).parts
    return parts[:1] != (_GPUSCHED,) and not any(part in _INSTALLED for part in parts)


def read_code(entry: EntryPoint) -> Code:
    """The code of a workload, without importing it."""
    top = entry.module.partition(".")[0]
    if top == _GPUSCHED:
        return Code()
    try:
        base = Path(entry.directory) if entry.directory else _base_of(top)
    except (ImportError, ValueError):  # a name that is taken by something without a place
        base = None
    if base is None:
        return Code()
    installed = base.name in _INSTALLED or base == Path(os.__file__).parent
    digest = hashlib.sha256()
    stamps = _read(base, _closure(base, [entry.module], only=top if installed else None), digest)
    if not stamps:
        return Code()
    if installed:
        digest.update(_versions(top).encode())
    own = base / top if installed else base
    return Code(digest.hexdigest(), stamps, base, own if own.is_dir() else None)


def script_digest(script: Path) -> str:
    """The digest of a Python script, whatever its name, and of all that it imports from beside itself."""
    digest = hashlib.sha256()
    _read(script.parent, {script} | _closure(script.parent, _imports(script, script.parent), only=None), digest)
    return digest.hexdigest()


def imported_files(code: Code, preloads: tuple[str, ...] = ()) -> tuple[Stamp, ...]:
    """The files of a workload that this process has imported, also by imports that its sources do not show.

    With `preloads`, the modules of a command: all imported files that somebody may edit, since these may lie anywhere.
    """
    if preloads:
        return _editable_files()
    stamps = {stamp.path: stamp for stamp in code.files}
    if code.base is None:
        return ()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or file in stamps or not file.startswith(f"{code.base}/"):
            continue
        below = Path(file).relative_to(code.base).parts
        if below[0] != _GPUSCHED and not any(part in _INSTALLED for part in below):
            stamps[file] = stamp_of(file)
    return tuple(stamps.values())


def _editable_files() -> tuple[Stamp, ...]:
    """The files of all modules of this process that are neither gpusched's, nor Python's, nor installed."""
    library, stamps = f"{Path(os.__file__).parent}/", []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or file.startswith(library) or name.partition(".")[0] == _GPUSCHED:
            continue
        if not any(part in _INSTALLED for part in Path(file).parts):
            stamps.append(stamp_of(file))
    return tuple(stamps)


def stamp_of(path: str) -> Stamp:
    """The state of a file; one that cannot be seen has a state of its own."""
    try:
        status = os.stat(path)  # noqa: PTH116  # before each launch
    except OSError:
        return Stamp(path, 0, 0, 0)
    return Stamp(path, status.st_mtime_ns, status.st_size, status.st_ino)


def _base_of(top: str) -> Path | None:
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]).parent
    return Path(spec.origin).parent if spec.origin and spec.has_location else None


def _read(base: Path, paths: set[Path], digest: hashlib._Hash) -> tuple[Stamp, ...]:
    """Add source files below `base` to a digest; return the stamps of those that can be read."""
    stamps = []
    for path in sorted(paths):
        stamp = stamp_of(str(path))
        try:
            content = path.read_bytes()
        except OSError:
            continue
        stamps.append(stamp)
        digest.update(f"{path.relative_to(base)}\0{len(content)}\0".encode() + content)
    return tuple(stamps)


def _closure(base: Path, modules: Iterable[str], only: str | None) -> set[Path]:
    """The files of modules and all that they import from below `base`. `only`: the one top-level name that counts."""
    paths: set[Path] = set()
    waiting = [*modules]
    while waiting:
        for path in _files_of(base, waiting.pop(), only):
            if path not in paths:
                paths.add(path)
                waiting += _imports(path, base)
    return paths


def _files_of(base: Path, module: str, only: str | None) -> Iterator[Path]:
    """The files that an import of `module` runs: those of the packages around it, and its own."""
    parts = module.split(".")
    if parts[0] == _GPUSCHED or only not in (None, parts[0]):
        return
    for depth in range(1, len(parts) + 1):
        place = base.joinpath(*parts[:depth])
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if is_file(path):
                yield path
                break


def _imports(path: Path, base: Path) -> Iterator[str]:
    """The names of modules that a source file may import, attributes of modules among them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    package = ".".join(path.relative_to(base).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            if origin:
                yield origin
            yield from (f"{origin}.{alias.name}" if origin else alias.name for alias in node.names)


def _versions(top: str) -> str:
    """The distributions that installed a top-level name, with their versions."""
    import importlib.metadata  # the launcher stays small without it

    names = importlib.metadata.packages_distributions().get(top, ())
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names)))
