"""A network with other outputs: those that were there keep their weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from crnn.models.network import Network


@torch.no_grad()
def with_outputs(network: Network, rows: Sequence[int | None]) -> Network:
    """The same network with other outputs.

    A new output begins as the mean of the old ones, but a step less likely than that: in a trained network all others
    are far below what is right, and one that began at 0 would drown them.

    Args:
        rows: for each new output the old one that it was, or None.
    """
    made = Network(network.spec, features=network.features, outputs=len(rows))
    old = network.state_dict()
    weight, bias = old["head.linear.weight"], old["head.linear.bias"]
    new = {name: tensor.clone() for name, tensor in old.items() if not name.startswith("head.linear.")}
    new["head.linear.weight"] = torch.stack([weight.mean(0) if row is None else weight[row] for row in rows])
    new["head.linear.bias"] = torch.stack([bias.mean(0) - 1.0 if row is None else bias[row] for row in rows])
    made.load_state_dict(new)
    return made.train(network.training)
