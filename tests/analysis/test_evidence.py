"""The files of results that the report reads."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from gpusched.analysis import evidence
from gpusched.artifacts import Partial
from gpusched.client.importances import FILE
from tests.analysis.reports import line, with_result
from tests.worker.test_artifacts import LABEL, NEW, OLD, metadata


@pytest.mark.parametrize("rows", ["2024,validation,1,nan\n", "2024,validation,1,1.5\n", "\n" * 10_000])
def test_predictions_that_gpusched_did_not_write_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str
) -> None:
    monkeypatch.setattr(evidence, "MOST_UNPACKED_BYTES", 5_000)
    sound = "2024,validation,1,0.5\n"
    path = tmp_path / "predictions.csv.gz"
    for more, read in (("", 1), (rows, 0)):
        path.write_bytes(gzip.compress(f"ts,split,label,probability\n{sound}{more}".encode()))
        assert evidence.gather([with_result(line(0), artifacts_path=str(tmp_path))]).read == read


def test_features_that_gpusched_did_not_write_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / FILE
    results = [with_result(line(0), artifacts_path=str(tmp_path))]
    for gains, shares in (("1\nb,3", {"a": [0.25], "b": [0.75]}), ("inf\nb,1", {}), ("1\nb," + "1" * (1 << 20), {})):
        path.write_text(f"feature,gain\na,{gains}\n")
        assert evidence.gather(results).importances == shares
    path.unlink()
    os.mkfifo(path)  # it is not waited for
    assert evidence.gather(results).importances == {}


def test_the_result_of_a_later_batch_is_not_taken_for_that_of_this_one(tmp_path: Path) -> None:
    partial = Partial(tmp_path, LABEL)
    predictions = gzip.compress(b"ts,split,label,probability\n2024,validation,1,0.5\n")
    (partial.path / evidence.PREDICTIONS).write_bytes(predictions)
    (partial.path / FILE).write_text("feature,gain\na,1\n")
    place = partial.commit(metadata(NEW))
    for fingerprint, read, features in ((NEW, 1, ["a"]), (OLD, 0, [])):
        results = [with_result(line(0), artifacts_path=str(place), fingerprint=fingerprint)]
        found = evidence.gather(results)
        assert (found.read, list(found.importances), found.windows) == (read, features, 1)
