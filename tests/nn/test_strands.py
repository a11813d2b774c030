"""Networks that cannot tell a sequence from its other strand, and layers that know where they are."""

import pytest
import torch

from crnn.alphabets import DNA
from crnn.errors import ConfigError
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.nn.position import Position, PositionConfig
from crnn.nn.strands import ReverseComplement, ReverseComplementConfig, other_strand
from crnn.sequences import Sequences, pad

IUPAC = {"type": "iupac", "alphabet": "dna"}
CONV = {"type": "conv", "channels": 6, "kernel_size": 5}
NORM = {"type": "norm"}
POOL = {"type": "pool", "kind": "max", "size": 3, "tail": "ceil"}
GRU = {"type": "recurrent", "cell": "gru", "hidden_size": 4}
NETWORKS = {
    "average": {
        "layers": [IUPAC],
        "summary": {"type": "strands", "layers": [CONV, NORM, POOL, GRU], "summary": {"type": "last"}},
    },
    "share": {
        "layers": [IUPAC, *({"type": "strands", "layers": [*part]} for part in ([CONV, NORM, POOL], [CONV], [GRU]))],
        "summary": {"type": "strands", "summary": {"type": "attention"}, "join": "max"},
    },
}


def strands_of_dna():
    """Sequences of unequal length with ambiguous symbols, and their reverse complements by the table of letters."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(15, (n,), generator=generator) for n in (23, 7, 16, 24)]
    return pad(rows), pad([torch.from_numpy(DNA.complement)[row].flip(0) for row in rows])


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_both_strands_have_the_same_outputs(spec, training):
    torch.manual_seed(0)
    network = Network(spec_from_plain(spec), features=(), outputs=3).train(training)
    forward, backward = strands_of_dna()
    torch.testing.assert_close(network(forward), network(backward), atol=1e-6, rtol=1e-5)


def test_a_plain_network_tells_strands_apart():
    torch.manual_seed(0)
    spec = {"layers": [IUPAC, CONV, NORM], "summary": {"type": "mean"}}
    forward, backward = strands_of_dna()
    network = Network(spec_from_plain(spec), features=(), outputs=3).eval()
    assert (network(forward) - network(backward)).abs().max() > 1e-3


def test_shared_layers_give_the_other_strand_of_their_output():
    torch.manual_seed(0)
    spec = {"layers": [IUPAC, {"type": "strands", "layers": [CONV, NORM]}], "summary": {"type": "mean"}}
    body = Network(spec_from_plain(spec), features=(), outputs=2).eval().body
    forward, backward = strands_of_dna()
    torch.testing.assert_close(other_strand(body(forward)).data, body(backward).data, atol=1e-6, rtol=1e-5)


def test_reverse_complement_turns_sequences_in_training_only():
    fractions = Network(spec_from_plain({"layers": [IUPAC], "summary": {"type": "mean"}}), features=(), outputs=2).body
    forward, backward = (fractions(x) for x in strands_of_dna())
    layer = ReverseComplement((4,), ReverseComplementConfig(rate=1.0))
    assert torch.equal(layer.train()(forward).data, backward.data)
    assert torch.equal(layer.eval()(forward).data, forward.data)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([{"type": "iupac", "alphabet": "protein"}, {"type": "reverse_complement"}], "iupac of protein"),
        ([{"type": "embedding", "vocab_size": 15, "channels": 4}, {"type": "strands", "layers": [CONV]}], "embedding"),
    ],
)
def test_what_has_one_strand_is_refused(layers, found):
    with pytest.raises(ConfigError, match=f"reads the two strands of DNA or RNA, but the first layer is {found}"):
        spec_from_plain({"layers": layers, "summary": {"type": "mean"}})


def test_unpaired_channels_are_refused():
    with pytest.raises(ConfigError, match=r"expected \(channels,\) with channels in pairs"):
        ReverseComplement((5,), ReverseComplementConfig())


def test_position_is_one_at_its_place():
    layer = Position((2,), PositionConfig(places=3, spacing=4.0))
    out = layer(Sequences(torch.full((1, 40, 2), float("nan")), torch.tensor([40]))).data[0]
    assert [int(i) for i in out.argmax(0)] == [0, 4, 8]
    torch.testing.assert_close(out[[0, 4, 8], [0, 1, 2]], torch.ones(3))
    torch.testing.assert_close(out[2, 0], torch.exp(torch.tensor(-0.25)))
    assert not out[30:].any()
