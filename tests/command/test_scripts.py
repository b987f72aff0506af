"""Python scripts in a fork of the launcher: as the interpreter runs them, with modules that are imported already."""

from __future__ import annotations

import gzip
import json
import signal
import sys
import zipfile
from pathlib import Path

import pytest

from gpusched.core.model import WindowResult
from gpusched.engines.engine import WorkloadNotLoadable
from gpusched.worker.messages import Progress, Started
from tests.command.support import Commands, commands, committed, names

#: a module of the standard library that nothing else here imports
PRELOAD = ("wave",)


async def test_a_script_finds_itself_as_the_interpreter_does(tmp_path: Path) -> None:
    script = """
import atexit, json, os, pickle, sys, helper
class Model: pass
os.chdir("/")
told = {
    "argv": [sys.argv[0], *sys.argv[2:]], "name": __name__, "file": __file__, "path": sys.path[0], "cwd": os.getcwd(),
    "main": sys.modules["__main__"].Model is Model and type(pickle.loads(pickle.dumps(Model()))) is Model,
    "helper": helper.answer, "preloaded": "wave" in sys.modules,
}
with open(sys.argv[1] + "/told.json", "w") as file:
    json.dump(told, file)
os.write(int(os.environ["GPUSCHED_RESULT_FD"]), b'{"auc": 0.6}')
atexit.register(lambda: pickle.dump(Model(), open(sys.argv[1] + "/pickled", "wb")))
"""
    (tmp_path / "helper.py").write_text("answer = 42\n")
    async with commands(tmp_path) as c:
        c.script(script)
        found = await c.result([sys.executable, "train.py", "{output_dir}", "--depth", "3"], PRELOAD)
    told = json.loads((Path(found.artifacts_path) / "told.json").read_text())
    assert told == {
        "argv": ["train.py", "--depth", "3"],
        "name": "__main__",
        "file": f"{tmp_path}/train.py",
        "path": str(tmp_path),
        "cwd": "/",
        "main": True,
        "helper": 42,
        "preloaded": True,
    }
    assert found.metrics == {"auc": 0.6}


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("import sys; sys.exit(2)", "no_data", "train.py exited with code 2"),
        ("import sys; sys.exit('no bars')", "exited", "train.py exited with code 1: no bars"),
        ("raise SystemExit(3)", "permanent", "train.py exited with code 3"),
        ("import sys; sys.exit(256 + 3)", "permanent", "train.py exited with code 3"),
        ("1 / 0", "exited", "train.py exited with code 1: ZeroDivisionError: division by zero"),
        ("def f(:", "exited", "SyntaxError"),
        ("raise KeyboardInterrupt", "exited", "train.py exited with code 130"),
        ("import sys; sys.exit(2**64)", "exited", "train.py exited with code 255"),
        ("import sys; sys.excepthook = None; int('x')", "exited", "train.py exited with code 1: ValueError: invalid"),
        ("raise SystemExit", "result", ""),
        ("import sys; sys.stdout.close(); sys.stderr = None", "result", ""),
    ],
)
async def test_its_exit_code_counts(tmp_path: Path, script: str, kind: str, message: str) -> None:
    async with commands(tmp_path) as c:
        if kind == "result":
            await c.result(c.python(script), PRELOAD)
        else:
            error = await c.error(c.python(script), PRELOAD)
            assert (error.kind, message in error.message) == (kind, True), error
            assert "runpy" not in c.log
            assert "gpusched/" not in c.log


async def test_threads_and_exit_handlers_come_to_their_end(tmp_path: Path) -> None:
    script = """
import atexit, sys, threading
ready = threading.Event()
def late():
    ready.wait()
    open(sys.argv[1] + "/thread", "w").close()
threading.Thread(target=late).start()
atexit.register(lambda: open(sys.argv[1] + "/atexit", "w").close())
ready.set()
"""
    async with commands(tmp_path) as c:
        found = Path((await c.result(c.python(script), PRELOAD)).artifacts_path)
    assert names(found) == {"thread", "atexit", "metadata.json"}


async def test_files_that_a_script_leaves_open_are_written_as_by_the_interpreter(tmp_path: Path) -> None:
    """They were committed without the contents of their buffers."""
    script = """
import gzip, sys, zipfile
table = open(sys.argv[1] + "/table.csv", "w")
packed = gzip.open(sys.argv[1] + "/packed.gz", "wt")
archive = zipfile.ZipFile(sys.argv[1] + "/archive.zip", "w")
def write():
    table.write("1,2")
    packed.write("3,4")
    archive.writestr("x", "5,6")
write()
"""
    async with commands(tmp_path) as c:
        found = Path((await c.result(c.python(script), PRELOAD)).artifacts_path)
    assert (found / "table.csv").read_text() == "1,2"
    assert gzip.decompress((found / "packed.gz").read_bytes()) == b"3,4"
    assert zipfile.ZipFile(found / "archive.zip").read("x") == b"5,6"


async def test_a_fork_of_a_script_commits_nothing(tmp_path: Path) -> None:
    script = """
import os, sys
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
open(f"{sys.argv[1]}/{'parent' if pid else 'child'}", "w").close()
"""
    async with commands(tmp_path) as c:
        found = Path((await c.result(c.python(script), PRELOAD)).artifacts_path)
        # a window that takes long, on a busy machine, reports its phase in between
        said = [type(message) for message in c.workers.messages if not isinstance(message, Progress)]
        assert said == [Started, WindowResult]
    assert names(found) == {"parent", "child", "metadata.json"}


async def test_a_script_that_ends_itself_when_it_is_stopped_has_no_result(tmp_path: Path) -> None:
    script = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
"""
    async with commands(tmp_path) as c:
        end = await c.run(c.python(script), PRELOAD)
    assert end.signal == signal.SIGTERM
    assert committed(tmp_path) == []


async def test_a_module_runs_as_with_dash_m(tmp_path: Path) -> None:
    package = tmp_path / "trainer"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import sys; open(sys.argv[1] + '/' + sys.argv[2], 'w').close()\n")
    async with commands(tmp_path) as c:
        argv = [sys.executable, "-m", "trainer", "{output_dir}", "{symbol}"]
        found = Path((await c.result(argv, PRELOAD)).artifacts_path)
    assert (found / "SYM").exists()


async def test_windows_do_not_share_their_random_numbers(tmp_path: Path) -> None:
    script = (
        "import sys, numpy, random; print(numpy.random.random(), random.random(), file=open(sys.argv[1] + '/r', 'w'))"
    )
    drawn = []
    async with commands(tmp_path) as c:
        for _ in range(2):
            found = Path((await c.result(c.python(script), ("numpy",))).artifacts_path)
            drawn += (found / "r").read_text().split()
    assert len(set(drawn)) == 4


async def test_a_preloaded_module_that_was_edited_is_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window trained with the old one, and its result had the fingerprint of the new one."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "helper.py").write_text("V = 0.5\n")
    async with commands(tmp_path) as c:
        argv = c.python("import sys, helper\nprint(helper.V, file=open(sys.argv[1] + '/v', 'w'))\n")
        assert await said(c, argv) == "0.5\n"
        (tmp_path / "helper.py").write_text("V = 0.75\n")
        assert await said(c, argv) == "0.75\n"


async def said(c: Commands, argv: list[str]) -> str:
    return (Path((await c.result(argv, ("helper",))).artifacts_path) / "v").read_text()


async def test_a_module_that_cannot_be_preloaded(tmp_path: Path) -> None:
    async with commands(tmp_path) as c:
        with pytest.raises(WorkloadNotLoadable, match=r"command.preload: importing no_such_module failed"):
            await c.run(c.python("pass"), ("no_such_module",))
