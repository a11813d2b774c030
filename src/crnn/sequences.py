"""Sequences: a batch of sequences of different lengths, the one value that travels through every layer.

Right-padded data beside the true lengths. Nobody guesses a length from zeros. Ragged is the same without padding, for
what is kept of a whole data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from crnn.errors import ShapeError


class Sequences(NamedTuple):
    """A right-padded batch of sequences.

    What lies past an end is unspecified on the way into a layer (it may be NaN) and zero on the way out.

    Shape:
        data: (batch, time, *features); images in time are (batch, time, channels, height, width).
        lengths: (batch,) int64, 0 <= lengths <= time, on the same device as data.
    """

    data: Tensor
    lengths: Tensor

    @property
    def valid(self) -> Tensor:
        """(batch, time) bool, True where there is data. PyTorch's key_padding_mask is the negation of this."""
        return torch.arange(self.data.shape[1], device=self.data.device) < self.lengths[:, None]

    @property
    def is_full(self) -> bool:
        """True when nothing is padded, so that masking can be skipped."""
        return self.lengths.numel() == 0 or int(self.lengths.min()) == self.data.shape[1]

    def trimmed(self) -> Sequences:
        """The same sequences without the columns that are padding in all of them."""
        longest = int(self.lengths.max()) if self.lengths.numel() else 0
        return self if longest == self.data.shape[1] else Sequences(self.data[:, :longest], self.lengths)

    def zeroed(self) -> Sequences:
        """The same sequences with zeros past every end, whatever stood there, NaN included."""
        if self.is_full:
            return self
        invalid = ~self.valid
        invalid = invalid.reshape(invalid.shape + (1,) * (self.data.dim() - 2))
        # not data * mask, as NaN * 0 is NaN; nor masked_fill, which copies into another layout
        return Sequences(torch.where(invalid, 0, self.data), self.lengths)

    def blanked(self) -> Sequences:
        """As zeroed, at a sixth of its cost on a CPU, for what is finite past the ends: a layer's result on zeros."""
        if self.is_full:
            return self
        keep = self.valid.to(self.data.dtype)
        return Sequences(self.data * keep.reshape(keep.shape + (1,) * (self.data.dim() - 2)), self.lengths)

    def reversed(self) -> Sequences:
        """Each sequence reversed by its own length; padding stays where and what it is."""
        if self.is_full:
            return Sequences(self.data.flip(1), self.lengths)
        batch, frames = self.data.shape[:2]
        time = torch.arange(frames, device=self.data.device)
        index = torch.where(self.valid, self.lengths[:, None] - 1 - time, time)
        index = index + frames * torch.arange(batch, device=self.data.device)[:, None]
        rows = self.data.flatten(0, 1).index_select(0, index.flatten())  # whole frames: faster than gather of values
        return Sequences(rows.reshape(self.data.shape), self.lengths)

    def last(self) -> Tensor:
        """(batch, *features): the last true frame of each sequence (not the last column of the padding)."""
        return self.data[torch.arange(len(self.lengths), device=self.data.device), self.lengths - 1]

    def unpad(self) -> list[Tensor]:
        """One (length, *features) tensor per sequence."""
        return [row[:length] for row, length in zip(self.data, self.lengths.tolist(), strict=True)]

    def to(self, *args: object, **kwargs: object) -> Sequences:
        """Move data and lengths as torch.Tensor.to does; lengths stay int64."""
        data = self.data.to(*args, **kwargs)  # type: ignore[call-overload]
        return Sequences(data, self.lengths.to(data.device))


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences one behind the other, without padding: the outputs or targets of a whole data set.

    Shape:
        data: (sum of lengths, *features); lengths: (n,) int64.
    """

    data: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> Ragged:
        """From tensors (length_i, *features), at least one."""
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=rows[0].device)
        return cls(torch.cat(list(rows)), lengths)

    @cached_property
    def ends(self) -> list[int]:
        """Where each sequence ends in data."""
        return [int(end) for end in self.lengths.cumsum(0).tolist()]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Tensor:
        """(length, *features) of one sequence; a view."""
        end = self.ends[index]
        return self.data[end - int(self.lengths[index]) : end]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def rows(self, indices: Tensor) -> Sequences:
        """A padded batch of the sequences at these places, zero past the ends."""
        return pad([self[i] for i in indices.tolist()])

    def subset(self, indices: Sequence[int]) -> Ragged:
        """The sequences at these places, in this order."""
        return Ragged.of([self[i] for i in indices])

    def to(self, device: torch.device | str) -> Ragged:
        """The same on another device."""
        return Ragged(self.data.to(device), self.lengths.to(device))


def pad(sequences: Sequence[Tensor], *, length: int | None = None, value: float = 0.0) -> Sequences:
    """Right-pad tensors of shape (length_i, *features) into one batch.

    Args:
        length: time axis of the result; the longest sequence when None.
        value: what to write past the ends (layers ignore it).
    Raises:
        ShapeError: no sequences, unequal feature shapes, or a sequence longer than `length`.
    """
    if not sequences:
        raise ShapeError("cannot pad an empty list of sequences; expected at least one")
    features, longest = sequences[0].shape[1:], max(len(s) for s in sequences)
    for i, sequence in enumerate(sequences):
        if sequence.shape[1:] != features:
            raise ShapeError(
                f"sequence {i} has features {tuple(sequence.shape[1:])} but sequence 0 has {tuple(features)}; "
                "give every sequence the same channels"
            )
    if length is not None and longest > length:
        raise ShapeError(f"a sequence has {longest} frames, more than length={length}; raise length or cut it")
    data = sequences[0].new_full((len(sequences), length or longest, *features), value)
    for row, sequence in zip(data, sequences, strict=True):
        row[: len(sequence)] = sequence
    lengths = torch.tensor([len(s) for s in sequences], dtype=torch.int64, device=data.device)
    return Sequences(data, lengths)
