"""Presets for DNA, RNA and proteins: one label a sequence, or one a symbol; and networks of the literature."""

from __future__ import annotations

from typing import Any

from crnn.presets.general import NORM_RELU, default
from crnn.presets.recipe import DataSummary, Recipe

MOST_PLACES = 84
"""Of `position`; in shorter windows every symbol is a place of its own."""
SYMBOLS_SEEN = 1.5e7
"""Symbols that a network of one label a symbol is trained on, all passes together."""


def bio(data: DataSummary) -> Recipe:
    """Motifs of three widths, where they stand if sequences are aligned, and a bidirectional GRU.

    Windows of one length are taken to be cut around the same point (a start of transcription, a splice site): there
    the place of a motif is half of what it means.
    """
    if data.task == "tag":
        return _labels_of_symbols(data)
    return _recipe(data, [*symbols(data), *_motifs(data)], _both(_recurrence()))


def bio_strands(data: DataSummary) -> Recipe:
    """As bio, blind to the strand: both strands go through the same weights, and their summaries are averaged.

    For labels that hold for both strands of DNA, such as enhancers and binding sites. Positions are left out: they
    differ by strand.
    """
    part = {"type": "strands", "layers": _motifs(data, placed=False), "summary": _both(_recurrence())}
    return _recipe(data, symbols(data), part)


def _recipe(data: DataSummary, layers: list[dict[str, Any]], summary: dict[str, Any]) -> Recipe:
    usual = default(data)  # its loss, its head, and when it stops
    train = {
        **usual["train"],
        "batch_size": 32,
        "steps": min(max(12 * data.num_examples // 32, 800), 4000),
    }
    model = {"layers": layers, "summary": summary, "head": {**usual["model"]["head"], "dropout": 0.5}}
    return {**usual, "model": model, "train": train}


def _motifs(data: DataSummary, *, placed: bool = True) -> list[dict[str, Any]]:
    """Filters over the fractions, then over the filters and their places; at most about 128 frames of them."""
    stem = [[{"type": "conv", "channels": 64, "kernel_size": k, "bias": False}] for k in (5, 9, 15)]
    layers: list[dict[str, Any]] = [
        {"type": "parallel", "branches": stem},
        *NORM_RELU,
        {"type": "dropout", "rate": 0.1, "kind": "channel"},
    ]
    if placed and data.min_length == data.max_length:
        spacing = -(-data.max_length // MOST_PLACES)
        places = {"type": "position", "places": -(-data.max_length // spacing), "spacing": spacing}
        layers.append({"type": "parallel", "branches": [[], [places]]})
    shrink = -(-data.mean_length // 128)
    if shrink > 1:
        layers.append({"type": "pool", "kind": "max", "size": shrink, "tail": "ceil"})
    return [*layers, {"type": "conv", "channels": 96, "kernel_size": 5, "bias": False}, *NORM_RELU]


def _recurrence() -> list[dict[str, Any]]:
    return [
        {"type": "dropout", "rate": 0.3},
        {"type": "recurrent", "cell": "gru", "hidden_size": 64, "bidirectional": True},
    ]


def _both(recurrence: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and maximum over the sequence of the convolutions' frames, and of the recurrence on top of them."""
    parts = [{"type": "mean"}, {"type": "max"}]
    return {
        "type": "concat",
        "summaries": [*parts, {"type": "concat", "layers": recurrence, "summaries": parts}],
    }


def _labels_of_symbols(data: DataSummary) -> Recipe:
    """A label for every symbol: convolutions of three widths over the fractions, two bidirectional GRUs."""
    stem = [[{"type": "conv", "channels": 32, "kernel_size": k, "bias": False}] for k in (5, 11, 21)]
    gru = {"cell": "gru", "hidden_size": 64, "bidirectional": True, "num_layers": 2, "dropout": 0.3}
    layers: list[dict[str, Any]] = [
        *symbols(data),
        {"type": "parallel", "branches": stem},
        *NORM_RELU,
        {"type": "dropout", "rate": 0.1},
        {"type": "conv", "channels": 64, "kernel_size": 5, "bias": False},
        *NORM_RELU,
        {"type": "dropout", "rate": 0.2},
        {"type": "recurrent", **gru},
    ]
    train = {
        "epochs": min(max(round(SYMBOLS_SEEN / (data.num_examples * data.mean_length)), 6), 60),
        "batch_size": 16,
        "learning_rate": 3e-3,
        "weight_decay": 0.01,
        "warmup": 0.2,
        "ema_decay": 0.995,
        "keep": "last",
    }
    return {"model": {"layers": layers, "summary": None, "head": {"dropout": 0.3}}, "train": train, "task": {}}


def danq(data: DataSummary) -> Recipe:
    """Motif filters, strong pooling and a wide bidirectional LSTM.

    Source: Quang & Xie 2016, doi:10.1093/nar/gkw226: 320 filters of 26, pooling by 13, 320 LSTM units each way, 925
    hidden units. There the LSTM's outputs at all places are one vector, which fixes the length; here they are
    summarised by mean and maximum, so any length works. Filters see past the ends, where the paper's stay inside.
    """
    layers: list[dict[str, Any]] = [
        *symbols(data),
        {"type": "conv", "channels": 320, "kernel_size": 26},
        {"type": "activation", "kind": "relu"},
        {"type": "pool", "kind": "max", "size": 13, "tail": "ceil"},
        {"type": "dropout", "rate": 0.2},
        {"type": "recurrent", "cell": "lstm", "hidden_size": 320, "bidirectional": True},
        {"type": "dropout", "rate": 0.5},
    ]
    summary = {"type": "concat", "summaries": [{"type": "mean"}, {"type": "max"}]}
    train = {"optimizer": "rmsprop", "learning_rate": 1e-3, "weight_decay": 0.0, "schedule": "constant"}
    return {"model": {"layers": layers, "summary": summary, "head": {"hidden": [925]}}, "train": train}


def deeploc(data: DataSummary) -> Recipe:
    """Motifs of six widths, a bidirectional LSTM and attention: where in the cell a protein goes.

    Source: Almagro Armenteros et al. 2017, doi:10.1093/bioinformatics/btx431: filters of 1, 3, 5, 9, 15 and 21,
    20 of each, 128 of 3 over them, 256 LSTM units each way, attention. There attention is decoded in several steps;
    here it is one weighted mean. Input is the sequence, not a profile.
    """
    stem = [[{"type": "conv", "channels": 20, "kernel_size": k}] for k in (1, 3, 5, 9, 15, 21)]
    layers: list[dict[str, Any]] = [
        *symbols(data),
        {"type": "parallel", "branches": stem},
        {"type": "activation", "kind": "relu"},
        {"type": "conv", "channels": 128, "kernel_size": 3},
        {"type": "activation", "kind": "relu"},
        {"type": "dropout", "rate": 0.5},
        {"type": "recurrent", "cell": "lstm", "hidden_size": 256, "bidirectional": True},
    ]
    summary = {"type": "attention", "hidden_size": 256}
    train = {"optimizer": "adam", "learning_rate": 5e-4, "weight_decay": 0.0}
    head = {"hidden": [256], "dropout": 0.5}
    return {"model": {"layers": layers, "summary": summary, "head": head}, "train": train}


def netsurfp(data: DataSummary) -> Recipe:
    """The structure of a protein, residue by residue: the residues beside very wide filters, two wide bidirectional
    LSTMs. It is made for a GPU.

    Source: Klausen et al. 2019, doi:10.1002/prot.25674 (NetSurfP-2.0): 32 filters of 129 and 32 of 257 beside the
    input, two layers of 1,024 LSTM units each way. There the input has evolutionary profiles; here it is the sequence.
    """
    wide = [[{"type": "conv", "channels": 32, "kernel_size": k}, *NORM_RELU] for k in (129, 257)]
    lstm = {"cell": "lstm", "hidden_size": 1024, "bidirectional": True, "num_layers": 2, "dropout": 0.5}
    layers = [*symbols(data), {"type": "parallel", "branches": [[], *wide]}, {"type": "recurrent", **lstm}]
    train = {"optimizer": "adam", "learning_rate": 5e-4, "weight_decay": 0.0, "batch_size": 15, "epochs": 50}
    return {"model": {"layers": layers, "summary": None, "head": {}}, "train": train, "task": {}}


def symbols(data: DataSummary) -> list[dict[str, Any]]:
    """Fractions of bases or residues; of symbols that are something else, a vector each; other frames as they are."""
    if data.kind != "symbols":
        return []
    if data.alphabet is None:
        return [{"type": "embedding", "vocab_size": data.vocabulary_size, "channels": 32}]
    return [{"type": "iupac", "alphabet": data.alphabet}]
