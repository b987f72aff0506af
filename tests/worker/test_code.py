"""The code of a workload counts: in its fingerprints, and for the launcher that has imported it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpusched.core.entry_point import EntryPoint
from gpusched.worker.code import read_code
from gpusched.worker.identity import Identity, listing
from tests.worker.support import START, Fifo, bench

MODULE = """
from helping import ANSWER
from gpusched.workload import Result
from tests.worker.workloads import wait_for_line

def train(task, directory, report):
    if task.symbol == "WAITS":
        report("waiting")
        wait_for_line(task)
    return Result(metrics={"answer": ANSWER}, sample_counts={}, metadata={}, phases={})
"""


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)


def names(directory: Path, module: str) -> list[str]:
    return [
        str(Path(stamp.path).relative_to(directory))
        for stamp in read_code(EntryPoint(module, "f", str(directory))).files
    ]


def test_neighbours_that_are_imported_count_and_no_others(tmp_path: Path) -> None:
    write(
        tmp_path,
        train="import json, helping, pack.deep.one\ndef f():\n    from pack import lazy, name\n",
        helping="from gpusched import workload\n",
        unused="",
        pack__deep__one="from . import two\nfrom ..side import x\n",
        pack__deep__two="not python (",
        pack__side="",
        pack__lazy="",
        pack__other="",
    )
    (tmp_path / "pack" / "__init__.py").write_text("")
    assert names(tmp_path, "train") == [
        *("helping.py", "pack/__init__.py", "pack/deep/one.py", "pack/deep/two.py", "pack/lazy.py", "pack/side.py"),
        "train.py",
    ]


def test_the_digest_follows_the_sources(tmp_path: Path) -> None:
    entry = EntryPoint("train", "f", str(tmp_path))
    write(tmp_path, train="import helping", helping="x = 1", unused="")
    first = read_code(entry).digest
    write(tmp_path, unused="x = 1")
    assert read_code(entry).digest == first
    write(tmp_path, helping="x = 2")
    second = read_code(entry).digest
    assert second not in (None, first)
    write(tmp_path / "moved", train="import helping", helping="x = 2")
    assert read_code(EntryPoint("train", "f", str(tmp_path / "moved"))).digest == second


def test_gpusched_has_versions_and_an_installed_module_its_package(tmp_path: Path) -> None:
    assert read_code(EntryPoint("gpusched.teacher", "train_window")).digest is None
    assert read_code(EntryPoint("math", "sqrt")).digest is None
    assert read_code(EntryPoint("no_such_module", "f")).digest is None
    code = read_code(EntryPoint("msgspec.json", "decode"))
    assert code.digest is not None
    assert {Path(stamp.path).parent.name for stamp in code.files} == {"msgspec"}


def test_files_of_a_symbol(tmp_path: Path) -> None:
    for name in ("ABC/1d/1.csv", "ABC.csv", "ABCD.csv", "DEF/1.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [name for name, *_ in listing(str(tmp_path), "ABC")] == ["ABC.csv", "ABC/1d/1.csv"]
    assert [name for name, *_ in listing(str(tmp_path), "XYZ")] == ["ABC.csv", "ABCD.csv"]


def test_a_fingerprint_has_code_settings_and_data(tmp_path: Path) -> None:
    write(tmp_path, train="")
    code = read_code(EntryPoint("train", "f", str(tmp_path)))

    def made(workload: str = "train:f", settings: object = None, of_data: str | None = None) -> str | None:
        return Identity(workload, code, settings, str(tmp_path)).fingerprint("ABC", START, START, of_data)

    assert made() == made() == made(workload=f"{tmp_path}:train:f")
    assert len({made(), made("train:g"), made(settings=1), made(of_data="d")}) == 4
    assert Identity("train:f", code, None, "/no/such").fingerprint("ABC", START, START, None) is None
    own = read_code(EntryPoint("gpusched.teacher", "train_window"))
    assert Identity("gpusched.teacher:train_window", own, {}, "/").fingerprint("ABC", START, START, "d") == "d"


async def test_the_launcher_of_changed_code_is_replaced(tmp_path: Path, fifo: Callable[[str], Fifo]) -> None:
    back = fifo("back")
    write(tmp_path, mine=MODULE, helping="ANSWER = 1")
    own = f"{tmp_path}:mine:train"
    async with bench(tmp_path) as b:
        answers, codes = [], []

        async def run() -> None:
            await b.run(own)
            metadata = json.loads((b.output / "SYM_2022-01-01_to_2022-06-30" / "metadata.json").read_text())
            answers.append(metadata["metrics"]["answer"])
            codes.append(metadata["workload_code"])

        await run()
        (first,) = b.launcher.pids(own)
        await run()
        assert b.launcher.pids(own) == [first]
        waiting = await b.fork(own, "WAITS", back=back.path)
        write(tmp_path, helping="ANSWER = 2")  # of the same size
        await run()
        assert b.launcher.pids(own) != [first]
        assert (answers, len(set(codes)), codes[0] == codes[1]) == ([1, 1, 2], 2, True)
        back.answer()
        end = await waiting.wait(b.messages.append)
        assert end.exit_code == 0
        assert not list(tmp_path.rglob("*.pyc"))  # noqa: ASYNC240


async def test_a_window_imports_no_compiled_file_of_an_earlier_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    late = MODULE.replace("from helping import ANSWER\n", "").replace(
        "    if task", "    from helping import ANSWER\n    if task"
    )
    write(tmp_path, mine=late, helping="ANSWER = 1")
    own, helping = f"{tmp_path}:mine:train", tmp_path / "helping.py"
    async with bench(tmp_path) as b:
        await b.run(own)
        assert getattr(b.last, "metrics", None) == {"answer": 1}
        before = helping.stat()
        write(tmp_path, helping="ANSWER = 2")
        os.utime(helping, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # of the same size, in the same second
        await b.run(own)
        assert getattr(b.last, "metrics", None) == {"answer": 2}
        assert not list(tmp_path.rglob("*.pyc"))  # noqa: ASYNC240


async def test_a_launcher_that_could_not_import_is_replaced_too(tmp_path: Path) -> None:
    write(tmp_path, mine="import helping\nraise ValueError\n" + MODULE, helping="ANSWER = 1")
    own = f"{tmp_path}:mine:train"
    async with bench(tmp_path) as b:
        with pytest.raises(Exception, match="ValueError"):
            await b.launcher.preload(own)
        write(tmp_path, mine=MODULE, helping="ANSWER = 2")
        await b.run(own)
        assert getattr(b.last, "metrics", None) == {"answer": 2}
