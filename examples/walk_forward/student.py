"""Students of a walk-forward: for each window a small model that learns the probabilities of its symbol's teachers.

Every bar of a window was predicted by one teacher that had never seen it. The student learns these probabilities from
the features of the same bars, up to the last fifth, on which it is measured with the true labels, beside its teachers.
"""

from dataclasses import dataclass
from pathlib import Path

import lightgbm as lgb
import pandas as pd

from gpusched.results import load_labels, load_predictions, load_results
from gpusched.workload import NoData, Report, Result, Task


@dataclass
class settings:
    leaves: int = 7
    rounds: int = 60
    #: bars that are left out before the last fifth: as many as the teachers' labels look ahead
    horizon: int = 3


def taught(task: Task) -> pd.DataFrame:
    """The bars of the window with their features, labels, and the probability of the teacher that had not seen them."""
    teachers = load_results([Path(index).parent for index in task.after])
    mine = teachers[(teachers.symbol == task.symbol) & (teachers.outcome == "succeeded")]
    inside = mine[(mine.end >= str(task.start)) & (mine.start <= str(task.end))]
    lessons = [pd.DataFrame()]
    for _, teacher in inside.iterrows():
        unseen = load_predictions(teacher).query("split == 'validation'")[["ts", "probability"]]
        lessons.append(load_labels(teacher).merge(unseen, on="ts"))
    bars = pd.concat(lessons, ignore_index=True)
    if bars.empty:
        raise NoData(f"no teacher of {task.symbol} predicts a bar between {task.start} and {task.end}")
    day = bars.ts.dt.date
    return bars[(day >= task.start) & (day <= task.end)].drop_duplicates("ts").sort_values("ts", ignore_index=True)


def auc(label: pd.Series, score: pd.Series) -> float | None:
    """The probability that a bar with label 1 scores higher than one with label 0; None without both."""
    ones = label == 1
    if ones.all() or not ones.any():
        return None
    above = score.rank()[ones].sum() - ones.sum() * (ones.sum() + 1) / 2
    return float(above / (ones.sum() * (~ones).sum()))


def train(task: Task, directory: Path, report: Report) -> Result:
    report("lessons")
    bars = taught(task)
    split = len(bars) * 4 // 5
    if split < 40:
        raise NoData(f"only {len(bars)} bars that a teacher has predicted")
    unused = ["ts", "symbol", "open", "high", "low", "close", "volume", "label", "forward_return", "probability"]
    features = bars.drop(columns=unused)
    first, last = slice(0, split - task.settings.horizon), slice(split, None)
    report("train")
    fixed = {"objective": "cross_entropy", "num_threads": task.threads, "verbosity": -1, "deterministic": True}
    chosen = fixed | {"num_leaves": task.settings.leaves, "min_data_in_leaf": 5}
    model = lgb.train(chosen, lgb.Dataset(features[first], bars.probability[first]), task.settings.rounds)
    model.save_model(directory / "model.txt")
    unseen = bars[last].assign(student=model.predict(features[last]))
    unseen[["ts", "label", "probability", "student"]].to_csv(directory / "student.csv", index=False)
    worth = {"auc": auc(unseen.label, unseen.student), "teachers_auc": auc(unseen.label, unseen.probability)}
    return Result(
        metrics={"validation": worth},
        sample_counts={"train": split - task.settings.horizon, "validation": len(bars) - split},
        metadata={"teachers": len(task.after)},
        phases={},
    )
