"""Builds step engine and training kernels in C, once for each instruction set; what does not compile is left out.

The name of each library holds a hash of its sources, so that none that was built from others is ever loaded.
"""

import hashlib
import os
import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = "src/crnn/native"
SOURCES = {
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
"""Kind -> its files, the one to compile last; as crnn.native.library has them."""
FLAGS = {
    "baseline": ([], []),
    "avx2": (["-mavx2", "-mfma"], ["/arch:AVX2"]),
    "avx512": (
        ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma", "-mprefer-vector-width=512"],
        ["/arch:AVX512"],
    ),
}
"""Instruction set -> flags of gcc and clang, flags of MSVC."""


class BuildLibraries(build_ext):
    """Plain shared libraries, which ctypes loads: no modules of Python's."""

    def build_extension(self, ext: Extension) -> None:
        kind, instruction_set = ext.name.rpartition(".")[2].split("_")
        unix, windows = FLAGS[instruction_set]
        is_msvc = self.compiler.compiler_type == "msvc"
        if kind == "training":
            unix = [*unix, "-ffp-contract=fast"]  # the vectors of gcc and clang, without MSVC's own way to write them
        ext.extra_compile_args = ["/O2", *windows] if is_msvc else ["-std=c99", "-O3", *unix]
        super().build_extension(ext)

    def get_ext_filename(self, fullname: str) -> str:
        *packages, name = fullname.split(".")
        kind, instruction_set = name.split("_")
        sources = b"".join(Path(FOLDER, name).read_bytes() for name in SOURCES[kind])
        return os.path.join(*packages, f"{kind}.{instruction_set}.{hashlib.sha256(sources).hexdigest()[:8]}.so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []  # the source marks its own


is_x86 = platform.machine().lower() in ("x86_64", "amd64")
setup(
    ext_modules=[
        Extension(
            f"crnn.native.{kind}_{instruction_set}",
            [f"{FOLDER}/{sources[-1]}"],
            depends=[f"{FOLDER}/{name}" for name in sources],
            libraries=["m"] if os.name == "posix" else [],
            optional=True,
        )
        for kind, sources in SOURCES.items()
        for instruction_set in (FLAGS if is_x86 else ["baseline"])
        if kind == "engine" or os.name == "posix"
    ],
    cmdclass={"build_ext": BuildLibraries},
)
