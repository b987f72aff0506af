"""The time that a window's function spends on imports; its launcher could make them once for all windows."""

from __future__ import annotations

import builtins
import time
from types import TracebackType
from typing import Any, Self

#: imports that take less are not worth a word
LEAST_S = 0.05


class ImportTimer:
    """Measures the time of all import statements that are executed within the context, nested ones once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._importing = False

    def __enter__(self) -> Self:
        self._import = builtins.__import__
        builtins.__import__ = self._timed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        builtins.__import__ = self._import

    def _timed(self, *arguments: Any, **keywords: Any) -> Any:
        if self._importing:
            return self._import(*arguments, **keywords)
        began = time.perf_counter()
        self._importing = True
        try:
            return self._import(*arguments, **keywords)
        finally:
            self._importing = False
            self.seconds += time.perf_counter() - began
