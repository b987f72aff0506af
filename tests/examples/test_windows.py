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


def test_walk_forward_with_students_after_the_teachers(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    demo = tmp_path / "gpusched-demo"
    write_sample(demo)
    (demo / "symbols.txt").write_text("IBM\nFB\n")
    with Daemon(tmp_path / "daemon") as daemon:
        client = Command(demo)
        client.environment["GPUSCHED_SOCKET"] = str(daemon.socket)
        plan, teachers, students, results = (words for words in commands("walk_forward") if words[0] != "daemon")
        drawn, _ = client.said(*plan)
        assert drawn.count("▒") > 24
        client(*teachers)
        said = client.json(*students)
        assert said["windows"] | {"total": 12, "succeeded": 6, "skipped": 6} == said["windows"]
        assert client.json("status", "teachers")["finished_at"] < said["finished_at"]
        by_symbol = client.json(*results)
        assert [(row["symbol"], row["windows"]) for row in by_symbol["values"]] == [("FB", 0), ("IBM", 5)], (
            "one has one class"
        )
    frame = gpusched.load_results(demo / "teachers")
    trained = frame[frame.outcome == "succeeded"]
    assert trained["split.validation_days"].unique().tolist() == [30]
    assert trained.validation_rows.max() <= 23, "a month of trading days at most"
    taught = gpusched.load_results(demo / "students")
    assert taught.validation_teachers_auc.notna().sum() >= 5
    assert len(taught) == 12
