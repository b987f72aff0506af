"""A configuration of a text, of an environment and of flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpusched.config import (
    Loaded,
    load,
)


def loaded(
    *flags: str, text: str | None = None, environ: Mapping[str, str] | None = None, at: str = "config.toml"
) -> Loaded:
    """The configuration made of a file with this text, of an environment and of flags `section.key=value`."""
    path = None
    if text is not None:
        path = Path(at).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    triples = [(key, value, "--set") for key, _, value in (flag.partition("=") for flag in flags)]
    return load(path=path, flags=triples, environ=environ or {})
