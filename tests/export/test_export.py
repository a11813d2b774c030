"""One call for every format; what cannot be is said before anything is written."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from crnn.errors import ExportError
from crnn.export import export as exporters
from crnn.export.export import EXPORTERS, export, find_exporter
from crnn.nn.layers import Layer
from crnn.sequences import pad
from crnn.tasks.classify import Classify, ClassifyConfig
from program.test_lower import make_network
from test_promises import sequences

TASK = Classify.from_targets(["a", "b", "c"], ClassifyConfig())
LSTM = {"type": "recurrent", "hidden_size": 4}


@dataclass
class Note:
    """What a format of the tests gives back."""

    text: str

    def describe(self):
        return self.text


def as_text(job):
    """A format of another package: the outputs for one sequence of ones."""
    outputs = job.reference([np.ones((7, 3), np.float32)])
    job.out.write_text(" ".join(str(value) for value in outputs[0]))
    return Note(f"{job.name}: {len(job.program.nodes)} operations")


@pytest.fixture
def text_format(monkeypatch):
    monkeypatch.setattr(exporters, "plugins", lambda group: {"text": as_text} if group == "exporters" else {})


def test_an_exporter_of_another_package_gets_program_and_model(text_format, tmp_path):
    conv = {"type": "conv", "channels": 4, "kernel_size": 5}
    network = make_network([conv, LSTM], (3,))
    done = export(network, TASK, "text", tmp_path / "m.txt", temperature=2.0, sample_rate=10.0, name="mine")
    with torch.no_grad():
        expected = network(pad([torch.ones(7, 3)]))[0] / 2
    written = [float(value) for value in (tmp_path / "m.txt").read_text().split()]
    assert written == pytest.approx(expected.tolist(), rel=1e-5)
    assert done.found == "mine: 5 operations"  # input, convolution, recurrence, last, head with the temperature in it
    assert done.files == {tmp_path / "m.txt": (tmp_path / "m.txt").stat().st_size}
    assert (done.delay_frames, done.delay_seconds) == (2, 0.2)


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(ExportError, match=r"^--to onx: unknown format; did you mean 'onnx'\?; known: c, keras, onnx$"):
        find_exporter("onx")
    with pytest.raises(ExportError, match=r"^--to tflite: unknown format; known: c, keras, onnx$"):
        find_exporter("tflite")


@pytest.mark.parametrize("to", EXPORTERS)
def test_what_is_there_is_kept(to, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ExportError, match=r"is there already; name another place, or replace it with --overwrite"):
        export(make_network([LSTM], (3,)), TASK, to, tmp_path)
    with pytest.raises(ExportError, match="is there already"):
        export(make_network([LSTM], (3,)), TASK, to, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "x"


@pytest.mark.parametrize(
    ("to", "out", "said"),
    [
        ("c", "file", r"file: is a file, and C takes a folder of its own; name another place"),
        (
            "onnx",
            "folder",
            r"folder: is a folder, and onnx is one file; name a file in it, such as .*folder/model.onnx",
        ),
        ("onnx", "file/m.onnx", r"file/m.onnx: .*file is a file, not a folder; name another place"),
    ],
)
def test_a_place_of_the_wrong_kind_is_never_replaced(to, out, said, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExportError, match=said):
        export(make_network([LSTM], (3,)), TASK, to, tmp_path / out, overwrite=True)
    assert (tmp_path / "file").read_text() == "x"


def test_c_needs_a_network_that_streams(tmp_path):
    network = make_network([{"type": "residual", "layers": [{**LSTM, "bidirectional": True}]}], (8,))
    with pytest.raises(ExportError, match=r"layers\[0\].residual.layers\[0\] \(.*end of the sequence .*--preset live"):
        export(network, TASK, "c", tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_a_name_that_ends_like_a_folders_is_no_file(tmp_path):
    with pytest.raises(ExportError, match=r"new: is a folder, and onnx is one file; name a file .*new/model.onnx"):
        export(make_network([LSTM], (3,)), TASK, "onnx", f"{tmp_path}/new/")
    assert not list(tmp_path.iterdir())


def test_files_are_those_that_were_written(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    network = make_network([LSTM], (3,))
    found = export(network, TASK, "c", tmp_path, name="net", overwrite=True)
    names = ["README.md", "main.c", "net.c", "net.h", "test_net.c"]
    assert [path.name for path in found.files] == names
    again = export(network, TASK, "c", tmp_path, name="net", overwrite=True)
    assert again.files == found.files


def test_int8_is_for_onnx(tmp_path):
    with pytest.raises(ExportError, match=r"int8 with keras: only --to onnx rounds weights .* crnn compress --int8"):
        export(make_network([LSTM], (3,)), TASK, "keras", tmp_path / "m.keras", int8=True)


@pytest.mark.parametrize(("to", "takes"), [("c", "frames as they come"), ("keras", "whole sequences anyway")])
def test_whole_sequences_only_is_for_onnx(tmp_path, to, takes):
    with pytest.raises(ExportError, match=f"whole with {to}: only for --to onnx; {to} takes {takes}; leave it out"):
        export(make_network([LSTM], (3,)), TASK, to, tmp_path / "m", whole=True)


@pytest.mark.parametrize("to", EXPORTERS)
def test_a_layer_without_operations_is_named_before_anything_is_written(to, tmp_path):
    class Odd(Layer):
        """A layer that no exporter knows."""

        def compute(self, x):
            return x

    network = make_network([LSTM, {"type": "activation"}], (3,))
    network.body.layers[1] = Odd((4,))
    with pytest.raises(ExportError, match=r"layers\[1\]: layer 'Odd' has no operations that an exporter knows"):
        export(network, TASK, to, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_the_onnx_file_gives_the_models_numbers(tmp_path):
    pytest.importorskip("onnxruntime", reason="not installed: pip install 'crnn[onnx]'")
    from crnn.export.onnx import OnnxStream, open_onnx

    network = make_network([LSTM], (3,))
    done = export(network, TASK, "onnx", tmp_path / "m.onnx", temperature=2.0)
    rows = sequences((3,), [9])
    with torch.no_grad():
        expected = network(pad(rows)).numpy() / 2
    found = OnnxStream(open_onnx(tmp_path / "m.onnx")).whole(rows[0][None].numpy(), np.array([9]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert "largest difference from the model" in done.found
