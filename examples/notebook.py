"""A session as in a notebook: hand a batch to the daemon, wait for it, look at what came of it.

gpusched daemon &    # unless it runs as a service
python examples/notebook.py
"""

# %% Real daily bars of five symbols, which come with gpusched
from pathlib import Path

import gpusched
from gpusched.sample import write_sample

here = Path("gpusched-notebook").absolute()
symbols = [symbol for symbol in write_sample(here) if symbol != "FB"]  # which was not listed yet

# %% Two years in windows of 180 days. The same cell again is the same batch: nothing is trained twice
batch = gpusched.submit(
    symbols,
    start="2007-01-01",
    end="2008-12-31",
    output=here / "results",
    settings={"data.root": here / "data", "lightgbm.num_leaves": 15, "lightgbm.min_data_in_leaf": 10},
)
print(batch, batch.status().counts)

# %% Other cells may be run meanwhile, and the notebook may be closed
status = batch.wait(timeout=300)
print(status.state, status.counts)

# %% A row per window
frame = batch.results()
trained = frame[frame.status == "success"]
print(trained.groupby("symbol").validation_auc.agg(["count", "mean", "std"]).round(3))
print(f"{int(trained.constant.sum())} of {len(trained)} models predict a constant")

# %% From a row to its model and its predictions
best = trained.loc[trained.validation_auc.idxmax()]
model = gpusched.load_model(best)
predictions = gpusched.load_predictions(best)
seen = predictions[predictions.split == "validation"]
print(f"{best.window_label}: {model.num_trees()} trees, AUC {best.validation_auc:.3f} on {len(seen)} rows")
print(seen.tail(3).to_string(index=False))
