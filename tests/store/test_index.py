"""The index repeats what the store knows of finished windows, each once."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from gpusched.core.events import BatchFinished, Record
from gpusched.core.model import Failed, Finished, Queued, WindowKey
from gpusched.daemon.index import NAME, Index
from gpusched.daemon.store import Store
from tests.store.samples import FAILURE, RESULT, accepted, batch, key, moved, run


def log_path(window: WindowKey, attempt: int) -> Path:
    return Path("/logs") / window.batch_id / f"{window.label}.{attempt}.log"


FAILED = Finished(attempts=1, outcome=Failed(failure=FAILURE))


def test_a_window_that_was_retried_has_one_line_in_the_end(store: Store, tmp_path: Path) -> None:
    submitted = msgspec.structs.replace(
        accepted(windows=2), batch=msgspec.structs.replace(batch(), output_dir=str(tmp_path))
    )
    index = Index(store, log_path)

    def happen(*records: Record) -> None:
        """As the supervisor does: all of a turn is committed before any of it is told."""
        store.record(records)
        for record in records:
            index.update(record)

    def lines() -> list[tuple[str, str]]:
        found = [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]
        return [(line["window_label"], line["status"]) for line in found]

    happen(submitted)
    starting, running, _ = run(key(0), ending=FAILURE)
    failed = moved(key(0), running.new, FAILED, ending=FAILURE)
    # It fails, and the retry comes in the same turn: the store has it queued when the index hears of the failure.
    happen(starting, running, failed, moved(key(0), FAILED, Queued(attempt=2)))
    assert lines() == []
    happen(*run(key(1)))
    assert lines() == [(key(1).label, "success")]
    starting, running, _ = run(key(0), attempt=2, ending=FAILURE)
    again = Finished(attempts=2, outcome=Failed(failure=FAILURE))
    happen(starting, running, moved(key(0), running.new, again, ending=FAILURE))
    happen(moved(key(0), again, Queued(attempt=3)))
    happen(*run(key(0), attempt=3, ending=RESULT), BatchFinished(batch_id="b", at=200.0))
    assert sorted(lines()) == sorted([(key(0).label, "success"), (key(1).label, "success")])
    index.close()
