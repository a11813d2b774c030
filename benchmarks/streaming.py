"""One streaming step beside ONNX Runtime, eager PyTorch and the memory limit; many streams; whole recordings.

    python benchmarks/streaming.py [--rounds 9] [--quick]

Conv1d(40 -> 64, k=3) + ReLU -> LSTM(128) -> Linear(10), batch 1, one frame at a time, one core. Every contender has the
same weights and has to give the same outputs before it is timed. The limit is the time in which this core reads the
weights once from where they lie (the second-level cache), measured by a loop that only adds them up. ONNX Runtime gets
a graph of its own, written by hand with the state as inputs and outputs, not our export. All of it is timed in one run,
in turns; a row's ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import RESULTS, describe_machine, set_threads, versions, write_results
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.compress.int8 import quantise
from crnn.data.read import from_arrays
from crnn.export.onnx import OnnxStream, open_onnx
from crnn.model import Inputs, Model
from crnn.models.network import Network
from crnn.models.spec import NetworkSpec
from crnn.program.tables import tabulate
from crnn.sequences import Sequences, pad
from crnn.streaming.engine import NativeEngine
from crnn.tasks.classify import Classify, ClassifyConfig

CHANNELS, FILTERS, HIDDEN, CLASSES = 40, 64, 128, 10
WEIGHT_BYTES = 4 * (FILTERS * CHANNELS * 3 + 4 * HIDDEN * (FILTERS + HIDDEN) + CLASSES * HIDDEN)
STREAMS = 1000

NATIVE = ["-march=native"]
PLAIN: list[str] = []
LIMIT = "limit: reading the weights once"
ORT, ORT_BINDING, ORT_INT8 = "ONNX Runtime, run()", "ONNX Runtime, io_binding", "ONNX Runtime int8, run()"
EAGER = "eager PyTorch"
C_NATIVE, C_PLAIN, C_INT8 = "C file, -march=native", "C file, plain x86-64", "C file int8, -march=native"
ENGINE, ENGINE_INT8 = "native engine from Python", "native engine int8 from Python"
STREAM = "stream.push with a prediction"


def make_model() -> Model:
    """The network of the benchmark with random weights, as a trained model."""
    torch.manual_seed(0)
    layers: list[dict[str, Any]] = [
        {"type": "conv", "channels": FILTERS, "kernel_size": 3, "padding": "causal"},
        {"type": "activation", "kind": "relu"},
        {"type": "recurrent", "cell": "lstm", "hidden_size": HIDDEN},
    ]
    network = Network(NetworkSpec(layers=layers, summary={"type": "last"}), features=(CHANNELS,), outputs=CLASSES)
    data = from_arrays([make_frames(50, seed) for seed in range(2 * CLASSES)], [f"c{i % 10}" for i in range(20)])
    task = Classify.from_targets(data.targets, ClassifyConfig())
    return Model(network.eval(), task, Inputs.of(data))


def make_frames(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, CHANNELS)).astype(np.float32)


class Eager(nn.Module):
    """The step as one writes it in PyTorch, the state carried by hand."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        layers: list[Any] = list(network.body)
        self.conv, self.lstm, self.head = layers[0].conv, layers[2].forwards[0], network.head.linear
        self.buffer = torch.zeros(1, 2, CHANNELS)
        self.state: tuple[Tensor, Tensor] | None = None

    def forward(self, frame: Tensor) -> Tensor:
        frames = torch.cat([self.buffer, frame], 1)
        self.buffer = frames[:, 1:]
        features = self.conv(frames.transpose(1, 2)).relu().transpose(1, 2)
        out, self.state = self.lstm(features, self.state)
        return self.head(out[:, -1])  # type: ignore[no-any-return]


def rival_graph(network: Network) -> Any:
    """The step as an ONNX graph, written by hand: frame and state in, outputs and state out."""
    from onnx import TensorProto, helper, numpy_helper

    eager = Eager(network)
    order = [0, 3, 1, 2]  # PyTorch: input, forget, cell, output; ONNX: input, output, forget, cell

    def gates(tensor: Tensor) -> NDArray[np.float32]:
        parts = tensor.detach().numpy().reshape(4, HIDDEN, -1)
        return np.concatenate([parts[i] for i in order]).astype(np.float32)

    lstm: Any = eager.lstm
    bias = np.concatenate([gates(lstm.bias_ih_l0), gates(lstm.bias_hh_l0)]).reshape(1, -1)
    weights = {
        "conv_w": eager.conv.weight.detach().numpy(),
        "conv_b": eager.conv.bias.detach().numpy(),
        "w": gates(lstm.weight_ih_l0)[None],
        "r": gates(lstm.weight_hh_l0)[None],
        "b": bias,
        "head_w": eager.head.weight.detach().numpy(),
        "head_b": eager.head.bias.detach().numpy(),
        "one": np.array([1]),
        "three": np.array([3]),
        "zero": np.array([0]),
    }
    node = helper.make_node
    nodes = [
        node("Concat", ["buffer", "x"], ["frames"], axis=1),
        node("Slice", ["frames", "one", "three", "one"], ["buffer_out"]),
        node("Transpose", ["frames"], ["turned"], perm=[0, 2, 1]),
        node("Conv", ["turned", "conv_w", "conv_b"], ["features"]),
        node("Relu", ["features"], ["active"]),
        node("Transpose", ["active"], ["steps"], perm=[2, 0, 1]),
        node("LSTM", ["steps", "w", "r", "b", "", "h", "c"], ["", "h_out", "c_out"], hidden_size=HIDDEN),
        node("Squeeze", ["h_out", "zero"], ["last"]),
        node("Gemm", ["last", "head_w", "head_b"], ["outputs"], transB=1),
    ]
    shapes = {"x": [1, 1, CHANNELS], "buffer": [1, 2, CHANNELS], "h": [1, 1, HIDDEN], "c": [1, 1, HIDDEN]}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "step",
        [value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [value(name, TensorProto.FLOAT, None) for name in ("outputs", "buffer_out", "h_out", "c_out")],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


class OnnxRival:
    """ONNX Runtime on one thread with the state carried from call to call."""

    def __init__(self, model: bytes, *, binding: bool = False) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.feed = {name: np.zeros(shape, np.float32) for name, shape in self.state_shapes().items()}
        self.binding = self.session.io_binding() if binding else None
        if self.binding is not None:
            self.held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self.feed.items()}
            self.frame = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, 1, CHANNELS), np.float32))

    @staticmethod
    def state_shapes() -> dict[str, tuple[int, ...]]:
        return {"buffer": (1, 2, CHANNELS), "h": (1, 1, HIDDEN), "c": (1, 1, HIDDEN)}

    def step(self, frame: NDArray[np.float32]) -> Any:
        """frame: (1, 1, channels)."""
        self.feed["x"] = frame
        outputs, self.feed["buffer"], self.feed["h"], self.feed["c"] = self.session.run(None, self.feed)
        return outputs

    def step_bound(self, frame: NDArray[np.float32]) -> None:
        """As step, by io_binding: buffers stay in ONNX Runtime's hands."""
        assert self.binding is not None
        self.frame.update_inplace(frame)
        self.binding.bind_ortvalue_input("x", self.frame)
        for name, value in self.held.items():
            self.binding.bind_ortvalue_input(name, value)
        for name in ("outputs", "buffer_out", "h_out", "c_out"):
            self.binding.bind_output(name)
        self.session.run_with_iobinding(self.binding)
        _, *state = self.binding.get_outputs()
        self.held = dict(zip(("buffer", "h", "c"), state, strict=True))


DRIVER = r"""
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "bench.h"

/* Time of CPU per call, of reading the weights once and of one pushed frame, in nanoseconds, in turns. */
typedef float lanes __attribute__((vector_size(64)));
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    int rounds = atoi(argv[1]), steps = atoi(argv[2]), i, r;
    size_t count = (size_t)atol(argv[3]) / sizeof(lanes), j;
    lanes *weights = aligned_alloc(64, count * sizeof(lanes));
    lanes sum[8] = {{0}};
    static bench_state state;
    static float frames[64 * BENCH_CHANNELS], out[BENCH_OUTPUTS];
    (void)argc;
    for (j = 0; j < count; j++) weights[j] = (lanes){0} + 1e-3f;
    for (i = 0; i < 64 * BENCH_CHANNELS; i++) frames[i] = (float)((i * 37) % 101) / 50.0f - 1.0f;
    bench_init(&state);
    for (r = 0; r < rounds + 1; r++) {
        double start = now(), middle, end;
        for (i = 0; i < steps; i++) {
            for (j = 0; j + 8 <= count; j += 8) {
                sum[0] += weights[j]; sum[1] += weights[j + 1]; sum[2] += weights[j + 2]; sum[3] += weights[j + 3];
                sum[4] += weights[j + 4]; sum[5] += weights[j + 5]; sum[6] += weights[j + 6]; sum[7] += weights[j + 7];
            }
            __asm__ volatile("" : : "r"(weights) : "memory");
        }
        middle = now();
        for (i = 0; i < steps; i++) bench_push(&state, frames + (i & 63) * BENCH_CHANNELS, 1, out);
        end = now();
        if (r) printf("%.1f %.1f\n", (middle - start) / steps, (end - middle) / steps);
    }
    for (i = 1; i < 8; i++) sum[0] += sum[i];
    fprintf(stderr, "%g %g\n", (double)sum[0][0], (double)out[0]); /* so that nothing is optimised away */
    return 0;
}
"""


@dataclass(frozen=True)
class CFile:
    """The exported C file, compiled with a driver that times it."""

    binary: Path
    code_bytes: int
    """Machine code and read-only data besides the weights, at -O2 without any -march."""

    def times(self, rounds: int, steps: int) -> tuple[list[float], list[float]]:
        """Microseconds of one reading of the weights and of one frame, round by round."""
        command = [str(self.binary), str(rounds), str(steps), str(WEIGHT_BYTES)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        pairs = [[float(word) / 1000 for word in line.split()] for line in lines]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def build(model: Model, folder: Path, flags: list[str]) -> CFile:
    """Export, compile with the driver, and count the bytes of code."""
    model.export("c", folder, name="bench")
    (folder / "driver.c").write_text(DRIVER)
    compile_c(["-O3", "-std=gnu11", *flags, "driver.c", "bench.c", "-o", "driver", "-lm"], folder)
    compile_c(["-O2", "-std=c99", "-c", "bench.c", "-o", "bench.o"], folder)
    text = int(
        subprocess.run(["size", "bench.o"], cwd=folder, capture_output=True, text=True, check=True).stdout.split()[6]
    )
    tables = tabulate(model.program())
    return CFile(folder / "driver", text - tables.weights.nbytes - tables.bytes.nbytes)


def compile_c(arguments: list[str], folder: Path) -> None:
    subprocess.run(["cc", *arguments], cwd=folder, check=True)


def cpu_microseconds(step: Callable[[int], object], count: int) -> float:
    """CPU time of one step, over `count` of them."""
    start = time.process_time()
    for i in range(count):
        step(i)
    return (time.process_time() - start) / count * 1e6


Timed = dict[str, list[float]]
"""Microseconds of each contender, round by round."""


def time_steps(model: Model, compressed: Model, rounds: int, steps: int) -> tuple[Timed, dict[str, float]]:
    """One frame at a time, all contenders in turns; and what they differ by, and the bytes of code."""
    frames = make_frames(64)
    calls = contenders(model, compressed, frames)
    times: Timed = {name: [] for name in (LIMIT, C_NATIVE, C_PLAIN, C_INT8, *calls)}
    with tempfile.TemporaryDirectory() as place:
        fast = build(model, Path(place, "fast"), NATIVE)
        plain = build(model, Path(place, "plain"), PLAIN)
        small = build(compressed, Path(place, "small"), NATIVE)
        for _ in range(rounds):
            limit, frame = fast.times(1, 10 * steps)
            times[LIMIT] += limit
            times[C_NATIVE] += frame
            times[C_PLAIN] += plain.times(1, 10 * steps)[1]
            times[C_INT8] += small.times(1, 10 * steps)[1]
            for name, call in calls.items():
                times[name].append(cpu_microseconds(call, steps if name != EAGER else steps // 5))
    whole = [make_frames(200, seed) for seed in range(20)]
    difference = float((model.outputs(whole) - engine_outputs(compressed, whole)).abs().max())
    return times, {"code_bytes": fast.code_bytes, "int8_output_error": difference}


def engine_outputs(model: Model, rows: list[NDArray[np.float32]]) -> Tensor:
    """The outputs of the native engine, 8 bits and all."""
    engine = NativeEngine(model.program())
    found = []
    for row in rows:
        state = engine.start()
        engine.push(state, row)
        outputs = engine.finish(state)
        assert outputs is not None, "these sequences are long enough"
        found.append(outputs)
    return torch.from_numpy(np.stack(found))


def contenders(model: Model, compressed: Model, frames: NDArray[np.float32]) -> dict[str, Callable[[int], object]]:
    """name -> function that takes the number of a step and does it, state and all; checked against each other."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = rival_graph(model.network)
    single = [frames[i : i + 1] for i in range(len(frames))]
    for_onnx = [frame[None] for frame in single]
    for_torch = [torch.from_numpy(frame[None]) for frame in single]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "step.onnx").write_bytes(graph.SerializeToString())
        quantize_dynamic(Path(place) / "step.onnx", Path(place) / "int8.onnx", weight_type=QuantType.QInt8)
        int8 = (Path(place) / "int8.onnx").read_bytes()
    plain, bound, small = (
        OnnxRival(graph.SerializeToString()),
        OnnxRival(graph.SerializeToString(), binding=True),
        OnnxRival(int8),
    )
    eager = Eager(model.network)
    engine, engine8 = NativeEngine(model.program()), NativeEngine(compressed.program())
    state, state8, stream = engine.start(), engine8.start(), model.stream()
    check_agreement(model, engine, OnnxRival(graph.SerializeToString()), Eager(model.network), frames)

    @torch.inference_mode()
    def eager_step(i: int) -> object:
        return eager(for_torch[i & 63])

    return {
        ORT: lambda i: plain.step(for_onnx[i & 63]),
        ORT_BINDING: lambda i: bound.step_bound(for_onnx[i & 63]),
        ORT_INT8: lambda i: small.step(for_onnx[i & 63]),
        EAGER: eager_step,
        ENGINE: lambda i: engine.push(state, single[i & 63]),
        ENGINE_INT8: lambda i: engine8.push(state8, single[i & 63]),
        STREAM: lambda i: stream.push(single[i & 63]),
    }


def check_agreement(
    model: Model, engine: NativeEngine, onnx: OnnxRival, eager: Eager, frames: NDArray[np.float32]
) -> None:
    """Raises SystemExit where a contender does not give the model's outputs: it would be timed on other work."""
    wanted = model.outputs([frames])[0]
    state = engine.start()
    with torch.inference_mode():
        for frame in frames:
            found = {
                "native engine": engine.push(state, frame[None]),
                ORT: onnx.step(frame[None, None])[0],
                EAGER: eager(torch.from_numpy(frame[None, None]))[0].numpy(),
            }
    for name, outputs in found.items():
        difference = float(np.abs(np.asarray(outputs) - wanted.numpy()).max())
        if not difference <= 1e-5:
            raise SystemExit(f"{name} differs from the model by {difference:.1e}; expected at most 1e-5")


def time_many(model: Model, rounds: int) -> tuple[list[float], list[float]]:
    """Microseconds a frame with a thousand streams, each of which gets one frame in turn: ours, ONNX Runtime's."""
    engine = NativeEngine(model.program())
    states = np.stack([engine.start() for _ in range(STREAMS)])
    rows, frames = np.arange(STREAMS), make_frames(STREAMS)[:, None]
    rival = OnnxRival(rival_graph(model.network).SerializeToString())
    feeds = [dict(rival.feed) for _ in range(STREAMS)]

    def rival_step(i: int) -> None:
        rival.feed = feeds[i]
        rival.step(frames[i][None])
        feeds[i] = rival.feed

    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(cpu_microseconds(lambda _: engine.push_many(states, rows, frames), 3) / STREAMS)
        theirs.append(cpu_microseconds(rival_step, STREAMS))
    return ours, theirs


def whole_in_torch(network: Network, batch: Sequences) -> Tensor:
    """Whole recordings as one writes it in PyTorch, (batch, outputs); our network has an LSTM in compiled kernels."""
    layers: list[Any] = list(network.body)
    features = F.pad(batch.data.transpose(1, 2), (2, 0))
    frames = layers[2].forwards[0](layers[0].conv(features).relu().transpose(1, 2))[0]
    return network.head.linear(frames[torch.arange(len(frames)), batch.lengths - 1])  # type: ignore[no-any-return]


def time_whole(model: Model, rounds: int) -> list[list[float]]:
    """Microseconds a batch of 32 whole recordings: ONNX for whole sequences, ONNX for both, eager PyTorch."""
    batch = pad([torch.from_numpy(make_frames(100 + 10 * i, i)) for i in range(32)])
    x, lengths = batch.data.numpy(), batch.lengths.numpy()
    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        streams = []
        for whole in (True, False):
            path = Path(place, f"{whole}.onnx")
            model.export("onnx", path, whole=whole)
            streams.append(OnnxStream(open_onnx(path)))
            difference = float(
                (model.outputs(batch.unpad()) - torch.from_numpy(np.stack(streams[-1].whole(x, lengths)))).abs().max()
            )
            if not difference <= 1e-4:
                raise SystemExit(f"the ONNX export differs from the model by {difference:.1e}; expected at most 1e-4")
        if not (whole_in_torch(model.network, batch) - model.network(batch)).abs().max() <= 1e-4:
            raise SystemExit("eager PyTorch differs from the model")
        calls: list[Callable[[int], object]] = [
            lambda _: streams[0].whole(x, lengths),
            lambda _: streams[1].whole(x, lengths),
            lambda _: whole_in_torch(model.network, batch),
        ]
        found = [[cpu_microseconds(call, 3) for call in calls] for _ in range(rounds)]
    return [list(times) for times in zip(*found, strict=True)]


def row(what: str, ours: list[float], other: str, theirs: list[float], goal: str) -> dict[str, Any]:
    """The median of the ratios of the rounds, and the middle half of them."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    quarter = len(ratios) // 4
    return {
        "what": what,
        "against": other,
        "ratio": round(statistics.median(ratios), 4),
        "low": round(ratios[quarter], 4),
        "high": round(ratios[-1 - quarter], 4),
        "goal": goal,
    }


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Everything, as the result file has it."""
    model = make_model()
    compressed = quantise(model, from_arrays([make_frames(200, seed) for seed in range(50)]))
    times, facts = time_steps(model, compressed, rounds, steps)
    many, whole = time_many(model, rounds), time_whole(model, rounds)
    rows = [
        row(C_NATIVE, times[C_NATIVE], LIMIT, times[LIMIT], "<= 1.3"),
        row(C_NATIVE, times[C_NATIVE], ORT, times[ORT], "<= 0.20"),
        row(C_NATIVE, times[C_NATIVE], ORT_BINDING, times[ORT_BINDING], ""),
        row(C_PLAIN, times[C_PLAIN], ORT, times[ORT], "<= 0.30"),
        row(C_INT8, times[C_INT8], ORT_INT8, times[ORT_INT8], "<= 0.08"),
        row(ENGINE, times[ENGINE], ORT, times[ORT], "<= 0.25"),
        row(ENGINE, times[ENGINE], EAGER, times[EAGER], "<= 0.05"),
        row(ENGINE_INT8, times[ENGINE_INT8], ORT_INT8, times[ORT_INT8], ""),
        row(STREAM, times[STREAM], ORT, times[ORT], ""),
        row(f"{STREAMS} streams, native engine", many[0], f"{STREAMS} streams, {ORT}", many[1], "<= 0.33"),
        row("whole recordings, batch 32, ONNX export --whole", whole[0], EAGER, whole[2], "<= 0.9"),
        row("whole recordings, batch 32, ONNX export", whole[1], EAGER, whole[2], ""),
    ]
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    return {"rows": rows, "microseconds": medians, **facts}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="two short rounds: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS / "streaming.json")
    options = parser.parse_args(arguments)
    set_threads(1)
    rounds, steps = (2, 50) if options.quick else (options.rounds, 2000)
    results = measure(rounds, steps)
    facts = {"benchmark": "streaming", "machine": describe_machine(1), "rounds": rounds, "versions": versions()}
    for line in results["rows"]:
        print(f"{line['what']} against {line['against']}: {line['ratio']:.3f} {line['goal']}")
    print(f"code {results['code_bytes']} bytes; int8 output error {results['int8_output_error']:.1e}")
    write_results(options.out, {**facts, **results})


if __name__ == "__main__":
    main()
