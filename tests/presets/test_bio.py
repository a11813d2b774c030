"""Presets for symbols: they fit DNA and proteins, know aligned windows, and have the sizes of their sources."""

from dataclasses import replace

import pytest
import torch

from crnn.errors import ConfigError
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.presets.bio import bio, bio_strands, danq, deeploc, netsurfp
from crnn.presets.recipe import DataSummary

DNA = DataSummary("symbols", 0, None, 900, 60, 60, 60, 60, "classify", 2, vocabulary_size=15, alphabet="dna")
PROTEIN = replace(DNA, vocabulary_size=26, alphabet="protein", min_length=20, max_length=300, mean_length=150)


def network(preset, data):
    with torch.device("meta"):  # sizes only
        return Network(spec_from_plain(preset(data)["model"]), features=(), outputs=data.num_outputs)


@pytest.mark.parametrize("data", [DNA, PROTEIN, replace(DNA, alphabet=None), replace(PROTEIN, task="tag")])
@pytest.mark.parametrize("preset", [bio, danq, deeploc])
def test_presets_fit_what_symbols_there_are(preset, data):
    if data.task != "tag" or preset is bio:
        assert network(preset, data).num_parameters > 0


def test_only_aligned_windows_have_places():
    assert "position" in str(bio(DNA))
    assert "position" not in str(bio(replace(DNA, min_length=59)))
    assert "position" not in str(bio_strands(DNA))


def test_proteins_have_no_two_strands():
    assert network(bio_strands, DNA).num_parameters > 0
    with pytest.raises(ConfigError, match="strands reads the two strands of DNA or RNA"):
        network(bio_strands, PROTEIN)


def test_sizes_are_those_of_the_papers():
    conv, lstm = network(danq, DNA).body.layers[1], network(danq, DNA).body.layers[5]
    assert sum(p.numel() for p in conv.parameters()) == 320 * (4 * 26 + 1)
    # Keras has one bias where PyTorch has two
    assert sum(p.numel() for p in lstm.parameters()) == 2 * 4 * 320 * (320 + 320 + 2)
    layers = network(netsurfp, replace(PROTEIN, task="tag")).body.layers
    assert layers[1].out_features == (20 + 32 + 32,)
    assert layers[2].out_features == (2 * 1024,)
    stem = network(deeploc, PROTEIN).body.layers[1]
    assert stem.out_features == (6 * 20,)
