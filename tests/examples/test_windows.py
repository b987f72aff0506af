"""The sweep and the walk-forward of `examples/`, as their pages say them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import gpusched
from gpusched.sample import write_sample
from tests.end_to_end.support import REPOSITORY, Command
from tests.server.support import Daemon

pytestmark = pytest.mark.slow


def commands(page: str, block: int = 0) -> list[list[str]]:
    """The gpusched commands of a page's block of shell, without `gpusched`."""
    text = (REPOSITORY / "examples" / page / "README.md").read_text().split("```sh\n")[block + 1].partition("```")[0]
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [words[1:] for words in lines if words[:1] == ["gpusched"] and words[1:] != ["demo"]]


def test_a_sweep_of_500_points(tmp_path: Path) -> None:
    """Through one submit: what the page runs in the terminal."""
    write_sample(tmp_path)
    (request,) = commands("sweep")
    with Daemon(tmp_path / "daemon") as daemon:
        client, socket = Command(tmp_path), ("--socket", str(daemon.socket))
        said = client.json("submit", *request[1:], "--wait", "--name", "BATCH", *socket)
        assert said["windows"] | {"total": 500, "succeeded": 500} == said["windows"]
        by_leaves, by_both, best = (client.json(*words, *socket) for words in commands("sweep", 1))
    assert [row["lightgbm.num_leaves"] for row in by_leaves["values"]] == [4, 8, 16, 31, 63]
    assert {row["windows"] for row in by_leaves["values"]} == {100}
    assert (len(by_both["values"]), by_both["metric"]) == (25, "validation_accuracy")
    assert sorted(row["parameters"]["labels.horizon"] for row in best["results"]) == [1, 2, 3, 5, 7]
    frame = gpusched.load_results(tmp_path / "sweep")
    assert len(frame) == frame.window_label.nunique() == 500
    assert frame.groupby("lightgbm.num_leaves").validation_auc.count().tolist() == [100] * 5


def test_walk_forward(tmp_path: Path) -> None:
    write_sample(tmp_path)
    (tmp_path / "symbols.txt").write_text("IBM\nFB\n")
    client, (plan, run) = Command(tmp_path), commands("walk_forward")
    drawn, _ = client.said(*plan)
    assert drawn.count("▒") > 24
    said = client.json(*run, "--json")
    assert said["windows"] | {"total": 50, "succeeded": 25, "skipped": 25} == said["windows"]
    frame = gpusched.load_results(tmp_path / "forward")
    trained = frame[frame.status == "success"]
    assert trained["split.validation_days"].unique().tolist() == [30]
    assert trained.validation_rows.max() <= 23, "a month of trading days at most"
