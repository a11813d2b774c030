"""What every benchmark writes beside its numbers: versions and machine class; where data lies; JSON in and out."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = ("torch", "numpy", "scikit-learn", "skorch", "onnxruntime")
MISSING = "development data is not here; set CRNN_DATA to its folder"


def find_data() -> Path | None:
    """The folder of development data: CRNN_DATA, or shared/data beside the checkout; None when absent."""
    folder = Path(os.environ.get("CRNN_DATA") or HERE.parents[1] / "shared" / "data")
    return folder if folder.is_dir() else None


def describe_machine(threads: int) -> str:
    """The class of this machine, such as 'x86_64, AMD EPYC, 2 cores, 1 thread used': enough to read a ratio by."""
    words = [platform.machine()]
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        words += [found[1].strip()] if found else []
    used = f"{threads} thread{'s' if threads > 1 else ''} used"
    return ", ".join([*words, f"{os.cpu_count()} cores", used])


def versions() -> dict[str, str]:
    """Of Python, this package, and the packages that decide numbers or speed."""
    found = {"python": platform.python_version()}
    for name in ("crnn", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def set_threads(number: int) -> None:
    """Use this many CPU threads for everything in this process."""
    torch.set_num_threads(number)


def read_results(path: Path) -> dict[str, Any]:
    """What an earlier run wrote; empty when there was none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}  # type: ignore[no-any-return]


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write a result file whole or not at all, so that an interrupted benchmark loses nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".tmp")
    new.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(path)


def update_results(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Read, change and write a result file while no other process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock.tmp").open("w") as lock:  # ignored by git
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = read_results(path)
        change(results)
        write_results(path, results)
