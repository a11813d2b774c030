"""ONNX: one graph for whole sequences and for chunks, dynamic batch and time, state as named inputs and outputs.

Inputs: `x` (batch, time, channels) float32, or (batch, time) int64 symbol ids; `lengths` (batch,) int64; for a network
that streams, unless it is written for whole sequences, also `end` (1,) int64, 1 where these frames are the last ones of
their sequences, and every state. Outputs: `outputs` (batch, n), `probabilities` where the task has some, and each
state's `NAME_out`. All states start as zeros of the shapes and types in the file's metadata, `crnn.states`. There is no
If, Loop or Scan, and nothing is traced.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import crnn
from crnn.errors import ExportError, MissingExtraError
from crnn.program import ops
from crnn.program.program import Program
from crnn.training.checkpoint import write_file

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

    from crnn.export.onnx_graph import Graph

Frames = NDArray[Any]
Outputs = Sequence[NDArray[np.float32]]
"""Of each sequence (outputs,), or (frames, outputs) where the network answers for every frame."""
Reference = Callable[[Sequence[Frames]], Outputs]
"""Sequences, (time, channels) each -> their outputs, as the model itself gives them."""

TOLERANCE = 1e-4
"""Largest difference from the model that is let pass, as a share of its largest output (of 1, if that is more)."""
TOLERANCE_INT8 = 0.1
"""The same where weights are rounded to 8 bits here, which makes another model of it; the difference is printed."""


@dataclass(frozen=True)
class OnnxCheck:
    """What was written, and how far it is from the model, as shares of the largest output (of 1, if that is more)."""

    path: Path
    bytes: int
    nodes: int
    batches: float
    """Largest difference over padded batches of random lengths."""
    chunks: float | None
    """Largest difference over random chunkings; None where the graph takes whole sequences only."""
    states: tuple[str, ...]

    def describe(self) -> str:
        """In one line."""
        if self.chunks is None:
            how = "whole sequences only"
        else:
            how = f"random chunkings {self.chunks:.1e}; {len(self.states)} states"
        return (
            f"{self.path}: {self.bytes / 1000:.0f} kB, {self.nodes} nodes; largest difference from the model, as a "
            f"share of its largest output: padded batches {self.batches:.1e}, {how}"
        )


def export_onnx(
    program: Program,
    path: str | Path,
    *,
    reference: Reference,
    int8: bool = False,
    whole: bool = False,
    overwrite: bool = False,
) -> OnnxCheck:
    """Write a program as an ONNX file, after ONNX Runtime has given the model's numbers with it.

    Args:
        path: the file to write.
        reference: the model itself, to compare with.
        int8: weights of convolutions, recurrences and linear layers as 8 bit integers with one scale per output
            channel. The file shrinks to about a quarter; computation stays in float32.
        whole: whole sequences only, without states: recurrences then skip most of the padding.
        overwrite: replace a file that is there.
    Raises:
        ExportError: an operation that ONNX is not written for, and which layer it comes from; a file that is there; or
            a graph that does not give the model's numbers. In all of these nothing is written.
        MissingExtraError: onnx or onnxruntime is not installed.
        TrainingError: the disk is full, or refuses.
    """
    path = Path(path)
    if path.is_dir() or (path.exists() and not overwrite):
        raise ExportError(f"{path}: is there already; name another file, or give overwrite=True")
    model = build_onnx(program, int8=int8, whole=whole)
    data = model.SerializeToString()
    batches, chunks = check_onnx(open_onnx(data), program, reference)
    worst = float(np.max([batches, chunks or 0.0]))  # of numpy: NaN stays NaN
    limit = TOLERANCE_INT8 if int8 else TOLERANCE
    if not worst <= limit:
        raise ExportError(
            f"{path}: not written: its outputs differ from the model's by {worst:.2g} of the largest one, expected at "
            f"most {limit:g}; " + ("export without int8" if int8 else "please report it with the spec, crnn info")
        )
    write_file(path, data)
    given = {each.name for each in model.graph.output}
    states = tuple(each.name for each in model.graph.input if f"{each.name}_out" in given)
    return OnnxCheck(path, len(data), len(model.graph.node), batches, chunks, states)


def build_onnx(program: Program, *, int8: bool = False, whole: bool = False) -> ModelProto:
    """The ONNX model of a program, checked by onnx.checker but not yet against the model.

    Raises:
        ExportError: an operation that ONNX is not written for. MissingExtraError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise _missing("onnx") from None
    from crnn.export.onnx_graph import Graph
    from crnn.export.onnx_ops import check_known, write, write_input, write_outputs

    check_known(program.nodes)
    graph = Graph(streams=program.can_stream and not whole, int8=int8)
    values = [write_input(graph, program)]
    for place, node in enumerate(program.nodes[1:], 1):
        values.append(write(graph, node, place, [values[i] for i in node.inputs]))
    outputs, shape = write_outputs(graph, values[-1])
    graph.output("outputs", outputs, onnx.TensorProto.FLOAT, shape)
    if program.activation != "none":
        function = {"softmax": "Softmax", "sigmoid": "Sigmoid"}[program.activation]
        graph.output("probabilities", graph.op(function, outputs), onnx.TensorProto.FLOAT, shape)
    model = graph.model("crnn", _facts(program, graph, int8))
    onnx.checker.check_model(model, full_check=True)
    return model


def _missing(package: str) -> MissingExtraError:
    return MissingExtraError(f"the ONNX exporter needs {package}, which is not installed; pip install 'crnn[onnx]'")


def _facts(program: Program, graph: Graph, int8: bool) -> dict[str, str]:
    """What the file says about itself; every value is JSON."""
    first = program.nodes[0]
    assert isinstance(first.op, ops.Input), "a program starts with its input"
    facts = {
        "version": crnn.__version__,
        "labels": list(program.labels),
        "activation": program.activation,
        "left_to_do": program.left_to_do,
        "sample_rate": program.sample_rate,
        "frame": [] if first.op.vocabulary else list(first.shape),
        "vocabulary": first.op.vocabulary,
        "min_length": program.min_length,
        "stride": None if program.output.is_vector else program.stride,
        "delay_frames": program.look_ahead if graph.streams else None,
        "states": graph.states,
        "int8_weights": int8 or any(getattr(node.op, "peak", None) is not None for node in program.nodes),
    }
    return {f"crnn.{name}": json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def open_onnx(model: bytes | str | Path, *, threads: int = 1) -> InferenceSession:
    """A session of ONNX Runtime on the CPU.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise _missing("onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class OnnxStream:
    """An exported network as a stream, or as a function of whole sequences: ONNX Runtime with the states kept.

    Args:
        session: of a file that export_onnx wrote.
    """

    def __init__(self, session: InferenceSession) -> None:
        self.session = session
        facts = session.get_modelmeta().custom_metadata_map
        self.start: dict[str, dict[str, Any]] = json.loads(facts["crnn.states"])
        """Shape and type of each state before the first frame."""
        self.names = [each.name for each in session.get_outputs()]
        self.takes_end = any(each.name == "end" for each in session.get_inputs())
        self.states: dict[str, NDArray[Any]] = {}

    def whole(self, x: Frames, lengths: NDArray[np.int64]) -> Outputs:
        """For whole, right-padded sequences."""
        self.states = {}
        return self.push(x, lengths, end=True)

    def push(self, x: Frames, lengths: NDArray[np.int64], *, end: bool = False) -> Outputs:
        """The outputs after more frames, or those of the frames that have become ready.

        All of `lengths` are the number of frames, except at the end.
        """
        if not self.states:
            self.states = {
                name: np.zeros([len(x), *start["shape"][1:]], start["type"]) for name, start in self.start.items()
            }
        last = {"end": np.array([int(end)])} if self.takes_end else {}
        results = self.session.run(None, {"x": x, "lengths": lengths, **last, **self.states})
        found = dict(zip(self.names, results, strict=True))
        self.states = {name: found[f"{name}_out"] for name in self.start}
        outputs: NDArray[np.float32] = found["outputs"]
        if "out_lengths" not in found:
            return list(outputs)
        return [rows[:length] for rows, length in zip(outputs, found["out_lengths"], strict=True)]


def check_onnx(
    session: InferenceSession, program: Program, reference: Reference, *, seed: int = 0
) -> tuple[float, float | None]:
    """The largest differences between an exported graph and the model, as OnnxCheck has them: batches, chunks."""
    rng = np.random.default_rng(seed)
    stream = OnnxStream(session)
    batches, chunks = [], []
    usual = _usual_length(program)
    for longest in (program.min_length, program.min_length + usual // 3, program.min_length + usual):
        sequences = [_random(program, rng, n) for n in rng.integers(program.min_length, longest, 3, endpoint=True)]
        expected = reference(sequences)
        scale = max(1.0, *(float(np.abs(each).max(initial=0)) for each in expected))
        lengths = np.array([len(each) for each in sequences])
        data = np.stack([_filled(each, longest + 3) for each in sequences])
        batches += [_difference(*pair) / scale for pair in zip(stream.whole(data, lengths), expected, strict=True)]
        for sequence, result in zip(sequences if stream.takes_end else [], expected, strict=False):
            chunks.append(_difference(_in_chunks(stream, sequence, rng), result) / scale)
    return float(np.max(batches)), float(np.max(chunks)) if chunks else None  # of numpy: NaN stays NaN


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest one; infinite where there are more or fewer frames."""
    return float(np.abs(found - expected).max(initial=0)) if found.shape == expected.shape else math.inf


def _usual_length(program: Program) -> int:
    """Frames that give the recurrences a few dozen steps."""
    length = program.min_length + 40
    while min(program.out_length(length)[i] for i, node in enumerate(program.nodes) if not node.is_vector) < 24:
        length = length * 5 // 4
    return length


def _random(program: Program, rng: np.random.Generator, length: int) -> Frames:
    first = program.nodes[0]
    assert isinstance(first.op, ops.Input), "a program starts with its input"
    if first.op.vocabulary:
        return rng.integers(first.op.vocabulary, size=length)
    return rng.standard_normal((length, *first.shape)).astype(np.float32)


def _filled(sequence: Frames, length: int) -> Frames:
    """Padded with what no one may look at."""
    junk: Any = np.nan if sequence.dtype == np.float32 else 999_999
    rows = np.full((length, *sequence.shape[1:]), junk, sequence.dtype)
    rows[: len(sequence)] = sequence
    return rows


def _in_chunks(stream: OnnxStream, sequence: Frames, rng: np.random.Generator) -> NDArray[np.float32]:
    """The output at the end of one sequence, or all frames of it, pushed in pieces of random sizes, some empty."""
    stream.states, at = {}, 0
    found: list[NDArray[np.float32]] = []
    while at < len(sequence):
        size = int(rng.choice([0, 1, 2, 3, int(rng.integers(1, max(2, len(sequence) // 2)))]))
        piece = sequence[at : at + size]
        at += len(piece)
        found += stream.push(piece[None], np.array([len(piece)]))
    piece = sequence[:0]
    found += stream.push(piece[None], np.array([0]), end=True)
    return np.concatenate(found) if found[-1].ndim == 2 else found[-1]
