"""Load every bar of a symbol: from the cache, or else from its files, and then into the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from gpusched.teacher import cache, parsing
from gpusched.teacher.bars import History
from gpusched.teacher.quality import judge
from gpusched.teacher.rows import Reading, Rows, join, require_one_clock, require_one_symbol
from gpusched.teacher.schema import Settings
from gpusched.teacher.sources import Sources, find_sources
from gpusched.teacher.suffixes import PARQUET
from gpusched.workload import BadData


def load_history(root: str, cache_dir: str, symbol: str, settings: Settings) -> History:
    """Return the history of `symbol`, mapped from the cache if that is valid.

    Raises NoData, BadData with `file:line`, OSError if a file could not be read, which proves nothing about its
    content.
    """
    reading = Reading(
        symbol=symbol,
        columns=settings.columns,
        timezone=settings.timezone,
        date_format=settings.date_format,
        decimal=settings.decimal,
    )
    sources = find_sources(root, symbol, settings.interval)
    path = cache.cache_path(cache_dir, root, symbol, settings.interval)
    digest = sources.digest(reading)
    history = cache.load(path, digest)
    if history is None:
        history = _parse(sources, reading)
        try:
            cache.save(path, digest, history)
        except OSError as error:
            import logging  # no window that has its cache needs it

            # Without a cache the window only takes longer.
            logging.getLogger(__name__).warning("cannot write the cache of bars: %s", error)
    if settings.strict and history.notes:
        raise BadData(
            f"{sources.directory}: data.strict refuses {symbol}: {'; '.join(note.text for note in history.notes)}",
            remedy="mend the data, or set data.strict = false",
        )
    return history


class _Format(Protocol):
    """A module for files of one format."""

    def parse(self, paths: Sequence[Path], reading: Reading) -> Rows: ...

    def explain(self, path: Path, pairs: Sequence[tuple[int, int]], reading: Reading) -> str | None: ...


def _format_of(path: Path) -> _Format:
    if not path.name.lower().endswith(PARQUET):
        return parsing
    from gpusched.teacher import parquet  # pandas takes 0.6 s to import, and few data roots need it

    return parquet


def _parse(sources: Sources, reading: Reading) -> History:
    paths = sources.paths
    formats: dict[_Format, list[int]] = {}
    for number, path in enumerate(paths):
        formats.setdefault(_format_of(path), []).append(number)
    rows = join([_rows(format_, paths, members, reading) for format_, members in formats.items()])
    require_one_symbol(paths, rows)
    if reading.timezone:
        from gpusched.teacher.zones import at_exchange  # slow to import, and few data need it

        rows = at_exchange(rows, reading.timezone)
    else:
        require_one_clock(paths, rows)
    judged = judge(paths, rows, sources.interval, lambda path, pairs: _format_of(path).explain(path, pairs, reading))
    return dataclasses.replace(judged, notes=(*sources.notes, *judged.notes))


def _rows(format_: _Format, paths: Sequence[Path], members: Sequence[int], reading: Reading) -> Rows:
    """Read files of one format; the rows carry the files' numbers in `paths`."""
    rows = format_.parse([paths[number] for number in members], reading)
    symbols = {name: members[number] for name, number in rows.symbols.items()}
    return dataclasses.replace(rows, file=np.array(members, np.int64)[rows.file], symbols=symbols)
