"""Builds step engine and training kernels in C, once for each instruction set; what does not compile is left out."""

import os
import platform

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = "src/crnn/native/binding.c"
HEADERS = [f"src/crnn/native/{name}.h" for name in ("kernels", "spectrum", "engine")]
FLAGS = {
    "baseline": ([], []),
    "avx2": (["-mavx2", "-mfma"], ["/arch:AVX2"]),
    "avx512": (
        ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma", "-mprefer-vector-width=512"],
        ["/arch:AVX512"],
    ),
}
"""Instruction set -> flags of gcc and clang, flags of MSVC."""
TRAINING = "crnn.native._training_"


class BuildEngine(build_ext):
    """Plain shared libraries, which ctypes loads: no module of Python's."""

    def build_extension(self, ext: Extension) -> None:
        unix, windows = FLAGS[ext.name.rpartition("_")[2]]
        is_msvc = self.compiler.compiler_type == "msvc"
        if ext.name.startswith(TRAINING):
            unix = [*unix, "-ffp-contract=fast"]  # the vectors of gcc and clang, without MSVC's own way to write them
        ext.extra_compile_args = ["/O2", *windows] if is_msvc else ["-std=c99", "-O3", *unix]
        super().build_extension(ext)

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []  # the source marks its own


is_x86 = platform.machine().lower() in ("x86_64", "amd64")
names = list(FLAGS) if is_x86 else ["baseline"]
setup(
    ext_modules=[
        Extension(
            f"crnn.native._{name}",
            [SOURCE],
            depends=HEADERS,
            libraries=["m"] if os.name == "posix" else [],
            optional=True,
        )
        for name in names
    ]
    + [
        Extension(TRAINING + name, ["src/crnn/native/training.c"], libraries=["m"], optional=True)
        for name in names
        if os.name == "posix"
    ],
    cmdclass={"build_ext": BuildEngine},
)
