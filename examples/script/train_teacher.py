#!/usr/bin/env python3
"""Train a classifier on one symbol and one range of dates: a script as many have it, which knows nothing of gpusched.

It ends with exit code 2 where there is nothing to train on.
"""

import argparse
import json
import sys
from pathlib import Path

import lightgbm as lgb
import pandas as pd

parser = argparse.ArgumentParser()
parser.add_argument("--symbol", required=True)
parser.add_argument("--start", required=True)
parser.add_argument("--end", required=True)
parser.add_argument("--output-dir", required=True, type=Path)
parser.add_argument("--data", type=Path, default=Path("data"))
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=50)
options = parser.parse_args()

bars = pd.read_csv(options.data / f"{options.symbol}.csv", parse_dates=["Date"], index_col="Date")
bars = bars.loc[options.start : options.end]
if len(bars) < 60:
    print(f"only {len(bars)} bars of {options.symbol}", file=sys.stderr)
    sys.exit(2)

features = pd.DataFrame({f"return_{n}": bars.Close.pct_change(n) for n in (1, 2, 5, 10)})
features["volume"] = bars.Volume / bars.Volume.rolling(10).mean()
label = (bars.Close.shift(-5) > bars.Close).astype(int)
features, label = features[10:-5], label[10:-5]
split = int(len(features) * 0.8)

settings = {"objective": "binary", "metric": "auc", "num_threads": options.threads, "verbosity": -1, "seed": 1}
train = lgb.Dataset(features[:split], label[:split])
valid = lgb.Dataset(features[split:], label[split:])
model = lgb.train(settings | {"min_data_in_leaf": 5}, train, options.rounds, valid_sets=[valid], valid_names=["valid"])

options.output_dir.mkdir(parents=True, exist_ok=True)
model.save_model(options.output_dir / "model.txt")
label.to_csv(options.output_dir / "labels.csv")
auc = model.best_score["valid"]["auc"]
(options.output_dir / "metrics.json").write_text(json.dumps({"validation": {"auc": auc}, "rows": len(features)}))
print(f"{options.symbol} {options.start}..{options.end}: AUC {auc:.3f}")
