"""The end of a batch, asked of a daemon: windows, logs, results, reports."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pandas as pd

from tests.cli.clients import ASKED, LABEL, Client
from tests.server.support import finished
from tests.waiting import PATIENCE_S


def test_listings_in_pipes_are_tab_separated(client: Client) -> None:
    client.done("listed", "S0", "BAD", "SKIP")
    (row,) = [row for row in client.table("status") if row["batch"] == "listed"]
    assert (row["state"], row["done"], row["succeeded"], row["failed"], row["skipped"]) == ("finished", "6/6", *"222")
    rows = client.table("windows", "listed")
    assert [row["status"] for row in rows] == ["succeeded"] * 2 + ["failed"] * 2 + ["skipped"] * 2
    assert rows[0]["window"] == LABEL
    assert "told to" in rows[2]["reason"]
    assert [row["window"] for row in client.table("windows", "listed", "--status", "succeeded")] == [
        row["window"] for row in rows[:2]
    ]
    found = client.json("windows", "listed")["windows"]
    assert [window["window"] for window in found] == [f"listed/{row['window']}" for row in rows]
    assert found[0]["started_at"].endswith("+00:00")
    assert "did you mean failed? one of: " in client.error("windows", "listed", "--status", "faild", code=4)


def test_a_window_is_shown_with_its_story_and_its_log(client: Client) -> None:
    client.done("shown", "S0", "BAD", "DIE")
    page = client("show", f"shown/{LABEL}")
    assert "queued → starting" in page
    assert "running → succeeded" in page
    told = client.json("show", "shown/BAD_2022-01-01_to_2022-01-10")
    assert told["attempts"][0]["message"] == "told to"
    assert "BadData" in told["attempts"][0]["traceback"]
    assert "attempt at BAD" in Path(told["attempts"][0]["log"]).read_text()
    died = client.json("show", "shown/DIE_2022-01-01_to_2022-01-10")
    assert [attempt["ending"] for attempt in died["attempts"]] == ["killed", "result"]
    assert client("logs", f"shown/{LABEL}") == f"attempt at {LABEL}\n"
    first = client("logs", "shown/DIE_2022-01-01_to_2022-01-10", "--attempt", "1")
    assert first.startswith("attempt at DIE")


def test_a_window_without_a_word_has_an_empty_log_and_that_is_said(client: Client) -> None:
    client.done("mute", "QUIET")
    name = "mute/QUIET_2022-01-01_to_2022-01-10"
    with client.start("logs", name) as process:
        said = f"{name} has written nothing to stdout or stderr\n"
        assert (process.communicate(timeout=PATIENCE_S), process.returncode) == (("", said), 0)


def test_a_log_is_followed_until_the_window_has_finished(client: Client) -> None:
    with client.daemon.fifo() as release:
        client.submit("followed", "FIFO")
        process = client.start("logs", "-f", "followed/FIFO_2022-01-01_to_2022-01-10")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("attempt at FIFO")
        release()
        release()
        assert process.communicate(timeout=PATIENCE_S) == ("", "")
        assert process.returncode == 0
    finished(client.daemon, "followed")


def test_results_are_csv_json_or_a_table(client: Client) -> None:
    client.done("results", "S0", "BAD")
    rows = list(csv.DictReader(client("results", "results", "--csv").splitlines()))
    assert sorted(row["status"] for row in rows) == ["failed", "failed", "succeeded", "succeeded"]
    (row,) = [row for row in rows if row["window_label"] == LABEL]
    assert (row["auc"], row["train_rows"]) == ("0.5", "8")
    found = client.json("results", "results")["results"]
    assert {line["window_label"]: line["metrics"] for line in found}[LABEL] == {"auc": 0.5}
    assert len(client.table("results", "results")) == 4


def test_results_are_sorted_and_summed_up_by_symbol(client: Client) -> None:
    client.done("summed", "S0", "BAD", "S1")
    labels = [row["window_label"] for row in client.table("results", "summed", "--sort", "window_label")]
    assert labels == sorted(labels)
    first = client.table("results", "summed", "--sort", "auc")
    assert [bool(row["auc"]) for row in first] == [True] * 4 + [False] * 2
    symbols = {row["symbol"]: row for row in client.table("results", "summed", "--by-symbol", "--metric", "auc")}
    assert (symbols["S0"]["windows"], symbols["S0"]["mean"], symbols["S0"]["spread"]) == ("2", "0.5", "0")
    assert (symbols["BAD"]["windows"], symbols["BAD"]["mean"]) == ("0", "")
    found = client.json("results", "summed", "--by-symbol", "--metric", "auc")["symbols"]
    assert {row["symbol"]: row["best"] for row in found} == {"S0": 0.5, "BAD": None, "S1": 0.5}
    backwards = client.table("results", "summed", "--sort", "auc", "--reverse")
    assert [bool(row["auc"]) for row in backwards] == [True] * 4 + [False] * 2, "what has no value stays last"
    labels = [row["window_label"] for row in client.table("results", "summed", "--sort", "window_label", "--reverse")]
    assert labels == sorted(labels, reverse=True)
    ranked = ("results", "summed", "--by-symbol", "--metric", "auc", "--sort")
    assert [row["symbol"] for row in client.table(*ranked, "symbol")] == ["BAD", "S0", "S1"]
    assert [row["symbol"] for row in client.json(*ranked, "windows", "--reverse")["symbols"]] == ["BAD", "S0", "S1"]
    unknown = client.error(*ranked, "maen", code=2)
    assert "did you mean 'mean'?\nhint: `gpusched results summed --by-symbol --csv`" in unknown
    assert "did you mean 'auc'?" in client.error("results", "summed", "--sort", "acu", code=2)
    asked = ("results", "summed", "--by-symbol", "--metric", "validation_auc")
    assert "no column 'validation_auc'" in client.error(*asked, code=2)


def test_results_are_summed_up_by_the_values_of_columns_and_the_best_are_found(client: Client) -> None:
    client.done("grouped", "S0", "S1")
    by = client.table("results", "grouped", "--by", "symbol", "--metric", "auc")
    assert by == client.table("results", "grouped", "--by", "symbol"), "the first metric of the workload"
    assert [(row["symbol"], row["windows"]) for row in by] == [("S0", "2"), ("S1", "2")]
    assert set(by[0]) == {"symbol", "windows", "mean", "median", "spread", "best", "worst"}
    best = client.table("results", "grouped", "--best", "auc")
    per = client.table("results", "grouped", "--best", "auc", "--per", "symbol")
    assert (len(best), len(per)) == (1, 2)
    assert "--by does not go with --best" in client.error("results", "grouped", "--best", "auc", "--by", "x", code=2)
    assert "grouped has none" in client.error("results", "grouped", "--by", "param", code=2)
    assert "--per is for --best" in client.error("results", "grouped", "--per", "symbol", code=2)
    assert "no column 'symbl'; did you mean" in client.error("results", "grouped", "--by", "symbl", code=2)


def test_results_in_a_parquet_file(client: Client) -> None:
    client.done("columns", "S0")
    path = client.directory / "results.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        assert "pip install pyarrow" in client.error("results", "columns", "--parquet", str(path), code=4)
        return
    client("results", "columns", "--parquet", str(path))
    assert list(pd.read_parquet(path)["auc"]) == [0.5, 0.5]


def test_a_report_of_a_batch_is_one_file(client: Client) -> None:
    client.done("reported", "S0", "BAD", "DIE1")
    assert client("report", "reported").strip() == "reported.html"
    text = (client.directory / "reported.html").read_text()
    assert "<h2>Timeline</h2>" in text
    assert "<h2>Failures and skips</h2>" in text
    assert text.count('"name":"retried"') == 1, "a window was killed and tried again"
    client("run", client.symbols("DIE2"), *ASKED, "-o", "own", "--device", "cpu")
    client("report", "own", "-o", "own.html")
    assert '"name":"retried"' in (client.directory / "own.html").read_text(), "without a daemon, too"
    found = client.json("report", "reported", "-o", "other.html")
    assert Path(found["report"]) == client.directory / "other.html"
    assert not [path.name for path in client.directory.iterdir() if path.name.startswith(".")]
    assert client("report", "reported", "-o", "-") == text
    assert "-o - does not go with --json" in client.error("report", "reported", "-o", "-", "--json", code=2)
    assert "no batch reportd" in client.error("report", "reportd", code=4)
    assert "is not the directory of a run" in client.error("report", ".", code=4)
    assert "cannot be written" in client.error("report", "reported", "-o", "no/such/dir.html", code=4)


def test_two_batches_side_by_side(client: Client) -> None:
    """One by its id, one by its directory; a window that only one has is counted."""
    client.done("one", "S0", "S1")
    client.done("other", "S0", "S2")
    directory = client.json("status", "other")["output_dir"]
    found = client.json("compare", "one", directory)
    assert [window["window"][:2] for window in found["windows"]] == ["S0", "S0"]
    assert (len(found["only_a"]), len(found["only_b"])) == (2, 2)
    (difference,) = found["differences"]
    assert (difference["metric"], difference["difference"], difference["interval"]) == ("auc", 0.0, [0.0, 0.0])
    out, err = client.said("compare", "one", directory, "--windows")
    lines = out.splitlines()
    assert lines[1].split("\t") == ["auc", "0.5000", "0.5000", "+0.0000", "+0.0000..+0.0000", "2", "0/0/2"]
    assert lines[3].split("\t") == [LABEL, "0.5000", "0.5000", "+0.0000"]
    assert "2 only in A, left out: S1_2022-01-01_to_2022-01-10, S1_2022-01-11_to_2022-01-20" in err
    assert "have no metric 'aux'; did you mean 'auc'?" in client.error(
        "compare", "one", "other", "--metric=aux", code=2
    )
    client.done("third", "S9")
    assert "one and third have no window in common" in client.error("compare", "one", "third", code=4)
    assert "nobody" in client.error("compare", "one", "nobody", code=4)
