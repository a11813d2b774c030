"""A planted motif is found by filters, attribution and mutagenesis; attributions add up; the page stands alone."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch

import crnn
from crnn.alphabets import DNA
from crnn.cli.main import run_app
from crnn.data.dataset import Dataset, array_example
from crnn.data.synthetic import heartbeats
from crnn.errors import ConfigError, DataError
from crnn.explain import attribution
from crnn.explain.attribution import attribute
from crnn.explain.explain import explain
from crnn.explain.motifs import find_motifs, write_meme
from crnn.explain.mutagenesis import mutate

pytest.importorskip("captum", reason="not installed: pip install 'crnn[explain]'")
pytest.importorskip("logomaker", reason="not installed: pip install 'crnn[dna]'")

PLANTED = "TGACTCA"
NETWORK = {
    "layers": [
        {"type": "iupac", "alphabet": "dna"},
        {"type": "conv", "channels": 16, "kernel_size": 9, "bias": False},
        {"type": "norm", "kind": "batch"},
        {"type": "activation", "kind": "relu"},
        {"type": "recurrent", "cell": "gru", "hidden_size": 8, "bidirectional": True},
    ],
    "summary": {"type": "max"},
    "head": {"dropout": 0.1},
}
"""Small and quick; the filters are wider than what was planted."""


def write_planted(path, count, seed):
    """Random DNA of unequal length; the motif somewhere in every second sequence, whose header says where."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        letters = rng.choice(list("ACGT"), rng.integers(40, 60))
        at = -1
        if i % 2:
            at = int(rng.integers(0, len(letters) - len(PLANTED)))
            letters[at : at + len(PLANTED)] = list(PLANTED)
        records.append(f">s{i} label={'bound' if i % 2 else 'free'} at={at}\n{''.join(letters)}\n")
    path.write_text("".join(records))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    write_planted(folder / "train.fasta", 400, seed=0)
    write_planted(folder / "test.fasta", 60, seed=1)
    config = {"model": NETWORK, "train": {"steps": 250, "batch_size": 32, "learning_rate": 1e-2, "keep": "last"}}
    crnn.train(folder, out=folder / "run", config=config)
    return folder


@pytest.fixture(scope="module")
def model(trained):
    return crnn.load(trained / "run")


@pytest.fixture(scope="module")
def bound(trained):
    """Test sequences with the motif, and where it stands in each."""
    data = crnn.read(trained / "test.fasta")
    kept = [i for i, example in enumerate(data) if example.target == "bound"]
    text = (trained / "test.fasta").read_text()
    places = [int(at) for at in re.findall(r"at=(\d+)", text)]
    return data.subset(kept), places


def best_match(matrix, word):
    """Mean share that a matrix gives to the letters of a word at its best offset, at most two letters hanging over."""
    width = len(matrix)
    scores = []
    for offset in range(-2, width - len(word) + 3):
        inside = [(offset + i, DNA.plain.index(c)) for i, c in enumerate(word) if 0 <= offset + i < width]
        scores.append(sum(matrix[row, column] for row, column in inside) / len(word))
    return max(scores)


def test_the_top_filter_is_the_planted_motif(model, trained):
    data = crnn.read(trained / "test.fasta")
    motifs = find_motifs(model, data, label=model.task.labels.index("bound"))
    matrix = motifs[0].matrix
    rng = np.random.default_rng(0)
    others = ["".join(rng.choice(list("ACGT"), len(PLANTED))) for _ in range(500)]
    true = best_match(matrix, PLANTED)
    assert true > 0.6
    assert true > max(best_match(matrix, word) for word in others if word not in (PLANTED, PLANTED[::-1]))
    assert motifs[0].influence > 0.5
    assert all(abs(a.influence) >= abs(b.influence) for a, b in itertools.pairwise(motifs))


@pytest.mark.parametrize("method", ["gradients", "occlusion"])
def test_attribution_stands_where_the_motif_was_planted(model, bound, method):
    data, places = bound
    chosen = list(range(12))
    found = attribute(model, data, chosen, method=method, label="bound")
    hits = 0
    for a, at in zip(found, places, strict=False):
        sums = np.convolve(a.by_frame, np.ones(len(PLANTED)), mode="valid")
        hits += abs(int(sums.argmax()) - at) <= 2
    assert hits >= 10


def test_integrated_gradients_add_up_to_the_answer(model, bound):
    for a in attribute(model, bound[0], [0, 1, 2]):
        assert a.error <= 0.01
        assert float(a.parts.sum()) == pytest.approx(a.output - a.baseline, rel=0.011)
        assert not model.network.training


def test_every_substitution_is_what_the_model_says_of_the_changed_sequence(model, bound):
    data, places = bound
    changes = mutate(model, data, 0, model.task.labels.index("bound"))
    ids = data[0].load()
    assert changes.shape == (len(ids), 4)
    assert not changes[np.arange(len(ids)), ids].any()
    at, symbol = places[0] + 2, 1
    changed = ids.copy()
    changed[at] = symbol
    outputs = model.network(crnn.sequences.pad([torch.from_numpy(ids), torch.from_numpy(changed)]))
    answer = (outputs[:, model.task.labels.index("bound")] - outputs[:, model.task.labels.index("free")]).detach()
    assert changes[at, symbol] == pytest.approx(float(answer[1] - answer[0]), abs=1e-4)
    strongest = np.abs(changes).max(1).argsort()[-4:]
    assert sum(places[0] <= i < places[0] + len(PLANTED) for i in strongest) >= 3


def test_a_meme_file_is_as_the_format_says(model, trained, tmp_path):
    data = crnn.read(trained / "test.fasta")
    motifs = find_motifs(model, data, label=0, most=3)
    write_meme(tmp_path / "m.meme", motifs, DNA)
    text = (tmp_path / "m.meme").read_text()
    assert text.startswith("MEME version 4\n\nALPHABET= ACGT\n\nstrands: +\n\nBackground letter frequencies\nA 0.")
    blocks = text.split("MOTIF ")[1:]
    assert len(blocks) == 3
    for block in blocks:
        head, sizes, *rows = block.strip().splitlines()
        assert len(head.split()) == 2
        assert re.fullmatch(r"letter-probability matrix: alength= 4 w= 9 nsites= \d+ E= 0", sizes)
        assert np.array([row.split() for row in rows], float).sum(1) == pytest.approx(np.ones(9), abs=1e-4)


def test_the_command_writes_a_page_that_needs_nothing_else(trained, capsys):
    page, meme = trained / "why.html", trained / "filters.meme"
    arguments = [str(trained / "run"), str(trained / "test.fasta"), "-o", str(page), "--count", "2"]
    assert run_app(["explain", *arguments, "--motifs", str(meme)], debug=True) == 0
    printed = capsys.readouterr().out
    assert re.search(r"s\d+: (bound|free) .*parts off by 0\.\d+ %", printed)
    assert "influence" in printed
    text = page.read_text()
    assert text.count("<svg") >= 3
    assert not re.search(r"(src|href)=|https?://|<script", text)
    assert "Integrated gradients" in text
    assert meme.read_text().startswith("MEME version 4")
    assert run_app(["explain", *arguments, "--label", "bond"], debug=False) == 1
    assert "--label bond: the model knows bound, free" in capsys.readouterr().err


def test_recordings_are_explained_as_strips(tmp_path):
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(60, 2)).astype(np.float32) for _ in range(80)]
    for i in range(0, 80, 2):
        x[i][20:30, 1] += 4
    data = crnn.read(x, labels=["bump" if i % 2 == 0 else "none" for i in range(80)])
    layers = [{"type": "conv", "channels": 4, "kernel_size": 5}, {"type": "activation"}]
    train = {"steps": 100, "learning_rate": 1e-2, "keep": "last"}
    run = crnn.train(data, config={"model": {"layers": layers, "summary": {"type": "mean"}}, "train": train})
    found = explain(run.model, data, count=4, label="bump")
    bump = next(s.attribution for s in found.examples if s.target == "bump")
    assert 18 <= int(np.convolve(bump.by_frame, np.ones(5), mode="same").argmax()) <= 32
    assert np.abs(bump.parts[:, 1]).sum() > np.abs(bump.parts[:, 0]).sum()
    page = found.save(tmp_path / "why.html").read_text()
    assert page.count("<svg") == 4
    assert math.isfinite(found.to_dict()["worst_error"])
    with pytest.raises(DataError, match="there are no motifs, for the model reads series"):
        found.save_motifs(tmp_path / "m.meme")
    with pytest.raises(ConfigError, match="--label x: the model knows bump, none"):
        explain(run.model, data, label="x")


def test_what_has_nothing_to_tell_is_not_explained_and_long_recordings_are_cut(monkeypatch):
    examples = []
    for i in range(3):
        made = heartbeats(20, rate=120.0, seed=i)
        examples.append(array_example(f"r{i}", f"r{i}", made.signal, target=made.beats))
    data = Dataset(tuple(examples), "series", ("MLII",), 120.0, "synthetic")
    config = {"train": {"steps": 2}, "split": {"test": 0}}
    model = crnn.train(data, task="tag", preset="ecg-small", config=config).model
    monkeypatch.setattr(attribution, "LONGEST", 900)
    (found,) = attribution.attribute(model, data, [0], method="occlusion")
    assert model.task.output_names[0] == "(nothing)"
    assert found.label in model.task.labels
    assert len(found.by_frame) == 900
    assert found.id == "r0, the first 900 of 2,400 frames"
