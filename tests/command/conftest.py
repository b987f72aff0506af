from __future__ import annotations

from tests.worker.conftest import fifo as fifo
