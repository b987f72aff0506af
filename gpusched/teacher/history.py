"""Load every bar of a symbol: from the cache, or else from its files, and then into the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

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


def _parse(sources: Sources, reading: Reading) -> History:
    paths = sources.paths
    rows = join([_rows(paths, members, reading) for members in _by_format(paths)])
    require_one_symbol(paths, rows)
    if reading.timezone:
        from gpusched.teacher.zones import at_exchange  # slow to import, and few data need it

        rows = at_exchange(rows, reading.timezone)
    else:
        require_one_clock(paths, rows)

    def explain(path: Path, pairs: Sequence[tuple[int, int]]) -> str | None:
        if not _is_parquet(path):
            return parsing.explain(path, pairs, reading)
        from gpusched.teacher import parquet

        return parquet.explain(path, pairs, reading)

    judged = judge(paths, rows, sources.interval, explain)
    return dataclasses.replace(judged, notes=(*sources.notes, *judged.notes))


def _by_format(paths: Sequence[Path]) -> list[list[int]]:
    """The numbers of the text files and of the Parquet files; a format without files is left out."""
    formats: dict[bool, list[int]] = {}
    for number, path in enumerate(paths):
        formats.setdefault(_is_parquet(path), []).append(number)
    return list(formats.values())


def _rows(paths: Sequence[Path], members: Sequence[int], reading: Reading) -> Rows:
    """Read files of one format; the rows carry the files' numbers in `paths`."""
    chosen = [paths[number] for number in members]
    if _is_parquet(chosen[0]):
        # pandas takes 0.6 s to import, and few data roots need it.
        from gpusched.teacher.parquet import parse_parquet

        rows = parse_parquet(chosen, reading)
    else:
        rows = parsing.parse_csv(chosen, reading)
    symbols = {name: members[number] for name, number in rows.symbols.items()}
    return dataclasses.replace(rows, file=np.array(members, np.int64)[rows.file], symbols=symbols)


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(PARQUET)
