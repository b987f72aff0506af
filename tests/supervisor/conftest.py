from tests.worker.conftest import fifo as fifo
