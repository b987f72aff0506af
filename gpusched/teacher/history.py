"""All bars of a symbol: from the cache, or from its files and into the cache."""

from __future__ import annotations

import logging

from gpusched.teacher import cache
from gpusched.teacher.bars import Bars
from gpusched.teacher.parsing import parse_csv
from gpusched.teacher.sources import find_sources


def load_history(root: str, cache_dir: str, symbol: str, interval: str) -> Bars:
    """Every bar of `symbol`, by preference mapped from the cache. Raises NoData, BadData with `file:line`, OSError."""
    sources = find_sources(root, symbol, interval)
    path = cache.cache_path(cache_dir, root, symbol, interval)
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
    return bars
