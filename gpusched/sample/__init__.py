"""Real daily bars to try gpusched with: AAPL, FB, GOOG, IBM and MSFT, 2000 to 2013. See PROVENANCE.md."""

from __future__ import annotations

import itertools
import lzma
import os
import tempfile
from pathlib import Path

SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
#: lines of ticker, date, open, high, low, close, volume; sorted
ARCHIVE = Path(__file__).with_name("daily.csv.xz")

_HEADER = "Date,Open,High,Low,Close,Volume\n"


def write_sample(directory: Path) -> list[str]:
    """Write `<directory>/data/<SYMBOL>.csv` for each of `SYMBOLS`, which it returns.

    Each file is there whole or not at all; one that was there before is replaced. Raises OSError.
    """
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    lines = lzma.decompress(ARCHIVE.read_bytes()).decode().splitlines(keepends=True)
    written = []
    for symbol, rows in itertools.groupby(lines, key=lambda line: line.partition(",")[0]):
        _write(data / f"{symbol}.csv", _HEADER + "".join(row.partition(",")[2] for row in rows))
        written.append(symbol)
    return written


def _write(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
