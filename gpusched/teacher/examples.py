"""The examples of a window, or the reason why it cannot be trained: the same answer for the survey and the training."""

from __future__ import annotations

import datetime as dt

import msgspec
import numpy as np

from gpusched.core.wording import counted
from gpusched.teacher import split
from gpusched.teacher.bars import Bars, Floats, drop_reason
from gpusched.teacher.labels import Labels, forward_returns, labels, usable_rows
from gpusched.teacher.schema import Settings
from gpusched.workload import NoData

#: remedy for too few rows
LONGER = "give longer windows (--window-days), or a smaller training.min_rows"

#: remedy where no row has a label, or the rows before the validation all reach into it
NEARER = "give longer windows (--window-days), or a smaller --horizon"

#: remedies where the days that validate are the whole window, and where none of their rows has a label
FEWER_DAYS = "give longer windows (--window-days), or fewer days that validate (--validation-days)"
MORE_DAYS = "give more days that validate (--validation-days): the last `horizon` bars have no label"

#: remedy where the share of the rows that validates comes to no row
OTHER_SHARE = "give longer windows (--window-days), or another split.validation_fraction"


class Examples(msgspec.Struct, frozen=True):
    """n bars of a window, the first u of which have a label."""

    bars: Bars
    #: (u,) forward returns
    returns: Floats
    #: (u,) whether the forward return is above the threshold
    labels: Labels
    #: row numbers below u
    split: split.Split

    def counts(self) -> dict[str, int]:
        """The numbers of rows by their use."""
        train, validation = self.split.train, self.split.validation
        return {
            "bars": len(self.bars),
            "usable": len(self.labels),
            "train": len(train),
            "train_positive": int(self.labels[train].sum()),
            "validation": len(validation),
            "validation_positive": int(self.labels[validation].sum()),
            "purged": len(self.labels) - len(train) - len(validation),
        }


def window_examples(history: Bars, bars: Bars, start: dt.date, end: dt.date, settings: Settings) -> Examples:
    """Make examples of `bars`, which are the bars of `history` from `start` to `end`.

    Raises NoData, with the reason, if a model could not be trained on them or would be worthless.
    """
    if not len(bars):
        raise NoData(
            f"no data: there are no bars from {start} to {end} ({_dropped(bars) or _covered(history)})",
            remedy="give --start and --end within the dates of the data" if len(history) else "fetch the data again",
        )
    usable = usable_rows(len(bars), settings.horizon)
    if usable < settings.min_rows:
        raise NoData(
            f"too few rows: {usable} of the {settings.min_rows} that are needed"
            f" ({len(bars)} bars, the last {settings.horizon} of which have no label)",
            remedy=LONGER if usable else NEARER,
        )
    returns = forward_returns(bars.close, settings.horizon)
    rises = labels(returns, settings.threshold)
    if settings.split == "random":
        parts = split.random(rises, settings.validation_fraction, settings.lightgbm["seed"])
    elif settings.validation_days:
        parts = split.at(min(bars.first_from(_tail(end, settings)), usable), usable, settings.horizon)
    else:
        parts = split.chronological(usable, settings.validation_fraction, settings.horizon)
    if not len(parts.train) or not len(parts.validation):
        raise NoData(
            f"too few rows: {usable} leave {len(parts.train)} to train on and {len(parts.validation)} to validate with"
            f" ({_validation(end, settings)}, horizon {settings.horizon})",
            remedy=_remedy(parts, settings),
        )
    _check_both_classes(rises[parts.train], settings)
    return Examples(bars, returns, rises, parts)


def _remedy(parts: split.Split, settings: Settings) -> str:
    """The remedy for a split with an empty part."""
    if settings.split == "random":
        return OTHER_SHARE
    if settings.validation_days:
        return MORE_DAYS if len(parts.train) else FEWER_DAYS
    return NEARER


def _tail(end: dt.date, settings: Settings) -> dt.date:
    """The first day of the days that validate."""
    return dt.date.fromordinal(max(1, end.toordinal() - settings.validation_days + 1))


def _validation(end: dt.date, settings: Settings) -> str:
    if settings.validation_days:
        return f"the {settings.validation_days} days from {_tail(end, settings)} validate"
    return f"validation_fraction {settings.validation_fraction}"


def _check_both_classes(train: Labels, settings: Settings) -> None:
    """Raise NoData if all labels are equal: LightGBM would return a constant, and it would count as a success."""
    if train.all() or not train.any():
        which, side = (1, "above") if train.all() else (0, "at or below")
        bars = counted(settings.horizon, "bar")
        raise NoData(
            f"one class: all {len(train)} training labels are {which}, every forward return over {bars}"
            f" is {side} the threshold {settings.threshold}",
            remedy="give another --threshold or --horizon",
        )


def _dropped(bars: Bars) -> str:
    """The reasons why the rows of a window without bars were dropped; empty if it has no rows at all."""
    codes, counts = np.unique(bars.dropped_code, return_counts=True)
    return "; ".join(
        f"{counted(count, 'row')} dropped: {drop_reason(code)}"
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
    )


def _covered(history: Bars) -> str:
    dates = history.dates()
    return f"the data goes from {dates[0]} to {dates[1]}" if dates else "its files hold no bars"
