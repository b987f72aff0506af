"""As much of pip as `doctor --build-cuda` uses, with packages that are made up.

`plan.json` has `site` (where packages are installed), `lightgbm` (the source of the one that is built) and `fails` (the
steps that fail: download, wheel, target, install, install-half). A step that is in `waits` first opens the FIFO of its
name and reads it to the end; `install-half` is between the removal of a package and its installation.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any, NoReturn

HOME = Path(os.environ["FAKE_PIP"])
PLAN: dict[str, Any] = json.loads((HOME / "plan.json").read_text())


def step(name: str) -> None:
    if name in PLAN["waits"]:
        with (HOME / name).open() as fifo:
            fifo.read()
    if name in PLAN["fails"]:
        fail(f"error: {name} cannot be done")


def fail(why: str) -> NoReturn:
    print("Building error.cpp\n" + why + "\nafter")
    sys.exit(1)


def write_wheel(directory: Path, name: str, version: str, files: dict[str, str]) -> None:
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def install(wheel: Path, site: Path, *, replace: bool) -> None:
    with zipfile.ZipFile(wheel) as archive:
        if replace:
            for top in {name.partition("/")[0] for name in archive.namelist()}:
                shutil.rmtree(site / top, ignore_errors=True)
            step("install-half")
        archive.extractall(site)


def main(arguments: list[str]) -> None:
    with (HOME / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    words = [word for word in arguments if not word.startswith("-")]
    if "--version" in arguments:
        print("pip 24.0 from nowhere (python 3)")
    elif words[0] == "download":
        step("download")
        files = {"nvidia/nccl/lib/libnccl.so.2": "", "nvidia/nccl/include/nccl.h": ""}
        write_wheel(Path(arguments[arguments.index("-d") + 1]), words[-1].replace("-", "_"), "2.0", files)
    elif words[0] == "wheel":
        for number in (1, 2):
            print(f"  [{number}/2] Building CUDA object")
        sys.stdout.flush()
        step("wheel")
        out, version = Path(arguments[arguments.index("-w") + 1]), words[-1].partition("==")[2]
        write_wheel(out, "lightgbm", version, {"lightgbm/__init__.py": PLAN["lightgbm"]})
    elif words[0] == "install":
        wheels = [Path(word) for word in words if word.endswith(".whl")]
        if "--target" in arguments:
            step("target")
            for wheel in wheels:
                install(wheel, Path(arguments[arguments.index("--target") + 1]), replace=False)
        else:
            step("install")
            for wheel in wheels:
                install(wheel, Path(PLAN["site"]), replace="lightgbm" in wheel.name)
    elif words[0] == "uninstall":
        shutil.rmtree(Path(PLAN["site"]) / "nvidia")


main([word for word in sys.argv[1:] if word not in ("--disable-pip-version-check", "--no-input")])
