"""All that there is of a symbol: from the cache, or from its files and into the cache."""

from __future__ import annotations

import dataclasses
import logging

from gpusched.teacher import cache
from gpusched.teacher.bars import Bars
from gpusched.teacher.parsing import parse_csv
from gpusched.teacher.settings import Settings
from gpusched.teacher.sources import find_sources
from gpusched.workload import DataNote


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """Every bar of a symbol at one interval, and what is to be said about them."""

    bars: Bars
    #: the interval's name: as asked for, or as found where none was
    interval: str
    notes: tuple[DataNote, ...] = ()


def load_history(root: str, cache_dir: str, symbol: str, settings: Settings) -> History:
    """The history of `symbol`, by preference mapped from the cache.

    Raises NoData, BadData with `file:line`, OSError where a file could not be read, which says nothing about it.
    """
    sources = find_sources(root, symbol, settings.interval)
    path = cache.cache_path(cache_dir, root, symbol, settings.interval)
    digest = sources.digest()
    bars = cache.load(path, digest)
    if bars is None:
        if sources.paths[0].suffix == ".parquet":
            # pandas takes 0.6 s to import, and few data roots need it.
            from gpusched.teacher.parquet import parse_parquet

            bars = parse_parquet(sources.paths[0])
        else:
            bars = parse_csv(sources.paths)
        try:
            cache.save(path, digest, bars)
        except OSError as error:
            # Without a cache the window only takes longer.
            logging.getLogger(__name__).warning("cannot write the cache of bars: %s", error)
    return History(bars, settings.interval)
