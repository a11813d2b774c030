"""Exported C gives the network's numbers in any chunks, compiles without a warning, and never reads too far."""

import importlib.util
import itertools
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from crnn.errors import ExportError
from crnn.export import c as c_export
from crnn.export.c import export_c, find_compiler
from crnn.export.c_source import _escaped, _float, cut
from crnn.models.int8 import round_weight
from crnn.native.library import SOURCES
from crnn.program import ops
from crnn.program.lower import lower
from crnn.program.program import Node, Program
from crnn.sequences import pad
from nn.test_composition import CHANNELS, random_network
from program.test_lower import EVERY_FRAME, TASK, make_network, of_network
from streaming.test_engine import WIDE, as_frames, here
from test_promises import sequences

WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
CONV, POOL = {"type": "conv", "channels": 5, "kernel_size": 3}, {"type": "pool", "size": 2, "tail": "ceil"}
LSTM, GELU = {"type": "recurrent", "hidden_size": 6}, {"type": "activation", "kind": "gelu"}
LOG_MEL = {"type": "log_mel", "sample_rate": 1000, "num_mels": 6, "fmin": 40, "hop_seconds": 0.016, "n_fft": 64}
GRU = {"type": "recurrent", "hidden_size": 4, "cell": "gru"}
IMAGE = [{"type": "conv2d", "channels": 3, "stride": [2, 2]}, {"type": "pool2d"}, {"type": "flatten"}]
GAPS = [{"type": "missing", "fill": "last"}, {"type": "difference"}, {"type": "bottleneck", "channels": 8}]
NETWORKS = {
    "sequence": ([CONV, {"type": "norm"}, GELU, POOL, LSTM], (3,), {"type": "last"}),
    "audio": ([{**LOG_MEL, "preemphasis": 0.9}, GRU], (1,), {"type": "mean"}),
    "image": (IMAGE, (2, 9), {"type": "max"}),
    "symbols": ([{"type": "embedding", "vocab_size": 5, "channels": 4}, CONV], (), {"type": "attention"}),
    "wide": (WIDE, (21,), {"type": "attention", "hidden_size": 20}),
    "missing": (GAPS, (2,), {"type": "last"}),
    "scans": (
        [
            {"type": "recurrent", "hidden_size": 5, "cell": "minlstm", "learned_initial_state": True},
            {"type": "recurrent", "hidden_size": 4, "cell": "qrnn", "kernel_size": 2},
        ],
        (3,),
        {"type": "last"},
    ),
    "branches": (
        [CONV],
        (3,),
        {"type": "concat", "summaries": [{"type": "mean", "layers": [CONV, POOL]}, {"type": "max"}]},
    ),
}
FRAMES = {
    "steps": ([CONV, {"type": "norm"}, POOL, LSTM], (3,)),
    "heard": ([LOG_MEL, GRU, {"type": "parallel", "branches": [[], [CONV]]}], (1,)),
}
"""Networks that answer for every frame."""
NETWORKS |= {name: (layers, features, EVERY_FRAME) for name, (layers, features) in FRAMES.items()}
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler here")


@pytest.fixture
def unbuilt(monkeypatch):
    """The exporter only writes: the test compiles by itself."""
    monkeypatch.setattr(c_export, "find_compiler", lambda: None)


def export(name, folder, **options):
    layers, features, summary = NETWORKS[name]
    network = make_network(layers, features, summary)
    return export_c(lower(network, TASK, sample_rate=1000), folder, name=name, reference=of_network(network), **options)


def compile_and_run(command, folder, *flags, name, run=()):
    """The self-test in `folder`, built by this command."""
    files = [f"test_{name}.c", f"{name}.c"]
    built = subprocess.run(
        [*command, *WARNINGS, *flags, *files, "-lm", "-o", "check"], cwd=folder, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run([*run, "./check"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_written_passes_its_own_test_under_the_sanitizers(name, tmp_path):
    found = export(name, tmp_path / "out")
    assert found.unchecked is None
    assert found.difference < 1e-5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [f"{name}.c", f"{name}.h", f"test_{name}.c", "main.c", "README.md"]
    )
    checks = "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"
    assert compile_and_run(find_compiler(), tmp_path / "out", *checks, name=name).startswith("ok: largest difference")


BAD = """
#include "NAME.h"
#include <math.h>
int main(void) {
  const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, -1.0f, 1e9f};
  static NAME_state state;
  static float frame[LIMIT_CHANNELS], out[9 * LIMIT_OUTPUTS];
  for (int k = 0; k < 8; k++) {
    NAME_init(&state);
    for (int t = 0; t < 200; t++) {
      for (int i = 0; i < LIMIT_CHANNELS; i++) frame[i] = (t + i) % 3 ? 0.5f : bad[(k + t / 100) % 8];
      if (NAME_push(&state, frame, 1, out) < 0) return 1;
    }
    if (NAME_finish(&state, out) < 1) return 1;
    if (NAME_push(&state, frame, 1, out) != -1 || NAME_finish(&state, out) != -1) return 1;
    NAME_probabilities(out, out);
  }
  return 0;
}
"""


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_nan_infinity_and_ids_that_are_none_do_no_harm(name, tmp_path, unbuilt):
    export(name, tmp_path)
    (tmp_path / f"test_{name}.c").write_text(BAD.replace("NAME", name).replace("LIMIT", name.upper()))
    checks = "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all", "-g"
    compile_and_run(find_compiler(), tmp_path, *checks, name=name)


@needs_compiler
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind here")
def test_valgrind_finds_nothing(tmp_path, unbuilt):
    export("audio", tmp_path)
    valgrind = ["valgrind", "--quiet", "--error-exitcode=9"]
    compile_and_run(find_compiler(), tmp_path, "-g", "-O1", name="audio", run=valgrind)


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="no clang: pip install ziglang")
@pytest.mark.parametrize("target", [[], ["-target", "x86-linux-musl"]], ids=["clang", "32 bits"])
def test_clang_compiles_it_without_a_warning_for_32_bits_too(target, tmp_path, unbuilt):
    export("sequence", tmp_path)
    compile_and_run([sys.executable, "-m", "ziglang", "cc", *target], tmp_path, "-O1", name="sequence")


@needs_compiler
def test_several_networks_fit_into_one_program_even_into_one_file(tmp_path, unbuilt):
    for name in ("sequence", "symbols"):
        export(name, tmp_path, overwrite=True)
    (tmp_path / "both.c").write_text('#include "sequence.c"\n#include "symbols.c"\nint main(void) { return 0; }\n')
    built = subprocess.run(
        [*find_compiler(), *WARNINGS, "both.c", "-lm", "-o", "both"], cwd=tmp_path, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    names = subprocess.run(
        ["nm", "--defined-only", "--extern-only", "both"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    ours = {line.split()[-1] for line in names.splitlines()} - {"main"}
    api = {"init", "push", "finish", "probabilities", "labels"}
    assert {f"{name}_{each}" for name in ("sequence", "symbols") for each in api} <= ours
    assert not {"step", "push", "crnn_push"} & ours


@needs_compiler
def test_the_example_reads_frames_and_prints_probabilities(tmp_path, unbuilt):
    layers, features, summary = NETWORKS["sequence"]
    network = make_network(layers, features, summary)
    export("sequence", tmp_path)
    built = subprocess.run([*find_compiler(), *WARNINGS, "main.c", "sequence.c", "-lm", "-o", "main"], cwd=tmp_path)
    assert built.returncode == 0
    (row,) = sequences(features, [20])
    printed = subprocess.run(["./main"], cwd=tmp_path, input=row.numpy().tobytes(), capture_output=True).stdout
    last = printed.decode().splitlines()[-1].split()
    assert last[::2] == ["a", "b", "c"]
    with torch.no_grad():
        expected = network(pad([row]))[0].softmax(0)
    np.testing.assert_allclose([float(p) for p in last[1::2]], expected, atol=1e-5)


@needs_compiler
def test_the_example_prints_every_frame_behind_the_frame_that_it_is_about(tmp_path, unbuilt):
    layers, features, summary = NETWORKS["steps"]
    network = make_network(layers, features, summary)
    export("steps", tmp_path)
    command = [*find_compiler(), *WARNINGS, "main.c", "steps.c", "-lm", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (row,) = sequences(features, [21])
    printed = subprocess.run(["./main"], cwd=tmp_path, input=row.numpy().tobytes(), capture_output=True).stdout
    lines = [line.split() for line in printed.decode().splitlines()]
    assert [int(line[0]) for line in lines] == list(range(0, 21, 2))
    assert lines[0][1::2] == ["a", "b", "c"]
    (expected,) = of_network(network)([row])
    found = [[float(p) for p in line[2::2]] for line in lines]
    np.testing.assert_allclose(found, torch.from_numpy(expected).softmax(1), atol=1e-5)
    header, page = (tmp_path / "steps.h").read_text(), (tmp_path / "README.md").read_text()
    assert "#define STEPS_STRIDE 2 " in header
    assert "#define STEPS_DELAY 2 " in header
    assert "frame t is about input frame 2 t" in page


@needs_compiler
def test_8_bits_give_the_same_by_every_way_to_multiply_them(tmp_path, unbuilt):
    """Plain C, SSE2 and AVX2 here; what this machine does not have is compiled only."""
    layers, features, summary = NETWORKS["wide"]
    network = make_network(layers, features, summary)
    for parameter in network.parameters():
        parameter.data = round_weight(parameter.data) if parameter.dim() > 1 else parameter.data
    nodes = lower(network, TASK).nodes
    peaks = {i: (4.0,) for i, node in enumerate(nodes) if isinstance(node.op, ops.Weighted)}
    found = export_c(lower(network, TASK, peaks=peaks), tmp_path, name="wide", reference=of_network(network))
    assert found.weight_bytes < 0.6 * 4 * network.num_parameters  # attention stays float32, small groups are filled up
    (row,) = sequences(features, [60])
    printed = set()
    for flags in (["-U__SSE2__"], [], ["-mavx2"]):
        command = [*find_compiler(), *WARNINGS, "-O1", *flags, "main.c", "wide.c", "-lm", "-o", "main"]
        built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        if flags != ["-mavx2"] or "avx2" in here():
            printed.add(
                subprocess.run(["./main"], cwd=tmp_path, input=row.numpy().tobytes(), capture_output=True).stdout
            )
    assert len(printed) == 1
    compile_and_run(find_compiler(), tmp_path, "-fsanitize=address,undefined", "-U__SSE2__", name="wide")
    for flags in (["-mavxvnni"], ["-mavx512f", "-mavx512vnni"]):
        subprocess.run([*find_compiler(), *WARNINGS, *flags, "-c", "wide.c"], cwd=tmp_path, check=True)


@needs_compiler
@pytest.mark.parametrize("seed", range(6))
def test_frames_of_random_layers_come_out_of_c(seed, tmp_path):
    """A program without a summary gives frames; branches of different delay."""
    drawn = (random_network(100 * seed + i)[0] for i in itertools.count())
    layers = next(layers for layers in drawn if layers.can_stream and len(layers.layers) > 1)

    def reference(rows):
        with torch.no_grad():
            return [layers(pad([torch.from_numpy(rows[0])])).data[0].flatten(1).numpy()]

    found = export_c(as_frames(layers, (CHANNELS,)), tmp_path, name="frames", reference=reference)
    assert found.unchecked is None
    assert "CRNN" not in (tmp_path / "frames.c").read_text()


def test_only_the_operations_of_a_program_are_written(tmp_path, unbuilt):
    export("symbols", tmp_path)
    text = (tmp_path / "symbols.c").read_text()
    assert "symbols_embedding" in text
    for other in ("lstm", "transform", "quantize", "depthwise", "erff", "CRNN_", "malloc", "#include <string"):
        assert other not in text.split("static const symbols_node")[0].replace("SYMBOLS_LSTM,", "")


def test_the_benchmarks_network_needs_little_code(tmp_path):
    layers = [
        {"type": "conv", "channels": 64},
        {"type": "activation", "kind": "relu"},
        {"type": "recurrent", "hidden_size": 128},
    ]
    network = make_network(layers, (40,), outputs=10)
    found = export_c(lower(network, TASK), tmp_path, name="small", reference=of_network(network))
    if found.code_bytes is None:
        pytest.skip("no compiler, or no binutils")
    assert found.code_bytes < 20_000
    assert found.weight_bytes < 1.05 * 4 * network.num_parameters


def test_the_readme_says_what_it_needs(tmp_path):
    found = export("audio", tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert f"{found.state_bytes:,} bytes a stream" in text
    assert f"{found.weight_bytes:,} bytes of weights" in text
    assert "a second of signal (1000 frames)" in text
    assert "delay | 20 frames, 0.02 s" in text  # windows of 25 frames begin 4 frames before their step of 16
    assert "labels: a, b, c" in text


@needs_compiler
def test_the_state_is_as_large_as_is_said(tmp_path, unbuilt):
    found = export("audio", tmp_path)
    program = f"int main(void) {{ return sizeof(audio_state) == {found.state_bytes} ? 0 : 1; }}"
    (tmp_path / "size.c").write_text(f'#include "audio.h"\n{program}\n')
    subprocess.run([*find_compiler(), "size.c", "-o", "size"], cwd=tmp_path, check=True)
    assert subprocess.run(["./size"], cwd=tmp_path).returncode == 0


def test_a_network_that_cannot_stream_is_named_before_anything_is_written(tmp_path):
    network = make_network([CONV, {**LSTM, "bidirectional": True}], (3,))
    said = (
        r"layers\[1\] \(bidirectional recurrence\) needs the end of the sequence .*; use a layer that streams .* onnx"
    )
    with pytest.raises(ExportError, match=said):
        export_c(lower(network, TASK), tmp_path / "out", name="net", reference=of_network(network))
    assert not (tmp_path / "out").exists()


def test_an_operation_that_the_engine_does_not_know_is_named_before_anything_is_written(tmp_path):
    class Unknown(ops.Op):
        pass

    nodes = (Node(ops.Input(), (), (1,), False, "input"), Node(Unknown(), (0,), (1,), False, "layers[4]"))
    with pytest.raises(ExportError, match=r"layers\[4\]: operation 'Unknown' is none that the native engine knows"):
        export_c(Program(nodes, None, (), "none", 1, 0), tmp_path / "out", name="net", reference=lambda rows: rows[0])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["2fast", "a-b", "", "a b"])
def test_a_name_that_is_none_in_c_is_refused(name, tmp_path):
    network = make_network([CONV], (3,))
    with pytest.raises(ExportError, match=r"name: found .*, expected letters, digits and _ only"):
        export_c(lower(network, TASK), tmp_path / "out", name=name, reference=of_network(network))


def test_a_folder_that_is_there_is_refused_unless_it_may_be_overwritten(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"is there already; name another folder, or give overwrite=True"):
        export("symbols", tmp_path)
    export("symbols", tmp_path, overwrite=True)
    assert (tmp_path / "note.txt").read_text() == "mine"


@needs_compiler
def test_source_that_does_not_give_the_networks_numbers_is_not_written(tmp_path):
    network = make_network([CONV], (3,))
    with pytest.raises(
        ExportError, match=r"net.c: not written: compiled, and its test failed: FAIL: largest difference"
    ):
        export_c(lower(network, TASK), tmp_path / "out", name="net", reference=of_network(network, 1.5))
    assert not (tmp_path / "out").exists()


def test_without_a_compiler_it_is_written_and_said_to_be_unchecked(tmp_path, unbuilt):
    found = export("symbols", tmp_path)
    assert found.difference is None
    assert (
        "NOT CHECKED: no C compiler was found here; install one, or set CC; compile and run the test"
        in found.describe()
    )
    assert (
        "**It was not compiled where it was written** (no C compiler was found here"
        in (tmp_path / "README.md").read_text()
    )


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", f"{sys.executable} -c \"import sys; sys.exit('no licence')\"")
    found = export("symbols", tmp_path)
    assert "NOT CHECKED" in found.describe()
    assert "failed: no licence" in found.unchecked
    wall = "import sys; sys.exit('note: a\\nx.c:3: error: no such type\\n' + 'note: b\\n' * 90)"
    monkeypatch.setenv("CC", f'{sys.executable} -c "{wall}"')
    assert export("symbols", tmp_path, overwrite=True).unchecked.endswith(
        "x.c:3: error: no such type (and 91 more lines)"
    )
    monkeypatch.setenv("CC", f'{sys.executable} -c "import sys; sys.exit(3)"')
    assert "failed: exit status 3, it said nothing" in export("symbols", tmp_path, overwrite=True).unchecked
    monkeypatch.setenv("CC", "not-a-compiler")
    assert "not-a-compiler cannot be run" in export("symbols", tmp_path, overwrite=True).unchecked


def test_guards_are_cut_as_the_preprocessor_would():
    ours = "#if CRNN_HAS_A || CRNN_HAS_B\nab\n#else\nneither\n#endif\n"
    theirs = "#if defined(__X__)\n#if CRNN_HAS_C\nc\n#endif\n#else\nx\n#endif\n"
    source = f'#include <math.h>\n#include "x.h"\n{ours}{theirs}'
    assert cut(source, {"b"}).split("\n") == ["ab", "#if defined(__X__)", "#else", "x", "#endif"]
    assert cut(source, {"c"}).split("\n") == ["neither", "#if defined(__X__)", "c", "#else", "x", "#endif"]
    for path in SOURCES:
        assert "CRNN_HAS" not in cut(path.read_text(), set())


def test_floats_and_labels_are_what_c_reads():
    for value in np.array([0.1, 1e-38, 3e38, -1, 1e-45, 16777216], np.float32):
        assert np.float32(_float(value).removesuffix("f")) == value
    assert [_float(np.float32(v)) for v in (float("nan"), float("inf"), -float("inf"))] == [
        "NAN",
        "INFINITY",
        "-INFINITY",
    ]
    assert _escaped('a"?\\é') == "a\\042\\077\\134\\303\\251"
