"""The scratch directory of a node that shares no files with the supervisor: inputs that came, results until they left.

    inputs/<digest>/…            the files of a symbol, as they lie in the supervisor's data root
    results/<output>/<label>/    a window's result; it stays until the supervisor has committed it, or for a week
    logs/ cache/ state/          of the node's local engine

A result that a lost connection kept from arriving is found there by its fingerprint when its window is launched again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from gpusched import __version__, directories, files, outputs
from gpusched.artifacts import lies_within
from gpusched.core.model import Batch
from gpusched.engines.ray.frames import Begin, Piece
from gpusched.metadata import METADATA, metadata_of

#: bytes that must be free: a full disk would fail one window after the other
LEAST_ROOM_BYTES = 128 << 20
#: seconds without use after which inputs and results are removed
KEPT_S = 7 * 86_400.0
#: bytes of a result that was just written, and is read from memory without a thread
SHORT_BYTES = 256 << 10
#: bytes of a result that travel with its window's end; longer files are fetched
INLINE_BYTES = 4 << 20
#: names of the directories that may be removed: of inputs, complete or partial, and of results
_NAME = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.\d+|[0-9a-f]{32}")


class StagedFile(msgspec.Struct, frozen=True):
    """A file of a data root, as it must be on a node."""

    #: path within the data root
    name: str
    mtime_ns: int
    sha256: str


def staged_file(root: Path, name: str) -> StagedFile:
    """The file of that name as it is now. Raises OSError."""
    path = root / name
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return StagedFile(name, path.stat().st_mtime_ns, digest)


def digest_of(files: Iterable[StagedFile]) -> str:
    """The name of a set of inputs. Times count: a workload's fingerprint may be made of them."""
    return hashlib.sha256(msgspec.json.encode(sorted(files, key=lambda file: file.name))).hexdigest()


class NotAsSent(OSError):
    """Inputs that came are not those that were sent."""


class Scratch:
    """See the module. Raises OSError if the directory cannot be made, or is another user's."""

    def __init__(self, base: Path, host: str) -> None:
        """`base` is shared by the nodes of one machine."""
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if base.stat().st_uid != os.geteuid():
            raise PermissionError(1, "it belongs to another user", str(base))
        self.path = base / host
        self.logs, self.cache, self.state = self.path / "logs", self.path / "cache", self.path / "state"
        self._inputs, self._results = self.path / "inputs", self.path / "results"
        for directory in (self.path, self.logs, self.cache, self.state, self._inputs, self._results):
            directory.mkdir(mode=0o700, exist_ok=True)

    def full(self) -> str | None:
        """A phrase about the lack of room for a result; None if there is room."""
        free = shutil.disk_usage(self.path).free
        return f"only {free >> 20} MiB are free in {self.path}" if free < LEAST_ROOM_BYTES else None

    def prune(self) -> None:
        """Remove the leavings of dead windows, and files that nobody has used for a week."""
        before = time.time() - KEPT_S
        for output in (path for path in self._results.iterdir() if _NAME.fullmatch(path.name)):
            with contextlib.suppress(OSError):
                outputs.sweep_partial(output)
        for directory in (*self._inputs.iterdir(), *self._results.iterdir()):
            if _NAME.fullmatch(directory.name) and directory.stat().st_mtime < before:
                _remove(directory)

    # -- inputs --------------------------------------------------------------------------------------------------------

    def inputs(self, digest: str) -> Path:
        """The data root of windows that need these inputs."""
        return self._inputs / digest

    def take(self, digest: str, pieces: Iterable[Piece], *, last: bool) -> bool:
        """Take pieces of inputs, in order; return whether these are complete. Raises OSError, NotAsSent."""
        place, partial = self.inputs(digest), self._inputs / f".{digest}.{os.getpid()}"
        if place.is_dir():
            os.utime(place)
            return True
        for piece in pieces:
            if not lies_within(piece.name):
                raise NotAsSent(f"{piece.name!r} does not lie within the data root")
            path = partial / piece.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if piece.offset else "wb") as file:
                file.seek(piece.offset)
                file.write(piece.data)
            os.utime(path, ns=(piece.mtime_ns, piece.mtime_ns))
        if not last:
            return False
        partial.mkdir(exist_ok=True)
        if digest_of(_files_below(partial)) != digest:
            _remove(partial)
            raise NotAsSent("the inputs are not those that were sent: they have changed meanwhile")
        partial.rename(place)
        return True

    # -- results -------------------------------------------------------------------------------------------------------

    def outputs(self, output_dir: str) -> Path:
        """The place for results that belong to an output directory of the supervisor's machine."""
        return _place(self._results, output_dir)

    def here(self, batch: Batch, digest: str) -> Batch:
        """A batch with the paths that its windows have on this node."""
        spec = msgspec.structs.replace(batch.spec, data_root=str(self.inputs(digest)))
        return msgspec.structs.replace(batch, output_dir=str(self.outputs(batch.output_dir)), guarded=False, spec=spec)

    def has_result(self, batch: Batch, label: str) -> bool:
        """Whether there is something in the place of a result; `batch` has the paths of this node."""
        return os.path.lexists(f"{batch.output_dir}/{label}")

    def result(self, output_dir: str, label: str, most: int | None = None) -> dict[str, bytes] | None:
        """The files of a result, `metadata.json` first, as far as they are short. Raises OSError.

        None if they are more bytes than `most`.
        """
        with directories.opened(self.outputs(output_dir) / label) as directory:
            contents, room = {METADATA: _read(METADATA, directory)}, INLINE_BYTES
            metadata = metadata_of(contents[METADATA])
            listed = metadata.files if metadata else {}
            if most is not None and sum(file.bytes for file in listed.values()) > most:
                return None
            for name, file in listed.items():
                if file.bytes <= room and lies_within(name):
                    contents[name] = _read(name, directory)
                    room -= file.bytes
        return contents

    def read(self, output_dir: str, label: str, name: str, offset: int) -> bytes:
        """A piece of a file of a result; empty at its end. Raises OSError."""
        if not lies_within(name):
            return b""
        with (self.outputs(output_dir) / label / name).open("rb") as file:
            file.seek(offset)
            return file.read(INLINE_BYTES)

    def forget(self, results: Mapping[str, Iterable[str]]) -> None:
        """Remove results that the supervisor has committed: labels by output directory."""
        for output_dir, labels in results.items():
            with contextlib.suppress(FileNotFoundError), directories.opened(self.outputs(output_dir)) as parent:
                for label in labels:
                    with contextlib.suppress(FileNotFoundError):
                        directories.remove(label, parent)


@functools.lru_cache(maxsize=64)  # every window asks for that of its batch
def _place(results: Path, output_dir: str) -> Path:
    return results / hashlib.sha256(output_dir.encode()).hexdigest()[:32]


def scratch_for(begin: Begin) -> Scratch | str | None:
    """The scratch directory, or None where files are shared; a sentence if this machine cannot be a node."""
    if begin.version != __version__:
        return f"gpusched {__version__} is installed there, and {begin.version} here"
    try:
        if begin.scratch:
            scratch = Scratch(Path(begin.scratch.replace("%u", str(os.geteuid()))), begin.host)
            os.chdir(scratch.path)
            scratch.prune()
            return scratch.full() or scratch
        os.chdir(begin.cwd)
        Path(begin.state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        remedy = "see engine.scratch" if begin.scratch else "with engine.shared_root the nodes must share their files"
        return f"{error.filename} cannot be used there ({error.strerror}): {remedy}"
    return None


def _files_below(root: Path) -> list[StagedFile]:
    return [staged_file(root, path.relative_to(root).as_posix()) for path in root.rglob("*") if path.is_file()]


def _read(name: str, directory: int) -> bytes:
    with files.regular(name, directory, follow=True) as file:
        return file.read()


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError), directories.opened(path.parent) as parent:
        directories.remove(path.name, parent)
