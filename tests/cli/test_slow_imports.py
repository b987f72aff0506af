"""Whoever has submitted a batch hears of imports that take longer than its training."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusched.client.connection import Connection, Subscription
from tests.cli.clients import ASKED, Client
from tests.end_to_end.terminal import Terminal
from tests.server.support import Daemon, finished
from tests.supervisor.test_imports_told import HEAVY, SLOW

NOTE = "s to import modules: move those imports to the top of slow, where they are made once"


#: the import waits until the test says so
WAITS = """
from pathlib import Path
from tests.server.workloads import take_one

take_one(Path({fifo!r}))
"""


@pytest.mark.parametrize("late", [False, True], ids=["looks on", "comes when the batch has ended"])
def test_the_submitter_hears_of_slow_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    with Daemon(tmp_path / "service") as daemon, daemon.fifo() as release:
        (tmp_path / "client").mkdir()
        client = Client(daemon, tmp_path / "client")
        (client.directory / "slow.py").write_text(SLOW)
        (client.directory / "heavy.py").write_text(HEAVY + WAITS.format(fifo=str(daemon.data / "fifo")))
        dates = ASKED[ASKED.index("--data-root") :]
        (daemon.data / "S0.csv").touch()
        asked = ("submit", client.symbols("S0"), "--name", "slow", "--workload", "./slow.py:train", *dates)
        subscribe = Connection.subscribe

        def subscribe_and_release(self: Connection, batch_id: str | None = None) -> Subscription:
            monkeypatch.undo()
            subscription = None if late else subscribe(self, batch_id)
            release()
            release()
            if subscription is None:
                finished(daemon, "slow")
            return subscription or subscribe(self, batch_id)

        monkeypatch.setattr(Connection, "subscribe", subscribe_and_release)
        assert client(*asked, "--wait").count(NOTE) == 1
        for command in ("results", "status"):
            with Terminal(client, command, "slow") as terminal:
                assert "to import modules" in terminal.rest()
