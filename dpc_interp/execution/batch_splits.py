"""Where batches of sequences end: the cost of padding weighed against the cost of one more pass.

The fixed cost of one block in a forward and backward pass, on a CPU, equals the arithmetic of `PASS_OVERHEAD` weights
for one token; so one more pass costs as much as `PASS_OVERHEAD / weights of a block` tokens of padding. On a GPU a pass
waits for Python rather than for arithmetic, so batches are never split.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpc_interp.models.hooked import HookedModel, n_block_weights

PASS_OVERHEAD = 1.3e8
"""Measured on two cores: 4 ms a block, while 0.2 TFLOP/s do 6 floating-point operations a weight and token."""


def by_length(lengths: Sequence[int]) -> list[int]:
    """The order in which sequences form batches: shorter ones first, equal ones in their original order.

    Args:
        lengths: of the sequences.

    Returns:
        Indices into `lengths`.
    """
    return sorted(range(len(lengths)), key=lambda i: (lengths[i], i))


def cheapest_batch_ends(model: HookedModel, lengths: Sequence[int], batch_size: int) -> list[int]:
    """The indices at which the batches of sequences sorted by length end.

    Batches of `batch_size` are split further where that is cheaper. A shard whose size is a multiple of `batch_size`
    therefore has the same batches as the complete list, and the same results to the bit.

    Args:
        model: whose block size decides the cost of a pass.
        lengths: of the sequences, ascending.
        batch_size: maximum number of sequences in a batch.

    Returns:
        One index per batch, ascending; the last is the number of sequences.
    """
    cost, starts = pass_cost(model), range(0, len(lengths), batch_size)
    return [start + end for start in starts for end in cheapest_split(lengths[start : start + batch_size], cost)]


def pass_cost(model: HookedModel) -> float:
    """The cost of one pass besides that of its tokens, in tokens; infinity on a GPU.

    Args:
        model: whose block size decides.
    """
    on_cpu = torch.device(model.cfg.device or "cpu").type == "cpu"
    return PASS_OVERHEAD / n_block_weights(model) if on_cpu else float("inf")


def cheapest_split(lengths: Sequence[int], pass_cost: float) -> list[int]:
    """Split sequences into batches at the lowest cost: tokens with padding, plus `pass_cost` for each extra batch.

    Args:
        lengths: of the sequences, ascending.
        pass_cost: cost of one more batch, in tokens; infinity: never split.

    Returns:
        The end of each batch, ascending.
    """
    # dynamic programme: cost[end] is the lowest cost of the first `end` sequences, and the last batch of that split
    # begins at split_start[end]
    cost, split_start = [0.0], [0]
    for end, longest in enumerate(lengths, 1):
        costs = {start: cost[start] + (pass_cost if start else 0.0) + (end - start) * longest for start in range(end)}
        split_start.append(min(costs, key=costs.__getitem__))
        cost.append(costs[split_start[-1]])
    ends = [len(lengths)]
    while split_start[ends[0]]:
        ends.insert(0, split_start[ends[0]])
    return ends
