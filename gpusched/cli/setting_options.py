"""Options of commands that stand for single settings of `config.toml`."""

from __future__ import annotations

#: options for single settings of `config.toml`: option → (setting, metavar or empty for a switch, help)
SETTING_OPTIONS = {
    "start": ("windows.start", "DATE", "first day, YYYY-MM-DD"),
    "end": ("windows.end", "DATE", "last day, YYYY-MM-DD"),
    "window_days": ("windows.days", "N", "calendar days of a window (180)"),
    "stride_days": ("windows.stride_days", "N", "calendar days from a window's start to the next one's (its length)"),
    "anchored": ("windows.anchored", "", "all windows begin on the first day, each is a stride longer than the last"),
    "validation_days": ("split.validation_days", "N", "last days of each window that validate, in place of a share"),
    "interval": ("data.interval", "NAME", "interval of the bars: a directory below the symbol's, such as 1d"),
    "horizon": ("labels.horizon", "BARS", "bars that the label looks ahead (7)"),
    "threshold": ("labels.threshold", "RETURN", "a forward return above it is labelled 1 (0.02)"),
    "workload": ("run.workload", "NAME", "what a window runs: package.module:function or ./file.py:function"),
    "data_root": ("data.root", "DIR", "where the symbols' bars are (data)"),
    "workers": ("run.workers", "N", "windows that may run at once; 0: one per slot (0)"),
    "device": ("run.device", "TYPE", "auto, cuda, gpu, cpu or mixed (auto)"),
    "engine": ("engine.kind", "KIND", "local, or ray: the nodes of a Ray cluster (local)"),
    "max_failure_rate": ("run.max_failure_rate", "SHARE", "share of the windows that may fail (0)"),
}
#: the options of `train`, which trains one window
TRAIN_OPTIONS = ("workload", "interval", "horizon", "threshold", "data_root", "device")
