"""SpecAugment: blanks while training only, as much as asked, wherever the sequence is."""

import pytest
import torch

from crnn.errors import ConfigError
from crnn.nn.spec_augment import SpecAugment, SpecAugmentConfig
from crnn.sequences import Sequences, pad


def test_nothing_happens_outside_of_training() -> None:
    x = pad([torch.randn(9, 4), torch.randn(5, 4)])
    out = SpecAugment((4,), SpecAugmentConfig()).eval()(x)
    assert torch.equal(out.data, x.data)


def test_blanks_are_stretches_no_longer_than_asked() -> None:
    torch.manual_seed(0)
    x = Sequences(torch.ones(400, 50, 8), torch.full((400,), 50))
    layer = SpecAugment((8,), SpecAugmentConfig(time_masks=1, time_share=0.2, band_masks=0)).train()
    blank = layer(x).data == 0
    assert (blank.all(2) == blank.any(2)).all()  # whole frames
    frames = blank.all(2)
    assert frames.sum(1).max() <= 0.2 * 50 + 1
    edges = (frames[:, 1:] != frames[:, :-1]).sum(1) + frames[:, 0] + frames[:, -1]
    assert set(edges.tolist()) <= {0, 2}  # one stretch, or none
    assert 0.08 < frames.float().mean() < 0.12  # mean width is half of the longest


def test_bands_are_blanked_for_the_whole_sequence() -> None:
    torch.manual_seed(0)
    x = Sequences(torch.ones(100, 6, 2, 16), torch.full((100,), 6))
    layer = SpecAugment((2, 16), SpecAugmentConfig(time_masks=0, band_masks=1, band_share=0.5)).train()
    blank = layer(x).data == 0
    assert blank.any()
    assert torch.equal(blank, blank[:, :1, :1].expand_as(blank))


def test_padding_changes_nothing_that_is_drawn() -> None:
    rows = [torch.randn(30, 5), torch.randn(12, 5)]
    layer = SpecAugment((5,), SpecAugmentConfig()).train()
    results = []
    for length in (30, 90):
        torch.manual_seed(3)
        results.append(layer(pad(rows, length=length, value=float("nan"))).unpad())
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"time_share=1\.5; expected 0 to 1"):
        SpecAugmentConfig(time_share=1.5)
