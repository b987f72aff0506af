"""A bar chart, in a file."""

from __future__ import annotations

from pathlib import Path


def bar_chart(values: dict[str, float], title: str, path: Path) -> None:
    """Draw one horizontal bar for each value, the first on top. Needs matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "gpusched"  # the same picture for the same values
    figure = Figure(figsize=(8, 0.7 + 0.3 * len(values)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(values), list(values.values()))
    for bar, name in zip(bars, values, strict=True):
        bar.set_color("#2a7f62" if name.startswith("gpusched") else "#9aa5b1")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_title(title, fontsize="medium")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    figure.savefig(path, metadata={"Date": None})
