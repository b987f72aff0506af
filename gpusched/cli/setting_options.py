"""Options of commands that stand for single settings of `config.toml`."""

from __future__ import annotations

#: options for single settings of `config.toml`: option → (setting, metavar or empty for a switch, help)
SETTING_OPTIONS = {
    "start": ("windows.start", "DATE", "first day, YYYY-MM-DD"),
    "end": ("windows.end", "DATE", "last day, YYYY-MM-DD"),
    "window_days": ("windows.days", "N", "calendar days of a window (180)"),
    "stride_days": ("windows.stride_days", "N", "days from a window's start to the start of the next (its length)"),
    "anchored": (
        "windows.anchored",
        "",
        "all windows begin on the first day, and each ends a stride later than the one before",
    ),
    "validation_days": (
        "split.validation_days",
        "N",
        "the last N days of each window validate (the last fifth of its rows)",
    ),
    "interval": ("data.interval", "NAME", "interval of the bars: a directory below the symbol's, such as 1d"),
    "horizon": ("labels.horizon", "BARS", "a label is made of the return over so many bars (7)"),
    "threshold": ("labels.threshold", "RETURN", "a forward return above it is labelled 1 (0.02)"),
    "workload": (
        "run.workload",
        "NAME",
        "your own function in place of the built-in training: package.module:function or ./file.py:function",
    ),
    "data_root": ("data.root", "DIR", "where the symbols' bars are (data)"),
    "workers": ("run.workers", "N", "so many windows at once at most; 0: as many as slots (0)"),
    "device": ("run.device", "TYPE", "cuda, gpu (OpenCL), cpu, mixed (all at once), or auto: the fastest (auto)"),
    "engine": ("engine.kind", "KIND", "local: this machine; ray: the nodes of a Ray cluster (local)"),
    "max_failure_rate": (
        "run.max_failure_rate",
        "SHARE",
        "share of the windows that may fail before the exit code is 1, such as 0.05 (0)",
    ),
}
#: the options of `train`, which trains one window
TRAIN_OPTIONS = ("workload", "interval", "horizon", "threshold", "data_root", "device")
