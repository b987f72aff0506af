"""Turn rows into bars that can be trusted: refuse bad data, and note doubtful data.

Refused are data in which more than one row in a hundred contradicts another row of its instant, and bars that are not
at the interval that their name gives. Anything else that a user should know before believing a model becomes a note.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gpusched.core.wording import counted
from gpusched.teacher import intervals
from gpusched.teacher.bars import (
    CONFLICTING,
    DAY_US,
    DUPLICATE,
    NAIVE,
    UNPRICED,
    Bars,
    History,
    Sifted,
    drop_reason,
    sift,
)
from gpusched.teacher.rows import Rows
from gpusched.workload import BadData, DataNote

#: greatest share of rows that may contradict another row of their instant
MOST_CONFLICTS = 0.01
#: a note is made of a close that is more than this many times the close of the day before, or less than 1 / JUMP times
JUMP = 1.5
#: bars up to which no note is made about an unusual interval
_MANY = 5
#: relative tolerance: adjusted prices are rounded one by one
_ROUNDING = 1e-6
#: most pairs of rows that are examined for the reason why they differ
_PAIRS = 200

#: a note is made if more than this share of the daily bars stands in the evening of UTC; those of London do in summer
_EVENINGS = 0.1

#: explains why rows of a file differ, given pairs of their lines; None if it finds no reason
Explain = Callable[[Path, Sequence[tuple[int, int]]], str | None]


def judge(paths: Sequence[Path], rows: Rows, interval: str | None, explain: Explain) -> History:
    """Make a history of rows. `interval` is measured if it is None: neither their directory nor the user names it.

    Raises BadData if no bars are left, if too many rows contradict each other, or if the bars are not at the interval.
    """
    rows, volume_notes = _with_volumes(rows)
    sifted = sift(rows.local, rows.offset, rows.values)
    notes = [*rows.notes, *volume_notes]
    dropped = _dropped(sifted.bars, len(rows))
    if len(rows) and not len(sifted.bars):
        where = paths[0] if len(paths) == 1 else paths[0].parent
        raise BadData(f"{where}: no bars: {'; '.join(note.text for note in dropped)}")
    _require_agreement(paths, rows, sifted, explain)
    if interval is None:
        bounds = intervals.measured_span(sifted.bars.instants())
        interval = intervals.short_name(bounds) if bounds else intervals.DEFAULT
        apart = f"{intervals.worded(bounds)} apart" if bounds else "at no common distance"
        if bounds != intervals.DAY and len(sifted.bars) > _MANY:
            notes.append(DataNote("interval", f"the bars are {apart}, --interval was not given"))
    else:
        bounds = intervals.span(interval)
        if bounds:
            _require_interval(paths, rows, sifted, interval, bounds)
        elif (bounds := intervals.measured_span(sifted.bars.instants())) and bounds != intervals.DAY:
            notes.append(DataNote("interval", f"the bars of {interval} are {intervals.worded(bounds)} apart"))
    if bounds == intervals.DAY and (np.diff(sifted.bars.local // DAY_US) == 0).any():
        sifted = sift(rows.local, rows.offset, rows.values, daily=True)
        _require_agreement(paths, rows, sifted, explain)
    notes += _dropped(sifted.bars, len(rows))
    notes += _repeated(rows, sifted)
    notes += _prices(sifted.bars)
    notes += _jumps(sifted.bars)
    if bounds == intervals.DAY:
        notes += _evenings(sifted.bars)
    return History(sifted.bars, interval, tuple(notes))


# -- refused -----------------------------------------------------------------------------------------------------------


def _require_agreement(paths: Sequence[Path], rows: Rows, sifted: Sifted, explain: Explain) -> None:
    """Raise BadData if too many rows of one instant differ, with the reason if one is found."""
    count = len(sifted.conflicts)
    if count <= MOST_CONFLICTS * len(rows):
        return
    pairs = [(int(a), int(b)) for a, b in zip(sifted.conflicts[:_PAIRS], sifted.winners[:_PAIRS], strict=True)]
    row, other = pairs[0]
    one, another = sorted((int(rows.file[row]), int(rows.file[other])))
    when = _moment(rows.local[row])
    if one != another:
        files = f"{paths[one].name}, {paths[another].name}"
        where = str(paths[one].parent)
        reason = f"two files overlap and differ: {files} (first at {when}): keep one of them"
    else:
        lines = [(int(rows.line[a]), int(rows.line[b])) for a, b in pairs if rows.file[a] == rows.file[b] == one]
        where = f"{paths[one]}:{max(lines[0])}"
        reason = explain(paths[one], lines) or f"lines {min(lines[0])} and {max(lines[0])} are both of {when}"
    unit = "instant" if rows.local[row] == rows.local[other] else "day"
    raise BadData(f"{where}: {count} of {len(rows)} rows differ from another one of the same {unit}: {reason}")


def _require_interval(paths: Sequence[Path], rows: Rows, sifted: Sifted, interval: str, wanted: intervals.Span) -> None:
    """Raise BadData if the bars of all files, or of one file, are not as far apart as the interval's name says."""
    instants, file = sifted.bars.instants(), rows.file[sifted.rows]
    where = str(paths[0] if len(paths) == 1 else paths[0].parent)
    measured = intervals.contradiction(instants, wanted)
    if len(paths) > 1:
        # A file of another interval may hide among the others if its bars lie between theirs, so each file is checked
        # by itself.
        order = np.argsort(file, kind="stable")
        ends = np.searchsorted(file[order], np.arange(len(paths)), side="right").tolist()
        for path, start, end in zip(paths, [0, *ends[:-1]], ends, strict=True):
            if foreign := intervals.contradiction(instants[order[start:end]], wanted):
                where, measured = str(path), foreign
                break
    if measured is not None:
        raise BadData(
            f"{where}: the bars are {intervals.worded(measured)} apart, but the interval {interval} means"
            f" {intervals.worded(wanted)}",
            remedy=f"give --interval {intervals.short_name(measured)}, or put them where they belong",
        )


# -- notes -------------------------------------------------------------------------------------------------------------


def _with_volumes(rows: Rows) -> tuple[Rows, list[DataNote]]:
    """Replace volumes that stand for "none" by zero: −1, and all of a column that has no numbers."""
    volume, count = rows.values[4], len(rows)
    marked = volume == -1
    if not count or any(note.kind == "volume" for note in rows.notes):
        return rows, []
    if np.isnan(volume).all():
        text, volume = f"none of the {count} rows has a volume: it is read as 0", np.zeros(count)
    elif marked.any():
        text = f"volume is -1 in {np.count_nonzero(marked)} of {count} rows: it is read as 0"
        volume = np.where(marked, 0.0, volume)
    elif not volume.any():
        text = f"volume is 0 in all {count} rows"
    else:
        return rows, []
    values = np.concatenate([rows.values[:4], [volume]])
    return dataclasses.replace(rows, values=values), [DataNote("volume", text)]


def _dropped(bars: Bars, total: int) -> list[DataNote]:
    """Notes on rows that cannot be bars, by reason, the commonest first."""
    invalid = bars.dropped_code < DUPLICATE
    codes, counts = np.unique(bars.dropped_code[invalid], return_counts=True)
    notes = []
    for code, count in sorted(zip(codes.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])[:4]:
        rows = f"{counted(count, 'row')}, all" if count == total else f"{count} of {total} rows"
        first = "" if count == total else f" (first on {_date(bars.dropped_local[bars.dropped_code == code].min())})"
        kind = "prices" if code == UNPRICED else "dropped"
        notes.append(DataNote(kind, f"{rows} dropped: {drop_reason(code)}{first}"))
    return notes


def _repeated(rows: Rows, sifted: Sifted) -> list[DataNote]:
    notes = []
    codes = sifted.bars.dropped_code
    if count := int(np.count_nonzero(codes & DUPLICATE)):
        first = _moment(sifted.bars.dropped_local[codes & DUPLICATE > 0].min())
        rows_are = counted(count, "row is", "rows are")
        notes.append(DataNote("duplicates", f"{rows_are} there twice (first {first})"))
    if count := int(np.count_nonzero(codes & CONFLICTING)):
        shown = ", ".join(_moment(rows.local[row]) for row in sifted.conflicts[:3]) + (", …" if count > 3 else "")
        differ = counted(count, "conflicting row differs", "conflicting rows differ")
        text = f"{differ} from another one of the same instant; the last is kept: {shown}"
        notes.append(DataNote("conflicts", text))
    return notes


def _prices(bars: Bars) -> list[DataNote]:
    """A note on highs and lows that do not enclose the other prices."""
    low = np.minimum(bars.open, bars.close) * (1 + _ROUNDING)
    high = np.maximum(bars.open, bars.close) * (1 - _ROUNDING)
    wrong = (bars.low > low) | (bars.high < high) | (bars.high < bars.low * (1 - _ROUNDING))
    count = int(np.count_nonzero(wrong))
    if not count:
        return []
    reversed_ = int(np.count_nonzero(bars.high < bars.low * (1 - _ROUNDING)))
    crossed = f", in {reversed_} of them the high is below the low" if reversed_ else ""
    text = f"high and low do not enclose open and close in {count} of {len(bars)} rows{crossed}"
    return [DataNote("ohlc", f"{text} (first on {_date(bars.local[wrong.argmax()])})")]


def _jumps(bars: Bars) -> list[DataNote]:
    """A note on closes that are far from the close of the day before, as an unadjusted split leaves them."""
    day = bars.local // DAY_US
    with np.errstate(over="ignore"):
        ratio = bars.close[1:] / bars.close[:-1]
    jumps = np.flatnonzero((day[1:] != day[:-1]) & ((ratio > JUMP) | (ratio < 1 / JUMP)))
    if not len(jumps):
        return []
    shown = [
        f"{'×' if ratio[at] > 1 else '÷'} {max(ratio[at], 1 / ratio[at]):.3g} on {_date(bars.local[at + 1])}"
        for at in jumps[:3].tolist()
    ]
    more = f" and {len(jumps) - 3} more: splits?" if len(jumps) > 3 else ": splits?" if len(jumps) > 1 else ": a split?"
    return [DataNote("jumps", f"close {', '.join(shown)}{more}")]


def _evenings(bars: Bars) -> list[DataNote]:
    """A note on daily bars stamped with an hour of UTC at which the next day has probably begun at their exchange."""
    clock = bars.local % DAY_US
    if len(bars) and (bars.offset < 0).all() and (bars.offset != NAIVE).all() and not (bars.instants() % DAY_US).any():
        text = (
            "the daily bars stand at midnight UTC, which is the day before at the exchange: if they are of whole days"
        )
        return [DataNote("timezone", f"{text}, leave data.timezone out")]
    evening = clock > DAY_US // 2
    if (bars.offset != 0).any() or np.count_nonzero(evening) <= _EVENINGS * len(bars):
        return []
    hours, counts = np.unique(clock[evening], return_counts=True)
    hour = int(hours[counts.argmax()])
    minutes = hour // 60_000_000
    text = (
        f"the daily bars stand at {minutes // 60:02}:{minutes % 60:02} UTC: if that is midnight at the exchange, their"
        ' dates are a day early; set data.timezone, such as "Asia/Kolkata"'
    )
    return [DataNote("timezone", text)]


def _date(local_us: np.int64) -> str:
    return str(np.datetime64(int(local_us), "us").astype("M8[D]"))


def _moment(local_us: np.int64) -> str:
    """A date, and its time of day unless that is midnight."""
    if int(local_us) % DAY_US == 0:
        return _date(local_us)
    return str(np.datetime64(int(local_us), "us").astype("M8[s]")).replace("T", " ")
