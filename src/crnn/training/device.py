"""Where a network runs, and in what precision."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

from crnn.errors import ConfigError
from crnn.training.ranks import connect, this_place


class Device(NamedTuple):
    """A device, and the context in which forward passes run on it."""

    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]


def open_device(precision: str) -> Device:
    """The best device of this machine, by Lightning Fabric; under torchrun this process's share, and all connected.

    Raises:
        ConfigError: 16-mixed without a GPU.
    """
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    num_ranks = this_place().size
    if precision == "32-true" and not has_gpu and num_ranks == 1:
        return Device(torch.device("cpu"), nullcontext)  # importing Fabric takes seconds, and has nothing to decide
    if precision == "16-mixed" and not has_gpu:
        raise ConfigError("train.precision=16-mixed needs a GPU, found none; use bf16-mixed or 32-true")
    from lightning_fabric import Fabric

    if num_ranks > 1:
        connect(on_gpu=torch.cuda.is_available())
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        fabric = Fabric(
            accelerator="cuda" if torch.cuda.is_available() else "cpu",
            devices=here,
            num_nodes=num_ranks // here,
            strategy="ddp",
            precision=precision,  # type: ignore[arg-type]
        )
        fabric.launch()
    else:
        fabric = Fabric(accelerator="auto", devices=1, precision=precision)  # type: ignore[arg-type]
    return Device(fabric.device, fabric.autocast if precision != "32-true" else nullcontext)
