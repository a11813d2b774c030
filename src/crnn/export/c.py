"""C99: one .h and one .c with the weights, no allocation, no library but math.h; a test, an example and a README."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.errors import ExportError
from crnn.export.c_readme import readme
from crnn.export.c_source import CSource, Golden
from crnn.export.keras import sample_sequences
from crnn.program.program import Program
from crnn.program.tables import Tables, tabulate

Reference = Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[np.float32]]]
"""Sequences, (time, *features) each -> (outputs,) each, or (frames, outputs), as the model itself gives them."""

TOLERANCE = 1e-4
"""Largest difference from the model that is let pass, as a share of its largest output (of 1, if that is more)."""
TOLERANCE_INT8 = 0.1
"""The same where activations are rounded to 8 bits, which the network that is compared with does not do."""

MESSAGE = 300
"""Characters of a compiler's message that are shown."""
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion")


@dataclass(frozen=True)
class CExport:
    """What was written, and whether it was compiled and compared with the model."""

    folder: Path
    state_bytes: int
    """RAM of one stream."""
    scratch_bytes: int
    """Of stack during a call, beside a few hundred bytes."""
    weight_bytes: int
    code_bytes: int | None
    """Code and what else is constant, as compiled here with -O2; None where it was not."""
    difference: float | None
    """Largest one from the model, as a share of its largest output (of 1, if that is more); None if not compiled."""
    unchecked: str | None
    """Why it was not compiled here; None where it was, and passed its own test."""

    def describe(self) -> str:
        """In one line."""
        code = "" if self.code_bytes is None else f" + {self.code_bytes / 1000:.0f} kB code"
        sizes = (
            f"{self.folder}: weights {self.weight_bytes / 1000:.0f} kB{code}; RAM {self.state_bytes / 1000:.1f} kB a "
            f"stream, {self.scratch_bytes / 1000:.1f} kB stack"
        )
        if self.difference is None:
            return f"{sizes}; NOT CHECKED: {self.unchecked}; compile and run the test in the folder before you use it"
        return f"{sizes}; compiled, and its test passed: largest difference from the model {self.difference:.1e}"


def export_c(
    program: Program, folder: str | Path, *, name: str, reference: Reference, overwrite: bool = False
) -> CExport:
    """Write a program as C99 source, after a compiler's build of it has given the model's numbers.

    The folder gets NAME.h, NAME.c, main.c (an example that reads stdin), test_NAME.c and README.md.

    Args:
        name: prefix of every name in C, and of the files.
        reference: the model itself; the test in the folder compares with its outputs.
        overwrite: replace a folder's files of the same names.
    Raises:
        ExportError: an operation that the engine does not know, or a program that cannot stream, and by which layer; a
            name that is none in C; a folder that is there; or source that does not give the model's numbers. In all
            of these nothing is written.
    """
    folder = Path(folder)
    where = program.why_no_stream()
    if where is not None:
        raise ExportError(
            f"{where} needs the end of the sequence before its first output, and the C file takes frames as they come; "
            "use a layer that streams instead, train with --preset live (speech-small for text, ecg-small for tags), "
            "or export to onnx or keras, which take whole sequences"
        )
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ExportError(f"name: found {name!r}, expected letters, digits and _ only, a letter first: a name in C")
    if folder.exists() and not overwrite and not (folder.is_dir() and not any(folder.iterdir())):
        raise ExportError(f"{folder}: is there already; name another folder, or give overwrite=True")
    tables = tabulate(program)
    source = CSource(program, tables, name)
    golden = make_golden(program, reference)
    files = {
        f"{name}.h": source.header(),
        f"{name}.c": source.source(),
        "main.c": source.main(),
        f"test_{name}.c": source.test(golden, TOLERANCE_INT8 if "int8" in tables.features else TOLERANCE),
    }
    built = _build(files, name)
    report = _report(folder, tables, built)
    files["README.md"] = readme(program, tables, name, report.code_bytes, report.unchecked)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return report


def make_golden(program: Program, reference: Reference) -> list[Golden]:
    """Random sequences, the shortest allowed one among them, and what the model makes of each."""
    golden = []
    for sequence in sample_sequences(program):
        outputs = np.asarray(reference([sequence])[0], np.float32).reshape(-1, program.output.size)
        frames = np.asarray(sequence, np.float32).reshape(len(sequence), -1)
        golden.append(Golden(frames, outputs))
    return golden


@dataclass(frozen=True)
class _Built:
    """What a compiler made of the files here."""

    unchecked: str | None
    difference: float | None = None
    code_bytes: int | None = None


def find_compiler() -> list[str] | None:
    """The command of a C compiler: $CC, or cc, gcc or clang; None where there is none."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    found = next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)
    return None if found is None else [found]


def _build(files: dict[str, str], name: str) -> _Built:
    """Compile the files elsewhere, and run their test.

    Raises:
        ExportError: it compiled, and did not give the model's numbers.
    """
    compiler = find_compiler()
    if compiler is None:
        return _Built("no C compiler was found here; install one, or set CC")
    with tempfile.TemporaryDirectory() as place:
        for file, text in files.items():
            Path(place, file).write_text(text, encoding="utf-8")
        unit = _run([*compiler, *FLAGS, "-c", f"{name}.c", "-o", "model.o"], place)
        if isinstance(unit, str):
            return _Built(unit)
        test = _run([*compiler, *FLAGS, f"test_{name}.c", "model.o", "-lm", "-o", "test"], place)
        if isinstance(test, str):
            return _Built(test)
        done = subprocess.run([str(Path(place, "test"))], capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise ExportError(
                f"{name}.c: not written: compiled, and its test failed: {done.stdout.strip() or done.returncode}; "
                "please report it with the spec, crnn info"
            )
        numbers = re.findall(r"[\d.]+(?:e[-+]?\d+)?", done.stdout)
        return _Built(None, float(numbers[-2]) / float(numbers[-1]), _code_bytes(Path(place, "model.o")))


def _run(command: list[str], place: str) -> str | None:
    """Run a compiler; what it said where it failed."""
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
    except OSError as error:
        return f"{command[0]} cannot be run: {error}"
    if done.returncode == 0:
        return None
    return (
        f"{' '.join(command)} failed: {_first_error(done.stderr) or f'exit status {done.returncode}, it said nothing'}"
    )


def _first_error(said: str) -> str:
    """Of what a compiler said the line that names the first error, and how much more there is."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = next((line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)), lines[0] if lines else "")
    more = f" (and {len(lines) - 1} more lines)" if len(lines) > 1 else ""
    return f"{first[:MESSAGE]}{more}"


def _code_bytes(unit: Path) -> int | None:
    """Code and constants of an object file, all in all; None without binutils."""
    tool = shutil.which("size")
    if tool is None:
        return None
    done = subprocess.run([tool, str(unit)], capture_output=True, text=True, timeout=60)
    return int(done.stdout.splitlines()[1].split()[0]) if done.returncode == 0 else None


def _report(folder: Path, tables: Tables, built: _Built) -> CExport:
    weights = tables.weights.nbytes + tables.bytes.nbytes
    return CExport(
        folder=folder,
        state_bytes=tables.state_bytes,
        scratch_bytes=tables.num_scratch * 4,
        weight_bytes=weights,
        code_bytes=None if built.code_bytes is None else built.code_bytes - weights,
        difference=built.difference,
        unchecked=built.unchecked,
    )
