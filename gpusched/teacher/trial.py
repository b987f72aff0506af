"""`python -m gpusched.teacher.trial DEVICE_TYPE`: whether this LightGBM really trains on it, tried and not guessed.

Prints one JSON object: `trained`, the `version` of LightGBM, the `device` as OpenCL names it, and `why` not. It is a
process of its own, since a device that does not work may crash or hang whoever tries it.
"""

from __future__ import annotations

import json
import sys

from gpusched.teacher import opencl

ROWS, FEATURES = 256, 4


class _Log:
    """LightGBM's messages."""

    def __init__(self) -> None:
        self.text = ""

    def info(self, message: str) -> None:
        self.text += message + "\n"

    warning = info


def main(device_type: str) -> int:
    log = _Log()
    found: dict[str, object] = {"trained": False, "version": None, "device": None, "why": None}
    try:
        import lightgbm
        import numpy as np

        found["version"] = lightgbm.__version__
        lightgbm.register_logger(log)
        x = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
        params = {"objective": "binary", "device_type": device_type, "num_threads": 1, "verbosity": 1}
        lightgbm.train(params, lightgbm.Dataset(x, x[:, 0] > 0), num_boost_round=2)
        found["trained"] = True
    except Exception as error:  # whatever it is, it is the answer
        found["why"] = str(error).strip() or type(error).__name__
    found["device"] = opencl.device_named_in(log.text)
    print(json.dumps(found))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
