"""The settings, the origin of each value, and the errors of impossible values."""

from __future__ import annotations

import datetime as dt
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched.config import (
    SECTIONS,
    BadToml,
    BadValue,
    Loaded,
    NoConfigFile,
    UnknownKey,
    load,
    stray_variables,
    workload_settings,
)
from gpusched.errors import ConfigError
from gpusched.teacher.schema import LIGHTGBM_DEFAULTS
from tests.config.loading import loaded

SHIPPED = Path(__file__).parents[2] / "config.toml"


def value(found: Loaded, key: str) -> Any:
    section, _, name = key.partition(".")
    part = getattr(found.config, section)
    return part[name] if isinstance(part, dict) else getattr(part, name)


# -- the file that ships with gpusched ---------------------------------------------------------------------------------


def test_the_shipped_file_gives_the_defaults(here: Path) -> None:
    (here / "config.toml").write_text(SHIPPED.read_text())
    found, defaults = load(environ={}), load(path=Path("/dev/null"), environ={})
    assert found.path == here / "config.toml"
    assert msgspec.structs.replace(found.config, lightgbm={}) == defaults.config
    assert found.config.lightgbm == LIGHTGBM_DEFAULTS
    assert workload_settings(found.config) == workload_settings(defaults.config)


def test_the_shipped_file_names_every_setting() -> None:
    """Those without a default of their own are commented out."""
    text = re.sub(r"^# (\w+ = )", r"\1", SHIPPED.read_text(), flags=re.MULTILINE)
    found = loaded(text=text)
    every = {f"{section}.{key}" for section, struct in SECTIONS.items() for key in struct.__struct_fields__}
    assert every <= set(found.origins)
    assert found.config.windows.start == dt.date(2022, 1, 1)
    lines = text.splitlines()
    for key, origin in found.origins.items():
        line = lines[int(origin.rpartition(":")[2]) - 1]
        assert line.startswith(f"{key.partition('.')[2]} = "), origin


def test_without_any_file_there_are_defaults(here: Path) -> None:
    found = load(environ={})
    assert found.path is None
    assert found.origins == {}
    assert found.config.data.root == here / "data"
    assert found.config.run.output == here / "gpusched-runs"
    assert found.config.cache.dir == here.parent / "home" / ".cache" / "gpusched"
    assert found.config.daemon.state_dir == here.parent / "home" / ".local" / "state" / "gpusched"


# -- where values come from --------------------------------------------------------------------------------------------


def test_a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_default() -> None:
    text = "[run]\nworkers = 1\nmax_attempts = 1\ntimeout_s = 1\n"
    environ = {"GPUSCHED_RUN_WORKERS": "2", "GPUSCHED_RUN_MAX_ATTEMPTS": "2"}
    found = loaded("run.workers=3", text=text, environ=environ)
    run = found.config.run
    assert (run.workers, run.max_attempts, run.timeout_s, run.grace_s) == (3, 2, 1.0, 10.0)
    assert found.origins == {
        "run.workers": "--set",
        "run.max_attempts": "GPUSCHED_RUN_MAX_ATTEMPTS",
        "run.timeout_s": f"{found.path}:4",
    }


def test_the_last_of_two_flags_wins() -> None:
    assert loaded("run.workers=3", "run.workers=4").config.run.workers == 4


def test_the_first_file_that_is_there_is_read(here: Path) -> None:
    home = here.parent / "home" / ".config" / "gpusched" / "config.toml"
    home.parent.mkdir(parents=True)
    home.write_text("[run]\nworkers = 5\n")
    environ = {"XDG_CONFIG_HOME": str(home.parents[1])}
    assert load(environ=environ).path == home
    (here / "config.toml").write_text("[run]\nworkers = 6\n")
    assert load(environ=environ).config.run.workers == 6
    (here / "named.toml").write_text("[run]\nworkers = 7\n")
    environ["GPUSCHED_CONFIG"] = "named.toml"
    assert load(environ=environ).config.run.workers == 7
    (here / "flag.toml").write_text("[run]\nworkers = 8\n")
    assert load(path=Path("flag.toml"), environ=environ).config.run.workers == 8


@pytest.mark.parametrize(
    ("name", "text", "key", "expected"),
    [
        ("GPUSCHED_RUN_WORKERS", "4", "run.workers", 4),
        ("GPUSCHED_RUN_MAX_FAILURE_RATE", "0.25", "run.max_failure_rate", 0.25),
        ("GPUSCHED_RUN_TIMEOUT_S", "90", "run.timeout_s", 90.0),
        ("GPUSCHED_WINDOWS_START", "2022-01-01", "windows.start", dt.date(2022, 1, 1)),
        ("GPUSCHED_DATA_INTERVAL", "5", "data.interval", "5"),
        ("GPUSCHED_DATA_COLUMNS", '{timestamp = "Gmt time"}', "data.columns", {"timestamp": "Gmt time"}),
        ("GPUSCHED_DATA_DATE_FORMAT", "%d.%m.%Y", "data.date_format", "%d.%m.%Y"),
        ("GPUSCHED_DATA_STRICT", "true", "data.strict", True),
        ("GPUSCHED_DEVICES_SLOTS", "auto", "devices.slots", "auto"),
        ("GPUSCHED_DEVICES_SLOTS", "8", "devices.slots", 8),
        ("GPUSCHED_DAEMON_GROUP", "quants", "daemon.group", "quants"),
        ("GPUSCHED_SOCKET", "/run/s", "daemon.socket", Path("/run/s")),
        ("GPUSCHED_LIGHTGBM_NUM_LEAVES", "31", "lightgbm.num_leaves", 31),
        ("GPUSCHED_LIGHTGBM_IS_UNBALANCE", "false", "lightgbm.is_unbalance", False),
        ("GPUSCHED_LIGHTGBM_EXTRA_TREES", "true", "lightgbm.extra_trees", True),
        ("GPUSCHED_LIGHTGBM_BOOSTING", "dart", "lightgbm.boosting", "dart"),
    ],
)
def test_the_environment_sets(name: str, text: str, key: str, expected: Any) -> None:
    found = loaded(environ={name: text})
    assert value(found, key) == expected
    assert type(value(found, key)) is type(expected) or isinstance(expected, Path)
    assert found.origins == {key: name}


@pytest.mark.parametrize("name", ["GPUSCHED_CONFIG", "GPUSCHED_ALLOW_CPU_OPENCL", "GPUSCHED_TEST_OPENCL", "HOME"])
def test_other_variables_are_no_settings(name: str) -> None:
    assert loaded(environ={name: "" if name == "GPUSCHED_CONFIG" else "1"}).origins == {}


# -- paths -------------------------------------------------------------------------------------------------------------


def test_a_relative_path_starts_where_it_was_written(here: Path) -> None:
    text = '[data]\nroot = "../bars"\n[cache]\ndir = "cache"\n[run]\noutput = "/abs"\n'
    found = loaded("daemon.state_dir=state", text=text, at="etc/gpusched.toml", environ={"GPUSCHED_RUN_OUTPUT": "out"})
    assert found.config.data.root == here / "bars"
    assert found.config.cache.dir == here / "etc" / "cache"
    assert found.config.run.output == here / "out"
    assert found.config.daemon.state_dir == here / "state"


def test_a_workload_in_a_file_lies_where_it_was_named(here: Path) -> None:
    assert loaded("run.workload=./train-v2.py:main").config.run.workload == f"{here}:train-v2:main"
    found = loaded(text='[run]\nworkload = "../train.py:main"\n', at="etc/gpusched.toml")
    assert found.config.run.workload == f"{here}:train:main"
    assert loaded(f"run.workload={here}:mine:main").config.run.workload == f"{here}:mine:main"
    for bad in ("./train:main", "./train.py", "train.py:", "a:b/train.py:main"):
        with pytest.raises(BadValue, match=re.escape("or ./file.py:function")):
            loaded(f"run.workload={bad}")


def test_a_tilde_is_the_home() -> None:
    assert loaded("data.root=~/bars").config.data.root == Path.home() / "bars"


def test_the_service_manager_names_its_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/one:/var/cache/two")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one")
    config = load(environ={}).config
    assert (config.cache.dir, config.daemon.state_dir) == (Path("/var/cache/one"), Path("/var/lib/one"))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[run]\n\nworker = 1\n", 3, "there is no setting 'run.worker'; did you mean 'run.workers'?"),
        ("[data]\nroot = 'x'\n[rnu]\nworkers = 1\n", 4, "'rnu.workers'; did you mean 'run.workers'?"),
        ("[windows]\n'window-days' = 1\n", 2, "'windows.window-days'; did you mean 'windows.days'?"),
        ("# nothing\n[rnu]\n", 2, "there is no setting 'rnu'; did you mean 'run'?"),
        ("workers = 1\n", 1, "there is no setting 'workers'; did you mean 'run.workers'?"),
        ("run = 1\n", 1, "run: expected a section [run], got "),
        ("[lightgbm]\nseed = 1\nnum_leafs = 1\n", 3, "no parameter 'num_leafs'; did you mean 'num_leaf'?"),
        ("[lightgbm]\nlr = 1\n[run]\nworkers = 1\n", 2, "LightGBM has no parameter 'lr'"),
        ("[run]\nworkers = 1\n[lightgbm]\nnum_leaves = 1\nmax_leaves = 2\n", 4, "are the same one"),
        ("[lightgbm]\nnum_leaf = 1\nnum_leafs = 1\n", 3, "no parameter 'num_leafs'; did you mean 'num_leaf'?"),
        ("[run]\ndevice = 'cpu'\n[lightgbm]\ndevice = 'gpu'\n", 4, "lightgbm.device: "),
        ("[lightgbm]\ndevice = 'gpu'\n", 2, "choose with --device"),
        ("[lightgbm]\nobjective = 'regression'\n", 2, "the label is 0 or 1"),
        ("[lightgbm]\nseed = 1\nnum_iterations = 0\n", 3, "expected at least 1"),
        ("[lightgbm.seed]\nx = 1\n", 1, "lightgbm.seed: LightGBM parameter seed: expected a number, text, true"),
        ("[run]\nworkers = 'many'\n", 2, "run.workers: expected a whole number from 0 to 1000000, got "),
        ("[run]\nworkers = 1.5\n", 2, "run.workers: expected a whole number from 0 to 1000000, got "),
        ("[run]\nworkers = true\n", 2, "run.workers: expected a whole number from 0 to 1000000, got "),
        ("[run]\nworkers = -1\n", 2, "run.workers: expected a whole number from 0 to 1000000, got -1"),
        ("[run]\nmax_failure_rate = 1.1\n", 2, "expected a number at least 0 and at most 1, got 1.1"),
        ("[run]\ntimeout_s = nan\n", 2, "run.timeout_s: expected a number at least 0 and at most 10000000, got "),
        ("[run]\ntimeout_s = inf\n", 2, "run.timeout_s: expected a number at least 0 and at most 10000000, got "),
        ("[run]\ndevice = 'tpu'\n", 2, """expected "auto" or "cpu" or "cuda" or "gpu" or "mixed", got 'tpu'"""),
        (
            "[run]\nworkload = 'nothing'\n",
            2,
            "run.workload: expected package.module:function or ./file.py:fun",
        ),
        (
            "[run]\nworkload = 'a..b:train'\n",
            2,
            "run.workload: expected package.module:function or ./file.py:fun",
        ),
        ("[run.limits]\nworkers = 1\n", 1, "there is no setting 'run.limits'"),
        ("[windows]\nstart = 'yesterday'\n", 2, "windows.start: expected a date such as 2022-01-31, got "),
        ("[windows]\nstart = 2022-01-01T00:00:00\n", 2, "windows.start: expected a date such as 2022-01-31, got "),
        ("[windows]\ndays = 0\n", 2, "windows.days"),
        ("[labels]\nhorizon = 0\n", 2, "labels.horizon"),
        ("[labels]\nthreshold = nan\n", 2, "labels.threshold: expected a number above -1 and at most 1000, got nan"),
        ("[split]\nmethod = 'shuffled'\n", 2, "split.method"),
        ("[split]\nvalidation_fraction = 1.0\n", 2, "expected a number above 0 and below 1, got 1.0"),
        ("[training]\nmin_rows = 1\n", 2, "training.min_rows: expected a whole number from 2, got 1"),
        ("[data]\nroot = 3\n", 2, "data.root: expected a path, got 3"),
        ("[data]\nroot = ''\n", 2, "data.root: expected a path, got ''"),
        ('[data]\nroot = "a\\u0000b"\n', 2, "data.root: a path has no null characters"),
        ("[data]\nroot = '~no-such-user/bars'\n", 2, "data.root: there is no such home: '~no-such-user/bars'"),
        ("[data]\ninterval = '../1d'\n", 2, "interval"),
        ("[data]\ncolumns = 'vol'\n", 2, "data.columns: expected a table such as {volume = \"vol\"}, got 'vol'"),
        ("[data]\ncolumns = {volum = 'vol'}\n", 2, "there is no 'volum' in it; did you mean 'volume'?"),
        ("[data]\ntimezone = 'IST'\n", 2, "setting timezone: there is no zone 'IST'"),
        ("[data]\ndate_format = 'YYYY'\n", 2, "setting date_format: 'YYYY' does not tell a year, month and day"),
        ("[data]\ndecimal = ';'\n", 2, 'data.decimal: expected "," or ".", got \';\''),
        ("[data]\nstrict = 'maybe'\n", 2, "data.strict: expected true or false, got 'maybe'"),
        ("[data]\ninterval = 5\n", 2, "data.interval: expected text, got 5"),
        ("[devices]\nslots = 0\n", 2, 'devices.slots: expected "auto" or a whole number from 1 to 64, got '),
        ("[devices]\nslots = 'many'\n", 2, 'devices.slots: expected "auto" or a whole number from 1 to 64, got '),
        ("[devices]\nfallback = 'gpu'\n", 2, 'expected "cpu" or "none", got '),
        ("[[run]]\nworkers = 1\n", 1, "run: expected a section [run], got "),
    ],
)
def test_what_is_wrong_in_a_file_has_its_line(here: Path, text: str, line: int, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(text=text)
    problem, _, remedy = str(caught.value).partition("\n")
    assert problem.startswith(f"{here / 'config.toml'}:{line}: ")
    assert says in problem
    assert remedy.strip()


def test_a_line_is_found_in_tables_of_any_spelling() -> None:
    text = '[data] # where\nroot = "x"\n\n[ "run" ]\n  "workers"=1\nworkload = "x:y"\nnothing = 1\n'
    with pytest.raises(UnknownKey, match=r"config\.toml:7: "):
        loaded(text=text)
    with pytest.raises(UnknownKey, match=r"config\.toml:2: .*'run\.nothing'"):
        loaded(text="data.root = 'x'\nrun.nothing = 1\n")
    with pytest.raises(UnknownKey, match=r"config\.toml:2: .*'run\.nothing'"):
        loaded(text="data = {root = 'x'}\nrun = {nothing = 1}\n")
    with pytest.raises(UnknownKey, match=r"config\.toml:3: .*'run\.no thing'"):
        loaded(text="[run]\nworkers = 1\n'no thing' = 1\n")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("run.worker=1", "--set: there is no setting 'run.worker'; did you mean 'run.workers'?"),
        ("workers=1", "--set: there is no setting 'workers'; did you mean 'run.workers'?"),
        ("run=1", "--set: there is no setting 'run'"),
        ("=1", "--set: there is no setting ''"),
        ("lightgbm.=1", "--set: there is no setting 'lightgbm.'"),
        ("lightgbm.num_leafs=1", "--set: lightgbm.num_leafs: LightGBM has no parameter"),
        ("run.workers=x", "--set: run.workers: expected a whole number from 0 to 1000000, got 'x'"),
        ("run.workers=", "--set: run.workers: expected a whole number from 0 to 1000000, got ''"),
        ("data.root=", "--set: data.root: expected a path, got ''"),
        ("windows.start=2022-13-01", "--set: windows.start"),
    ],
)
def test_what_is_wrong_in_a_flag_has_its_name(given: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(given)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("GPUSCHED_RUN_WORKER", "GPUSCHED_RUN_WORKER: there is no setting 'run.worker'; did you mean 'run.workers'?"),
        (
            "GPUSCHED_RUN_WORKERS",
            "GPUSCHED_RUN_WORKERS: run.workers: expected a whole number",
        ),
        ("GPUSCHED_LIGHTGBM_NUM_LEAFS", "GPUSCHED_LIGHTGBM_NUM_LEAFS: lightgbm.num_leafs: LightGBM has no parameter"),
    ],
)
def test_what_is_wrong_in_the_environment_has_its_name(name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(environ={name: "x"})
    assert str(caught.value).startswith(says)


def test_a_file_that_is_named_must_be_there(here: Path) -> None:
    with pytest.raises(NoConfigFile, match=r"none\.toml cannot be read: No such file"):
        load(path=Path("none.toml"), environ={})
    with pytest.raises(NoConfigFile, match=r"none\.toml cannot be read: No such file"):
        load(environ={"GPUSCHED_CONFIG": "none.toml"})
    with pytest.raises(NoConfigFile, match="Is a directory"):
        load(path=here, environ={})


def test_a_file_that_is_no_toml(here: Path) -> None:
    with pytest.raises(BadToml, match=r"config\.toml: not a TOML file: .*line 2"):
        loaded(text="[run]\nworkers 3\n")
    (here / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(NoConfigFile, match="it is not UTF-8 text"):
        load(path=Path("binary.toml"), environ={})


# -- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "key", "expected"),
    [
        ("data.root=2024", "data.root", "2024"),
        ("data.root=true", "data.root", "true"),
        ("data.root='a b'", "data.root", "a b"),
        ('daemon.group="1d"', "daemon.group", "1d"),
        ("data.interval=1d", "data.interval", "1d"),
        ("run.device=cpu", "run.device", "cpu"),
        ("run.device='cpu'", "run.device", "cpu"),
    ],
)
def test_text_stays_text(flag: str, key: str, expected: str, here: Path) -> None:
    found = value(loaded(flag), key)
    assert found == (here / expected if isinstance(found, Path) else expected)


def test_whole_numbers_are_numbers_where_fractions_may_be() -> None:
    run = loaded("run.timeout_s=5", text="[run]\ngrace_s = 2\n").config.run
    assert (run.timeout_s, run.grace_s) == (5.0, 2.0)
    assert isinstance(run.grace_s, float)
    assert math.isclose(loaded("labels.threshold=-0.5").config.labels.threshold, -0.5)


def test_what_is_not_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable may hold any bytes, and HOME as well."""
    with pytest.raises(BadValue, match=r"GPUSCHED_ENGINE_KIND: engine.kind: expected UTF-8 text, got '\\udcff'"):
        loaded(environ={"GPUSCHED_ENGINE_KIND": "\udcff"})
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/\udcff")
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    with pytest.raises(BadValue, match=r"cache.dir: the path is not UTF-8 text"):
        loaded()


def test_a_file_may_come_from_windows_and_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbf[run]\r\nworkers = 2\r\nmax_attempts = 3\r\n")
    found = load(environ={"GPUSCHED_CONFIG": "~/c.toml"})
    assert (found.config.run.workers, found.origins["run.max_attempts"]) == (2, f"{tmp_path}/c.toml:3")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"x = " + b"[" * 100_000, "it is nested too deep"),
        (b"[run]\nworkers = " + b"1" * 5000, "Exceeds the limit"),
        (b"#" * (33 << 20), "it is larger than 32 MiB"),
    ],
    ids=["nesting", "digits", "size"],
)
def test_a_file_beyond_measure_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises((BadToml, NoConfigFile), match=why):
        load(path=tmp_path / "c.toml", environ={})


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 10_000], ids=["digits", "nesting"])
def test_a_value_beyond_measure_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match=r"run\.workers: expected a whole number"):
        loaded(f"run.workers={text}")


def test_a_variable_that_is_nearly_a_setting_is_told_of() -> None:
    """One with a section in it is refused; what looks like none may be another program's."""
    environ = dict.fromkeys(("GPUSCHED_WORKERS", "GPUSCHED_RUN_WORKERS", "GPUSCHED_CONFIG", "GPUSCHED_URL", "RUN"), "1")
    assert stray_variables(environ) == ("GPUSCHED_WORKERS is no setting; did you mean 'GPUSCHED_RUN_WORKERS'?",)


def test_the_file_of_another_program_can_be_left_out() -> None:
    """`gpusched config` fails with it, too."""
    for text in ('baseURL = "https://example.org"\n', "[server]\nport = 1\n", "[run]\nport = 1\n", "[empty]\n"):
        with pytest.raises(UnknownKey, match="name another file with --config, such as /dev/null"):
            loaded(text=text)
