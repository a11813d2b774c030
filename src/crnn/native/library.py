"""The shared library of the step engine for this machine: compiled at installation, the fastest that runs here."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
"""Slowest first; each at the place that `crnn_engine_supports` in binding.c knows it by."""

SOURCES = tuple(Path(__file__).with_name(f"{name}.h") for name in ("kernels", "spectrum", "engine"))
"""The engine itself, in the order in which one file of it would be written."""


class ProgramTables(ctypes.Structure):
    """crnn_engine in binding.c: a program's tables, by address."""

    _fields_ = [
        ("nodes", ctypes.c_void_p),
        ("ints", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("bytes", ctypes.c_void_p),
        ("num_nodes", ctypes.c_int32),
        ("num_sums", ctypes.c_int32),
        ("num_values", ctypes.c_int32),
        ("num_scratch", ctypes.c_int64),
        ("state_bytes", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class Library:
    """One compiled engine. Its functions take addresses as plain integers, which is what ctypes passes fastest."""

    instruction_set: str
    functions: ctypes.CDLL


class LibraryError(RuntimeError):
    """No compiled engine for this machine; the message says why."""


def _file(instruction_set: str) -> Path | None:
    folder = Path(__file__).parent
    found = [*folder.glob(f"_{instruction_set}.*so"), *folder.glob(f"_{instruction_set}.*pyd")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _open(instruction_set: str) -> ctypes.CDLL:
    """Raises LibraryError where it was not built, or cannot be loaded."""
    path = _file(instruction_set)
    if path is None:
        raise LibraryError(
            "the step engine was not compiled when crnn was installed; install a C compiler and then crnn again"
        )
    try:
        functions = ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryError(f"{path.name} cannot be loaded: {error}; install crnn again on this machine") from None
    at, count = ctypes.c_void_p, ctypes.c_int64
    signatures = {
        "crnn_engine_start": [at, at],
        "crnn_engine_push": [at, at, at, count, at],
        "crnn_engine_finish": [at, at, at],
        "crnn_engine_push_many": [at, at, at, count, at, count, at, count, at],
    }
    for name, arguments in signatures.items():
        function = getattr(functions, name)
        function.argtypes, function.restype = arguments, ctypes.c_int64
    functions.crnn_engine_supports.argtypes = [ctypes.c_int]
    return functions


@cache
def load(instruction_set: str | None = None) -> Library:
    """The engine for one instruction set; by default the fastest that was compiled and that this machine has.

    Raises:
        LibraryError: there is none.
    """
    supports = _open("baseline").crnn_engine_supports
    if instruction_set is None:
        ours = [name for i, name in enumerate(INSTRUCTION_SETS) if _file(name) is not None and supports(i)]
        return Library(ours[-1], _open(ours[-1]))
    if not supports(INSTRUCTION_SETS.index(instruction_set)):
        raise LibraryError(f"this machine has no {instruction_set}")
    return Library(instruction_set, _open(instruction_set))


def describe() -> str:
    """Which engine streams run on here, or why none does."""
    try:
        return f"native ({load().instruction_set})"
    except LibraryError as error:
        return f"torch: {error}"
