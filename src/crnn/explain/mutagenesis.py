"""In-silico mutagenesis: what every single substitution would change, computed on the model itself."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from crnn.alphabets import alphabet_of
from crnn.data.batch import load_example
from crnn.data.dataset import Dataset
from crnn.errors import DataError
from crnn.explain.attribution import Answer, evaluating
from crnn.model import Model

BATCH = 256


def mutate(model: Model, data: Dataset, index: int, label: int) -> NDArray[np.float32]:
    """The change of the answer by each substitution, (frames, plain symbols); 0 for the symbol that stands there.

    Args:
        label: place of the output that is explained.
    Raises:
        DataError: the data is not of a biological alphabet.
    """
    alphabet = alphabet_of(data.vocabulary)
    if alphabet is None:
        raise DataError(f"{data.source}: substitutions are of DNA, RNA or protein symbols, found {data.kind}")
    ids = torch.from_numpy(load_example(data[index], data))
    answer = Answer(model, label)
    length, size = len(ids), len(alphabet.plain)
    changes = torch.empty(length * size)
    with evaluating(model), torch.no_grad():
        usual = answer(answer.frames(ids)[None])[0]
        plain = answer.frames(torch.arange(size))  # (symbols, channels)
        for rows in torch.arange(length * size).split(BATCH):
            variants = answer.frames(ids).repeat(len(rows), 1, 1)
            variants[torch.arange(len(rows)), rows // size] = plain[rows % size]
            changes[rows] = answer(variants) - usual
    result = changes.reshape(length, size)
    known = ids < size
    result[known.nonzero()[:, 0], ids[known]] = 0.0  # exactly
    return result.numpy()
