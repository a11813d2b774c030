"""A model trained further: old letters kept, new ones learnt, statistics as they were."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "tasks"))

from letters import MODEL, TRAIN, letters_data

import crnn
from crnn.data.dataset import Dataset, array_example
from crnn.errors import ConfigError, DataError
from crnn.finetune import finetune
from crnn.models.resize import with_outputs
from crnn.run import resume
from crnn.sequences import pad


def capitals(data: Dataset) -> Dataset:
    """The same letters, c written as C."""
    return replace(data, examples=tuple(replace(e, target=str(e.target).replace("c", "C")) for e in data))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = {"model": {**MODEL, "layers": [{"type": "channel_norm"}, *MODEL["layers"]]}, "train": TRAIN}
    return crnn.train(
        letters_data(80), task="transcribe", config=config, epochs=20, out=tmp_path_factory.mktemp("r") / "a"
    )


def test_new_letters_are_added_and_learnt(run, tmp_path, capsys):
    new = capitals(letters_data(60, seed=4))
    before = run.evaluate(new).metrics["cer"].point
    tuned = finetune(run, new, out=tmp_path / "b", epochs=30, quiet=False)
    assert "letters  5 letters; 1 new: 'C' (U+0043)" in capsys.readouterr().out
    assert tuned.model.task.codec.symbols == (*run.model.task.codec.symbols, "C")
    assert tuned.evaluation.metrics["cer"].point < before / 3
    norms = [r.model.network.state_dict()["body.layers.0.mean"] for r in (run, tuned)]
    assert torch.equal(*norms)
    assert crnn.load(tmp_path / "b").predict(new) == tuned.model.predict(new)


def test_old_letters_can_be_dropped_or_new_ones_refused(run, tmp_path):
    new = capitals(letters_data(20, seed=4))
    assert finetune(run, new, resize="new", epochs=1).model.task.codec.symbols == (" ", "C", "a", "b")
    with pytest.raises(DataError, match="found 1 new letters 'C'"):
        finetune(run, new, resize="fail", epochs=1)
    same = finetune(run, letters_data(20, seed=4), resize="fail", epochs=1)
    assert same.model.task.codec.symbols == run.model.task.codec.symbols


def test_outputs_that_stay_give_what_they_gave(run):
    network = run.model.network
    more = with_outputs(network, [0, 1, 2, 3, 4, None]).eval()
    x = pad([torch.from_numpy(example.load()) for example in letters_data(3)])
    with torch.no_grad():
        torch.testing.assert_close(more(x).data[..., :5], network(x).data)


def test_a_classifier_is_trained_further_too(tmp_path):
    random = np.random.default_rng(0)
    examples = [
        array_example(str(i), f"row {i}", random.normal(i % 2, 1, (20, 1)).astype(np.float32), target="ab"[i % 2])
        for i in range(40)
    ]
    data = Dataset(tuple(examples), "series", ("x",), None, "two")
    run = crnn.train(data, preset="seed", epochs=2, out=tmp_path / "a")
    tuned = finetune(tmp_path / "a", data, out=tmp_path / "b", epochs=3, settings={"train.learning_rate": 1e-4})
    assert tuned.model.task.labels == run.model.task.labels
    assert len(tuned.evaluation.facts.history) == 3
    with pytest.raises(ConfigError, match="only options of the training"):
        finetune(run, data, settings={"model.layers": []})


def test_an_interrupted_one_is_resumed(run, tmp_path):
    new = capitals(letters_data(30, seed=4))
    whole = finetune(run, new, out=tmp_path / "whole", epochs=2)
    (tmp_path / "whole" / "metrics.json").unlink()
    again = resume(tmp_path / "whole", data=new)
    assert again.model.predict(new) == whole.model.predict(new)
