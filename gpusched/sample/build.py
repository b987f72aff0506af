"""Rebuild `daily.csv.xz` from an installed bokeh_sampledata: `python -m gpusched.sample.build`. See PROVENANCE.md."""

from __future__ import annotations

import csv
import gzip
import importlib.resources
import lzma

from gpusched.sample import ARCHIVE


def main() -> None:
    """Drop the adjusted close and the noise of floating point in the prices; sort by ticker and date."""
    source = importlib.resources.files("bokeh_sampledata") / "_data" / "stocks.csv.gz"
    rows = csv.DictReader(gzip.decompress(source.read_bytes()).decode().splitlines())
    lines = sorted(
        ",".join(
            (row["Ticker"], row["Date"], *(_short(row[name]) for name in ("Open", "High", "Low", "Close", "Volume")))
        )
        for row in rows
    )
    text = "".join(f"{line}\n" for line in lines)
    ARCHIVE.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def _short(number: str) -> str:
    return f"{float(number):.10g}"


if __name__ == "__main__":
    main()
