"""A committed directory is whole, whatever happens while it is committed."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched import artifacts, directories, outputs
from gpusched.artifacts import Partial
from gpusched.core.model import DeviceType
from gpusched.metadata import Metadata, read_metadata

REPOSITORY = Path(__file__).parents[2]
LABEL = "SYM_2022-01-01_to_2022-06-30"
OLD, NEW = "0" * 64, "1" * 64


def metadata(fingerprint: str, device_type: DeviceType = "cpu") -> Metadata:
    return Metadata(
        label=LABEL,
        symbol="SYM",
        start=dt.date(2022, 1, 1),
        end=dt.date(2022, 6, 30),
        workload="package.module:function",
        device_type=device_type,
        device="cpu",
        fingerprint=fingerprint,
        metrics={"auc": 0.5, "f1": None},
        sample_counts={"train": 80},
        phases={"load": 0.25, "train": 0.5},
        seconds=0.75,
        trained_at=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        details={"versions": {"lightgbm": "4.6.0"}},
    )


def write(output: Path, fingerprint: str) -> Partial:
    partial = Partial(output, LABEL)
    (partial.path / "model.txt").write_text(f"model {fingerprint}\n")
    (partial.path / "empty").touch()
    (partial.path / "more").mkdir()
    (partial.path / "more" / "labels.csv").write_text(f"{fingerprint}\n" * 100)
    return partial


def commit(output: Path, fingerprint: str) -> Path:
    return write(output, fingerprint).commit(metadata(fingerprint))


def test_a_committed_result_can_be_verified(tmp_path: Path) -> None:
    path = commit(tmp_path / "output", NEW)
    assert path == tmp_path / "output" / LABEL
    found = artifacts.verify(path, {OLD, NEW})
    assert found is not None
    assert sorted(found.files) == ["empty", "model.txt", "more/labels.csv"]
    assert found == msgspec.structs.replace(metadata(NEW), files=found.files)
    assert read_metadata(path) == found
    assert artifacts.verify(path, {OLD}) is None
    assert artifacts.verify(path, set()) is None
    assert artifacts.verify(tmp_path, {NEW}) is None


def test_everything_is_durable_before_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a flush of each file and directory before the rename, and of the output directory after it, a result
    could be torn by a loss of power.
    """
    steps: list[str] = []
    fsync, place = os.fsync, directories.place

    def note_flush(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)))

    def note_place(name: str, dir_fd: int, new: str, new_dir_fd: int) -> bool:
        steps.extend(["placed"] if new == LABEL else [])
        return place(name, dir_fd, new, new_dir_fd)

    partial = write(tmp_path, OLD)
    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(directories, "place", note_place)
    partial.commit(metadata(OLD))
    before, after = steps[: steps.index("placed")], steps[steps.index("placed") + 1 :]
    names = {".", "empty", "metadata.json", "model.txt", "more", "more/labels.csv"}
    assert {str(Path(one).relative_to(partial.path.relative_to(tmp_path))) for one in before} == names
    assert after == ["."]


def test_metadata_is_indented_json_in_a_fixed_order(tmp_path: Path) -> None:
    one, other = commit(tmp_path / "one", NEW), commit(tmp_path / "other", NEW)
    text = (one / "metadata.json").read_text()
    assert text == (other / "metadata.json").read_text()
    assert list(json.loads(text)) == [
        *("schema", "label", "symbol", "start", "end", "workload", "workload_settings", "workload_code"),
        *("device_type", "device", "device_seen", "fingerprint", "metrics", "sample_counts", "constant"),
        *("phases", "seconds", "trained_at", "versions", "files"),
    ]
    assert text.startswith('{\n  "schema": 1,\n  "label": "SYM_2022-01-01_to_2022-06-30",\n')
    assert '"trained_at": "2026-01-02T03:04:05Z"' in text


@pytest.mark.parametrize("is_directory", [False, True])
def test_a_metadata_json_of_the_function_is_kept(tmp_path: Path, *, is_directory: bool) -> None:
    """It was removed without a word; a program's was kept."""
    partial = write(tmp_path, NEW)
    own = partial.path / "metadata.json"
    if is_directory:
        own.mkdir()
        own /= "file"
    own.write_text("mine\n")
    result = partial.commit(metadata(NEW))
    kept = result / "program_metadata.json" / ("file" if is_directory else "")
    assert kept.read_text() == "mine\n"
    assert artifacts.verify(result, {NEW}) is not None


def test_one_with_the_name_that_it_would_get_is_not_replaced(tmp_path: Path) -> None:
    partial = write(tmp_path, NEW)
    for name in ("metadata.json", "program_metadata.json"):
        (partial.path / name).write_text(name)
    with pytest.raises(artifacts.NotCommittable, match=r"it has a program_metadata\.json, which its metadata\.json"):
        partial.commit(metadata(NEW))
    partial.discard()


def test_a_missing_fingerprint_is_never_reusable(tmp_path: Path) -> None:
    partial = write(tmp_path, "none")
    path = partial.commit(msgspec.structs.replace(metadata(NEW), fingerprint=None))
    assert artifacts.verify(path, {NEW}) is None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


def become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [flip, shorten, lengthen, Path.unlink, become_directory])
@pytest.mark.parametrize("name", ["model.txt", "more/labels.csv", "metadata.json"])
def test_any_damage_is_found(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    path = commit(tmp_path, NEW)
    damage(path / name)
    if (name, damage) == ("metadata.json", lengthen):
        assert artifacts.verify(path, {NEW}) is not None  # white space at the end of JSON
    elif (name, damage) != ("metadata.json", flip):
        assert artifacts.verify(path, {NEW}) is None


def test_a_file_list_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    path = commit(tmp_path, NEW)
    (tmp_path / "secret").write_text("x")
    content = json.loads((path / "metadata.json").read_text())
    content["files"]["../secret"] = {
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        "bytes": 1,
    }
    (path / "metadata.json").write_text(json.dumps(content))
    assert artifacts.verify(path, {NEW}) is None


def test_a_link_is_not_committed(tmp_path: Path) -> None:
    partial = write(tmp_path, NEW)
    (partial.path / "link").symlink_to("/etc/passwd")
    with pytest.raises(artifacts.NotCommittable, match="link is a link, and only files are kept"):
        partial.commit(metadata(NEW))
    partial.discard()
    assert list((tmp_path / ".partial").iterdir()) == []


def test_a_new_result_replaces_an_old_one(tmp_path: Path) -> None:
    commit(tmp_path, OLD)
    path = commit(tmp_path, NEW)
    assert artifacts.verify(path, {NEW}) is not None
    assert list((tmp_path / ".partial").iterdir()) == []


def test_where_paths_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "exchange", lambda *names: False)
    commit(tmp_path, OLD)
    path = commit(tmp_path, NEW)
    assert artifacts.verify(path, {NEW}) is not None
    assert list((tmp_path / ".partial").iterdir()) == []


# -- a kill at every step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", ["with exchange", pytest.param("without exchange", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("before", [pytest.param("nothing", marks=pytest.mark.thorough), "an old result"])
def test_a_kill_at_any_line_leaves_old_none_or_new(tmp_path: Path, before: str, exchange: str) -> None:
    """By a small process, whose forks take a fraction of the time of this one's."""
    program = "import json, sys; from tests.worker.test_artifacts import states_left; "
    program += "print(json.dumps(states_left(*sys.argv[1:])))"
    command = [sys.executable, "-c", program, str(tmp_path), before, exchange]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert len(seen) > 50
    assert seen[-1] == "new"
    expected = ["none", "new"] if before == "nothing" else ["old", "none", "new"]
    if exchange == "with exchange" and before != "nothing":
        expected.remove("none")
    # Each state once, in this order: never back again.
    assert [state for index, state in enumerate(seen) if index == 0 or seen[index - 1] != state] == expected


def states_left(directory: str, before: str, exchange: str) -> list[str]:
    """The states after each of as many processes as `commit` executes lines, the n-th of which dies at the n-th."""
    seen: list[str] = []
    finished = False
    while not finished:
        step = len(seen) + 1
        output = Path(directory, str(step))
        if before == "an old result":
            commit(output, OLD)
        finished = _commit_and_die(output, step, exchange)
        seen.append(_state(output))
        live = Partial(output, "OTHER")
        left_over = len(list((output / ".partial").iterdir())) - 1
        assert outputs.sweep_partial(output) == left_over
        assert list((output / ".partial").iterdir()) == [live.path]
        live.discard()
    return seen


def _state(output: Path) -> str:
    path = output / LABEL
    if not path.exists():
        return "none"
    found = artifacts.verify(path, {OLD, NEW})
    assert found is not None, "half a result"
    return "old" if found.fingerprint == OLD else "new"


def _commit_and_die(output: Path, step: int, exchange: str) -> bool:
    """Commit in a forked process that kills itself at its `step`-th line; whether it got to the end."""
    child = os.fork()
    if child == 0:
        lines = 0

        def trace(frame: Any, event: str, argument: object) -> Any:
            nonlocal lines
            if frame.f_code.co_filename not in (artifacts.__file__, directories.__file__):
                return None
            if event == "line":
                lines += 1
                if lines == step:
                    os._exit(9)
            return trace

        if exchange == "without exchange":
            directories.exchange = lambda *names: False
        partial = write(output, NEW)
        sys.settrace(trace)
        partial.commit(metadata(NEW))
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


# -- sweeping ----------------------------------------------------------------------------------------------------------


def test_sweeping_leaves_what_is_being_written(tmp_path: Path) -> None:
    assert outputs.sweep_partial(tmp_path) == 0
    dead = tmp_path / ".partial" / f"{LABEL}.{os.getpid()}"
    (dead / "more").mkdir(parents=True)
    (dead / "more" / "half").write_text("half")
    live = Partial(tmp_path, LABEL)  # under another name, since the pid's own is taken
    assert outputs.sweep_partial(tmp_path) == 1
    assert not dead.exists()
    assert live.path.exists()
    live.discard()


def test_a_lock_outlives_no_process(tmp_path: Path) -> None:
    program = "import os, sys; from pathlib import Path; from gpusched.artifacts import Partial; "
    program += "kept = Partial(Path(sys.argv[1]), 'SYM'); os._exit(0)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert len(list((tmp_path / ".partial").iterdir())) == 1
    assert outputs.sweep_partial(tmp_path) == 1


def test_what_dead_attempts_have_left_goes_with_the_results(tmp_path: Path) -> None:
    (tmp_path / ".partial" / f"{LABEL}.{os.getpid()}").mkdir(parents=True)
    assert outputs.remove_results(tmp_path, {}) == (0, [])
    assert not list(tmp_path.iterdir())
