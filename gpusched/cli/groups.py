"""Groups of arguments that commands have, each a function that adds them to a parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from gpusched.cli.setting_options import SETTING_OPTIONS

Group = Callable[[argparse.ArgumentParser], None]


def settings(*names: str, title: str = "windows") -> Group:
    """Options for settings of `config.toml`."""

    def add(command: argparse.ArgumentParser) -> None:
        group = command.add_argument_group(title)
        for name in names:
            _, metavar, text = SETTING_OPTIONS[name]
            if metavar:
                group.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=text)
            else:
                group.add_argument(f"--{name.replace('_', '-')}", action="store_const", const="true", help=text)

    return add


def as_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, and nothing else")


def top(command: argparse.ArgumentParser) -> None:
    command.add_argument("--top", action="store_true", help="watch it in the screen of `top`, with its keys")


def symbols(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "symbols_file",
        nargs="?",
        metavar="SYMBOLS_FILE",
        help="one symbol a line, # starts a comment; or windows, one JSON object a line or in an array; - is stdin",
    )
    command.add_argument("--symbols", metavar="A,B,…", help="the symbols themselves, in place of SYMBOLS_FILE")


def timeline(command: argparse.ArgumentParser) -> None:
    command.add_argument("--timeline", action="store_true", help="draw the windows as bars over time, not as a list")
    command.add_argument("--windows", action="store_true", help="list every window, even if they are many")


def sweep(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("sweep: every window with each combination of values")
    group.add_argument(
        "--param",
        action="append",
        metavar="KEY=V1,V2",
        help="values of a setting, such as lightgbm.num_leaves=15,31 (repeatable)",
    )
    group.add_argument(
        "--params", metavar="FILE", help="combinations one by one: CSV with settings as heading, or JSON objects"
    )
    group.add_argument("--sample", type=int, metavar="N", help="only so many combinations, drawn at random (all)")
    group.add_argument("--seed", type=int, metavar="N", help="another seed is another draw of --sample (0)")


def output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", metavar="DIR", help="directory of the results (gpusched-runs/<batch id>)")


def existing(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("results that are there already")
    group.add_argument(
        "--reuse-from",
        nargs="+",
        action="extend",
        metavar="DIR",
        help="copy the same results of other output directories, instead of training them again",
    )
    group.add_argument("--replace", action="store_true", help="replace results of other settings without asking")


def program(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--command",
        dest="command_line",
        metavar="'PROGRAM …'",
        help="your own program in place of the built-in training, with {symbol}, {start}, {end}, {output_dir}, … filled"
        " in; it may also stand behind `--`",
    )


def naming(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", help="the batch's id (made from the symbols file's name and the settings)")
    command.add_argument("--priority", type=int, metavar="N", help="batches with a higher one go first (0)")


def window(command: argparse.ArgumentParser) -> None:
    for name, text in (("symbol", "such as AAPL"), ("start_date", "first day, YYYY-MM-DD"), ("end_date", "last day")):
        command.add_argument(name, metavar=name.removesuffix("_date").upper(), help=text)
    command.add_argument("-o", "--output", metavar="DIR", required=True, help="directory of the result")


def directory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "directory", nargs="?", default="gpusched-demo", metavar="DIR", help="directory to create (./gpusched-demo)"
    )
    command.add_argument("--workers", metavar="N", help="so many windows at once at most; 0: as many as slots (0)")
    command.set_defaults(output=None, name=None, priority=None, param=None, params=None, sample=None, seed=None)


def wait(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--wait", action="store_true", help="show the batch until it ends; the exit code is the batch's"
    )


def stage(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("when")
    group.add_argument("--after", action="append", metavar="BATCH", help="start when that batch is done (repeatable)")
    group.add_argument(
        "--if",
        dest="only_if",
        choices=("succeeded", "finished"),
        help="how the batches of --after have to end (succeeded)",
    )
    group.add_argument("--not-before", metavar="TIME", help="do not start before 18:00 (the next), or 2024-12-31T18:00")


def several(command: argparse.ArgumentParser) -> None:
    command.add_argument("batches", nargs="+", metavar="BATCH", help="ids of the batches")


def batch(command: argparse.ArgumentParser) -> None:
    command.add_argument("batch", metavar="BATCH|DIR", help="id of the batch, or the output directory of a run")


def maybe_batch(command: argparse.ArgumentParser) -> None:
    command.add_argument("batch", nargs="?", metavar="BATCH|DIR", help="a batch, or a run's directory (all batches)")


def batches(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", metavar="PART", help="only batches with this in their id")
    states = ("running", "waiting", "held", "finished", "failed")
    command.add_argument("--state", choices=states, help="only batches in this state; failed: with failures")
    command.add_argument("--limit", type=int, metavar="N", help="at most so many (on a terminal 20)")
    command.add_argument("--all", action="store_true", help="all of them, on a terminal too")


def status_filter(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--status", metavar="STATUS", help="only windows that are queued, running, succeeded, failed, …"
    )


def one_window(command: argparse.ArgumentParser) -> None:
    command.add_argument("window", metavar="BATCH/LABEL", help="a window of a batch, or of a run: DIR/LABEL")


def log(command: argparse.ArgumentParser) -> None:
    command.add_argument("-f", "--follow", action="store_true", help="go on printing until the window is finished")
    command.add_argument("--attempt", type=int, metavar="N", help="of another attempt than the last; the first is 1")


def tables(command: argparse.ArgumentParser) -> None:
    command.add_argument("--csv", action="store_true", help="print CSV, one column for each metric")
    command.add_argument("--parquet", metavar="FILE", help="write a parquet file (needs pyarrow)")
    command.add_argument("--sort", metavar="COLUMN", help="largest first, text from A to Z (as they finished)")
    command.add_argument("--reverse", action="store_true", help="reverse the order; rows without a value stay last")
    command.add_argument(
        "--by-symbol", action="store_true", help="mean, spread, best and worst window of a metric by symbol"
    )
    command.add_argument(
        "--by",
        metavar="COLUMN,…",
        help="mean, median, spread, best and worst of a metric for each value of a column; `param`: of each point",
    )
    command.add_argument("--metric", metavar="COLUMN", help="the metric of --by and --by-symbol (validation_auc)")
    command.add_argument("--best", metavar="COLUMN", help="only the window where it is best (with --reverse: worst)")
    command.add_argument(
        "--per", metavar="COLUMN,…", help="with --best: one for each value of a column, such as symbol"
    )


def report(command: argparse.ArgumentParser) -> None:
    command.add_argument("other", nargs="?", metavar="OTHER", help="another one, to be shown beside it")
    command.add_argument("-o", "--output", metavar="FILE", help="the file to write (<batch id>.html); -: stdout")
    command.add_argument("--metric", metavar="NAME", help="the metric of the figures (validation_auc)")


def two(command: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        command.add_argument(name, metavar=name.upper(), help="id of a batch, or the directory of its results")
    command.add_argument(
        "--metric", action="append", default=[], metavar="NAME", help="only this metric (repeatable; all)"
    )
    command.add_argument("--windows", action="store_true", help="list all windows, not only the greatest differences")


def shell(command: argparse.ArgumentParser) -> None:
    command.add_argument("shell", choices=("bash", "zsh", "fish"), help='use: eval "$(gpusched completion bash)"')


def target(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", metavar="BATCH[/LABEL]", help="a batch, or one window of it")


def again(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", metavar="BATCH|DIR[/LABEL]", help="a batch, a run's directory, or one window of it")


def forget(command: argparse.ArgumentParser) -> None:
    command.add_argument("batches", nargs="*", metavar="BATCH", help="finished batches")
    command.add_argument("--older-than", metavar="AGE", help="all that finished at least that long ago: 30d, 12h, 2w")
    command.add_argument("--results", action="store_true", help="delete their results, too: nothing brings them back")


def priority(command: argparse.ArgumentParser) -> None:
    command.add_argument("batch", metavar="BATCH", help="id of the batch")
    command.add_argument(
        "priority", type=int, metavar="N", help="batches with a higher number go first; it begins at 0"
    )


def repeat(command: argparse.ArgumentParser) -> None:
    command.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each kind (3)")
    command.set_defaults(output=None, name=None, priority=None)


def cuda_build(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--build-cuda",
        action="store_true",
        help="build LightGBM with CUDA, try it, and put it in the place of this one",
    )
    command.add_argument(
        "--arch", metavar="LIST", help="compute capabilities to build for, such as 86,90 (of the GPUs here)"
    )
    command.add_argument("--yes", action="store_true", help="build without asking")


def once(command: argparse.ArgumentParser) -> None:
    how = command.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="print one frame, and end")
    how.add_argument("--json", action="store_true", help="print one snapshot as JSON, and end")
    command.add_argument("directory", nargs="?", metavar="DIR", help="the output directory of a run: one frame of it")


def maybe_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("on", nargs="?", metavar="DEVICE", help="its id or the start of it, or a node (all devices)")
