"""Earlier results that a batch can reuse: those in its output directory, and in others that it was told of.

A result in another directory is a candidate by its metadata alone. `outputs.take_over` copies it and compares every
byte with the digests that were found here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import stat
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gpusched import artifacts, directories, files, known_results
from gpusched.core.entry_point import entry_point
from gpusched.core.model import Standing, Training, WindowResult
from gpusched.core.planning import INDEX
from gpusched.metadata import Metadata, read_metadata
from gpusched.worker.identity import digest
from gpusched.worker.messages import SurveyJob
from gpusched.workload import device_fingerprint

#: bytes of an index; a larger one is not read
_MOST_BYTES = 256 * 1024 * 1024
#: greatest instant and duration that are believed, since a file may say anything; a later instant would be no date
_MOST_AT = 32e9
_MOST_S = 1e9


class _Line(msgspec.Struct):
    """A line of an index, as far as it tells of a training."""

    window_label: str
    status: Literal["success"]
    started_at: Annotated[dt.datetime, Meta(tz=True)]
    seconds: float
    attempts: Annotated[int, Meta(ge=1, le=1_000_000)]
    slot: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    node: Annotated[str, Meta(max_length=255)] = ""


class Earlier:
    """Finds the results that the windows of a job can reuse, first in its output directory."""

    def __init__(self, job: SurveyJob) -> None:
        self.output_dir = Path(job.output_dir)
        # A result in the output directory is verified here; one in another directory is verified while it is copied.
        self._others = tuple(path for path in map(Path, job.reuse_from) if path != self.output_dir)
        self._device_types = job.device_types
        self._workload = job.workload
        self._reuses_known = job.reuse_known
        #: results by fingerprint, from the index
        self._known = known_results.paths(Path(job.cache_dir), job.owner)
        self._trainings: dict[Path, dict[str, Training]] = {}
        #: the entries of the output directory, listed once: one look for each of 100,000 windows would take seconds
        self._taken = _names(self.output_dir)

    def result(self, label: str, fingerprint: str | None) -> WindowResult | None:
        """The result of the window with that label, if its fingerprint without a device type is this one."""
        if fingerprint is None or not (label in self._taken or self._others or self._reuses_known):
            return None
        wanted = self._wanted(fingerprint)
        if label in self._taken:
            path = self.output_dir / label
            if (metadata := artifacts.verify(path, wanted)) is not None:
                return self._reused(metadata, path)
        for directory in self._others:
            metadata = read_metadata(path := directory / label)
            if metadata is not None and metadata.is_of(label, wanted):
                return self._reused(metadata, path)
        if self._reuses_known and (place := self._known_place(label, wanted)):
            metadata, path = place
            return self._reused(metadata, path)
        return None

    def known_in(self, label: str, fingerprint: str | None) -> str:
        """A directory where the index knows such a result of the same user; empty if there is none."""
        if fingerprint is None or not self._known:
            return ""
        place = self._known_place(label, self._wanted(fingerprint))
        return str(place[1].parent) if place else ""

    def _wanted(self, fingerprint: str) -> set[str]:
        return {device_fingerprint(fingerprint, device_type) for device_type in self._device_types}

    def _known_place(self, label: str, wanted: set[str]) -> tuple[Metadata, Path] | None:
        """A result that the index knows, if it is there and belongs to this user: an index may be old, or forged."""
        for path in filter(None, map(self._known.get, wanted)):
            if path.parent == self.output_dir:
                continue
            with contextlib.suppress(OSError):
                status = path.lstat()
                if path.name == label and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                    metadata = read_metadata(path)
                    if metadata is not None and metadata.is_of(label, wanted):
                        return metadata, path
        return None

    def standing(self, label: str) -> Standing:
        """The kind of entry that a new result of a window would replace."""
        return artifacts.standing(self.output_dir, label) if label in self._taken else "nothing"

    def is_in_place(self, result: WindowResult | None) -> bool:
        """Whether there is a result, and it lies in the output directory."""
        return result is not None and Path(result.artifacts_path).parent == self.output_dir

    def is_of_others(self, label: str, settings: Any) -> bool:
        """Whether the result in a window's place has another workload than the job, or other settings than these."""
        metadata = read_metadata(self.output_dir / label)
        if metadata is None or metadata.workload_settings is None:  # before 0.2 they were not recorded
            return False
        return _name(metadata.workload) != _name(self._workload) or digest(metadata.workload_settings) != digest(
            settings
        )

    def _reused(self, metadata: Metadata, path: Path) -> WindowResult:
        if path.parent not in self._trainings:
            self._trainings[path.parent] = _trainings(path.parent)
        training = self._trainings[path.parent].get(path.name)
        if training is None:  # no line in the index: the result's own record
            began = metadata.trained_at.timestamp() - metadata.seconds
            training = _training(began, metadata.seconds)
        return msgspec.structs.replace(metadata.result(path), training=training)


def _names(directory: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))  # noqa: PTH208 - no Path for each entry
    except OSError:
        return frozenset()


def _name(workload: str) -> str:
    """The name of a workload without the directory of its code."""
    entry = entry_point(workload)
    return entry.name if entry else workload


def _training(
    started_at: float, seconds: float, attempts: int = 1, slot: int | None = None, node: str = ""
) -> Training | None:
    if 0 <= started_at <= _MOST_AT and 0 <= seconds <= _MOST_S:
        return Training(started_at=started_at, seconds=seconds, attempts=attempts, slot=slot, node=node)
    return None


def _trainings(directory: Path) -> dict[str, Training]:
    """When and how the results in a directory were made, by label, as far as its index tells."""
    trainings: dict[str, Training] = {}
    with (
        contextlib.suppress(OSError),
        directories.opened(directory) as descriptor,
        files.regular(INDEX, descriptor) as index,
    ):
        if os.fstat(index.fileno()).st_size > _MOST_BYTES:
            return trainings
        for line in index:
            # Lines of windows that were never launched, and one that is cut, tell of no training.
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                row = msgspec.json.decode(line, type=_Line)
                training = _training(row.started_at.timestamp(), row.seconds, row.attempts, row.slot, row.node)
                if training is not None:
                    trainings[row.window_label] = training
    return trainings
