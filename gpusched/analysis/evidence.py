"""Read from the results' own files: predictions of the validation, and importances of features."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from gpusched.client.importances import look_at_importances
from gpusched.core.model import WindowResult
from gpusched.metadata import read_metadata
from gpusched.protocol import WindowLine

PREDICTIONS = "predictions.csv.gz"
_HEADING = b"ts,split,label,probability"
#: bytes of predictions that are read: five seconds. Of more, every second window is read, or every third, and so on
MOST_BYTES = 16 * 1024 * 1024
#: bytes of one file, unpacked: millions of rows. A file that somebody made can unpack to all of the memory
MOST_UNPACKED_BYTES = 256 << 20

#: ranges of probability of the calibration; points of the ROC curve
BINS, POINTS = 10, 200

Floats = npt.NDArray[np.float64]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the windows with a model show about their models, taken together."""

    #: (n,) of the validation rows of all windows that were read: probability, and whether the label is 1
    probabilities: Floats
    labels: npt.NDArray[np.bool_]
    #: windows whose predictions were read, and that have some
    read: int
    windows: int
    #: by feature: its share of the gain in each model that has any
    importances: dict[str, list[float]]


def gather(results: Sequence[WindowLine]) -> Evidence:
    """Read the files of results. What cannot be read, or belongs to another batch by now, is not counted by `read`."""
    found = [line.result for line in results if line.result is not None]
    places = [Path(result.artifacts_path) for result in found if _is_there(result)]
    sized = [(path, size) for place in places if (size := _size(path := place / PREDICTIONS))]
    step = -(-sum(size for _, size in sized) // MOST_BYTES) or 1
    probabilities: list[float] = []
    labels: list[bool] = []
    read = 0
    for path, _ in sized[::step]:
        rows = _validation(path)
        read += rows is not None
        for probability, label in rows or ():
            probabilities.append(probability)
            labels.append(label)
    return Evidence(
        probabilities=np.array(probabilities, np.float64),
        labels=np.array(labels, np.bool_),
        read=read,
        windows=len(found),
        importances=_importances(places),
    )


def _is_there(result: WindowResult) -> bool:
    """Whether a result has not been replaced by that of another batch since."""
    metadata = read_metadata(Path(result.artifacts_path))
    return metadata is None or metadata.fingerprint == result.fingerprint


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _validation(path: Path) -> list[tuple[float, bool]] | None:
    """(probability, label is 1) of each row of the validation; None if the file cannot be read, or is not sound."""
    try:
        with gzip.open(path) as file:
            content = file.read(MOST_UNPACKED_BYTES + 1)
        heading, *rows = content.split(b"\n")
        if heading != _HEADING or len(content) > MOST_UNPACKED_BYTES:
            return None
        cells = (row.split(b",") for row in rows if b",validation," in row)
        validation = [(float(probability), label == b"1") for _, _, label, probability in cells]
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    return validation if all(0 <= probability <= 1 for probability, _ in validation) else None


def _importances(places: Sequence[Path]) -> dict[str, list[float]]:
    shares: dict[str, list[float]] = {}
    for place in places:
        for name, share in look_at_importances(place).items():
            shares.setdefault(name, []).append(share)
    return shares


# -- curves ------------------------------------------------------------------------------------------------------------


class Bin(msgspec.Struct, frozen=True):
    """Predictions in a range of probabilities."""

    #: means of the predictions and of the labels
    predicted: float
    observed: float
    rows: int


def calibration(evidence: Evidence) -> list[Bin]:
    """Predictions in ranges of equal width, from 0 to 1, and how often the label was 1; empty ranges are left out.

    The reliability diagram of M. H. DeGroot and S. E. Fienberg, The Statistician 32 (1983).
    """
    number = np.minimum((evidence.probabilities * BINS).astype(int), BINS - 1)
    ranges = []
    for index in range(BINS):
        chosen = number == index
        if rows := int(chosen.sum()):
            predicted, observed = evidence.probabilities[chosen].mean(), evidence.labels[chosen].mean()
            ranges.append(Bin(float(predicted), float(observed), rows))
    return ranges


def roc(evidence: Evidence) -> list[tuple[float, float]]:
    """The share of false alarms and of hits for each threshold, from (0, 0) to (1, 1), at most `POINTS` of them.

    Empty without both labels. T. Fawcett, Pattern Recognition Letters 27 (2006), algorithm 1.
    """
    positives = int(evidence.labels.sum())
    negatives = len(evidence.labels) - positives
    if not positives or not negatives:
        return []
    order = np.argsort(-evidence.probabilities, kind="stable")
    scores, labels = evidence.probabilities[order], evidence.labels[order]
    last = np.append(scores[1:] != scores[:-1], True)  # of rows that tie, only all together
    hits = np.append(0, np.cumsum(labels)[last]) / positives
    alarms = np.append(0, np.cumsum(~labels)[last]) / negatives
    kept = np.unique(np.linspace(0, len(hits) - 1, POINTS).round().astype(int))
    return list(zip(alarms[kept].tolist(), hits[kept].tolist(), strict=True))
