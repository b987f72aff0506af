"""The importance of features for one model, from its `feature_importance.csv`: a file that anybody may have written."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from gpusched import directories, files

FILE = "feature_importance.csv"
#: a larger file is no list of features
MOST_BYTES = 1 << 20


def look_at_importances(directory: Path) -> dict[str, float]:
    """Features and their shares of the gain, the largest first; empty where there is no such file, or no gain."""
    try:
        with directories.opened(directory) as within, files.regular(FILE, within, follow=True) as file:
            text = file.read(MOST_BYTES).decode("utf-8", "replace")
        gains = {str(row["feature"]): float(row["gain"]) for row in csv.DictReader(text.splitlines())}
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        return {}
    whole = sum(gains.values())
    if not 0 < whole < math.inf or min(gains.values()) < 0:
        return {}
    return {name: gains[name] / whole for name in sorted(gains, key=gains.__getitem__, reverse=True)}
