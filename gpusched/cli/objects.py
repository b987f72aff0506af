"""Objects that several commands print with `--json`."""

from __future__ import annotations

import time
from typing import Any

from gpusched.core.statuses import ACTIVE, WAITING, tally, totals
from gpusched.core.totals import batch_object, worth_object
from gpusched.protocol import BatchStatus


def status_object(batch: BatchStatus) -> dict[str, Any]:
    """A batch as `status --json` shows it: the fields of `run --json`, then those of its state."""
    end = batch.finished_at if batch.finished_at is not None else batch.at or time.time()
    seconds = max(0.0, end - batch.submitted_at)
    return batch_object(batch.id, batch.output_dir, totals(batch.counts), seconds) | {
        "state": batch.state,
        "held_reason": batch.held_reason,
        **({"waits": batch.waits} if batch.waits else {}),
        "waiting": tally(batch.counts, WAITING),
        "running": tally(batch.counts, ACTIVE),
        "submitted_at": batch.submitted_at,
        "finished_at": batch.finished_at,
        **worth_object(batch.constants),
        **({"owner": batch.owner} if batch.owner is not None else {}),
    }
