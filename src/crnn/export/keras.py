"""Keras 3: one .keras file of stock layers and operations, for whole sequences in padded batches.

No Lambda layer and no code of ours is in the file: `keras.models.load_model` reads it in safe mode, without crnn.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.errors import ExportError, MissingExtraError
from crnn.export.keras_graph import Graph
from crnn.export.keras_ops import WRITERS
from crnn.program import ops
from crnn.program.program import Program

Frames = NDArray[Any]
"""One sequence: (time, *features) float32, or (time,) int64 symbol ids."""
Reference = Callable[[Sequence[Frames]], Sequence[NDArray[Any]]]
"""Sequences -> (outputs,) each, or (frames, outputs), as the model itself gives them."""

TOLERANCE = 1e-4
"""Largest difference from the model that is let pass, as a share of its largest output (of 1, if that is more)."""


@dataclass(frozen=True)
class KerasCheck:
    """What was written, and how far it is from the model."""

    path: Path
    bytes: int
    parameters: int
    lengths: tuple[int, ...]
    """Frames of the sequences that were tried, as one padded batch."""
    difference: float
    """Largest difference between its outputs and the model's."""
    largest_output: float

    def describe(self) -> str:
        """In one line."""
        return (
            f"{self.path}: {self.bytes / 1000:.0f} kB, {self.parameters} parameters; largest difference from the "
            f"model {self.difference:.1e} (outputs up to {self.largest_output:.3g}) on {len(self.lengths)} sequences "
            f"of {min(self.lengths)} to {max(self.lengths)} frames"
        )


def export_keras(program: Program, path: str | Path, *, reference: Reference, overwrite: bool = False) -> KerasCheck:
    """Write a program as a .keras file, read it back, and compare it with the model on a padded batch.

    The Keras model takes a dict of `x` (batch, time, *features) float32, or (batch, time) int32 symbol ids, and
    `lengths` (batch,) int32; what stands past an end changes nothing. It gives a dict of `outputs` (batch, n) and,
    where the task has some, `probabilities`; NaN for a sequence that is shorter than the network needs. A network that
    answers for every frame gives `outputs` (batch, frames, n), zero past the ends, and `out_lengths` (batch,) int32.
    The file appears under its name only after the comparison.

    Args:
        path: ends in .keras.
        reference: the model itself, to compare with.
        overwrite: replace a file that is there.
    Raises:
        ExportError: an operation that Keras has no layers for, and which layer it comes from; another ending, or a
            file that is there (all of these before anything is written); or the file does not give the model's
            numbers, and then it is not left.
        MissingExtraError: Keras or its backend is not installed.
    """
    path = Path(path)
    _check_path(path, overwrite)
    _check_operations(program)
    keras = import_keras()
    model = build_keras(program, keras)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        draft = Path(folder) / "model.keras"  # Keras insists on the ending
        with _known_warnings():
            model.save(draft)
            loaded = keras.models.load_model(draft)
            lengths, difference, largest = _compare(program, loaded, reference, keras)
        if not difference <= TOLERANCE * max(largest, 1.0):
            raise ExportError(
                f"{path}: not written: its outputs differ from the model's by {difference:.2g}, and those reach "
                f"{largest:.3g}; expected at most {TOLERANCE:g} of that (of 1, if that is more); please report it with "
                "the model's spec, crnn info"
            )
        size = draft.stat().st_size
        os.replace(draft, path)
    return KerasCheck(path, size, int(model.count_params()), lengths, difference, largest)


def build_keras(program: Program, keras: Any) -> Any:
    """The keras.Model of a program, with its weights; see `export_keras`."""
    graph = Graph(keras, program.nodes[0])
    for i, node in enumerate(program.nodes[1:], start=1):
        where = re.sub("[^0-9A-Za-z]+", "_", node.where).strip("_")
        graph.place = f"{where}_{i}"
        graph.values.append(WRITERS[type(node.op)](node.op, graph, *(graph.values[j] for j in node.inputs)))
    lengths, last = graph.lengths[()], graph.values[-1]
    if last.clock is None:
        is_long_enough = (lengths >= program.min_length)[:, None]
        found = keras.ops.where(is_long_enough, last.data, math.nan)  # a number would look like an answer
    else:
        found = graph.masked(last)
    outputs = {"outputs": keras.layers.Identity(name="outputs")(found)}
    if last.clock is not None:
        ready = keras.ops.maximum(graph.length(last), 0)
        outputs["out_lengths"] = keras.layers.Identity(name="out_lengths", dtype="int32")(ready)
    if program.activation != "none":
        activation = keras.layers.Activation(program.activation, name="probabilities")
        outputs["probabilities"] = activation(outputs["outputs"])
    return keras.Model(inputs={"x": graph.x, "lengths": lengths}, outputs=outputs, name="crnn")


def import_keras() -> Any:
    """The keras module; with TensorFlow behind it, unless the environment names another backend.

    Raises:
        MissingExtraError: Keras 3 or its backend is not installed.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _quiet_start():
            import keras
    except ImportError as error:
        raise MissingExtraError(
            f"export to Keras: {error}; it needs keras and {os.environ['KERAS_BACKEND']}: pip install 'crnn[keras]'"
        ) from None
    if int(keras.__version__.partition(".")[0]) < 3:
        raise MissingExtraError(
            f"export to Keras: found keras {keras.__version__}, it needs 3: pip install 'crnn[keras]'"
        )
    return keras


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Hold back what TensorFlow's C++ code writes to file descriptor 2 while it loads; it has read no log level yet.

    It is shown if loading fails.
    """
    if "keras" in sys.modules:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except ImportError:
            noise.seek(0)
            os.write(kept, noise.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _known_warnings() -> Iterator[None]:
    """TensorFlow's tensors lack a keyword that NumPy 2 would like to pass: nothing that a user can change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        yield


def _check_path(path: Path, overwrite: bool) -> None:
    if path.suffix != ".keras":
        raise ExportError(f"{path}: ends in {path.suffix!r}, expected '.keras', which Keras insists on; rename it")
    if path.is_dir():
        raise ExportError(f"{path}: is a folder, expected the name of a file to write; give another name")
    if path.exists() and not overwrite:
        raise ExportError(f"{path}: exists already; give another name, or overwrite=True to replace it")


def _check_operations(program: Program) -> None:
    for node in program.nodes:
        if type(node.op) not in WRITERS:
            raise ExportError(
                f"{node.where}: the Keras exporter does not know the operation {type(node.op).__name__!r}; replace "
                "that layer, or export to another format"
            )
        if isinstance(node.op, ops.Weighted) and node.op.peak is not None:
            raise ExportError(
                f"{node.where}: computes in 8 bits, which no Keras layer does in the same way; export the model as it "
                "was before it was compressed, or to another format"
            )


def _compare(program: Program, model: Any, reference: Reference, keras: Any) -> tuple[tuple[int, ...], float, float]:
    """(lengths tried, largest difference, largest output), on one batch padded with junk."""
    sequences = sample_sequences(program)
    expected = reference(sequences)
    lengths = np.array([len(each) for each in sequences], np.int32)
    is_symbols = sequences[0].dtype == np.int64
    shape = (len(sequences), lengths.max() + 3, *sequences[0].shape[1:])
    x = np.full(shape, -1 if is_symbols else math.nan, np.int32 if is_symbols else np.float32)
    for row, each in zip(x, sequences, strict=True):
        row[: len(each)] = each
    given = model({"x": x, "lengths": lengths}, training=False)
    found = {name: keras.ops.convert_to_numpy(value) for name, value in given.items()}
    rows: Sequence[NDArray[Any]] = found["outputs"]
    if "out_lengths" in found:
        rows = [row[:length] for row, length in zip(rows, found["out_lengths"], strict=True)]
    differences = [
        float(np.abs(a.astype(np.float64) - b).max()) if a.shape == b.shape else math.inf
        for a, b in zip(rows, expected, strict=True)
    ]
    largest = float(np.max([np.abs(each).max() for each in expected]))  # of numpy: NaN stays NaN
    return tuple(lengths.tolist()), float(np.max(differences)), largest


def sample_sequences(program: Program, *, seed: int = 0) -> list[Frames]:
    """Six random sequences that would tell a wrong export: the shortest allowed, long ones, some with missing values.

    Values are spread as those that the first affine map was fitted to, where it reads the input; values are missing
    where the program fills them.
    """
    rng = np.random.default_rng(seed)
    longest = max(program.min_length, 16)
    while min(n for node, n in zip(program.nodes, program.out_length(longest), strict=True) if not node.is_vector) < 9:
        longest *= 2
    lengths = [program.min_length, longest, *rng.integers(program.min_length, longest, 4, endpoint=True)]
    entry = program.nodes[0]
    assert isinstance(entry.op, ops.Input), "a program starts with its input"
    if entry.op.vocabulary:
        return [rng.integers(entry.op.vocabulary, size=n) for n in lengths]
    centre, scale = np.zeros(entry.size), np.ones(entry.size)
    for node in program.nodes:
        if isinstance(node.op, ops.Affine) and node.inputs == (0,) and node.op.scale.all():
            centre, scale = node.op.centre.astype(np.float64), node.op.scale.astype(np.float64)
    rows = [centre + rng.standard_normal((n, entry.size)) / scale for n in lengths]
    if any(isinstance(node.op, ops.FillMissing) for node in program.nodes):
        rows = [np.where(rng.random(row.shape) < 0.2, math.nan, row) for row in rows]
    return [row.astype(np.float32).reshape(-1, *entry.shape) for row in rows]
