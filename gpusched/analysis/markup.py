"""Text as HTML. Everything that comes from a batch is untrusted: it is escaped here, and nowhere else."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Iterable, Sequence

from gpusched.client.drawing.plain import clean


def text(raw: str) -> str:
    """Escape text; plotly reads its labels as a subset of HTML, so it is right for them, too."""
    return html.escape(clean(raw))


def table(names: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "plain") -> str:
    head = "".join(f"<th>{text(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{text(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table class={kind}><tr>{head}</tr>{body}</table>"


def instant(at: float) -> str:
    """A time of the wall clock, in UTC, to the microsecond."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
