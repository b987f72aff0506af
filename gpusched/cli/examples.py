"""Examples of each command, shown below its `--help`: (arguments, purpose). The tests parse every one."""

from __future__ import annotations

#: columns of the narrowest terminal that help is written for
COLUMNS = 80

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "demo": (("", "in ./gpusched-demo"), ("try --workers 2", "in ./try, on two slots")),
    "plan": (
        ("symbols.txt --start 2022-01-01 --end 2024-12-31", "one window for each 180 days of each symbol"),
        ("--symbols AAPL,MSFT --start 2022-01-01 --end 2022-12-31 --json", "for a program"),
    ),
    "run": (
        ("symbols.txt --start 2022-01-01 --end 2024-12-31", "into gpusched-runs/"),
        ("symbols.txt -o results --workers 4", "dates of config.toml, into results/, four at a time"),
        ("symbols.txt --set lightgbm.num_leaves=31", "with another parameter"),
        ("symbols.txt -o results --reuse-from earlier", "with the results that lie in earlier/"),
    ),
    "bench": (("symbols.txt --start 2022-01-01 --end 2022-12-31", "a year of windows, three times each way"),),
    "train": (("AAPL 2022-01-01 2022-06-29 -o one", "into one/"),),
    "daemon": (
        ("", "where the other commands look for it; systemd/ has units"),
        ("--socket ./here --set devices.slots=4", "at ./here, with four slots on each GPU"),
    ),
    "submit": (
        ("symbols.txt --name teachers", "as batch `teachers`, dates of config.toml"),
        ("symbols.txt --start 2022-01-01 --end 2024-12-31 --wait", "and wait, with the exit code of the batch"),
    ),
    "status": (
        ("", "unfinished batches, and the last finished ones"),
        ("teachers", "one batch on one screen"),
        ("--all --state finished", "every batch that is finished"),
        ("gpusched-runs/teachers", "a run, which needs no daemon"),
    ),
    "windows": (("teachers", "all of them"), ("teachers --status failed", "those that failed, with reasons")),
    "show": (("teachers/AAPL_2022-01-01_to_2022-06-29", "its story, launches and logs"),),
    "logs": (
        ("teachers/AAPL_2022-01-01_to_2022-06-29", "of its last attempt"),
        ("teachers/AAPL_2022-01-01_to_2022-06-29 -f", "while it runs"),
    ),
    "results": (
        ("teachers --sort validation_auc", "the best first"),
        ("teachers --csv", "for a spreadsheet"),
        ("teachers --by-symbol", "mean and spread by symbol"),
    ),
    "report": (
        ("teachers", "into teachers.html"),
        ("gpusched-runs/a gpusched-runs/b", "two of them side by side"),
        ("gpusched-runs/teachers -o run.html", "of a run, which needs no daemon"),
    ),
    "explain": (("teachers/AAPL_2022-01-01_to_2022-06-29", "which device has no room for it, and why"),),
    "compare": (
        ("teachers teachers-2", "two batches of the daemon"),
        ("gpusched-runs/a gpusched-runs/b --metric validation_auc", "two runs, one metric"),
    ),
    "wait": (("teachers", "with the exit code of the batch"), ("teachers teachers-2", "until both are finished")),
    "top": (
        ("", "until q is pressed"),
        ("gpusched-runs/teachers", "one frame of a run"),
        ("--once", "one frame, for a log or a pipe"),
        ("--json", "for a program"),
    ),
    "cancel": (("teachers", "the whole batch"), ("teachers/AAPL_2022-01-01_to_2022-06-29", "one window")),
    "hold": (("teachers", "until `gpusched release teachers`"),),
    "release": (("teachers", "go on as before"), ("teachers --set run.workers=2", "two at a time from now on")),
    "retry": (("teachers", "what failed or was cancelled"), ("teachers --set run.timeout_s=7200", "with more time")),
    "priority": (("teachers 10", "before batches with less"), ("teachers 0", "as it began")),
    "forget": (
        ("teachers", "records and logs; results stay"),
        ("--older-than 30d", "all that finished a month ago"),
    ),
    "devices": (("", "of the daemon"), ("--json", "for a program")),
    "nodes": (("", "of the daemon"), ("--json", "for a program")),
    "drain": (("GPU-3f2a", "by the start of its id"), ("n2", "a node"), ("", "all devices")),
    "resume": (("GPU-3f2a", "by the start of its id"), ("", "all devices")),
    "completion": (("bash", 'in ~/.bashrc: eval "$(gpusched completion bash)"'),),
    "doctor": (
        ("", "takes some seconds"),
        ("--data-root bars", "are there data to train on?"),
        ("--build-cuda", "build LightGBM with CUDA for the GPUs of this machine"),
    ),
    "config": (("", "every setting, and where it comes from"), ("--set run.workers=2", "with a change")),
}


def examples(command: str) -> str:
    """The examples of a command as the last lines of its help, or nothing."""
    lines = [
        (f"  gpusched {command} {arguments}".rstrip(), purpose) for arguments, purpose in EXAMPLES.get(command, ())
    ]
    width = max((len(line) for line, _ in lines), default=0)
    beside = all(width + 4 + len(purpose) < COLUMNS for _, purpose in lines)
    texts = [
        line if not purpose else f"{line:<{width}}  # {purpose}" if beside else f"  # {purpose}\n{line}"
        for line, purpose in lines
    ]
    return "\n".join(("examples:", *texts)) if texts else ""
