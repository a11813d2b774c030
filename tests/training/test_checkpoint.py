import errno
import os

import pytest
import torch
from torch import nn

from crnn.errors import ModelError, TrainingError
from crnn.training import checkpoint
from crnn.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_optimizer,
    load_tensors,
    optimizer_tensors,
    save_checkpoint,
    save_tensors,
    write_file,
)
from crnn.training.config import TrainConfig
from crnn.training.optim import build_optimizer

TENSORS = {"network/w": torch.randn(3, 2), "random/torch": torch.arange(4, dtype=torch.uint8)}


def test_a_checkpoint_comes_back_whole(tmp_path):
    path = tmp_path / "a" / "last.safetensors"
    save_checkpoint(path, Checkpoint(TENSORS, {"losses": [0.1, 1 / 3]}))
    again = load_checkpoint(path)
    assert again.values["losses"] == [0.1, 1 / 3]
    assert torch.equal(again.part("network")["w"], TENSORS["network/w"])
    assert [file.name for file in path.parent.iterdir()] == ["last.safetensors"]


def test_a_full_disk_leaves_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, Checkpoint(TENSORS, {"epoch": 1}))

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = (
        r"last.safetensors: could not be written \(No space left on device\); it needs 0.0 MB .* is kept; free space"
    )
    with pytest.raises(TrainingError, match=message):
        save_checkpoint(path, Checkpoint(TENSORS, {"epoch": 2}))
    assert load_checkpoint(path).values["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="file/x: could not be written"):
        write_file(tmp_path / "file" / "x", b"")


def test_damaged_and_foreign_files_are_told_apart(tmp_path):
    path = tmp_path / "last.safetensors"
    with pytest.raises(ModelError, match="no checkpoint to resume from"):
        load_checkpoint(path)
    save_tensors(path, TENSORS, {"format": "other"})
    with pytest.raises(ModelError, match="found 'other', expected 'crnn-checkpoint'"):
        load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_tensors(path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="not written by crnn"):
        load_tensors(path)


def test_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "last.safetensors"
    save_tensors(path, {}, {"format": "crnn-checkpoint", "version": 99})
    with pytest.raises(ModelError, match=r"newer crnn \(format 99, this one reads up to 1\)"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop"])
def test_an_optimiser_goes_on_as_if_it_had_not_stopped(name):
    def step(network, optimizer):
        network(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    config = TrainConfig(optimizer=name, learning_rate=0.1)
    optimizer = build_optimizer(network, config)
    step(network, optimizer)
    other = nn.Linear(3, 2)
    other.load_state_dict(network.state_dict())
    fresh = build_optimizer(other, config)
    load_optimizer(fresh, {key: tensor.clone() for key, tensor in optimizer_tensors(optimizer).items()})
    step(network, optimizer)
    step(other, fresh)
    assert torch.equal(network.weight, other.weight)


def away(times, error=errno.ESTALE):
    """An fsync that fails so often."""
    left, fsync = [times], os.fsync

    def sync(descriptor):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(error, os.strerror(error))
        fsync(descriptor)

    return sync


def test_storage_that_comes_back_costs_nothing(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(checkpoint.time, "sleep", waited.append)
    monkeypatch.setattr(checkpoint.os, "fsync", away(2))
    write_file(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"after"
    assert waited == [1.0, 5.0]


def test_storage_that_stays_away_is_named_and_the_file_before_is_kept(tmp_path, monkeypatch):
    write_file(tmp_path / "a", b"before")
    waited = []
    monkeypatch.setattr(checkpoint.time, "sleep", waited.append)
    monkeypatch.setattr(checkpoint.os, "fsync", away(99))
    with pytest.raises(
        TrainingError, match=r"a: could not be written \(Stale file handle\).*the previous file is kept"
    ):
        write_file(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before"
    assert waited == [1.0, 5.0, 25.0]


def test_a_full_disk_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.time, "sleep", lambda seconds: pytest.fail("waited"))
    monkeypatch.setattr(checkpoint.os, "fsync", away(99, errno.ENOSPC))
    with pytest.raises(TrainingError, match="No space left on device"):
        write_file(tmp_path / "a", b"x")
