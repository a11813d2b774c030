"""Motifs: what the first convolution's filters look for, as position weight matrices, in the format of MEME."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crnn.alphabets import Alphabet, alphabet_of
from crnn.data.batch import Batches
from crnn.data.dataset import Dataset
from crnn.errors import DataError
from crnn.explain.attribution import Answer, evaluating
from crnn.model import Model
from crnn.nn.conv import Conv

STRONG = 0.5
"""Share of a filter's largest activation from which a place counts as one of its sites."""
LEAST_SITES = 10
PSEUDO = 1.0
"""Sites that each column gets on top, spread as the symbols are in the data."""


@dataclass(frozen=True)
class Motif:
    """What one filter looks for."""

    name: str
    """'conv 9, filter 12': its width, and its place among filters of that width."""
    matrix: NDArray[np.float64]
    """(width, plain symbols): share of each symbol among its sites."""
    sites: int
    influence: float
    """Correlation over the sequences of its largest activation with the model's answer, from -1 to 1."""
    background: NDArray[np.float64]
    """Share of each symbol in the data."""

    @property
    def information(self) -> NDArray[np.float64]:
        """(width,): bits by which each column differs from the data."""
        ratio = np.log2(np.maximum(self.matrix, 1e-12) / np.maximum(self.background, 1e-12))
        return np.asarray((self.matrix * ratio).sum(1))

    def consensus(self, alphabet: Alphabet) -> str:
        """The likeliest symbol of each column; lower case where it holds less than half of the sites."""
        best = self.matrix.argmax(1)
        letters = [alphabet.plain[i] for i in best]
        return "".join(
            c if self.matrix[row, i] >= 0.5 else c.lower() for row, (c, i) in enumerate(zip(letters, best, strict=True))
        )


def find_motifs(model: Model, data: Dataset, *, label: int, most: int = 8) -> list[Motif]:
    """The filters of the first convolutions that go with the model's answer most, as the sites that excite them.

    Args:
        label: place of the output that is explained.
        most: how many to give, by the size of their influence.
    Raises:
        DataError: other data than symbols of an alphabet; or no convolution reads them directly.
    Source: Alipanahi et al. 2015, doi:10.1038/nbt.3300, and Quang & Xie 2016: sites above half of the maximum, aligned.
    """
    alphabet = alphabet_of(data.vocabulary)
    if alphabet is None:
        raise DataError(f"{data.source}: motifs are of DNA, RNA or protein symbols, found {data.kind}")
    answer = Answer(model, label)
    filters = [
        layer
        for layer in model.network.modules()
        if isinstance(layer, Conv) and layer.in_features == (len(alphabet.plain),) and layer.config.groups == 1
    ]
    if not filters or answer.front is None:
        raise DataError(f"{data.source}: no convolution of this model reads the symbols directly")
    frames, answers = _frames_and_answers(model, data, answer)
    background = np.concatenate([f.numpy() for f in frames]).mean(0).astype(np.float64)
    found = []
    with evaluating(model), torch.no_grad():
        for layer in filters:
            found += _of_layer(layer, frames, answers, background)
    return sorted(found, key=lambda motif: -abs(motif.influence))[:most]


def _frames_and_answers(model: Model, data: Dataset, answer: Answer) -> tuple[list[torch.Tensor], NDArray[np.float64]]:
    frames: list[torch.Tensor] = [torch.empty(0)] * len(data)
    answers = np.empty(len(data))
    with evaluating(model), torch.no_grad():
        for x, indices in Batches(data, 64, shuffle=False, seed=0).epoch(0):
            for row, i in zip(x.unpad(), indices.tolist(), strict=True):
                frames[i] = answer.frames(row)
            outputs = model.network(x)
            values = outputs.data.mean(1) if hasattr(outputs, "lengths") else outputs
            rest = (values.sum(1) - values[:, answer.label]) / max(1, values.shape[1] - 1)
            chosen = values[:, answer.label] - (rest if answer.contrast else 0.0)
            answers[indices.numpy()] = chosen.double().numpy()
    return frames, answers


def _of_layer(
    layer: Conv, frames: list[torch.Tensor], answers: NDArray[np.float64], background: NDArray[np.float64]
) -> list[Motif]:
    weight, bias = layer.conv.weight, layer.conv.bias
    taps, dilation = layer.config.kernel_size, layer.config.dilation
    span = layer.extent
    inside = [f for f in frames if len(f) >= span]
    if len(inside) < 2:
        return []
    kept = np.array([len(f) >= span for f in frames])
    # windows that lie wholly inside of a sequence only: a site needs all of its symbols
    active = [torch.nn.functional.conv1d(f.T[None], weight, bias, dilation=dilation)[0] for f in inside]
    floor = torch.cat([a.mean(1, keepdim=True) for a in active], 1).mean(1)  # filters have no zero of their own
    peaks = torch.stack([a.amax(1) for a in active], 1)  # (filters, sequences)
    motifs = []
    for i in range(len(weight)):
        least = floor[i] + STRONG * (peaks[i].max() - floor[i])
        counts, sites = np.zeros((taps, frames[0].shape[1])), 0
        for f, a in zip(inside, active, strict=True):
            for at in (a[i] >= least).nonzero()[:, 0].tolist():
                counts += f[at : at + span : dilation].numpy()
                sites += 1
        if sites < LEAST_SITES:
            continue
        strength = peaks[i].double().numpy()
        spread = strength.std() * answers[kept].std()
        influence = (
            float(np.mean((strength - strength.mean()) * (answers[kept] - answers[kept].mean())) / spread)
            if (spread > 0)
            else 0.0
        )
        matrix = (counts + PSEUDO * background) / (sites + PSEUDO)
        motifs.append(Motif(f"conv {taps}, filter {i}", matrix, sites, influence, background))
    return motifs


def write_meme(path: str | Path, motifs: list[Motif], alphabet: Alphabet) -> None:
    """Write motifs as minimal MEME text, which Tomtom, FIMO and their like read.

    Source: "MEME Motif Format", version 4, of the MEME Suite.
    """
    strands = "strands: +\n\n" if alphabet.name != "protein" else ""
    lines = [f"MEME version 4\n\nALPHABET= {alphabet.plain}\n\n{strands}Background letter frequencies"]
    if motifs:
        shares = zip(alphabet.plain, motifs[0].background, strict=True)
        lines.append(" ".join(f"{letter} {share:.5f}" for letter, share in shares))
    for motif in motifs:
        width, size = motif.matrix.shape
        lines.append(f"\nMOTIF {motif.name.replace(', ', '_').replace(' ', '_')} {motif.consensus(alphabet)}")
        lines.append(f"letter-probability matrix: alength= {size} w= {width} nsites= {motif.sites} E= 0")
        lines += [" ".join(f"{share:.6f}" for share in row) for row in motif.matrix]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
