"""`demo`: write real daily bars, a symbols file and a configuration into a new directory, and run them."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path

from gpusched.cli.commands.batches import ask, check_libraries, given_path, run_request
from gpusched.cli.outcomes import outlives_its_reader
from gpusched.config import BUILT_IN_WORKLOAD, load
from gpusched.errors import InputError

CONFIG = """\
# What `gpusched demo` runs. `gpusched config` lists all settings.

[data]
root = "data"

[windows]
start = 2000-03-01
end = 2013-03-01
days = 180

[run]
output = "runs"
"""


class DemoExists(InputError):
    problem = "{path} exists already"
    remedy = "name another directory, or `cd {path}` and `gpusched run symbols.txt`"


class DemoUnwritable(InputError):
    problem = "the demo cannot be written to {path}: {why}"
    remedy = "name a directory that you may write"


@outlives_its_reader
def demo(options: argparse.Namespace) -> int:
    """Write the demo, run it, and suggest the next commands."""
    from gpusched import sample

    directory = given_path(options.directory)
    load(path=Path(os.devnull), flags=options.flags)  # raises for a bad flag before anything is written
    check_libraries(BUILT_IN_WORKLOAD)
    try:
        directory.mkdir(parents=True)
        symbols = sample.write_sample(directory)
        (directory / "symbols.txt").write_text("".join(f"{symbol}\n" for symbol in symbols), encoding="utf-8")
        (directory / "config.toml").write_text(CONFIG, encoding="utf-8")
    except FileExistsError:
        raise DemoExists(path=shlex.quote(options.directory)) from None
    except OSError as error:
        raise DemoUnwritable(path=options.directory, why=error.strerror or error) from None
    if not options.json:
        print(f"Wrote the daily bars of {', '.join(symbols)}, 2000–2013, to {directory}")  # noqa: T201
    options.config = directory / "config.toml"
    options.symbols_file = str(directory / "symbols.txt")
    request = ask(options)
    code = run_request(request, as_json=options.json, advises=False)
    if not options.json:
        print(_next_steps(options.directory, request.output_dir))  # noqa: T201
    return code


def _next_steps(directory: str, output_dir: Path) -> str:
    command = _command()
    return f"""
The results are in {output_dir}
one directory for each window, and an index of all of them in teacher_runs.json. Try next:

  cd {shlex.quote(directory)}
  {command} run symbols.txt                            # again: every window is reused
  {command} plan symbols.txt --window-days 90          # what shorter windows would find
  {command} train IBM 2008-01-01 2008-06-28 -o one     # one window, in one process"""


def _command() -> str:
    """The command that runs this gpusched from any directory."""
    called = Path(sys.argv[0])
    if called.name != "gpusched":
        return f"{shlex.quote(sys.executable)} -m gpusched"
    in_path = shutil.which("gpusched")
    return "gpusched" if in_path and Path(in_path).samefile(called) else shlex.quote(str(called.absolute()))
