"""`load_results`: the results of a batch as a data frame, for notebooks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpusched.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

INDEX = "teacher_runs.json"


class NoResults(InputError):
    problem = "there are no results in {path}: {why}"
    remedy = "name a batch directory, which `gpusched run` prints, or its teacher_runs.json"


def load_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The windows of a batch, one row each, in the order in which they finished.

    `path` is the batch's directory or its `teacher_runs.json`. Columns are those of the index, with nested ones
    flattened: `start` and `end` (datetime64), `validation_auc` and the other metrics, `train_rows` and the other
    counts. Missing values are NaN, NaT or None. An incomplete last line is left out. Raises NoResults.
    """
    import pandas as pd

    index = Path(path)
    if index.is_dir():
        index /= INDEX
    try:
        text = index.read_text(encoding="utf-8")
    except OSError as error:
        raise NoResults(path=path, why=error.strerror or error) from None
    whole, _, _ = text.rpartition("\n")
    try:
        rows = [_flat(json.loads(line)) for line in whole.splitlines()]
    except (ValueError, AttributeError) as error:
        raise NoResults(path=path, why=f"it is not an index ({error})") from None
    frame = pd.DataFrame(rows)
    for name in ("start", "end", "started_at"):
        if name in frame:
            frame[name] = pd.to_datetime(frame[name], utc=name == "started_at", format="ISO8601")
    return frame


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """Flatten a line of the index: metrics become `<part>_<name>`, counts `<part>_rows`."""
    row: dict[str, Any] = {}
    for name, value in line.items():
        match name, value:
            case "date_range", dict():
                row |= value
            case "metrics", dict():
                for part, metric in value.items():
                    row |= (
                        {f"{part}_{key}": v for key, v in metric.items()}
                        if isinstance(metric, dict)
                        else {part: metric}
                    )
            case "sample_counts", dict():
                row |= {f"{part}_rows": count for part, count in value.items()}
            case (("date_range" | "metrics" | "sample_counts"), _):
                pass
            case "settings", dict():
                row |= value
            case "data_notes", list():
                row[name] = "; ".join(note["text"] for note in value)
            case "error", dict():
                row["error"] = value.get("message")
            case _:
                row[name] = value
    return row
