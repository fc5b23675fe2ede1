"""Where batches of sequences end: padding, which is computed too, weighed against one more pass.

A block's own work in a pass, forward and back, takes a CPU as long as `OWN` weights take it for one token; so a pass
is worth `OWN / weights of a block` tokens of padding. On a GPU a pass waits for Python, not for numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpc_interp.analysis.memory import block_weights
from dpc_interp.lm.hooked import HookedModel

OWN = 1.3e8
"""Measured on two cores: 4 ms, while 0.2 T floating-point operations a second do 6 a weight and token."""


def ends(model: HookedModel, lengths: Sequence[int], most: int) -> list[int]:
    """Where the batches of sequences that stand by length end.

    They are batches of `most`, cut further where that is cheaper; so a shard of whole batches has those of the whole.
    """
    on_cpu = torch.device(model.cfg.device or "cpu").type == "cpu"
    a_pass = OWN / block_weights(model) if on_cpu else float("inf")
    starts = range(0, len(lengths), most)
    return [start + end for start in starts for end in cheapest(lengths[start : start + most], a_pass)]


def cheapest(lengths: Sequence[int], a_pass: float) -> list[int]:
    """The ends that make padded tokens, and `a_pass` for each batch but the first, fewest; `lengths` rise."""
    cost, begun = [0.0], [0]
    for end, longest in enumerate(lengths, 1):
        costs = {start: cost[start] + (a_pass if start else 0.0) + (end - start) * longest for start in range(end)}
        begun.append(min(costs, key=costs.__getitem__))
        cost.append(costs[begun[-1]])
    found = [len(lengths)]
    while begun[found[0]]:
        found.insert(0, begun[found[0]])
    return found
