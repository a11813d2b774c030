"""VGSL strings: what they mean, that writing gives them back, and what is refused."""

from __future__ import annotations

import pytest

from crnn.config import to_plain
from crnn.errors import ConfigError
from crnn.models.vgsl import read_vgsl, write_layers
from crnn.nn.blocks import build_layers, complete_layers

KRAKEN = (
    "[1,120,0,1 Cr3,13,32 Do0.1,2 Mp2,2 Cr3,13,32 Do0.1,2 Mp2,2 Cr3,9,64 Do0.1,2 Mp2,2 Cr3,9,64 Do0.1,2 "
    "S1(1x0)1,3 Lbx200 Do0.1,2 Lbx200 Do0.1,2 Lbx200 Do]"
)


def build(text: str):
    network = read_vgsl(text)
    return build_layers(complete_layers(network.layers, "model.layers"), (1, network.height))


def test_the_default_network_of_kraken_has_the_parameters_of_its_own_sum():
    convolutions = 32 * (39 + 1) + 32 * (32 * 39 + 1) + 64 * (32 * 27 + 1) + 64 * (64 * 27 + 1)
    lstm = [2 * 4 * 200 * (inputs + 200 + 2) for inputs in (64 * 15, 400, 400)]  # 120 rows, halved three times
    body = build(KRAKEN)
    assert sum(p.numel() for p in body.parameters()) == convolutions + sum(lstm)
    assert body.out_features == (400,)
    assert body.timing.stride == 8


def test_rows_and_columns_are_not_confused():
    body = build("[1,48,0,1 Cl5,3,7,3,2 Mp4,2 S1(1x4)1,3]")  # 48 / 3 = 16 rows, 16 / 4 = 4
    assert body.out_features == (7 * 4,)
    assert body.timing.stride == 2 * 2
    (conv,) = read_vgsl("[1,48,0,1 Cl5,3,7,3,2 S1(1x0)1,3]").layers[:1]
    assert conv == {"type": "conv2d", "channels": 7, "kernel_size": [3, 5], "stride": [2, 3]}


def test_strips_of_pixels_are_columns_of_channels():
    network = read_vgsl("[1,1,0,48 Lbx100 Do O1c59]")
    assert network.height == 48
    assert network.num_outputs == 59
    assert build("[1,1,0,48 Lbx100 Do O1c59]").out_features == (200,)


def test_branches_stand_side_by_side():
    body = build("[1,8,0,1 ([Cr3,3,4 Mp2,2] [Cr5,5,6 Mp2,2]) S1(1x4)1,3 (Lfx3 Lbx5)]")
    assert body.out_features == (3 + 2 * 5,)


def test_names_and_the_zero_for_the_output_are_read():
    assert read_vgsl("[1,8,0,1 C{first}r3,3,4 S{x}1(1x0)1,3 L{out}bx5 01c7]").num_outputs == 7


@pytest.mark.parametrize(
    "text",
    [
        KRAKEN,
        "[1,48,0,1 Cl5,5,16,2,2 Bnr Ct3,3,32 Mp2,2 S1(1x12)1,3 Cr1,3,64 Mp1,2 Gfx32 Lbx16 Do0.2 O1c11]",
        "[1,8,0,1 ([Cr3,3,4 Mp2,2] [Cr5,5,6 Mp2,2]) S1(1x4)1,3 Lbx5]",
    ],
)
def test_written_is_read_again(text):
    network = read_vgsl(text)
    layers = to_plain(complete_layers(network.layers, "model.layers"))
    again = write_layers(layers, network.height, network.num_outputs)
    assert to_plain(complete_layers(read_vgsl(again).layers, "model.layers")) == layers


def test_a_stack_of_recurrences_is_written_layer_by_layer():
    layers = [{"type": "flatten"}, {"type": "recurrent", "hidden_size": 9, "num_layers": 2, "dropout": 0.2}]
    assert write_layers(complete_layers(layers, "m"), 16) == "[1,16,0,1 S1(1x16)1,3 Lfx9 Do0.2 Lfx9]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,48,0,1 Lbx100", "expected one network in brackets"),
        ("[Cr3,3,32]", "begins with 'Cr3,3,32', expected batch,height,width,depth"),
        ("[1,48,640,1 S1(1x0)1,3]", "fixed width 640; expected 0"),
        ("[1,0,0,1 Lfys64]", "found height 0; expected a fixed height"),
        ("[1,48,0,3 Cr3,3,8]", "found depth 3; expected 1"),
        ("[1,36,0,1 Lfys64 Lfx96]", "Lfys64: a recurrence over the height"),
        ("[1,48,0,1 S1(1x0)1,3 Lrx96]", "backwards only is not supported; use Lbx"),
        ("[1,48,0,1 Lbx96]", "would run on each of 48 rows; put S1(1x0)1,3 before it"),
        ("[1,48,0,1 Mp2,2 S1(1x12)1,3]", r"expected S1(1x0)1,3 or S1(1x24)1,3"),
        ("[1,48,0,1 Cr3,3,8]", "the height is still 48 at the end"),
        ("[1,48,0,1 Cs3,3,8 S1(1x0)1,3]", "function 's' is not supported"),
        ("[1,48,0,1 Cr3,3,8 Gn8 S1(1x0)1,3]", "Gn8: group norm is not supported; use Bn"),
        ("[1,48,0,1 Cr4,3,8 S1(1x0)1,3]", "a kernel of 4 rows; expected an odd number"),
        ("[1,4,0,1 Mp8,2 S1(1x0)1,3]", "a window of 8 rows, but only 4 are left"),
        ("[1,48,0,1 S1(1x0)1,3 Cr3,3,8]", "looks at 3 rows, but behind S there is one"),
        ("[1,48,0,1 S1(1x0)1,3 Lbx8 O2l9]", "expected O1c"),
        ("[1,48,0,1 S1(1x0)1,3 O1c9 Lbx8]", "stands behind the output"),
        ("[1,48,0,1 S1(1x0)1,3 (Lbx8", "expected one network in brackets"),
        ("[1,48,0,1 S1(1x0)1,3 (Lbx8 Lbx9]", "a bracket is not closed"),
        ("[1,48,0,1 S1(1x0)1,3 (Lbx8)]", "holds 1 branches"),
        ("[1,48,0,1 S1(1x0)1,3 Do1.5]", "found a probability of 1.5"),
        ("[1,48,0,1 Qz3]", "unknown part"),
    ],
)
def test_refusals_name_the_part_and_what_to_write(text, message):
    with pytest.raises(ConfigError) as error:
        read_vgsl(text, "--vgsl")
    assert message in str(error.value)
    assert str(error.value).startswith("--vgsl: ")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"type": "jitter"}, "VGSL has no word for 'jitter'"),
        ({"type": "recurrent", "residual": True}, "residual: found True, but VGSL can only say False"),
        ({"type": "recurrent", "cell": "rnn"}, "no word for cell 'rnn'"),
    ],
)
def test_what_vgsl_cannot_say_is_refused_by_name(layer, message):
    with pytest.raises(ConfigError, match=message):
        write_layers(complete_layers([{"type": "flatten"}, layer], "m"), 16)
