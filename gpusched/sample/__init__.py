"""Real daily bars to try gpusched with: AAPL, FB, GOOG, IBM and MSFT, 2000 to 2013. See PROVENANCE.md."""

from __future__ import annotations

import itertools
import lzma
from pathlib import Path

from gpusched import files

SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
#: lines of ticker, date, open, high, low, close, volume; sorted
ARCHIVE = Path(__file__).with_name("daily.csv.xz")

_HEADER = "Date,Open,High,Low,Close,Volume\n"


def write_sample(directory: Path) -> list[str]:
    """Write `<directory>/data/<SYMBOL>.csv` for each of `SYMBOLS`, and return these.

    Each file is written whole or not at all; an existing one is replaced. Raises OSError.
    """
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    lines = lzma.decompress(ARCHIVE.read_bytes()).decode().splitlines(keepends=True)
    written = []
    for symbol, rows in itertools.groupby(lines, key=lambda line: line.partition(",")[0]):
        text = _HEADER + "".join(row.partition(",")[2] for row in rows)
        files.write_whole(data / f"{symbol}.csv", (text.encode(),), mode=0o644)
        written.append(symbol)
    return written
