"""One Ray cluster for all tests of this directory that need it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.clusters import head


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster. Its directory has a short name: Ray makes sockets below it."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as name, head(Path(name)) as address:
        yield address
