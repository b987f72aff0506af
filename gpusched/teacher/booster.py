"""LightGBM through its C API (https://lightgbm.readthedocs.io/en/stable/C-API.html), without its Python package.

The package imports scipy and more, which every fork of the launcher pays for, and takes a fifth of the time of a small
window. The models are the package's, byte for byte: a test trains with both.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gpusched.teacher.bars import Floats
from gpusched.teacher.installed import library
from gpusched.teacher.labels import Labels
from gpusched.workload import BadParameters

#: constants of the C API
_FLOAT32, _FLOAT64 = 0, 1
_NORMAL_PREDICTION = 0
_SPLITS, _GAINS = 0, 1
_ALL_ROUNDS = -1

#: beginnings of the names of metrics that are better if they are larger; all others are better if they are smaller
_MORE_IS_BETTER = ("auc", "ndcg@", "map@", "average_precision")
#: bytes for the name of a metric
_NAME_BYTES = 64
#: bytes for a model; a larger one is written twice
_MODEL_BYTES = 1 << 20
#: the last line that LightGBM's Python package adds to a model: its features were not categories of a data frame
_NO_CATEGORIES = "\npandas_categorical:null\n"

_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


class LightGBMError(Exception):
    """An error that LightGBM reports."""


#: without LightGBM's Python package; the import of this module raises ImportError or OSError where it is missing
_lib = ctypes.CDLL(str(library()))
_lib.LGBM_GetLastError.restype = ctypes.c_char_p


def _call(function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments) != 0:
        raise LightGBMError(_lib.LGBM_GetLastError().decode("utf-8", "replace"))


def set_threads(threads: int) -> None:
    """Limit the threads that OpenMP uses when this thread calls LightGBM.

    The parameter num_threads would not do: the model file records it, and a model must not depend on its slot.
    """
    try:
        _lib.omp_set_num_threads(threads)  # of the OpenMP runtime that LightGBM is linked with
    except AttributeError:
        _lib.LGBM_SetMaxThreads(threads)


class Listener:
    """A context in which `hear` is called with each message of LightGBM, instead of its being printed."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        pieces: list[bytes] = []

        def receive(piece: bytes) -> None:
            """Put a message together: it comes in pieces, and its line feed by itself."""
            if piece.strip():
                pieces.append(piece)
            else:
                hear(b"".join(pieces).decode("utf-8", "replace"))
                pieces.clear()

        #: kept while LightGBM may call it
        self._callback = _LogCallback(receive)

    def __enter__(self) -> Self:
        _call(_lib.LGBM_RegisterLogCallback, self._callback)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _call(_lib.LGBM_RegisterLogCallback, None)


class Dataset:
    """Rows of a matrix (n, features) and their labels (n,), binned by LightGBM: as `reference`, if that is given."""

    def __init__(
        self,
        matrix: Floats,
        labels: Labels,
        params: Mapping[str, Any],
        *,
        names: Sequence[str] = (),
        reference: Dataset | None = None,
    ) -> None:
        self.handle = ctypes.c_void_p()
        _call(
            _lib.LGBM_DatasetCreateFromMat,
            *_matrix(matrix),
            _written(params),
            None if reference is None else reference.handle,
            ctypes.byref(self.handle),
        )
        numbers = labels.astype(np.float32)
        size = ctypes.c_int(len(numbers))
        _call(_lib.LGBM_DatasetSetField, self.handle, b"label", _pointer(numbers), size, ctypes.c_int(_FLOAT32))
        if names:
            encoded = (ctypes.c_char_p * len(names))(*(name.encode() for name in names))
            _call(_lib.LGBM_DatasetSetFeatureNames, self.handle, encoded, ctypes.c_int(len(names)))

    def __del__(self) -> None:
        _lib.LGBM_DatasetFree(self.handle)


class Booster:
    """A model, while it is trained or after it was read from its text."""

    def __init__(self, params: Mapping[str, Any], train: Dataset) -> None:
        self._handle = ctypes.c_void_p()
        #: data sets that LightGBM reads while it trains, so they must live as long
        self._data = [train]
        self._is_finished = ctypes.c_int()
        _call(_lib.LGBM_BoosterCreate, train.handle, _written(params), ctypes.byref(self._handle))

    @classmethod
    def read(cls, text: str) -> Self:
        """The booster of a model file's text."""
        booster = cls.__new__(cls)
        booster._handle, booster._data = ctypes.c_void_p(), []
        rounds = ctypes.c_int()
        _call(
            _lib.LGBM_BoosterLoadModelFromString,
            text.encode(),
            ctypes.byref(rounds),
            ctypes.byref(booster._handle),
        )
        return booster

    def __del__(self) -> None:
        _lib.LGBM_BoosterFree(self._handle)

    def validate_on(self, data: Dataset) -> None:
        """Have `scores` score these data."""
        _call(_lib.LGBM_BoosterAddValidData, self._handle, data.handle)
        self._data.append(data)

    def update(self) -> None:
        """Train one round. If no tree can be split any further, the model stays as it is."""
        _call(_lib.LGBM_BoosterUpdateOneIter, self._handle, ctypes.byref(self._is_finished))

    def metric_names(self) -> list[str]:
        """The names of the metrics, in the order of `scores`."""
        count, needed = ctypes.c_int(), ctypes.c_size_t()
        _call(_lib.LGBM_BoosterGetEvalCounts, self._handle, ctypes.byref(count))
        buffers = [ctypes.create_string_buffer(_NAME_BYTES) for _ in range(count.value)]
        _call(
            _lib.LGBM_BoosterGetEvalNames,
            self._handle,
            count,
            ctypes.byref(ctypes.c_int()),
            ctypes.c_size_t(_NAME_BYTES),
            ctypes.byref(needed),
            (ctypes.c_void_p * len(buffers))(*map(ctypes.addressof, buffers)),
        )
        return [buffer.value.decode() for buffer in buffers]

    def scorer(self, metrics: int) -> Callable[[], list[float]]:
        """A function that returns the values of so many metrics on the validation data after the latest round."""
        values = (ctypes.c_double * metrics)()
        arguments = (self._handle, ctypes.c_int(1), ctypes.byref(ctypes.c_int()), values)

        def scores() -> list[float]:
            _call(_lib.LGBM_BoosterGetEval, *arguments)
            return list(values)

        return scores

    @property
    def rounds(self) -> int:
        rounds = ctypes.c_int()
        _call(_lib.LGBM_BoosterGetCurrentIteration, self._handle, ctypes.byref(rounds))
        return rounds.value

    def text(self, rounds: int | None = None) -> str:
        """The model in LightGBM's own format: all of it, or its first rounds."""
        size, needed = _MODEL_BYTES, ctypes.c_int64()
        while True:
            buffer = np.empty(size, np.uint8)  # not written to, so that only the pages that the model needs are used
            _call(
                _lib.LGBM_BoosterSaveModelToString,
                self._handle,
                ctypes.c_int(0),
                ctypes.c_int(_ALL_ROUNDS if rounds is None else rounds),
                ctypes.c_int(_SPLITS),
                ctypes.c_int64(size),
                ctypes.byref(needed),
                _pointer(buffer),
            )
            if needed.value <= size:
                return buffer[: needed.value - 1].tobytes().decode() + _NO_CATEGORIES
            size = needed.value

    def predict(self, matrix: Floats) -> Floats:
        """(n,) the predictions for the rows of a matrix (n, features)."""
        predictions, size = np.empty(len(matrix)), ctypes.c_int64()
        _call(
            _lib.LGBM_BoosterPredictForMat,
            self._handle,
            *_matrix(matrix),
            ctypes.c_int(_NORMAL_PREDICTION),
            ctypes.c_int(0),
            ctypes.c_int(_ALL_ROUNDS),
            b"",
            ctypes.byref(size),
            _pointer(predictions),
        )
        return predictions

    def importance(self, features: int) -> tuple[list[float], list[int]]:
        """For each of so many features, the total gain of its splits, and their number."""
        values = np.empty((2, features))
        for row, kind in zip(values, (_GAINS, _SPLITS), strict=True):
            function = _lib.LGBM_BoosterFeatureImportance
            _call(function, self._handle, ctypes.c_int(_ALL_ROUNDS), ctypes.c_int(kind), _pointer(row))
        return values[0].tolist(), values[1].astype(int).tolist()


class EarlyStopping:
    """The round of the best score, and whether training ends: by the rules of LightGBM's Python package.

    Training ends as soon as one metric has not improved by more than a delta for a number of rounds.
    """

    def __init__(self, params: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """`params` by canonical names. Raises BadParameters."""
        self._patience: int = params["early_stopping_round"]
        self._delta = params.get("early_stopping_min_delta", 0.0)
        if not metrics:
            raise BadParameters(f"early stopping needs an eval metric, and {params.get('metric')!r} names none")
        if not isinstance(self._delta, int | float) or self._delta < 0:
            raise BadParameters("early_stopping_min_delta must be a number of 0 or more")
        self._signs = [1.0 if name.startswith(_MORE_IS_BETTER) else -1.0 for name in metrics]
        self._deciding = 1 if params.get("first_metric_only") else len(metrics)
        #: by metric: its best value, times its sign, and the round of that value
        self._best = [(-np.inf, 0)] * len(metrics)

    def best_round(self, round: int, scores: Sequence[float], *, is_last: bool) -> int | None:
        """The round to which the model is cut if training ends after this one, `round` (from 1); None to go on."""
        for number, (sign, score) in enumerate(zip(self._signs, scores, strict=True)):
            best, best_round = self._best[number]
            if round == 1 or sign * score > best + self._delta:
                best_round = round
                self._best[number] = sign * score, round
            if number < self._deciding and (is_last or round - best_round >= self._patience):
                return best_round
        return None


def is_stopped_early(params: Mapping[str, Any]) -> bool:
    """Whether training with these parameters, by canonical names, ends with the best score; DART cannot."""
    return params.get("early_stopping_round", 0) > 0 and params.get("boosting") != "dart"


def _written(params: Mapping[str, Any]) -> bytes:
    """Parameters as the C API takes them."""
    return " ".join(f"{name}={_value(value)}" for name, value in params.items()).encode()


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _matrix(matrix: Floats) -> tuple[Any, ...]:
    """The arguments for a matrix: its address, type, shape, and whether its rows lie one after the other."""
    rows, columns = matrix.shape
    in_rows = ctypes.c_int(matrix.flags.c_contiguous)
    return _pointer(matrix), ctypes.c_int(_FLOAT64), ctypes.c_int32(rows), ctypes.c_int32(columns), in_rows


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    assert array.flags.forc, "LightGBM reads arrays without gaps"
    return ctypes.c_void_p(array.ctypes.data)
