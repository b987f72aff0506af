"""Train a booster on examples with LightGBM, and read its own record of the training."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from gpusched.core.model import DeviceType
from gpusched.teacher import opencl
from gpusched.teacher.bars import Floats
from gpusched.teacher.booster import (
    Booster,
    Dataset,
    EarlyStopping,
    LightGBMError,
    Listener,
    is_stopped_early,
    set_threads,
)
from gpusched.teacher.examples import Examples
from gpusched.teacher.features import FEATURES
from gpusched.teacher.labels import Labels
from gpusched.teacher.schema import GPU_DEFAULTS, differs_on_gpus
from gpusched.teacher.split import Split
from gpusched.workload import BadParameters, Report

#: A thread with fewer rows costs more than it saves. 100 rounds on 90 rows take 10 ms with one thread and 80 ms with
#: two (2 cores; half a second if they spin while they wait), on 7,000 rows 0.2 s and 0.35 s.
ROWS_PER_THREAD = 10_000

#: marks of LightGBM's messages about a refused parameter: the name of a source file, or certain words
_REFUSED = re.compile(r"config(_auto)?\.(cpp|h)|^Parameter |^Unknown |^Cannot (set|use) |not enabled in this build")
#: the place in LightGBM's sources that such a message may end with
_PLACE = re.compile(r" at \S+, line \d+ *\.\s*$")
#: part of LightGBM's warning that a GPU's sums, and so the model, may differ each time
_DIFFERS = "may be non-deterministic"
#: a line of a model's record of its parameters: a whole number, another number, or words
_PARAMETER = re.compile(r"^\[(.*?): (?:(-?\d+)|(-?\d+(?:\.\d*)?(?:e[-+]?\d+)?)|(.*))\]$", re.MULTILINE)
#: a whole number as LightGBM reads it
_WHOLE = re.compile(r"[+-]?\d+")
_MEMORY = re.compile(r"memory|alloc", re.IGNORECASE)


class Trained(msgspec.Struct, frozen=True):
    """A finished model."""

    #: LightGBM's own format; everything else is derived from it
    text: str
    #: the model to predict with, read from `text`
    booster: Booster
    #: the parameters that it was trained with, read from `text`
    parameters: dict[str, str | int | float]
    #: rounds in the model: up to the best validation score if training stopped early
    rounds: int
    #: round of the best validation score, from 1; None without early stopping
    best_iteration: int | None
    #: the device as OpenCL names it; None for other device types
    opencl_device: str | None


class _Log:
    """Receives LightGBM's messages, finds the OpenCL device in them, and prints those that `verbosity` allows.

    `differs`: the parameters let results differ; LightGBM's warning about it is printed once, whatever `verbosity` is.
    """

    def __init__(self, verbosity: int, *, differs: bool = False) -> None:
        self._verbosity = verbosity
        self._differs = differs
        self.opencl_device: str | None = None

    def hear(self, message: str) -> None:
        """Receive a message, with its level in the text."""
        self.opencl_device = opencl.device_named_in(message) or self.opencl_device
        level = -1 if "[Fatal]" in message else 0 if "[Warning]" in message else 1
        if level <= self._verbosity:
            print(message.rstrip(), flush=True)  # noqa: T201
        elif self._differs and _DIFFERS in message:
            self._differs = False
            print(message.rstrip(), flush=True)  # noqa: T201


def train(
    examples: Examples,
    matrix: Floats,
    params: dict[str, Any],
    device_type: DeviceType,
    threads: int,
    report: Report,
) -> Trained:
    """Train on the rows of `matrix` (n, 15) that `examples` assigns, with at most `threads` threads.

    Raises BadParameters for a value that LightGBM refuses, DeviceMismatch, LightGBMError.
    """
    set_threads(min(threads, 1 + len(examples.split.train) // ROWS_PER_THREAD))
    params = params | {"device_type": device_type}
    log = None
    if device_type != "cpu":
        params = GPU_DEFAULTS | params | {"gpu_device_id": 0}  # the process sees one GPU
        log = _Log(params["verbosity"], differs=differs_on_gpus(params))
        # LightGBM has to log warnings to say that models differ, and information to name OpenCL's device
        params["verbosity"] = max(1 if device_type == "gpu" else 0, params["verbosity"])
    with Listener(log.hear) if log else contextlib.nullcontext(), _refusals(device_type):
        text, best = _boost(examples.labels, examples.split, matrix, params, log, report)
    booster = Booster.read(text)
    parameters = trained_parameters(text)
    if parameters.get("device_type") != device_type:
        raise BadParameters(
            f"with these parameters LightGBM trains with device type {parameters.get('device_type')}, and not"
            f" {device_type}: linear_tree, for example, does not work with CUDA"
        )
    return Trained(
        text=text,
        booster=booster,
        parameters=parameters,
        rounds=booster.rounds,
        best_iteration=best,
        opencl_device=log.opencl_device if log is not None else None,
    )


@functools.cache
def try_parameters(encoded: bytes) -> None:
    """Train two rounds on random numbers with parameters in JSON; once with the same ones, which a sweep may repeat.

    It takes 3 ms. Raises BadParameters for a value that LightGBM refuses on the CPU, or takes for another one.
    """
    params: dict[str, Any] = msgspec.json.decode(encoded)
    rows, train = 250, 200
    matrix = np.random.default_rng(0).normal(size=(rows, len(FEATURES)))
    split = Split(np.arange(train), np.arange(train, rows))
    few = params | {"num_iterations": min(2, params["num_iterations"]), "device_type": "cpu"}
    set_threads(1)
    with _refusals("cpu"):
        text, _ = _boost(matrix[:, 0] > 0, split, matrix, few, None, lambda phase, round=0, rounds=0: None)
    _require_unwrapped(few, trained_parameters(text))


def _require_unwrapped(params: Mapping[str, Any], trained: Mapping[str, str | int | float]) -> None:
    """Raise BadParameters for a whole number of more than 32 bits, which LightGBM cuts to its last 32 in silence."""
    for name, value in params.items():
        number, took = _WHOLE.fullmatch(str(value)), trained.get(name)
        if number and isinstance(took, int) and took != int(number[0]) and abs(int(number[0])) >= 2**31:
            raise BadParameters(
                f"LightGBM parameter {name}: its whole numbers have 32 bits, so {value} would count as {took}"
            )


@contextlib.contextmanager
def _refusals(device_type: DeviceType) -> Iterator[None]:
    """Raise BadParameters for an error of LightGBM that would come again with these parameters."""
    try:
        yield
    except LightGBMError as error:
        # On the CPU every error except lack of memory would come again, so the parameters are the cause.
        if _REFUSED.search(str(error)) or (device_type == "cpu" and not _MEMORY.search(str(error))):
            why = _PLACE.sub("", str(error)).strip()
            raise BadParameters(f"LightGBM refuses its parameters: {why}") from error
        raise
    except BadParameters as error:
        raise BadParameters(f"LightGBM refuses its parameters: {error}") from error


def _boost(
    labels: Labels, split: Split, matrix: Floats, params: dict[str, Any], log: _Log | None, report: Report
) -> tuple[str, int | None]:
    """Train a model; return its text, and the round of its best score, to which it is cut, if it is stopped early."""
    report("dataset")
    train_set = Dataset(matrix[split.train], labels[split.train], params, names=FEATURES)
    validation_set = Dataset(matrix[split.validation], labels[split.validation], params, reference=train_set)
    rounds: int = params["num_iterations"]
    report("boosting", 0, rounds)
    booster = Booster(params, train_set)
    booster.validate_on(validation_set)
    stopping = None
    if is_stopped_early(params):
        metrics = booster.metric_names()
        stopping, scores = EarlyStopping(params, metrics), booster.scorer(len(metrics))
    best = None
    for round in range(1, rounds + 1):
        booster.update()
        if round == 1 and params["device_type"] == "gpu" and log is not None:
            opencl.require_gpu(log.opencl_device)
        report("boosting", round, rounds)
        if stopping and (best := stopping.best_round(round, scores(), is_last=round == rounds)):
            break
    return booster.text(best), best


def trained_parameters(text: str) -> dict[str, str | int | float]:
    """Read the parameters that a model records: the lines `[name: value]` between its two markers.

    Numbers become int or float; LightGBM writes true and false as 1 and 0.
    """
    block = text.partition("\nparameters:\n")[2].partition("\nend of parameters")[0]
    return {
        name: int(whole) if whole else float(number) if number else words
        for name, whole, number, words in _PARAMETER.findall(block)
    }
