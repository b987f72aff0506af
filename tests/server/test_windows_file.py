"""A file of windows through the daemon: each has the label, dates, parameters, order and memory that its line asks."""

from __future__ import annotations

import json
from pathlib import Path

import gpusched
from tests.cli.clients import WORKLOAD, Client
from tests.server.support import Daemon, finished, until

MIB = 1 << 20

LINES = (
    {"symbol": "S0", "label": "last", "priority": -5, "expected_seconds": 1000},
    {"symbol": "S0", "label": "short", "expected_seconds": 1},
    {"symbol": "S0", "label": "long", "expected_seconds": 500, "parameters": {"workload.seconds": 0.01}},
    {"symbol": "S1", "expected_seconds": 20},
    {"symbol": "FIFO", "label": "first", "priority": 9, "expected_memory_mb": 300},
)


def test_every_field_of_a_line_counts(tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    with Daemon(tmp_path / "daemon", slots=1) as daemon, daemon.fifo() as release:
        client = Client(daemon, tmp_path / "client")
        lines = [line | {"start": f"2022-0{n}-01", "end": f"2022-0{n}-20"} for n, line in enumerate(LINES, start=1)]
        (client.directory / "windows.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        with daemon.connect() as connection:
            client("submit", "windows.jsonl", "--name", "asked", *WORKLOAD, "--data-root", "data")
            subscription = connection.subscribe("asked")
            if not subscription.snapshot.active:
                until(subscription, lambda delta: "first" in repr(delta))
        with daemon.connect() as connection:
            (host,) = connection.devices()
            assert host.allocations[0].label == "first"
            assert host.reserved_bytes > 250 * MIB  # of the 300, less the memory that it has been seen to use
        release()
        assert finished(daemon, "asked").counts == {"succeeded": 5}
        rows = {row["window_label"]: row for row in client.json("results", "asked")["results"]}
        assert list(rows) == ["first", "long", "S1_2022-04-01_to_2022-04-20", "short", "last"], (
            "in the order of finishing"
        )
        assert (rows["first"]["start"], rows["first"]["end"]) == ("2022-05-01", "2022-05-20")
        assert rows["long"]["parameters"] == {"workload.seconds": 0.01}
        shown = client.json("show", "asked/first")
        assert shown["plan"]["window"]["priority"] == 9
        output = daemon.directory / "runs" / "asked"
        metadata = json.loads((output / "long" / "metadata.json").read_text())
        assert (metadata["symbol"], metadata["workload_settings"]) == ("S0", {"seconds": 0.01})
        frame = gpusched.load_results(output).set_index("window_label")
    assert str(frame.loc["last", "start"])[:10] == "2022-01-01"
    assert frame.loc["long", "workload.seconds"] == 0.01
