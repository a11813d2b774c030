"""Sequences and pad: expected values by hand."""

import pytest
import torch

from crnn.errors import ShapeError
from crnn.sequences import Sequences, pad

NAN = float("nan")


def three():
    """Lengths 3, 1, 2, junk past the ends."""
    data = torch.tensor([[1.0, 2, 3], [4, NAN, 9], [5, 6, NAN]])[..., None]
    return Sequences(data, torch.tensor([3, 1, 2]))


def test_valid_is_true_where_there_is_data():
    assert three().valid.tolist() == [[True, True, True], [True, False, False], [True, True, False]]


def test_zeroed_forgets_what_stands_past_the_ends():
    assert three().zeroed().data[..., 0].tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]]


def test_zeroed_keeps_missing_values_inside():
    x = Sequences(torch.tensor([[[NAN], [1.0]], [[2.0], [NAN]]]), torch.tensor([2, 1])).zeroed()
    assert x.data[0, 0].isnan()
    assert x.data[1, 1] == 0


def test_reversed_turns_each_sequence_by_its_own_length():
    x = three()
    found = x.reversed()
    assert [row[:, 0].tolist() for row in found.unpad()] == [[3, 2, 1], [4], [6, 5]]
    torch.testing.assert_close(found.data[~x.valid], x.data[~x.valid], equal_nan=True)  # padding stays as it is


def test_reversed_twice_is_the_same():
    torch.testing.assert_close(three().reversed().reversed().data, three().data, rtol=0, atol=0, equal_nan=True)


def test_last_is_the_last_true_frame():
    assert three().last()[:, 0].tolist() == [3, 4, 6]


def test_trimmed_drops_what_is_padding_everywhere():
    x = pad([torch.ones(2, 1), torch.ones(1, 1)], length=5)
    assert x.trimmed().data.shape == (2, 2, 1)
    assert three().trimmed().data.shape == (3, 3, 1)


def test_unpad_gives_back_what_was_padded():
    rows = [torch.randn(n, 2, 3) for n in (4, 0, 2)]
    for got, row in zip(pad(rows, length=6, value=NAN).unpad(), rows, strict=True):
        assert torch.equal(got, row)


def test_is_full_only_without_padding():
    assert pad([torch.ones(2, 1), torch.ones(2, 1)]).is_full
    assert not three().is_full
    assert not pad([torch.ones(2, 1)], length=3).is_full


def test_pad_refuses_what_it_cannot_pad():
    with pytest.raises(ShapeError, match="empty list"):
        pad([])
    with pytest.raises(ShapeError, match=r"sequence 1 has features \(3,\) but sequence 0 has \(2,\)"):
        pad([torch.ones(1, 2), torch.ones(1, 3)])
    with pytest.raises(ShapeError, match="has 4 frames, more than length=3"):
        pad([torch.ones(4, 2)], length=3)


def test_blanked_is_zeroed_for_finite_data():
    x = Sequences(torch.randn(3, 7, 2, 4).transpose(2, 3), torch.tensor([7, 3, 5]))
    assert torch.equal(x.blanked().data, x.zeroed().data)
    assert x.blanked().data.stride() == x.data.stride()  # convolutions keep their layout
    full = Sequences(torch.randn(2, 3, 1), torch.tensor([3, 3]))
    assert full.blanked() is full
