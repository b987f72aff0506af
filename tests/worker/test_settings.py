"""Settings are made and checked by the workload's own functions, in a process forked for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpusched.config import BadValue, Cache, Config
from gpusched.devices.kind import Discovery
from gpusched.engines.engine import Engine
from gpusched.engines.local.engine import LocalEngine
from gpusched.supervisor.settings import SettingsUnchecked, check_settings
from gpusched.worker.settings import made_settings, plain_settings
from gpusched.workload import BadParameters
from tests.worker.support import bench

FUNCTION = """
from gpusched.workload import Result

class Settings:
    def __init__(self, alpha=0.5):
        self.alpha = alpha

def settings(raw):
    made = Settings(**raw)
    if made.alpha <= 0:
        raise ValueError(f"alpha must be above 0, got {made.alpha}")
    return made

def check_settings(settings):
    if settings.alpha == 7:
        raise RuntimeError("alpha is out of memory")
    if settings.alpha == 9:
        import os
        os._exit(3)

of_c = str

def of_a_task(task): ...

def of_more(task, directory, report, context): ...

def train(task, directory, report):
    return Result(metrics={"alpha": task.settings.alpha}, sample_counts={}, metadata={}, phases={})
"""

DATACLASS = """
from dataclasses import dataclass
from pathlib import Path

@dataclass
class Settings:
    alpha: float = 0.5
    kind: str = "ridge"
    table: Path = Path("holidays.csv")

settings = Settings

def train(task, directory, report): ...
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, text in (("settings_function", FUNCTION), ("settings_dataclass", DATACLASS)):
        (tmp_path / f"{name}.py").write_text(text)


def machine(directory: Path) -> LocalEngine:
    return LocalEngine(Config(cache=Cache(dir=directory / "cache")), directory, Discovery(devices=(), notes=()))


async def refusal(engine: Engine, workload: str, *settings: dict[str, Any], **origins: str) -> str:
    with pytest.raises((BadValue, SettingsUnchecked)) as caught:
        await check_settings(engine, workload, settings, log="settings.log", origins=origins)
    return str(caught.value)


async def test_refusals_name_the_setting_and_its_origin(tmp_path: Path) -> None:
    own = "settings_function:train"
    async with machine(tmp_path) as engine:
        await check_settings(engine, own, [{}, {"alpha": 0.1}], log="settings.log", origins={})
        origins = {"workload.alpha": "config.toml:3"}
        said = await refusal(engine, own, {}, {"alpha": -1}, **origins)
        assert said.startswith("config.toml:3: workload.alpha: alpha must be above 0, got -1\n")
        assert "unexpected keyword argument 'beta'" in await refusal(
            engine, own, {"beta": 1}, **{"workload.beta": "--set"}
        )
        assert "workload.alpha: RuntimeError: alpha is out of memory" in await refusal(engine, own, {"alpha": 7})
        assert "the process that tried ended with exit code 3" in await refusal(engine, own, {"alpha": 9})


@pytest.mark.parametrize(
    ("function", "why"),
    [("of_a_task", "too many positional arguments"), ("of_more", "missing a required argument: 'context'")],
)
async def test_a_function_of_other_parameters_is_refused(tmp_path: Path, function: str, why: str) -> None:
    """Each of its windows failed, twice."""
    async with machine(tmp_path) as engine:
        said = await refusal(engine, f"settings_function:{function}", {})
        assert f"cannot take (task, directory, report): {why}" in said
        await check_settings(engine, "settings_function:of_c", [{}], log="settings.log", origins={})


async def test_the_built_in_workload_asks_lightgbm(tmp_path: Path) -> None:
    own = "gpusched.teacher:train_window"
    async with machine(tmp_path) as engine:
        good = {"lightgbm": {"num_leaves": 31, "boosting": "dart", "monotone_constraints": [1] * 15}}
        await check_settings(engine, own, [{}, good], log="settings.log", origins={})
        origins = {"lightgbm.num_leaves": "--set"}
        said = await refusal(engine, own, good, {"lightgbm": {"num_leaves": 1}}, **origins)
        assert said.startswith(
            "--set: lightgbm.num_leaves: LightGBM refuses its parameters: Check failed: (num_leaves) >"
        )
        assert ".cpp" not in said
        said = await refusal(engine, own, {"lightgbm": {"num_leaves": "many"}}, **origins)
        assert 'num_leaves should be of type int, got "many"' in said
        for wide in (4294967303, "4294967303"):
            said = await refusal(engine, own, {"lightgbm": {"num_leaves": wide, "lambda_l1": 5_000_000_000}}, **origins)
            assert "num_leaves: its whole numbers have 32 bits, so 4294967303 would count as 7" in said


async def test_a_window_gets_the_settings_that_were_made(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.run("settings_function:train")
        metadata = json.loads((b.output / "SYM_2022-01-01_to_2022-06-30" / "metadata.json").read_text())
        assert metadata["metrics"] == {"alpha": 0.5}
        assert metadata["workload_settings"] == {"alpha": 0.5}


def test_a_class_takes_its_own_keys_and_types() -> None:
    own = "settings_dataclass:train"
    assert plain_settings(made_settings(own, {"alpha": 1})) == {"alpha": 1.0, "kind": "ridge", "table": "holidays.csv"}
    assert made_settings(own, {"table": "/srv/days.csv"}).table == Path("/srv/days.csv")
    with pytest.raises(BadParameters, match="there is no setting 'kin'; did you mean 'kind'"):
        made_settings(own, {"kin": "ridge"})
    with pytest.raises(BadParameters, match=r"^alpha: expected float, got str$"):
        made_settings(own, {"alpha": "high"})
    with pytest.raises(BadParameters, match=r"^table: expected Path, got int$"):
        made_settings(own, {"table": 3})


def test_without_a_function_settings_stay_as_they_are() -> None:
    assert made_settings("os.path:join", {"any": [1]}) == {"any": [1]}
