"""A process that records moves until it is killed, and says after each commit how far it is: `writer.py PATH`."""

from __future__ import annotations

import sys
from pathlib import Path

from gpusched.core.events import Record
from gpusched.core.states import Queued
from gpusched.store.store import Store
from tests.store.samples import FAILURE, accepted, key, run

#: a commit of three moves each
GROUP = 3


def main(path: Path) -> None:
    store = Store.open(path)
    if store.batch("b") is None:
        store.record([accepted("b", 1)])
    window = store.window(key())
    assert window is not None
    state = window.state
    attempt = state.attempt if isinstance(state, Queued) else 0
    print("ready", flush=True)
    while True:
        moves: list[Record] = list(run(key(), attempt=attempt, ending=FAILURE))
        assert len(moves) == GROUP
        store.record(moves)
        print(attempt, flush=True)
        attempt += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
