"""`metadata.json`: a window's task, its training, and the digests of its files."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from gpusched import directories, files
from gpusched.core.model import DeviceType, WindowResult

SCHEMA = 1
METADATA = "metadata.json"
#: a larger metadata.json was not written by gpusched
MAX_METADATA_BYTES = 64 * 1024 * 1024


class File(msgspec.Struct, frozen=True):
    """Digest and size of a committed file, which `verify` compares."""

    sha256: str
    bytes: int


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """`metadata.json`. Only `phases`, `seconds` and `trained_at` differ between two runs on the same device type."""

    schema: int = SCHEMA
    label: str
    symbol: str
    start: dt.date
    end: dt.date
    workload: str
    #: the settings that the workload got, its own defaults included
    workload_settings: Any = None
    #: hex digest of its code; None: gpusched's own, whose version is among the details
    workload_code: str | None = None
    device_type: DeviceType
    #: UUID of the GPU, or "cpu"
    device: str
    #: the UUID that the CUDA driver reported to the window's process; None without a CUDA driver
    device_seen: str | None = None
    #: hex digest of all that determines the result, device type included; None if the workload has no fingerprints
    fingerprint: str | None
    #: undefined values are None
    metrics: dict[str, Any]
    sample_counts: dict[str, int]
    #: whether the model gives every row of the validation the same prediction; None: not told
    constant: bool | None = None
    #: seconds by phase, in order
    phases: dict[str, float]
    seconds: float
    #: UTC
    trained_at: dt.datetime
    #: the workload's own entries; they stand beside the others in the file
    details: dict[str, Any]
    #: every file of the directory but this one, by its path within it
    files: dict[str, File] = {}

    def is_of(self, label: str, fingerprints: Collection[str]) -> bool:
        """Whether it tells of the window with that label, has one of the fingerprints, and is understood."""
        return self.schema == SCHEMA and self.label == label and self.fingerprint in fingerprints

    def result(self, directory: Path) -> WindowResult:
        """The report to the supervisor about the result committed in `directory`, whether new or reused."""
        return WindowResult(
            artifacts_path=str(directory),
            metrics=self.metrics,
            sample_counts=self.sample_counts,
            fingerprint=self.fingerprint,
            device_type=self.device_type,
            device=self.device,
            phases=self.phases,
            seconds=self.seconds,
            constant=self.constant,
        )


#: entries of metadata.json that a workload may not define
OWN_ENTRIES = frozenset(Metadata.__struct_fields__) - {"details"}


def write_metadata(directory: int, metadata: Metadata) -> int:
    """Write the metadata.json of an open directory; return its descriptor. Raises OSError."""
    entries = msgspec.to_builtins(metadata)
    details, listed = entries.pop("details"), entries.pop("files")
    text = msgspec.json.format(msgspec.json.encode(entries | details | {"files": listed}), indent=2) + b"\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(METADATA, flags, 0o666, dir_fd=directory)
    try:
        files.write(descriptor, text)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_metadata(directory: Path) -> Metadata | None:
    """The metadata of a committed result, or None if it is missing or unreadable."""
    try:
        with directories.opened(directory) as descriptor:
            return metadata_in(descriptor)
    except OSError:
        return None


def metadata_in(directory: int) -> Metadata | None:
    """The metadata in an open directory; None if it is missing or unreadable."""
    try:
        with files.regular(METADATA, directory, follow=True) as file:
            if os.fstat(file.fileno()).st_size > MAX_METADATA_BYTES:
                return None
            return metadata_of(file.read())
    except OSError:
        return None


def metadata_of(text: bytes) -> Metadata | None:
    """The content of a metadata.json; None if it is none."""
    try:
        entries = msgspec.json.decode(text, type=dict[str, Any])
        details = {name: entries.pop(name) for name in tuple(entries) if name not in OWN_ENTRIES}
        return msgspec.convert(entries | {"details": details}, Metadata)
    except (msgspec.MsgspecError, RecursionError):
        return None
