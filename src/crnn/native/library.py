"""The shared library of the step engine for this machine: compiled at installation, the fastest that runs here."""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
"""Slowest first; each at the place that `crnn_engine_supports` in binding.c knows it by."""

FILES = {
    "engine": ("kernels.h", "spectrum.h", "engine.h", "binding.c"),
    "training": (
        "vectors.h",
        "products.h",
        "recurrence.h",
        "gru.h",
        "gru_before.h",
        "lstm.h",
        "rnn.h",
        "scans.h",
        "training.c",
    ),
}
"""Of each shared library, as setup.py has them."""
SOURCES = tuple(Path(__file__).with_name(name) for name in FILES["engine"] if name.endswith(".h"))
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


def built(kind: Literal["engine", "training"], instruction_set: str) -> Path | None:
    """A shared library that was compiled from the sources as they are now; None where there is none."""
    sources = b"".join(Path(__file__).with_name(name).read_bytes() for name in FILES[kind])
    name = f"{kind}.{instruction_set}.{hashlib.sha256(sources).hexdigest()[:8]}.so"
    path = Path(__file__).with_name(name)
    return path if path.is_file() else None


def _open(instruction_set: str) -> ctypes.CDLL:
    """Raises LibraryError where it was not built, or cannot be loaded."""
    path = built("engine", instruction_set)
    if path is None:
        raise LibraryError(
            "the step engine was not compiled when crnn was installed, or from other sources; install crnn again, "
            "where there is a C compiler"
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
        ours = [name for i, name in enumerate(INSTRUCTION_SETS) if built("engine", name) is not None and supports(i)]
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
