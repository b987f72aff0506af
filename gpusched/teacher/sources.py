"""Find the files that hold a symbol's bars, and identify them without reading them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gpusched.core.symbols import symbol_problem
from gpusched.core.wording import first_few
from gpusched.files import is_absent, is_directory
from gpusched.teacher import intervals
from gpusched.teacher.contents import kind
from gpusched.teacher.nearest import SHOWN, nothing_found
from gpusched.teacher.suffixes import FLAT_SUFFIXES, PARQUET, SUFFIXES
from gpusched.workload import BadData, DataNote, NoData

#: in the name of a file that may hold bars, whether it is read or not
_DATA = re.compile(
    r"\.(csv|tsv|psv|txt|dat|parquet|pq|feather|arrow|h5|hdf5?|xlsx?|ods|zip|7z|rar|tar|gz|bz2|xz|zst)\b", re.IGNORECASE
)
#: most bytes of a symbol that still make a file name with a suffix
_LONGEST = 240


class Source(msgspec.Struct, frozen=True):
    """A file as it was found; its content is taken to change only if one of these changes."""

    name: str
    size: int
    mtime_ns: int


class Sources(msgspec.Struct, frozen=True):
    """All files of one symbol and interval, in the order in which they are read."""

    directory: str
    files: tuple[Source, ...]
    #: the interval's name; None for a single file with all bars, if none was requested
    interval: str | None
    notes: tuple[DataNote, ...] = ()

    @property
    def paths(self) -> list[Path]:
        return [Path(self.directory, file.name) for file in self.files]

    def digest(self, *reading: object) -> str:
        """A hash that changes when a file is added, removed, renamed or written to, or is read with other settings."""
        return hashlib.sha256(msgspec.msgpack.encode((self, reading))).hexdigest()


def find_sources(root: str, symbol: str, interval: str) -> Sources:
    """Find the files in `<root>/<symbol>/<interval>`, or else the file `<root>/<symbol>` with a suffix of bars.

    `interval` is empty if none was requested. A symbol is text from a user, so it can only name an entry directly below
    the root. Links are followed, because the operator made them. Raises NoData, BadData, OSError.
    """
    if problem := symbol_problem(symbol):
        raise BadData(f"{symbol!r} cannot be a symbol: {problem}")
    if len(symbol.encode(errors="replace")) > _LONGEST:
        raise BadData(f"{symbol!r} cannot be a symbol: no file can have so long a name")
    below = Path(root, symbol)
    directories = _directories(below)
    # A directory with intervals holds all bars of the symbol: a file beside it does not replace a missing interval.
    if interval in directories or any(intervals.span(name) for name in directories):
        name, notes = _choose(below, directories, interval)
        files, more = _files(below / name)
        return Sources(str(below / name), files, name, (*notes, *more))
    if flat := _flat(root, symbol):
        files, notes = flat
        beside = [f"{symbol}/{name}" for name in _loose(below, directories)]
        more = _unread(1, [], beside, f"{files[0].name} is read; there")
        return Sources(root, files, interval or None, (*notes, *more))
    if len(directories) == 1 and not interval:
        files, more = _files(below / directories[0])
        return Sources(str(below / directories[0]), files, directories[0], (_only(directories[0]), *more))
    raise nothing_found(root, symbol, interval or intervals.DEFAULT)


def _directories(below: Path) -> list[str]:
    """The directories below a symbol's, including broken links, which may have led to one."""
    try:
        with _refusals(below), os.scandir(below) as entries:
            return sorted(entry.name for entry in entries if not _hidden(entry.name) and _is_directory(entry))
    except OSError as error:
        if not is_absent(error):
            raise
        return []


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        if entry.is_dir():
            return True
    except OSError as error:  # a link that leads to itself must not hide the others
        if not is_absent(error):
            raise
    return entry.is_symlink() and not entry.name.lower().endswith(SUFFIXES) and not Path(entry.path).exists()


def _hidden(name: str) -> bool:
    """Whether the file was left behind by an editor, a file manager or an open spreadsheet: it is never data."""
    return name.startswith((".", "~$"))


def _choose(below: Path, directories: list[str], interval: str) -> tuple[str, tuple[DataNote, ...]]:
    """The directory of the requested interval, under any of its names; if none was requested, of 1d or the only one."""
    wanted = interval or intervals.DEFAULT
    if wanted in directories:
        return wanted, ()
    there = ", ".join(directories)
    alike = [name for name in directories if intervals.same(name, wanted)]
    if len(alike) > 1:
        raise BadData(f"{below}: {' and '.join(alike)} are the same interval: choose with --interval")
    if alike:
        return alike[0], () if interval else (_only(alike[0]),)
    if not interval and len(directories) == 1:
        return directories[0], (_only(directories[0]),)
    raise NoData(
        f"no data: {below} has no interval {wanted} (there {'is' if len(directories) == 1 else 'are'}: {there})",
        remedy=f"give --interval {directories[0]}",
    )


def _only(name: str) -> DataNote:
    return DataNote("interval", f"the interval {name} is used, --interval was not given")


def _files(directory: Path) -> tuple[tuple[Source, ...], tuple[DataNote, ...]]:
    """The files of bars in a directory, by name, and notes on entries that are not read. Raises NoData, BadData."""
    sources: dict[str, Source] = {}
    others: list[str] = []
    links: list[str] = []
    with _refusals(directory), os.scandir(directory) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    for entry in entries:
        name = entry.name
        if _hidden(name):
            continue
        if not name.lower().endswith(SUFFIXES):
            others.append(f"{name} (a directory)" if _is_directory(entry) and name[0] != "_" else name)
            continue
        try:
            status = entry.stat()
        except OSError as error:
            if not is_absent(error):
                raise
            links.append(name)
            continue
        other_kind = kind(status.st_mode)
        if other_kind is None:
            sources[name] = Source(name, status.st_size, status.st_mtime_ns)
        elif other_kind == "a directory":
            parts = _parts(directory, name)
            sources.update({part.name: part for part in parts})
            if not parts:
                others.append(f"{name} (a directory)")
        else:
            raise BadData(f"{entry.path}: is {other_kind}, not a file of bars: remove it from there")
    bars = {name: source for name, source in sources.items() if not name.lower().endswith(".txt")}
    if bars:  # then .txt files are notes about them
        others += [name for name in sources if name not in bars]
        sources = bars
    if not sources:
        if links:
            raise BadData(f"{directory}: has nothing but broken links: {first_few(links, SHOWN)}")
        there = first_few(others, SHOWN) or "nothing"
        raise NoData(f"no data: {directory} has no {', '.join(SUFFIXES)} files (there is: {there})")
    return tuple(sources.values()), _unread(len(sources), links, [name for name in others if _looks_like_data(name)])


def _looks_like_data(name: str) -> bool:
    return name.endswith("(a directory)") or _DATA.search(name) is not None


def _unread(read: int, links: list[str], others: list[str], where: str = "there") -> tuple[DataNote, ...]:
    notes = []
    if links:
        are = "is a broken link" if len(links) == 1 else "are broken links"
        which = f"{len(links)} of {read + len(links)} files"
        notes.append(DataNote("links", f"{which} {are} and not read: {first_few(links, SHOWN)}"))
    if others:
        notes.append(DataNote("unread", f"{where}, but not read: {first_few(others, SHOWN)}"))
    return tuple(notes)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Raise BadData where this user may not look at `path`, or where it is a broken link."""
    try:
        yield
    except PermissionError as error:
        raise BadData(f"{path}: {error.strerror}") from None
    except OSError as error:
        if is_absent(error) and path.is_symlink():
            raise BadData(f"{path}: is a broken link, to {path.readlink()}") from None
        raise


def _flat(root: str, symbol: str) -> tuple[tuple[Source, ...], tuple[DataNote, ...]] | None:
    """The file that holds all bars of the symbol, with the first of `FLAT_SUFFIXES` that exists, and notes."""
    read: tuple[Source, ...] = ()
    others: list[str] = []
    problems: list[BadData] = []
    for name in (symbol + suffix for suffix in FLAT_SUFFIXES):
        try:
            files = _file_or_parts(Path(root), name)
        except BadData as error:
            problems.append(error)
            others.append(name)
        else:
            others += [name] if files and read and not _is_one(root, files[0], read[0]) else []
            read = read or files
    if not read and problems:
        raise problems[0]
    return (read, _unread(1, [], others, f"{read[0].name} is read; there")) if read else None


def _is_one(root: str, one: Source, other: Source) -> bool:
    """Whether it is one file: a file system that ignores case has it under both spellings of a suffix."""
    return os.path.samefile(os.path.join(root, one.name), os.path.join(root, other.name))  # noqa: PTH118, PTH121


def _file_or_parts(directory: Path, name: str) -> tuple[Source, ...]:
    """The file of that name, the parts of a Parquet data set, or nothing. Raises BadData for any other kind of file."""
    path = directory / name
    try:
        with _refusals(path):
            status = path.stat()
    except OSError as error:
        if not is_absent(error):
            raise
        return ()
    other_kind = kind(status.st_mode)
    if other_kind is None:
        return (Source(name, status.st_size, status.st_mtime_ns),)
    if other_kind == "a directory" and (parts := _parts(directory, name)):
        return parts
    raise BadData(f"{path}: is {other_kind}, not a file of bars")


def _parts(directory: Path, name: str) -> tuple[Source, ...]:
    """The files of a Parquet data set, their names relative to `directory`; none if it is not one."""
    parts: list[Source] = []
    if not name.lower().endswith(PARQUET):
        return ()
    for parent, below, names in os.walk(directory / name, onerror=_refuse):
        below[:] = sorted(folder for folder in below if not folder.startswith((".", "_")))
        for part in sorted(names):
            if not part.startswith((".", "_")) and part.lower().endswith(PARQUET):
                parts += _file_or_parts(directory, str(Path(parent, part).relative_to(directory)))
    return tuple(parts)


def _loose(below: Path, directories: list[str]) -> list[str]:
    """The names of what may hold bars in the directory of a symbol that has no intervals."""
    if not is_directory(below):
        return []
    files = [path.name for path in below.iterdir() if path.name not in directories and not _hidden(path.name)]
    return [*directories, *sorted(name for name in files if _looks_like_data(name))]


def _refuse(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise BadData(f"{error.filename}: {error.strerror}") from None
    raise error
