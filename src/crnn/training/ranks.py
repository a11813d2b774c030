"""Several processes that train one network: torchrun starts them, Lightning Fabric connects them, DDP averages."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from crnn.errors import DataError


class Place(NamedTuple):
    """Which process this is, of how many."""

    rank: int
    size: int


def this_place() -> Place:
    """As torchrun says; (0, 1) for a process on its own. Nothing is connected yet."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Place(0, 1)
    return Place(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def was_restarted() -> bool:
    """Whether torchrun has started this again after a process died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def connect(*, on_gpu: bool) -> None:
    """Meet the other processes, under keys of this attempt: after a restart torchrun's store still has the old ones."""
    if dist.is_initialized():
        return
    store, rank, size = next(iter(rendezvous("env://")))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=PrefixStore(f"crnn/{attempt}", store), rank=rank, world_size=size)


def wait_for_all() -> None:
    """Returns when every process is here; at once where there is one."""
    if this_place().size > 1 and dist.is_initialized():
        dist.barrier()


class Ranks:
    """What the processes of a run tell each other; with one process everything is as it was given.

    Every method is called by all processes, in the same order. `open_device` has connected them before.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = this_place()
        self.device = device
        self.stop = False
        """Whether a process had asked to stop when rows were last joined: the same in all of them."""

    def seed(self, seed: int) -> int:
        """A seed of this process's own, for what it draws for its own rows; that of the first is the seed itself."""
        return seed + 1_000_003 * self.rank

    def joined(self, own: Tensor, count: int, *, stop: bool = False) -> Tensor:
        """The rows of a batch of `count` from all processes; gradients flow into this process's own ones only.

        Args:
            own: rows rank, rank + size, ... of the batch.
            stop: whether this process asks all to stop.
        """
        if self.size == 1:
            self.stop = stop
            return own
        most = -(-count // self.size)
        sent = own.new_zeros((most + 1, *own.shape[1:]))  # the last row says whether to stop
        sent[: len(own)] = own.detach()
        sent[-1] = stop
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent)
        self.stop = any(bool(part[-1].any()) for part in parts)
        sizes = [len(range(rank, count, self.size)) for rank in range(self.size)]
        return torch.cat([own if r == self.rank else parts[r][: sizes[r]] for r in range(self.size)])

    def share(self, own: Tensor, *, stop: bool = False) -> Tensor:
        """This process's part of the weight of a batch, where each has the loss of its own rows; 1 for a process alone.

        Args:
            own: scalar: how much this process's rows count in a mean over all.
            stop: whether this process asks all to stop.
        """
        if self.size == 1:
            self.stop = stop
            return (own > 0).float()
        both = torch.stack([own.float(), own.new_tensor(float(stop))])
        dist.all_reduce(both)
        self.stop = bool(both[1])
        return own / both[0].clamp(min=torch.finfo(torch.float32).tiny)

    def total(self, own: Tensor) -> Tensor:
        """The sum of a number over all processes."""
        if self.size > 1:
            own = own.clone()
            dist.all_reduce(own)
        return own

    def states(self, own: Tensor) -> list[Tensor]:
        """A byte tensor of every process, all of one size."""
        if self.size == 1:
            return [own]
        parts = [torch.empty_like(own, device=self.device) for _ in range(self.size)]
        dist.all_gather(parts, own.to(self.device))
        return [part.cpu() for part in parts]

    def decided(self, first: bool) -> bool:
        """What the first process has decided, for what depends on its clock."""
        if self.size == 1:
            return first
        decision = torch.tensor([int(first)], device=self.device)
        dist.broadcast(decision, 0)
        return bool(decision.item())

    def check_same(self, what: str) -> None:
        """Raises DataError where the processes do not train on the same data with the same options."""
        own = torch.frombuffer(bytearray(hashlib.sha256(what.encode()).digest()), dtype=torch.uint8)
        others = [rank for rank, state in enumerate(self.states(own)) if not torch.equal(state, own)]
        if others:
            raise DataError(
                f"rank {self.rank}: data or options differ from those of rank {others[0]}; give every process the same "
                "files and the same command"
            )
