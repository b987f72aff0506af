"""Suffixes of files of bars."""

from __future__ import annotations

PARQUET = ".parquet"
#: of a file that is read where there are no others
TEXT = ".txt"
#: all of them, in any case
SUFFIXES = (".csv", ".csv.gz", TEXT, PARQUET)
#: of a file that holds all bars of a symbol, the preferred first
FLAT_SUFFIXES = (".csv", ".CSV", ".csv.gz", ".txt", ".TXT", PARQUET)
