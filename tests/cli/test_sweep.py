"""The points of a sweep as they are asked for, and what cannot be one."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import msgspec
import pytest

from gpusched.client.sweep import asked_points, given_points, origins_of_points, with_points
from gpusched.config import settings_at
from gpusched.core.model import Parameters, Window
from gpusched.core.planning import windows_problem
from gpusched.core.points import MOST_POINTS
from gpusched.errors import GpuschedError
from tests.cli.shells import DATES, Shell, ended
from tests.core.support import batch
from tests.end_to_end.support import Command

DAY = "2022-01-01"
DATE = dt.date(2022, 1, 1)


def points(
    *typed: str, params: Path | None = None, sample: int | None = None, seed: int | None = None
) -> list[Parameters]:
    return list(asked_points(typed, params, sample, seed).values())


def test_values_are_what_toml_says_or_text() -> None:
    assert points("a.x=1,2.5,true") == [{"a.x": 1}, {"a.x": 2.5}, {"a.x": True}]
    assert points("a.x=gbdt, dart,3") == [{"a.x": "gbdt"}, {"a.x": "dart"}, {"a.x": 3}]
    assert points('a.x="1,2",[1, 2],{ b = 1 }') == [{"a.x": "1,2"}, {"a.x": [1, 2]}, {"a.x": {"b": 1}}]
    assert points("a.x=nan,2022-01-01") == [{"a.x": "nan"}, {"a.x": DAY}]
    assert points("a.x=5#a,5#b") == [{"a.x": "5#a"}, {"a.x": "5#b"}]
    assert points() == []


def test_a_grid_of_options_and_rows(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("\ufefflabels.horizon, lightgbm.num_leaves\n5,15\n\n7,\n7\n")
    assert points(params=file) == [{"labels.horizon": 5, "lightgbm.num_leaves": 15}, {"labels.horizon": 7}]
    assert points("a.x=1,2", params=file)[1] == {"labels.horizon": 5, "lightgbm.num_leaves": 15, "a.x": 2}
    file.write_text('{"a.x": [1], "b": null}\n\n{"a.x": 2}\n')
    assert points(params=file) == [{"a.x": [1], "b": None}, {"a.x": 2}]
    file.write_bytes(b'{"a.x": "one\xe2\x80\xa8\xc2\x85line"}\r{"a.x": 2}\r\n')
    assert points(params=file) == [{"a.x": "one\u2028\x85line"}, {"a.x": 2}]
    file.write_text('\ufeff [\n {"a.x": 1}, {"a.x": 1},\n {\n "a.x": "[é"}]\n')
    assert points(params=file) == [{"a.x": 1}, {"a.x": "[é"}]
    assert len(points("a.x=1,2,3", "a.y=1,2,3", sample=4, seed=7)) == 4
    assert points("a.x=1,2,3,4,5,6", sample=3, seed=7) != points("a.x=1,2,3,4,5,6", sample=3, seed=8)


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        ("", None, "it has no rows"),
        ("a.x\n", None, "it has no rows"),
        ("a.x,a.x\n1,2\n", 1, "the heading has 'a.x' twice"),
        ("a.x,\n1,2\n", 1, "a column without one"),
        ("a.x\n1\n1,2\n", 3, "2 cells"),
        ('a.x\n"' + "1" * 200_000 + '"\n', 2, "field larger than field limit"),
        ('{"a.x": 1}\n{"a.x": }\n', 2, "JSON is malformed"),
        ('{"a.x": 1}\n{"a.x": 1, "b.y": {"z": 1}, "a.x": 2}\n', 2, "it gives 'a.x' twice"),
        ('{"a.x": 1}\n[1]\n', 2, "Expected `object`"),
        ("[]", None, "it has no rows"),
        ('[{"a.x": 1},', 1, "Input data was truncated"),
        ('[{"a.x": 1},\n\n[1]]', 3, "Expected `object`"),
        ('[\n{"a.x": 1, "b.y": {"z": 1},\n"a.x": 2}\n]', 2, "it gives 'a.x' twice"),
        (b"a.x\n\xff\n", None, "it is not UTF-8 text"),
    ],
)
def test_a_bad_file_of_points_has_its_line(tmp_path: Path, content: str | bytes, line: int | None, why: str) -> None:
    file = tmp_path / "points"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GpuschedError) as refused:
        points(params=file)
    assert f"{file}{'' if line is None else f':{line}'}: " in str(refused.value)
    assert why in str(refused.value)


def test_a_value_that_is_nested_without_end_is_text() -> None:
    nested = "[" * 10_000
    assert points(f"a.x={nested}") == [{"a.x": nested}]


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        (("a.x",), "expected KEY=VALUE,VALUE"),
        (("=1",), "expected KEY=VALUE,VALUE"),
        (("a.x=",), "expected KEY=VALUE,VALUE"),
        (("a.x=,",), "there is nothing beside a comma"),
        (("a.x=31,,63",), "there is nothing beside a comma"),
        (("a.x=gbdt,",), "there is nothing beside a comma"),
        (("a.x=1", "a.x=2"), "a.x is given twice: by --param and by another one"),
        (
            (f"a.x={','.join(map(str, range(MOST_POINTS + 1)))}",),
            "the sweep has 10,001 points, and 10,000 are the most",
        ),
    ],
)
def test_what_is_no_sweep(typed: tuple[str, ...], why: str) -> None:
    with pytest.raises(GpuschedError, match=why):
        points(*typed)


def test_a_sample_is_of_something() -> None:
    with pytest.raises(GpuschedError, match="--sample is for a sweep"):
        points(sample=3)
    with pytest.raises(GpuschedError, match="--seed is for a sweep"):
        points(seed=3)
    with pytest.raises(GpuschedError, match="expected one point at least"):
        points("a.x=1", sample=0)
    huge = [f"a.p{number}={','.join(map(str, range(50)))}" for number in range(20)]
    assert len(points(*huge, sample=3)) == 3


def test_windows_one_by_one_at_every_point() -> None:
    windows = (Window("A", DATE, DATE, name="first"), Window("A", DATE, DATE, "y=1"))
    own: dict[str, Parameters] = {"y=1": {"workload.y": 1}}
    spec = msgspec.structs.replace(batch().spec, windows=windows)
    assert with_points(spec, own, {}) == msgspec.structs.replace(spec, points=own)
    found = with_points(spec, own, {"x=1": {"workload.x": 1}, "x=2": {"workload.x": 2}})
    assert [window.label for window in found.windows] == [
        "first_x=1",
        "first_x=2",
        "A_2022-01-01_to_2022-01-01_x=1,y=1",
        "A_2022-01-01_to_2022-01-01_x=2,y=1",
    ]
    assert found.points["x=2,y=1"] == {"workload.y": 1, "workload.x": 2}
    assert windows_problem(found) is None
    with pytest.raises(GpuschedError, match=r"workload\.y is given twice: by window A_.*y=1 and by the sweep"):
        with_points(spec, own, {"y=2": {"workload.y": 2}})


def test_windows_of_a_sweep_have_different_labels() -> None:
    windows = (Window("A", DATE, DATE, name="first"), Window("A", DATE, DATE, name="first_x=1"))
    spec = msgspec.structs.replace(batch().spec, windows=windows)
    one: dict[str, Parameters] = {"x=1": {"workload.x": 1}}
    with pytest.raises(GpuschedError, match="two windows have the label first_x=1_x=1"):
        with_points(
            msgspec.structs.replace(spec, windows=(*windows, Window("A", DATE, DATE, name="first_x=1"))), {}, one
        )
    assert len(with_points(spec, {}, one).windows) == 2


def test_the_parameters_of_a_command_need_no_section() -> None:
    settings = {"argv": ["/bin/true", "--depth={param.depth}"], "param": {"a": 1}}
    spec = msgspec.structs.replace(batch().spec, workload="gpusched.command:run_command", settings=settings)
    found = with_points(spec, {}, {"depth=3": {"depth": 3}})
    assert found.points == {"depth=3": {"param.depth": 3}}
    assert settings_at(found, "depth=3") == settings | {"param": {"a": 1, "depth": 3}}
    with pytest.raises(GpuschedError, match=r"param\.width: the command has no {param\.width}"):
        with_points(spec, {}, {"width=3": {"width": 3}})
    assert origins_of_points(["depth=3"], "points.csv", found) == {"param.depth": "--param"}


def test_a_point_has_the_name_of_what_its_parameters_are_called(shell: Shell) -> None:
    settings = {"argv": ["/bin/true", "{param.depth}"]}
    command = msgspec.structs.replace(batch().spec, workload="gpusched.command:run_command", settings=settings)
    found = with_points(command, {}, given_points({"depth": ["a b", "c"]}))
    assert windows_problem(found) is None, "a name that is a digest, too"
    own = given_points([{"depth": "a b"}])
    windows = (Window("A", DATE, DATE, next(iter(own))),)
    found = with_points(msgspec.structs.replace(command, windows=windows), own, {})
    assert windows_problem(found) is None
    assert found.points[found.windows[0].point] == {"param.depth": "a b"}
    eta, rate = (
        shell("plan", "symbols.txt", *DATES, "--param", f"lightgbm.{name}=0.1,0.2") for name in ("eta", "learning_rate")
    )
    assert eta.out == rate.out
    assert "_learning_rate=0.1" in eta.out


def test_points_that_lightgbm_cannot_tell_apart_are_one(shell: Shell) -> None:
    """Two directories with the same model, which every sum over the points counted twice."""
    planned = shell("plan", "symbols.txt", *DATES, "--param", "lightgbm.learning_rate=1,1.0,0.5").out
    assert "_learning_rate=1\t" in planned
    assert "_learning_rate=0.5\t" in planned
    assert "_learning_rate=1.0" not in planned
    own = msgspec.structs.replace(batch().spec, workload="lab:train")
    assert len(with_points(own, {}, given_points({"workload.a": [1, 1.0]})).points) == 2
    both = ("--param", "lightgbm.eta=0.1", "--param", "lightgbm.learning_rate=0.2")
    said = shell.refused("plan", "symbols.txt", *DATES, *both, code=2)
    assert "lightgbm.learning_rate is given twice: by lightgbm.eta and by lightgbm.learning_rate" in said


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("--param labels.horizn=5", "labels.horizn: there is no setting of that name; did you mean 'labels.horizon'?"),
        ("--param num_leaves=5", "did you mean 'lightgbm.num_leaves'?"),
        ("--param run.workers=5", "run.workers: it is not a setting of gpusched.teacher:train_window"),
        ("--param workload.alpha=5", "gpusched.teacher:train_window has no settings in [workload]"),
        ("--param lightgbm.num_leafs=5", "LightGBM has no parameter 'num_leafs'; did you mean 'num_leaf'?"),
        ("--param labels.horizon=5,0", "setting horizon: expected int >= 1 (it is 0)"),
        ("--param split.method=random,chrono", "setting split: invalid enum value 'chrono'"),
    ],
)
def test_parameters_that_cannot_be_are_refused_before_anything_starts(shell: Shell, typed: str, says: str) -> None:
    assert says in shell.refused("run", "symbols.txt", *DATES, *typed.split(), code=4)
    assert not (shell.directory / "gpusched-runs").exists()


def test_a_parameter_that_is_none_is_told_of_with_its_place(shell: Shell) -> None:
    """The heading of a file with semicolons was refused as if it had been typed."""
    (shell.directory / "points.csv").write_text("num_leaves;horizon\n7;3\n")
    place = shell.directory / "points.csv"
    said = shell.refused("plan", "symbols.txt", *DATES, "--params", "points.csv", code=4)
    assert f"error: {place}: num_leaves;horizon: there is no setting of that name" in said
    (shell.directory / "windows.jsonl").write_text(
        '{"symbol": "ABC", "start": "2022-01-01", "end": "2022-06-30", "parameters": {"horizn": 5}}'
    )
    said = shell.refused("plan", "windows.jsonl", code=4)
    assert "windows.jsonl: horizn: there is no setting of that name" in said
    said = shell.refused("plan", "symbols.txt", *DATES, "--param", "horizn=5", code=4)
    assert "error: --param: horizn: there is no setting of that name" in said


def test_a_sweep_from_the_command_to_its_results(gpusched: Command) -> None:
    grid = ("--param", "lightgbm.num_leaves=4,8", "--param", "labels.horizon=2,3", "--set", "lightgbm.num_iterations=5")
    run = ("run", "--symbols", "ABC,NONE", *DATES, "--device", "cpu", "--json", "-o", "out", *grid)
    found = ended(gpusched, *run)
    assert found.code == 0, found.err
    assert (
        json.loads(found.out)["windows"] | {"total": 16, "succeeded": 8, "skipped": 8}
        == json.loads(found.out)["windows"]
    )
    index = [json.loads(line) for line in (gpusched.directory / "out" / "teacher_runs.json").read_text().splitlines()]
    lines = {line["window_label"]: line for line in index}
    one = lines["ABC_2022-01-01_to_2022-06-29_horizon=3,num_leaves=8"]
    assert one["point"] == "horizon=3,num_leaves=8"
    assert one["parameters"] == {"labels.horizon": 3, "lightgbm.num_leaves": 8}
    assert one["settings"] == {"labels.horizon": 3, "lightgbm.num_leaves": 8, "lightgbm.num_iterations": 5}
    metadata = json.loads((gpusched.directory / "out" / one["window_label"] / "metadata.json").read_text())
    assert (metadata["parameters"]["num_leaves"], metadata["requested"]["horizon"]) == (8, 3)
    assert lines["NONE_2022-01-01_to_2022-06-29_horizon=2,num_leaves=4"]["status"] == "skipped"
    by = json.loads(ended(gpusched, "results", "out", "--by", "param", "--metric", "train_rows", "--json").out)
    assert [(row["labels.horizon"], row["lightgbm.num_leaves"], row["windows"]) for row in by["values"]] == [
        *((2, 4, 2), (3, 4, 2), (2, 8, 2), (3, 8, 2)),
    ]
    by = json.loads(ended(gpusched, "results", "out", "--by", "num_leaf", "--json").out)
    assert [row["lightgbm.num_leaves"] for row in by["values"]] == [4, 8], "another name of LightGBM's"
    # A grid that has grown keeps the results that it had.
    grown = ended(gpusched, *run, "--param", "labels.threshold=0.02")
    assert json.loads(grown.out)["windows"]["reused"] == 0, "another point is another window"
    more = tuple(word.replace("=4,8", "=4,8,16") for word in run)
    assert json.loads(ended(gpusched, *more).out)["windows"]["reused"] == 8


def test_windows_of_a_file_have_parameters(gpusched: Command) -> None:
    window = {"symbol": "ABC", "start": "2022-01-01", "end": "2022-12-31"}
    lines = (
        window | {"parameters": {"lightgbm.num_leaves": 4, "lightgbm.num_iterations": 3}},
        window | {"label": "plain"},
    )
    (gpusched.directory / "windows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = ended(gpusched, "run", "windows.jsonl", "--device", "cpu", "--json", "-o", "out")
    assert json.loads(found.out)["windows"]["succeeded"] == 2
    label = "ABC_2022-01-01_to_2022-12-31_num_iterations=3,num_leaves=4"
    assert json.loads((gpusched.directory / "out" / label / "metadata.json").read_text())["rounds"] == 3
    assert json.loads((gpusched.directory / "out" / "plain" / "metadata.json").read_text())["rounds"] > 3
    (gpusched.directory / "windows.jsonl").write_text(json.dumps(window | {"parameters": {"horizon": 3}}))
    refused = ended(gpusched, "run", "windows.jsonl", "--device", "cpu", "-o", "out")
    assert (refused.code, "did you mean 'labels.horizon'?" in refused.err) == (4, True)
