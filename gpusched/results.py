"""Results in notebooks: `load_results` as a data frame, and what a row of it stands for.

load_results(…) → a row per window → load_model(row), load_labels(row), load_predictions(row)
"""

from __future__ import annotations

import datetime as dt
import glob
import gzip
import io
import os
import stat
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from gpusched import artifacts, directories
from gpusched.config.workloads import BUILT_IN_KEYS
from gpusched.core.planning import INDEX
from gpusched.core.wording import counted
from gpusched.errors import InputError
from gpusched.files import is_directory
from gpusched.metadata import Metadata, metadata_in, read_metadata
from gpusched.teacher.schema import READING

if TYPE_CHECKING:
    import lightgbm
    import pandas as pd

Source = str | os.PathLike[str]
#: text that can be part of a path
_Name = Annotated[str, msgspec.Meta(pattern=r"^[^\0]*$")]

#: entries of `requested` in metadata.json that are settings → their names in config.toml
_SETTINGS = {name: key for key, name in BUILT_IN_KEYS.items() if name not in READING}
#: the largest metric: sums of larger ones, as of a loss that diverges, may be beyond the largest float
_LARGEST = 1e300
#: bytes of a table, unpacked: millions of rows. A file that somebody made can unpack to all of the memory
_MOST_BYTES = 2 << 30
#: entries of metadata.json that become columns of their own
_TRAINING = ("rounds", "best_iteration")


class NoResults(InputError):
    problem = "there are no results in {path}: {why}"
    remedy = "name a batch directory, which `gpusched run` prints, its teacher_runs.json, or a directory of such"


class NoArtifact(InputError):
    problem = "{window} has no {name}: {why}"
    remedy = (
        "choose a row with status `success`; where another version trained it, or files were removed, the same"
        " `gpusched run` trains it again"
    )


class NotIntact(InputError):
    problem = "{path} cannot be read: {why}"
    remedy = (
        "the same `gpusched run` finds what is damaged, and trains it again; or fetch it again from where it is whole"
    )


class NotOneRow(InputError):
    problem = "a table of {rows} has no {name} of its own"
    remedy = "give one of its rows, such as frame.iloc[0]"


class NoModel(InputError):
    problem = "{path} is no LightGBM model: {why}"
    remedy = "the workload wrote it; read it as that workload does"


def load_results(paths: Source | Iterable[Source]) -> pd.DataFrame:
    """The windows of batches, one row each, in the order in which they finished.

    `paths` is one or several of: a batch's directory, its `teacher_runs.json`, a pattern such as `runs/nifty-*`, or a
    directory below which there are batches' directories. Columns are those of the index, with nested ones flattened:
    `start` and `end` (datetime64), `validation_auc` and the other metrics (`metric_seconds` if one is called as another
    column), `train_rows` and the other counts. `outcome` and `reason` are those that the commands show, `status` has
    the older words (`success`, also if reused). Successes also have `constant` (whether the model gives every row of
    the validation the same probability), `rounds`, `best_iteration`, `<phase>_seconds`, and the settings under their
    names in config.toml, such as `lightgbm.num_leaves`, or `workload.alpha` of a workload of one's own. Missing values
    are NaN, NaT or None. An incomplete last line is left out. Raises NoResults.
    """
    import pandas as pd

    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    rows = [row for path in several for index in _indexes(path) for row in _rows(index)]
    frame = pd.DataFrame(rows)
    for name in ("start", "end", "started_at"):
        if name in frame:
            frame[name] = pd.to_datetime(frame[name], utc=name == "started_at", format="ISO8601")
    return frame


def load_model(row: object) -> lightgbm.Booster:
    """The model of a window: a row of `load_results`, or a result's directory.

    Raises NoArtifact, NotOneRow, NotIntact, NoModel.
    """
    import lightgbm

    path = _artifact(row, "model.txt")  # LightGBM ends the process over some models that were cut off
    try:
        return lightgbm.Booster(model_file=path)
    except lightgbm.basic.LightGBMError as error:
        raise NoModel(path=path, why=error) from None


def load_labels(row: object) -> pd.DataFrame:
    """The bars of a window with features, label and forward return: a row for each bar, `ts` as datetime64.

    `row` is as in `load_model`. Timestamps have the offset of the data, or are in UTC if that changes. Raises
    NoArtifact, NotOneRow, NotIntact.
    """
    return _table(_artifact(row, "labels.csv.gz"))


def load_predictions(row: object) -> pd.DataFrame:
    """`ts`, `split`, `label` and `probability` of each row of `load_labels`.

    `split` is `train`, `validation`, or empty for a row in neither. Raises NoArtifact, NotOneRow, NotIntact.
    """
    frame = _table(_artifact(row, "predictions.csv.gz"), "split")
    frame["split"] = frame["split"].fillna("")
    return frame


# -- from paths to rows ------------------------------------------------------------------------------------------------


def _indexes(source: Source) -> Iterator[Path]:
    """The index files that a path stands for. Raises NoResults if there are none."""
    path, private = Path(source), list[OSError]()
    try:
        indexes = [*_below(path, private.append)] if _is_directory(path) else [path]
    except (FileNotFoundError, NotADirectoryError):
        matches = sorted(glob.glob(str(path)))  # noqa: PTH207 - of an absolute pattern, too
        if not matches:
            raise NoResults(path=path, why="No such file or directory") from None
        indexes = [index for match in map(Path, matches) for index in _matched(match)]
    except OSError as error:
        raise NoResults(path=path, why=error.strerror or error) from None
    if not indexes:
        why = f"neither it nor a directory below it has a {INDEX}"
        if private:
            why += f" that may be read: {private[0].filename}: {private[0].strerror}"
        raise NoResults(path=path, why=why)
    yield from indexes


def _is_directory(path: Path) -> bool:
    """Raises OSError for one that may not be listed, and where there is nothing."""
    if not stat.S_ISDIR(path.stat().st_mode):
        return False
    os.scandir(path).close()
    return True


def _matched(path: Path) -> Iterator[Path]:
    """The indexes among a pattern's matches: a file only if it can be one, since `runs/*` matches others, too."""
    if is_directory(path):
        yield from _below(path)
    elif path.suffix == Path(INDEX).suffix:
        yield path


def _below(directory: Path, on_error: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """The index of a batch's directory, or those of the batches' directories below it; no window's is looked into.

    `on_error` is called for each directory that cannot be listed.
    """
    for parent, below, names in os.walk(directory, onerror=on_error):
        if INDEX in names:
            below.clear()
            yield Path(parent, INDEX)
        below.sort()


def _rows(index: Path) -> Iterator[dict[str, Any]]:
    for line in read_index(index):
        details = _details(line, index.parent)
        taken = _flat(line | {"metrics": None}) | details
        yield _flat(line | {"metrics": metric_columns(line.get("metrics"), taken)}) | details


def read_index(index: Path) -> list[dict[str, Any]]:
    """The lines of an index; an incomplete last one is left out. Raises NoResults."""
    try:
        whole, _, _ = index.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise NoResults(path=index, why=error.strerror or error) from None
    try:
        # Only this ends a line: texts in it may have other characters that `str.splitlines` takes for an end.
        return [_object(line) for line in whole.split(b"\n") if whole]
    except (ValueError, RecursionError) as error:
        raise NoResults(path=index, why=f"it is not an index ({error})") from None


class _Dates(msgspec.Struct):
    start: dt.date
    end: dt.date


class _Note(msgspec.Struct):
    text: str


class _Line(msgspec.Struct):
    """The fields of a line that readers rely on. Anybody may have written the line: all else in it may be anything."""

    window_label: _Name | None = None
    artifacts_path: _Name | None = None
    date_range: _Dates | None = None
    started_at: dt.datetime | None = None
    metrics: dict[str, Any] | None = None
    constant: bool | None = None
    data_notes: list[_Note] | None = None


def _object(line: bytes) -> dict[str, Any]:
    """Raises ValueError, RecursionError."""
    value: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    msgspec.convert(value, _Line)
    return value


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """Flatten a line of the index, whose metrics are columns already: counts become `<part>_rows`."""
    row: dict[str, Any] = {}
    for name, value in (_words(line) | line).items():
        match name, value:
            case (("date_range" | "metrics" | "parameters" | "settings"), dict()):
                row |= value
            case "sample_counts", dict():
                row |= {f"{part}_rows": count for part, count in value.items()}
            case (("date_range" | "metrics" | "sample_counts" | "parameters"), _):
                pass
            case "data_notes", list():
                row[name] = "; ".join(note["text"] for note in value)
            case "error", dict():
                row["error"] = value.get("message")
            case _:
                row[name] = value
    return row


def _words(line: Mapping[str, Any]) -> dict[str, Any]:
    """`outcome` and `reason` of a line from before 0.2, which has only `status`, `skip_reason` and `error`."""
    error = line.get("error")
    kind, message = (error.get("kind"), error.get("message")) if isinstance(error, dict) else (None, None)
    outcome = line.get("status")
    if outcome == "success":
        outcome = "reused" if line.get("reused") else "succeeded"
    elif kind == "timed_out":
        return {"outcome": kind, "reason": message}
    return {"outcome": outcome, "reason": f"{kind}: {message}" if kind else line.get("skip_reason")}


def flat_metrics(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Metrics on one level: `validation_auc` for `{"validation": {"auc": …}}`."""
    flat: dict[str, Any] = {}
    for name, value in metrics.items():
        flat |= flat_metrics(value, f"{prefix}{name}_") if isinstance(value, dict) else {prefix + name: value}
    return flat


def metric_columns(metrics: object, taken: Container[str]) -> dict[str, Any]:
    """Metrics as columns: `metric_seconds` for one that is called as another column, of the names `taken`."""
    flat = flat_metrics(metrics) if isinstance(metrics, Mapping) else {}
    return {f"metric_{name}" if name in taken else name: value for name, value in flat.items()}


def as_number(value: object) -> float | None:
    """A metric as a number; None if it is not defined: no number, not finite, or too large to be summed up."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= _LARGEST else None


def _details(row: Mapping[str, Any], batch: Path) -> dict[str, Any]:
    """What metadata.json adds to a success. A batch's directory may have been moved since its index was written."""
    if row.get("status") != "success":
        return {}
    moved = batch / str(row.get("window_label"))
    metadata = read_metadata(moved)
    if metadata is None:
        moved = Path(row.get("artifacts_path") or moved)
        metadata = read_metadata(moved)
    if metadata is None:
        return {}
    # Entries of a workload's own may have these names, and hold anything.
    entries = (metadata.details.get(name) for name in ("requested", "requested_parameters"))
    requested, parameters = (entry if isinstance(entry, dict) else {} for entry in entries)
    return {
        "artifacts_path": str(moved),
        "constant": metadata.constant,
        **{name: metadata.details[name] for name in _TRAINING if name in metadata.details},
        **{f"{phase}_seconds": seconds for phase, seconds in metadata.phases.items()},
        **{_SETTINGS[name]: value for name, value in requested.items() if name in _SETTINGS},
        **{f"lightgbm.{name}": value for name, value in parameters.items()},
        **_own_settings(metadata),
    }


def _own_settings(metadata: Metadata) -> dict[str, Any]:
    """The settings of a workload that is not gpusched's own, as columns."""
    settings = metadata.workload_settings
    if metadata.workload.startswith("gpusched.") or not isinstance(settings, Mapping):
        return {}
    return {f"workload.{name}": value for name, value in settings.items()}


# -- from a row to its files -------------------------------------------------------------------------------------------


def _artifact(row: object, name: str) -> Path:
    """The path of a file of a window's result. Raises NoArtifact, NotOneRow, and NotIntact if it has changed since."""
    place: object = row
    if getattr(row, "ndim", 1) > 1:
        rows = len(row)  # type: ignore[arg-type]  # a frame has rows
        raise NotOneRow(rows=counted(rows, "row"), name=name)
    if not isinstance(row, str | os.PathLike):
        place = row.get("artifacts_path") if hasattr(row, "get") else getattr(row, "artifacts_path", None)
    if not isinstance(place, str | os.PathLike):  # None, or NaN
        label = row.get("window_label") if hasattr(row, "get") else getattr(row, "window_label", None)
        raise NoArtifact(window=label or "this row", name=name, why="it has no result")
    path = Path(place, name)
    if not os.path.isfile(path):  # noqa: PTH113 - where it may not be looked for, an error
        raise NoArtifact(window=path.parent.name, name=name, why=f"{path} is missing")
    try:
        with directories.opened(path.parent) as directory:
            metadata = metadata_in(directory)
            listed = metadata.files.get(name) if metadata is not None else None
            if listed is not None and not artifacts.is_intact(directory, name, listed):
                raise NotIntact(path=path, why="it is not the file that metadata.json beside it lists")
    except OSError as error:
        raise NoArtifact(window=path.parent.name, name=name, why=f"{path.parent}: {error.strerror}") from None
    return path


def _as_written(pandas: str) -> dict[str, Any]:
    """The option by which this version of pandas reads numbers to the last bit; from 3.1 on it does so without one."""
    version = tuple(map(int, pandas.split(".")[:2]))
    return {"float_precision": "round_trip"} if version < (3, 1) else {}


def _table(path: Path, *more: str) -> pd.DataFrame:
    """The rows of a file, which has `ts`, and `more` columns. Raises NotIntact."""
    import pandas as pd

    try:
        with gzip.open(path) as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise NotIntact(path=path, why=f"it unpacks to more than {_MOST_BYTES >> 30} GiB")
        # NA is a symbol, too: only an empty field is a missing value.
        frame: pd.DataFrame = pd.read_csv(
            io.BytesIO(text),
            keep_default_na=False,
            na_values=[""],
            dtype={"ts": str, "symbol": str, "split": str},
            **_as_written(pd.__version__),
        )
        for name in ("ts", *more):
            if name not in frame:
                raise NotIntact(path=path, why=f"it has no column {name}")
        offsets = frame["ts"].str.extract(r"([+-]\d\d:\d\d(?::\d\d)?)$")[0].unique()
        frame["ts"] = pd.to_datetime(frame["ts"], format="ISO8601", utc=len(offsets) > 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise NotIntact(path=path, why=str(error).partition("\n")[0]) from None
    return frame
