"""Which engine a configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpusched.config import Config
from gpusched.core.model import DeviceChoice
from gpusched.devices.kind import Discovery
from gpusched.devices.nvidia.gpus import look
from gpusched.engines.local.engine import LocalEngine

if TYPE_CHECKING:
    from gpusched.engines.ray.engine import RayEngine


def look_here(config: Config, wanted: DeviceChoice = "auto") -> Discovery:
    """The GPUs of this machine, if windows run on it. May block for seconds."""
    return look(wanted) if config.engine.kind == "local" else Discovery(devices=(), notes=())


def engine_of(
    config: Config, state_dir: Path, discovery: Discovery, *, mark: str | None = None, standing: bool = False
) -> LocalEngine | RayEngine:
    """An engine to be entered; `discovery`: the GPUs of this machine. `mark` and `standing`: see `LocalEngine`."""
    if config.engine.kind == "ray":
        from gpusched.engines.ray.engine import RayEngine  # a twelfth of a run's imports, and few need it

        return RayEngine(config, state_dir, mark=mark, standing=standing)
    return LocalEngine(config, state_dir, discovery, mark=mark, standing=standing)
