"""Programs in windows: results, failures, and that no process of one is left."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gpusched import artifacts
from gpusched.command import ending
from gpusched.command.process import Ended
from gpusched.command.schema import ExitCodes
from gpusched.workload import ProgramFailed, ProgramSkipped
from tests.command.support import commands, committed
from tests.worker.support import Fifo, exists


def metadata(found: str) -> dict[str, object]:
    loaded = json.loads((Path(found) / "metadata.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


async def test_what_a_program_leaves_is_the_result(tmp_path: Path) -> None:
    async with commands(tmp_path) as c:
        script = 'mkdir "$1/deep" && echo model > "$1/deep/model.txt"; echo said; echo >&2 cried'
        found = await c.result(c.shell(script))
        assert found.metrics == {}
        assert c.log == "said\ncried\n"
    assert found.fingerprint is not None
    assert artifacts.verify(Path(found.artifacts_path), {found.fingerprint}) is not None
    assert list(metadata(found.artifacts_path)["files"]) == ["deep/model.txt"]  # type: ignore[call-overload]


async def test_a_program_has_the_words_the_limits_and_the_device_of_its_window(tmp_path: Path) -> None:
    tell = 'echo "$*" > "$1/words"; env > "$1/env"; cat > "$1/stdin"; ls /proc/self/fd > "$1/descriptors"'
    async with commands(tmp_path) as c:
        argv = [
            *c.shell(tell),
            "--{symbol}",
            "{start}",
            "{end:%d.%m.%Y}",
            "{label}",
            "{threads}",
            "a b",
            "$HOME",
            "{{}}",
        ]
        found = Path((await c.result(argv)).artifacts_path)
    said = (found / "words").read_text().partition(" ")[2]
    assert said == "--SYM 2022-01-01 30.06.2022 SYM_2022-01-01_to_2022-06-30 3 a b $HOME {}\n"
    environment = (found / "env").read_text().splitlines()
    assert {"CUDA_VISIBLE_DEVICES=GPU-1", "OMP_NUM_THREADS=3", "GPUSCHED_RESULT_FD=3"} <= set(environment)
    assert (found / "stdin").read_text() == ""
    assert (found / "descriptors").read_text().split() == ["0", "1", "2", "3", "4"]  # 4 is that of `ls` itself


@pytest.mark.parametrize(
    ("script", "metrics"),
    [
        ('echo \'{"auc": 0.61, "loss": NaN}\' > "$1/metrics.json"', {"auc": 0.61, "loss": None}),
        ("echo '{\"auc\": 0.61}' >&$GPUSCHED_RESULT_FD", {"auc": 0.61}),
        ('echo \'{"auc": 1}\' > "$1/metrics.json"; echo \'{"metrics": {"auc": 0.5}}\' >&3', {"auc": 0.5}),
        ("head -c 500000 /dev/zero | tr '\\0' ' ' >&3; echo '{\"auc\": 0.61}' > /dev/fd/3", {"auc": 0.61}),
    ],
)
async def test_metrics_come_from_the_descriptor_or_from_a_file(
    tmp_path: Path, script: str, metrics: dict[str, object]
) -> None:
    async with commands(tmp_path) as c:
        assert (await c.result(c.shell(script))).metrics == metrics


async def test_a_report_has_counts_and_further_entries(tmp_path: Path) -> None:
    report = {"metrics": {"auc": 0.6}, "sample_counts": {"train": 90}, "metadata": {"rounds": 7}}
    async with commands(tmp_path) as c:
        found = await c.result(c.shell(f"echo '{json.dumps(report)}' >&3"))
    assert (found.metrics, found.sample_counts) == ({"auc": 0.6}, {"train": 90})
    assert metadata(found.artifacts_path)["rounds"] == 7


async def test_a_metadata_json_of_the_program_is_kept(tmp_path: Path) -> None:
    async with commands(tmp_path) as c:
        found = Path((await c.result(c.shell('echo mine > "$1/metadata.json"'))).artifacts_path)
    assert (found / "program_metadata.json").read_text() == "mine\n"
    assert json.loads((found / "metadata.json").read_text())["symbol"] == "SYM"


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("echo no bars >&2; exit 2", "no_data", "no bars"),
        ("exit 2", "no_data", "train.sh exited with code 2"),
        ("exit 3", "permanent", "train.sh exited with code 3"),
        ("echo 'disk: trouble'; exit 1", "exited", "train.sh exited with code 1: disk: trouble"),
        ("exit 127", "exited", "train.sh exited with code 127"),
        ('echo \'{"skip": "no bars"}\' >&3; exit 1', "no_data", "no bars"),
        ('echo \'{"error": "bad", "retry": false}\' >&3', "permanent", "train.sh: bad"),
        ('echo \'{"error": "bad"}\' >&3; exit 2', "exited", "train.sh: bad"),
        ("echo '{\"auc\": 1}' >&3; exit 1", "exited", "train.sh exited with code 1"),
        ("echo '[1]' >&3", "permanent", "the report of train.sh is not a JSON object: it is list"),
        ('echo \'{"metrics": {}, "auc": 1}\' >&3', "permanent", "the report of train.sh has 'auc' beside 'metrics'"),
        ("echo '{\"metrics\": 1}' >&3", "permanent", "the report of train.sh is not one"),
        ('echo auc > "$1/metrics.json"', "permanent", "metrics.json is not a JSON object"),
        ("head -c 1048577 /dev/zero >&3", "permanent", "it is longer than 1 MiB"),
        ("echo 'RuntimeError: CUDA error: out of memory'; exit 1", "memory", "out of memory"),
    ],
)
async def test_why_there_is_no_result(tmp_path: Path, script: str, kind: str, message: str) -> None:
    async with commands(tmp_path) as c:
        error = await c.error(c.shell(script))
    assert error.kind == kind
    assert message in error.message
    assert committed(tmp_path) == []


async def test_a_python_program_is_told_by_its_exception(tmp_path: Path) -> None:
    script = "import sys\nprint('written at the end')\ndef f(): raise ValueError('no such column')\nf()\n"
    async with commands(tmp_path) as c:
        error = await c.error(c.python(script))
        assert c.log.count("Traceback") == 1  # its own, and none of ours
    assert (error.kind, error.message) == ("exited", "train.py exited with code 1: ValueError: no such column")
    assert "def f(): raise" in error.traceback


async def test_wrong_arguments_are_no_lack_of_data(tmp_path: Path) -> None:
    script = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--end', required=True)\np.parse_args()\n"
    async with commands(tmp_path) as c:
        error = await c.error(c.python(script))
    assert error.kind == "permanent"
    assert "the following arguments are required: --end (argparse ends with 2 for wrong arguments" in error.message


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("python3: can't open file '/x/AAPL.py': [Errno 2] No such file", "python3: can't open file '/x/AAPL.py'"),
        ("usage: python3 [option] ... [arg]\nTry `python -h' for more information.", "Try `python -h'"),
        ("Usage: train.py [OPTIONS]\nTry --help\n\nError: Missing option '--end'.", "Error: Missing option '--end'."),
        ("train.sh: line 2: syntax error near unexpected token\ntrain.sh: line 2: `echo ('", "syntax error near"),
        ('train.sh: 3: Syntax error: newline unexpected (expecting ")")', "newline unexpected"),
        ("sh: 0: cannot open train.sh: No such file", "cannot open train.sh"),
        ('Can\'t open perl script "AAPL.pl": No such file or directory', "AAPL.pl"),
    ],
)
def test_what_an_interpreter_cannot_run_is_no_lack_of_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str, message: str
) -> None:
    monkeypatch.setattr(ending, "end_of_output", lambda: f"loading\n{output}\n")
    ended = Ended(exit_code=2, signal=None, report=b"", stopped=False)
    with pytest.raises(ProgramFailed, match=re.escape(message)) as caught:
        ending.judge(ended, ExitCodes(), tmp_path, "train", "cpu")
    assert caught.value.kind == "permanent"


@pytest.mark.parametrize(
    "output",
    [
        "ValueError: no\nmake: *** [Makefile:2: train] Error 1",
        "make[1]: *** [train] Error 1\nmake: *** [all] Error 2",
        "panic: runtime error: index out of range\n\ngoroutine 1 [running]:\nmain.main()\n\t/x/a.go:5 +0x1d",
        "Fatal error: exception Not_found",
        "no such file: bars.csv at train.pl line 3.",
    ],
)
def test_a_failure_that_ends_with_2_is_no_lack_of_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str
) -> None:
    monkeypatch.setattr(ending, "end_of_output", lambda: output)
    ended = Ended(exit_code=2, signal=None, report=b"", stopped=False)
    with pytest.raises(ProgramFailed, match="train exited with code 2: ") as caught:
        ending.judge(ended, ExitCodes(), tmp_path, "train", "cpu")
    assert caught.value.kind == "exited"


@pytest.mark.parametrize(
    "output",
    [
        "no bars",
        "no bars\nmake: *** [Makefile:2: train] Error 2",
        "memory usage: 3 GB",
        "Usage: 3 GB",
        "bars.csv: line 7: no number",
        "",
    ],
)
def test_exit_code_2_means_no_data_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str) -> None:
    monkeypatch.setattr(ending, "end_of_output", lambda: output)
    with pytest.raises(ProgramSkipped):
        ending.judge(Ended(exit_code=2, signal=None, report=b"", stopped=False), ExitCodes(), tmp_path, "train", "cpu")


async def test_other_exit_codes(tmp_path: Path) -> None:
    codes = {"success": [0, 7], "skip": [], "permanent": [2]}
    async with commands(tmp_path) as c:
        assert (await c.result(c.shell("exit 7"), exit_codes=codes)).metrics == {}
        assert (await c.error(c.shell("exit 2"), exit_codes=codes)).kind == "permanent"


async def test_a_program_that_dies_of_a_signal_takes_its_window_with_it(tmp_path: Path) -> None:
    async with commands(tmp_path) as c:
        for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT):
            end = await c.run(c.shell(f'echo part > "$1/model.txt"; kill -{number.value} $$'))
            assert (end.signal, end.exit_code) == (number, None)
        assert committed(tmp_path) == []


@pytest.mark.parametrize("start", ["sleep 1000 &", "setsid sleep 1000 &"])
async def test_what_a_program_leaves_running_is_killed(tmp_path: Path, start: str) -> None:
    async with commands(tmp_path) as c:
        found = await c.result(c.shell(f'{start}\necho $! > "$1/pid"'))
        assert not exists(int((Path(found.artifacts_path) / "pid").read_text()))


async def test_a_program_may_use_the_time_it_is_given_to_stop(tmp_path: Path, fifo: Callable[[str], Fifo]) -> None:
    """Even if it ends with 0 then: its files are not a whole result."""
    async with commands(tmp_path) as c:
        ready, never = fifo("ready"), fifo("never")
        argv = c.shell(f"trap 'echo stopped; exit 0' TERM\necho 1 > {ready.path}\nread line < {never.path}")
        process = await c.start(argv)
        assert await ready.number() == 1
        process.signal(signal.SIGTERM)
        end = await process.wait(c.workers.messages.append)
        assert c.log == "stopped\n"
    assert end.signal == signal.SIGTERM
    assert committed(tmp_path) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('ln -s /etc "$1/link"', "link is a link, and only files are kept"),
        ('mkdir "$1/deep" && mkfifo "$1/deep/fifo"', "deep/fifo is a named pipe"),
        ('touch "$1/$(printf "a\\377")"', r"'a\udcff' is a name that is not UTF-8"),
        ('rm -r "$1" && mkdir "$1" && echo model > "$1/model.txt"', "its output directory was removed or replaced"),
        ('rm -r "$1"', "its output directory was removed or replaced"),
        ('ln -s /etc/passwd "$1/metrics.json"', "metrics.json"),
    ],
)
async def test_what_is_no_file_is_refused_for_good(tmp_path: Path, script: str, message: str) -> None:
    async with commands(tmp_path) as c:
        error = await c.error(c.shell(script))
    assert error.kind == "permanent"
    assert message in error.message
    assert committed(tmp_path) == []


async def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    async with commands(tmp_path) as c:
        argv = c.shell("exit 0")
        c.script("#!/no/such/interpreter\n", "train.sh")
        error = await c.error(argv)
        assert (error.kind, "train.sh cannot be started" in error.message) == ("permanent", True)
        c.remove("train.sh")
        error = await c.error(argv)
        assert (error.kind, "train.sh cannot be read" in error.message) == ("bad_parameters", True)
