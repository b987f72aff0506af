"""Where programs are found, and refusals before anything starts."""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

from gpusched.command import identity, lookup
from gpusched.command.schema import ExitCodes, Settings
from gpusched.errors import InputError
from gpusched.workload import BadParameters, DateRange


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with a program, which is on PATH, and scripts."""
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "trainer", "#!/bin/sh\n")
    program(tmp_path / "train.sh", "#!/bin/sh\n")
    (tmp_path / "train.py").write_text("import os\n")
    return tmp_path


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def found(here: Path, *argv: str, preload: tuple[str, ...] = ()) -> Settings:
    path = f"{here}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return lookup.found(argv, ExitCodes(), preload, here, path)


def test_a_program_is_found_on_path_or_by_its_path(here: Path) -> None:
    assert found(here, "trainer", "{symbol}").argv == (f"{here}/bin/trainer", "{symbol}")
    assert found(here, "./train.sh").argv == (f"{here}/train.sh",)
    assert found(here, "bin/../bin/trainer").argv == (f"{here}/bin/trainer",)
    assert found(here, f"{here}/train.sh").argv == (f"{here}/train.sh",)
    assert found(here, "trainer").directory == str(here)


def test_a_link_to_an_interpreter_stays_one(here: Path) -> None:
    """An interpreter of a virtual environment finds its packages by the path it was started with."""
    (here / "bin" / "mine").symlink_to(sys.executable)
    assert found(here, "mine", "train.py").argv[0] == f"{here}/bin/mine"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("trainre",), "there is no program 'trainre' on PATH; did you mean trainer?"),
        (("train.sh",), "there is no program 'train.sh' on PATH; did you mean ./train.sh?"),
        (
            ("A=1", "trainer"),
            "there is no program 'A=1', and no shell for a command\n  `sh -c '…'` is one, and `env NAME",
        ),
        (("~/bin/trainer",), "there is no program '~/bin/trainer', and no shell"),
        (("cd", "there", "&&", "trainer"), "there is no program 'cd', and no shell"),
        (("./nothing",), "there is no program './nothing'"),
        (("./bin",), "cannot be executed: it is not a file"),
        (("./train.py",), "train.py cannot be executed: it lacks the permission\n  `chmod +x"),
        (("./plain",), "it is a text whose first line names no interpreter"),
        (("./windows",), "its first line ends with a carriage return, as on Windows\n  convert its line ends"),
        (("./lost",), "its first line names '/no/such/python', which does not exist"),
        (("python3", "tarin.py"), "there is no script"),
        (("python3", "-u", "-W", "ignore", "tarin.py"), "there is no script"),
        (("sh", "tarin.sh", "{symbol}"), "there is no script"),
    ],
)
def test_what_cannot_be_run_is_refused(here: Path, argv: tuple[str, ...], said: str) -> None:
    program(here / "plain", "echo\n")
    program(here / "windows", "#!/bin/sh\r\n")
    program(here / "lost", "#!/no/such/python\n")
    with pytest.raises(InputError) as refused:
        found(here, *argv)
    assert said in str(refused.value)


def test_a_place_that_cannot_be_recorded_is_refused(here: Path) -> None:
    odd = here / "\udcff"
    odd.mkdir()
    program(odd / "trainer", "#!/bin/sh\n")
    for directory, path in ((here, str(odd)), (odd, f"{here}/bin")):
        with pytest.raises(InputError, match="its path is not UTF-8 text"):
            lookup.found(("trainer",), ExitCodes(), (), directory, path)


def test_a_command_that_mends_it_can_be_pasted(here: Path) -> None:
    (here / "my train.py").touch()
    with pytest.raises(InputError, match=re.escape(f"`chmod +x '{here}/my train.py'`, or put an interpreter before")):
        found(here, "./my train.py")


@pytest.mark.parametrize(
    "argv",
    [
        ("python3", "-c", "pass"),
        ("python3", "-m", "nothing"),
        ("python3", "-um", "nothing"),
        ("python3", "-"),
        ("python3", "{data_root}/train.py"),
        ("python3",),
        ("sh", "-c", "echo"),
        ("trainer", "tarin.py"),
    ],
)
def test_what_is_no_script_is_not_looked_for(here: Path, argv: tuple[str, ...]) -> None:
    assert lookup.script_path(found(here, *argv)) is None


def test_a_command_is_called_by_its_script(here: Path) -> None:
    for argv, name, python in (
        (("python3", "-u", "train.py"), "train.py", True),
        (("trainer",), "trainer", False),
        (("sh", "train.sh"), "train.sh", False),
    ):
        settings = found(here, *argv)
        assert (lookup.name(settings), lookup.is_python(settings)) == (name, python)


def test_what_is_preloaded_is_python(here: Path) -> None:
    assert lookup.entry(found(here, "python3", "train.py", preload=("os",))) == (None, 1)
    assert lookup.entry(found(here, "python3", "-u", "train.py", preload=("os",))) == (None, 2)
    assert lookup.entry(found(here, "python3", "-m", "trainer.main", preload=("os",))) == ("trainer.main", 2)
    assert found(here, "train.py", "-x", preload=("os",)).argv[1:] == ("train.py", "-x")
    for argv in (("trainer",), ("python3", "-O", "train.py"), ("python3",), ("python3", "-c", "pass")):
        with pytest.raises(lookup.NotPreloadable):
            found(here, *argv, preload=("os",))


def test_a_daemon_refuses_what_it_cannot_reach(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = found(here, "python3", "train.py")
    lookup.check_here(settings, "gpusched")
    (here / "train.py").unlink()
    with pytest.raises(lookup.ProgramUnusable, match=r"cannot use .*train.py: No such file or directory"):
        lookup.check_here(settings, "gpusched")
    monkeypatch.setattr(os, "access", lambda path, mode: path != settings.directory)
    with pytest.raises(lookup.ProgramUnusable, match="Permission denied\n  it runs as user gpusched"):
        lookup.check_here(settings, "gpusched")


# -- identity ----------------------------------------------------------------------------------------------------------


def fingerprint(settings: Settings, data_root: str = "", symbol: str = "SYM") -> str:
    window = DateRange(dt.date(2022, 1, 1), dt.date(2022, 6, 30))
    (one,) = identity.fingerprints(settings, identity.code(settings), symbol, [window], data_root)
    return one


def test_what_changes_a_result_changes_its_fingerprint(here: Path) -> None:
    (here / "rates.csv").write_text("1\n")
    (here / "train.py").write_text("import os\nfrom features import rsi\n")
    (here / "features").mkdir()
    (here / "features" / "__init__.py").write_text("from lower import f\n")
    (here / "lower.py").write_text("f = 1\n")
    (here / "unrelated.py").write_text("f = 1\n")
    settings = found(here, "python3", "train.py", "--rates=rates.csv", "{symbol}")
    seen = {fingerprint(settings)}
    assert fingerprint(settings) in seen
    (here / "unrelated.py").write_text("f = 2\n")
    os.utime(here / "train.py", (1, 1))
    assert fingerprint(settings) in seen
    for name in ("train.py", "rates.csv", "features/__init__.py", "lower.py"):
        (here / name).write_text((here / name).read_text() + "# changed\n")
        assert fingerprint(settings) not in seen, name
        seen.add(fingerprint(settings))
    for other in (
        found(here, "python3", "train.py", "--rates=rates.csv", "{symbol}", "-x"),
        msgspec.structs.replace(settings, exit_codes=ExitCodes(success=(0, 1))),
    ):
        assert fingerprint(other) not in seen
    assert fingerprint(settings, symbol="OTHER") not in seen


@pytest.mark.parametrize(
    "argv",
    [
        ("./trainer", "{symbol}"),
        ("python3", "trainer", "{symbol}"),
        ("python3", "-u", "-m", "package.train", "{symbol}"),
        ("python3", "-um", "package", "{symbol}"),
        ("python3", "package", "{symbol}"),
        ("env", "A=1", "python3", "train.v2.py", "{symbol}"),
        ("sh", "-c", "cd . && exec python3 'train.v2.py' {symbol} >{output_dir}/log"),
        ("sh", "-c", "python3 -m package.train {symbol}"),
    ],
)
def test_what_python_imports_counts_however_it_is_started(here: Path, argv: tuple[str, ...]) -> None:
    (here / "package").mkdir()
    for name in ("package/__main__.py", "package/train.py"):
        (here / name).write_text("import helper\nfrom . import helper\n")
    program(here / "trainer", "#!/usr/bin/env python3\nimport helper\n")
    (here / "train.v2.py").write_text("import helper\n")
    for name in ("helper.py", "package/helper.py"):
        (here / name).write_text("f = 1\n")
    settings = found(here, *argv)
    before = fingerprint(settings)
    for name in ("helper.py", "package/helper.py"):
        (here / name).write_text("f = 2\n")
    assert fingerprint(settings) != before


@pytest.mark.parametrize("word", ["{param.config}", "--config={param.config}", "conf/{symbol}-{start:%Y}.json"])
def test_a_file_counts_that_a_placeholder_names(here: Path, word: str) -> None:
    (here / "conf").mkdir()
    for name in ("conf/a.json", "conf/SYM-2022.json", "conf/OTHER-2022.json"):
        (here / name).write_text("1\n")
    settings = msgspec.structs.replace(found(here, "trainer", word), param={"config": "conf/a.json"})
    before = fingerprint(settings)
    (here / "conf" / "OTHER-2022.json").write_text("12\n")
    assert fingerprint(settings) == before
    for name in ("conf/a.json", "conf/SYM-2022.json"):
        (here / name).write_text("12\n")
    assert fingerprint(settings) != before


def test_what_a_shell_writes_is_no_input(here: Path) -> None:
    """Results of a command that counts its calls in a file are reused."""
    settings = found(here, "sh", "-c", "echo {symbol} >> calls.log; ./train.sh")
    before = fingerprint(settings)
    (here / "calls.log").write_text("SYM\n")
    assert fingerprint(settings) == before
    program(here / "train.sh", "#!/bin/sh\nexit 1\n")
    assert fingerprint(settings) != before


def test_a_word_may_be_anything(here: Path) -> None:
    assert fingerprint(found(here, "trainer", "x" * 5000, "{symbol}" * 100, "=", "a = b"))


def test_the_files_of_a_symbol_count_where_there_is_a_data_root(here: Path) -> None:
    root = here / "bars"
    (root / "SYM" / "1d").mkdir(parents=True)
    (root / "SYM" / "1d" / "2022.csv").write_text("1\n")
    (root / "SYM.csv").write_text("1\n")
    (root / "SYMBOL.csv").write_text("1\n")
    settings = found(here, "trainer", "{symbol}")
    before = fingerprint(settings, str(root))
    assert before != fingerprint(settings)
    for name, counts in (("SYMBOL.csv", False), ("SYM.csv", True), ("SYM/1d/2022.csv", True)):
        (root / name).write_text("12\n")
        assert (fingerprint(settings, str(root)) != before) is counts, name
        before = fingerprint(settings, str(root))


@pytest.mark.timeout(10)
def test_files_of_a_symbol_count_behind_links_and_without_a_suffix(here: Path) -> None:
    root, far = here / "bars", here / "far"
    (root / "SYM").mkdir(parents=True)
    (far / "deep").mkdir(parents=True)
    (far / "deep" / "2022.csv").write_text("1\n")
    (far / "deep" / "up").symlink_to(far)
    (root / "SYM" / "1d").symlink_to(far)
    (root / "PLAIN").write_text("1\n")
    settings = found(here, "trainer", "{symbol}")
    for symbol, file in (("SYM", far / "deep" / "2022.csv"), ("PLAIN", root / "PLAIN")):
        before = fingerprint(settings, str(root), symbol)
        file.write_text("12\n")
        assert fingerprint(settings, str(root), symbol) != before


def test_a_program_that_is_gone_is_said(here: Path) -> None:
    settings = found(here, "trainer")
    Path(settings.argv[0]).unlink()
    with pytest.raises(BadParameters, match=r"bin/trainer cannot be read: No such file"):
        identity.code(settings)
