"""Several processes: the numbers of one, the same decisions in all, nothing lost when one dies."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from crnn.data.batch import Batches
from crnn.errors import ConfigError, DataError
from crnn.training import loop
from crnn.training.ranks import Ranks, this_place, wait_for_all, was_restarted
from training.ranks_script import BY_FRAMES, result, train

SCRIPT = Path(__file__).with_name("ranks_script.py")


def torchrun(out: Path, *arguments: str, restarts: int = 0) -> dict[str, Any]:
    """What two processes wrote."""
    out.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["--max-restarts", str(restarts), str(SCRIPT), str(out), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "result.json").read_text())


def assert_close(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    for name in ("train", "validation", "norms", "padding"):
        torch.testing.assert_close(
            torch.tensor(found[name]), torch.tensor(expected[name]), rtol=tolerance, atol=tolerance, msg=name
        )
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(
            torch.tensor(found["weights"][name]), torch.tensor(weight), rtol=tolerance, atol=tolerance, msg=name
        )


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    two = torchrun(tmp_path / "two")
    assert two["size"] == 2
    assert_close(two, result(*train(None)), 1e-5)


@pytest.mark.slow
def test_batches_by_frames_are_shared_as_well(tmp_path: Path) -> None:
    two = torchrun(tmp_path / "two", "frames")
    with pytest.MonkeyPatch.context() as patch:  # one process lays batches out for two
        patch.setattr(loop, "Batches", AtLeastTwo)
        assert_close(two, result(*train(None, config=BY_FRAMES)), 1e-5)


class AtLeastTwo(Batches):
    """Batches for two processes, in one."""

    def __init__(self, *data: Any, least: int = 1, **options: Any) -> None:
        super().__init__(*data, least=2 if "batch_frames" in options else least, **options)


@pytest.mark.slow
def test_a_killed_process_costs_nothing(tmp_path: Path) -> None:
    whole = torchrun(tmp_path / "whole")
    killed = torchrun(tmp_path / "killed", "2", restarts=1)
    assert killed["restarted"]
    assert_close(killed, whole, 0.0)


def test_alone_everything_is_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # of a cluster that did not start us by torchrun
    assert this_place() == (0, 1)
    assert not was_restarted()
    wait_for_all()
    ranks, own = Ranks(torch.device("cpu")), torch.zeros(3, 2)
    assert ranks.joined(own, 3) is own
    assert not ranks.stop
    assert ranks.states(own)[0] is own
    assert ranks.seed(5) == 5
    ranks.joined(own, 3, stop=True)
    assert ranks.stop


def test_the_place_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"TORCHELASTIC_RUN_ID": "x", "RANK": "2", "WORLD_SIZE": "4", "TORCHELASTIC_RESTART_COUNT": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert this_place() == (2, 4)
    assert was_restarted()


def test_more_processes_than_sequences_in_a_batch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Many(Ranks):
        def __init__(self, device: torch.device) -> None:
            super().__init__(device)
            self.size = 8

    monkeypatch.setattr(loop, "Ranks", Many)
    with pytest.raises(ConfigError, match=r"train.batch_size=8: the smallest batch of 37 examples has 7 sequences"):
        train(None)


def test_other_data_in_another_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(torch.device("cpu"))
    ranks.check_same("the same")
    other = torch.frombuffer(bytearray(hashlib.sha256(b"other").digest()), dtype=torch.uint8)
    monkeypatch.setattr(Ranks, "states", lambda self, own: [own, other])
    with pytest.raises(DataError, match="rank 0: data or options differ from those of rank 1; give every process"):
        ranks.check_same("the same")


@pytest.mark.slow
def test_processes_with_other_data_do_not_begin(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"data or options differ from those of rank \d"):
        torchrun(tmp_path / "two", "other")
