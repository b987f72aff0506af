"""The content of a report: gathered by the commands, and laid out by the pages."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gpusched.core.model import BatchSpec, DataNotes
from gpusched.core.samples import Sample
from gpusched.protocol import AttemptLine, BatchStatus, WindowLine


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that a report is made of."""

    batch: BatchStatus
    spec: BatchSpec
    #: finished windows, in the order of finishing
    results: Sequence[WindowLine]
    samples: Sequence[Sample]
    #: attempts that failed and were followed by another one, with the labels of their windows
    retried: Sequence[tuple[str, AttemptLine]] = ()
    #: versions in force where the windows were trained, by name
    versions: dict[str, str]
    #: name of the metric of the heat map, `validation_auc` for `{"validation": {"auc": …}}`; None: the first there is
    metric: str | None = None
    #: notes on the data, by symbol
    notes: DataNotes = {}
