"""Files of tensors that are whole or absent, and the checkpoint of a training run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.optim import Optimizer

from crnn.errors import ModelError, TrainingError

FORMAT = "crnn-checkpoint"
VERSION = 1

WAITS = (1.0, 5.0, 25.0)
"""Seconds between tries to write to storage that is away."""
AWAY = {errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV}
"""Errors of storage on a network, or of a disk that was pulled out: it may come back."""


class Checkpoint(NamedTuple):
    """Everything that a run needs to go on: tensors by name, and plain values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below `name/`, by the rest of their names."""
        return {key[len(name) + 1 :]: tensor for key, tensor in self.tensors.items() if key.startswith(f"{name}/")}


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or as it was: to a temporary file beside it, flushed to the disk, then renamed.

    Storage on a network that does not answer is tried again for half a minute.

    Raises:
        TrainingError: the disk is full, or refuses; what stood there before is kept.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # what a killed process left is overwritten
    for wait in WAITS:
        try:
            _write(temporary, path, content)
            return
        except OSError as error:
            if error.errno not in AWAY:
                break
            time.sleep(wait)
    try:
        _write(temporary, path, content)
    except OSError as error:
        folder = next(parent for parent in path.absolute().parents if parent.is_dir())
        if folder == path.absolute().parent:
            temporary.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
        kept = "; the previous file is kept" if path.exists() else ""
        raise TrainingError(
            f"{path}: could not be written ({error.strerror or error}); it needs {len(content) / 1e6:.1f} MB and the "
            f"disk has {free / 1e6:.1f} MB free{kept}; free space or choose another --out"
        ) from error


def _write(temporary: Path, path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save_tensors(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """A safetensors file with plain values as JSON in its header, so that the two can never disagree.

    Raises:
        TrainingError: as write_file.
    """
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    write_file(path, safetensors.torch.save(own, {"crnn": json.dumps(values)}))


def load_tensors(path: Path) -> Checkpoint:
    """What save_tensors wrote; runs no code from the file.

    Raises:
        ModelError: missing, truncated, or not from this package.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            header = file.metadata() or {}
    except SafetensorError as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error}); copy it again from its source") from error
    if "crnn" not in header:
        raise ModelError(f"{path}: a safetensors file, but not written by crnn; expected a 'crnn' entry in its header")
    return Checkpoint(tensors, json.loads(header["crnn"]))


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a training checkpoint.

    Raises:
        TrainingError: as write_file.
    """
    save_tensors(path, checkpoint.tensors, {"format": FORMAT, "version": VERSION, **checkpoint.values})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a training checkpoint.

    Raises:
        ModelError: missing, damaged, not a checkpoint, or of a newer version.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no checkpoint to resume from; train without --resume first")
    checkpoint = load_tensors(path)
    if checkpoint.values.get("format") != FORMAT:
        found = checkpoint.values.get("format", "something else")
        raise ModelError(f"{path}: found {found!r}, expected {FORMAT!r}; this is not a training checkpoint")
    if checkpoint.values["version"] > VERSION:
        raise ModelError(
            f"{path}: written by a newer crnn (format {checkpoint.values['version']}, this one reads up to {VERSION}); "
            "update crnn"
        )
    return checkpoint


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser, flat: "3/exp_avg" belongs to the fourth parameter."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}/{key}": value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        for index, entries in state.items()
        for key, value in entries.items()
        if value is not None
    }


def load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what optimizer_tensors gave; learning rates are not part of it."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
