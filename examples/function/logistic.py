"""A logistic regression on the last returns of a symbol: does it rise within the next days?"""

from dataclasses import dataclass
from pathlib import Path

import joblib
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from gpusched.workload import NoData, Report, Result, Task


@dataclass
class settings:
    c: float = 1.0
    lags: int = 5
    horizon: int = 3

    def __post_init__(self) -> None:
        if self.c <= 0:
            raise ValueError(f"c must be above 0, got {self.c}")


def train(task: Task, directory: Path, report: Report) -> Result:
    chosen: settings = task.settings
    path = Path(task.data_root, f"{task.symbol}.csv")
    close = pd.read_csv(path, index_col="Date", parse_dates=True).Close[str(task.start) : str(task.end)]
    returns = close.pct_change()
    features = pd.concat({lag: returns.shift(lag) for lag in range(chosen.lags)}, axis=1)
    known = features.notna().all(axis=1) & close.shift(-chosen.horizon).notna()
    x, y = features[known], (close.shift(-chosen.horizon) > close)[known]
    split = len(x) * 4 // 5
    if split < 20 or y[: split - chosen.horizon].nunique() < 2:
        raise NoData(f"{len(x)} usable rows, or one class")
    report("fit")
    model = LogisticRegression(C=chosen.c).fit(x[: split - chosen.horizon], y[: split - chosen.horizon])
    auc = float(roc_auc_score(y[split:], model.predict_proba(x[split:])[:, 1])) if y[split:].nunique() == 2 else None
    joblib.dump(model, directory / "model.joblib")
    return Result(
        metrics={"validation": {"auc": auc}},
        sample_counts={"train": split - chosen.horizon, "validation": len(x) - split},
        metadata={"coefficients": model.coef_[0].tolist()},
        phases={},
    )
