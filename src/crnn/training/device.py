"""Where a network runs, and in what precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

from crnn.errors import ConfigError


class Device(NamedTuple):
    """A device, and the context in which forward passes run on it."""

    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]


def open_device(precision: str) -> Device:
    """The best device of this machine, by Lightning Fabric.

    Raises:
        ConfigError: 16-mixed without a GPU.
    """
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if precision == "32-true" and not has_gpu:
        return Device(torch.device("cpu"), nullcontext)  # importing Fabric takes seconds, and has nothing to decide
    if precision == "16-mixed" and not has_gpu:
        raise ConfigError("train.precision=16-mixed needs a GPU, found none; use bf16-mixed or 32-true")
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="auto", devices=1, precision=precision)  # type: ignore[arg-type]
    return Device(fabric.device, fabric.autocast if precision != "32-true" else nullcontext)
