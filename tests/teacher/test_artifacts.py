from __future__ import annotations

import csv
import gzip
import math
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from gpusched import shared
from gpusched.teacher import artifacts, common, train_window
from gpusched.teacher.artifacts import LABEL_COLUMNS, PREDICTION_COLUMNS, tables
from gpusched.teacher.common import digest
from gpusched.teacher.examples import window_examples
from gpusched.teacher.features import FEATURES, features
from gpusched.teacher.metrics import metrics
from gpusched.teacher.schema import parse_settings
from gpusched.workload import Result
from tests.teacher.support import START, bars, day, ignore, walk, window_task, write_daily

Trained = tuple[Path, Result]


def rows_of(path: Path) -> list[dict[str, str]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return list(csv.DictReader(text.splitlines()))


def test_names(trained: Trained) -> None:
    assert sorted(path.name for path in (trained[0] / "artifacts").iterdir()) == [
        "feature_importance.csv",
        "labels.csv.gz",
        "model.pkl",
        "model.txt",
        "predictions.csv.gz",
    ]


def test_labels_table(trained: Trained) -> None:
    path = trained[0] / "artifacts" / "labels.csv.gz"
    rows = rows_of(path)
    assert len(LABEL_COLUMNS) == 24
    assert tuple(rows[0]) == LABEL_COLUMNS
    assert len(rows) == 120
    source = walk(140)[:120]
    closes = [row[3] for row in source]
    found = features(bars(source))
    for number, row in enumerate(rows):
        assert (row["ts"], row["symbol"]) == (f"{day(number)}T00:00:00+05:30", "ABC")
        assert tuple(float(row[name]) for name in ("open", "high", "low", "close", "volume")) == source[number]
        for name, value in zip(FEATURES, found[number].tolist(), strict=True):
            assert row[name] == ("" if math.isnan(value) else repr(value))
        if number < 113:
            expected = closes[number + 7] / closes[number] - 1
            assert float(row["forward_return"]) == pytest.approx(expected, rel=1e-15)
            assert row["label"] == str(int(expected > 0.02))
        else:
            assert (row["label"], row["forward_return"]) == ("", "")


def test_predictions_table(trained: Trained) -> None:
    directory = trained[0] / "artifacts"
    rows, labels = rows_of(directory / "predictions.csv.gz"), rows_of(directory / "labels.csv.gz")
    assert tuple(rows[0]) == PREDICTION_COLUMNS
    assert [row["ts"] for row in rows] == [row["ts"] for row in labels]
    assert [row["label"] for row in rows] == [row["label"] for row in labels]
    counts = trained[1].sample_counts
    for name in ("train", "validation"):
        chosen = [row for row in rows if row["split"] == name]
        assert len(chosen) == counts[name]
        expected = metrics(
            np.array([row["label"] == "1" for row in chosen]), np.array([float(row["probability"]) for row in chosen])
        )
        assert trained[1].metrics[name] == expected
    assert sum(row["split"] == "" for row in rows) == counts["bars"] - counts["train"] - counts["validation"]
    model = lightgbm.Booster(model_file=directory / "model.txt")
    predicted = np.asarray(model.predict(features(bars(walk(140)[:120]))))
    assert [float(row["probability"]) for row in rows] == predicted.tolist()


@pytest.mark.parametrize("name", ["labels.csv.gz", "predictions.csv.gz"])
def test_gzip_header_tells_neither_time_nor_name(name: str, trained: Trained) -> None:
    header = (trained[0] / "artifacts" / name).read_bytes()[:8]
    assert header[3] == 0  # no name
    assert header[4:8] == bytes(4)  # no time


def written(symbol: str, horizon: int) -> tuple[str, str]:
    """The labels and the predictions of a window of forty bars."""
    history = bars(walk(40))
    examples = window_examples(history, history, START, day(39), parse_settings({"horizon": horizon}))
    pieces = [*tables(symbol, examples, features(history), np.linspace(0.1, 0.9, 40))]
    labels, predictions = (b"".join(parts).decode() for parts in zip(*pieces, strict=True))
    return labels, predictions


def test_symbols_are_quoted_where_they_must_be() -> None:
    text, _ = written('A,"B', 1)
    assert next(csv.DictReader(text.splitlines()))["symbol"] == 'A,"B'


@pytest.mark.parametrize("rows_at_once", [1, 3, 37, 38, 39, 40, 41])
def test_the_pieces_of_a_table_leave_no_trace(rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written("A", 2)
    monkeypatch.setattr(artifacts, "_ROWS_AT_ONCE", rows_at_once)
    assert written("A", 2) == whole
    assert [len(table.splitlines()) for table in whole] == [41, 41]


def test_importance_is_that_of_the_model(trained: Trained) -> None:
    directory = trained[0] / "artifacts"
    rows = rows_of(directory / "feature_importance.csv")
    model = lightgbm.Booster(model_file=directory / "model.txt")
    gains = dict(zip(FEATURES, model.feature_importance("gain").tolist(), strict=True))
    splits = dict(zip(FEATURES, model.feature_importance("split").tolist(), strict=True))
    assert {row["feature"]: float(row["gain"]) for row in rows} == gains
    assert {row["feature"]: int(row["split"]) for row in rows} == splits
    assert [row["feature"] for row in rows] == sorted(gains, key=lambda name: (-gains[name], name))
    assert max(gains.values()) > 0


def test_the_pickle_predicts_as_the_text_does(trained: Trained) -> None:
    directory = trained[0] / "artifacts"
    text = (directory / "model.txt").read_text()
    pickled = pickle.loads((directory / "model.pkl").read_bytes())
    model = lightgbm.Booster(model_str=text)
    found = features(bars(walk(200, 9)))
    np.testing.assert_array_equal(pickled.predict(found), model.predict(found))
    assert pickled.model_to_string() == text
    assert pickled.feature_name() == list(FEATURES)


# -- with the memory of a sweep ----------------------------------------------------------------------------------------


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    monkeypatch.setattr(shared, "inherited", shared.SharedFile(descriptor))
    yield
    os.close(descriptor)


def files_of(root: Path, name: str, horizon: int = 7, **lightgbm: int) -> dict[str, bytes]:
    """Train a window; return its files."""
    (root / name).mkdir()
    train_window(window_task(root, horizon=horizon, lightgbm=lightgbm), root / name, ignore)
    return {path.name: path.read_bytes() for path in (root / name).iterdir()}


@pytest.mark.usefixtures("memory")
def test_the_features_and_the_labels_file_of_a_sweep_are_made_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as alone:
        alone.setattr(shared, "inherited", None)
        expected = [files_of(root, f"alone {leaves}", num_leaves=leaves) for leaves in (5, 9)]
    assert files_of(root, "first", num_leaves=5) == expected[0]

    def fail(*_: object) -> bytes:
        raise AssertionError("they are made again")

    monkeypatch.setattr(common, "features", fail)
    monkeypatch.setattr(artifacts, "_label_rows", fail)
    assert files_of(root, "second", num_leaves=9) == expected[1]


@pytest.mark.usefixtures("memory")
def test_other_data_or_labels_have_their_own_file(root: Path) -> None:
    first, other = files_of(root, "first"), files_of(root, "other", horizon=5)
    assert first["labels.csv.gz"] != other["labels.csv.gz"]
    write_daily(root / "data", "ABC", walk(140, 8))
    changed = files_of(root, "changed")
    assert gzip.decompress(changed["labels.csv.gz"]) != gzip.decompress(first["labels.csv.gz"])
    assert len(rows_of(root / "changed" / "labels.csv.gz")) == 120


def test_all_that_they_are_made_of_is_in_the_digest() -> None:
    def of(symbol: str = "A", seed: int = 7, **settings: float) -> bytes:
        history = bars(walk(120, seed))
        given = parse_settings({"horizon": 3, "threshold": 0.01} | settings)
        return digest(symbol, window_examples(history, history, START, day(119), given))

    assert of() == of(validation_fraction=0.4)
    assert len({of(), of("B"), of(seed=8), of(horizon=4), of(threshold=0.0)}) == 5
