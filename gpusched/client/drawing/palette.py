"""One colour for each status, wherever it is shown: a style of the terminal, and a colour of the report."""

from __future__ import annotations

#: outcome → style, colour
_OUTCOMES = {
    "succeeded": ("green", "#2f9e6e"),
    "reused": ("cyan", "#3aa5c4"),
    "skipped": ("yellow", "#c9a227"),
    "failed": ("bold red", "#d64545"),
    "timed_out": ("bold red", "#e07b39"),
    "cancelled": ("yellow", "#8a8f98"),
    "lost": ("bold magenta", "#a04fb0"),
}
#: the kind of a bar for an attempt that another one followed
RETRIED = "retried"
#: colours of the report
COLOURS = {outcome: colour for outcome, (_, colour) in _OUTCOMES.items()} | {RETRIED: "#efb0b0"}
#: styles of statuses of windows, of states of batches and of healths of devices; a name that is not here has none
STYLES = {outcome: style for outcome, (style, _) in _OUTCOMES.items()} | {
    "queued": "dim",
    "held": "yellow",
    "starting": "bold",
    "running": "bold",
    "stopping": "yellow",
    "finished": "green",
    "draining": "yellow",
    "trying": "yellow",
    "suspect": "bold red",
    "quarantined": "bold red",
}
