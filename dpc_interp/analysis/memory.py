"""How much memory the analysis needs, told before anything runs.

For a batch of B sequences, T positions each, C of them predicted, in a model of L layers, H query and K key heads
of size h, width d, MLP width m and V tokens, whose numbers have e bytes:

    kept a block     B T [(2e + 1) H T + 24 d + e ((2 H + 4 K) h + g m)] + e (4 d H h + g d m)
    logits           12 B C V + e d V
    one layer back   3 e B H T^2
    plain            L kept + max(logits, back)
    checkpointed     L e B T d + max(logits, kept + back)

g is 3 where the MLP is gated, else 2. The pattern is kept twice (what the softmax made and what the values meet) with a
mask of its NaN; norms are float32; weights enter because TransformerLens lays them out anew in each pass. The weights
themselves are not counted: they are there already. Measured peaks lie between half the estimate and 1.2 times it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from dpc_interp.errors import DPCInterpError
from dpc_interp.lm.hooked import HookedModel

BATCH_SIZE = 16
"""The most sequences in one pass: more make it no faster."""
SHARE = 0.5
"""Of the memory there is, so much is planned with; other processes may want theirs."""


@dataclass(frozen=True)
class MemoryPlan:
    """How to run the analysis. `needed`: estimated bytes above the weights; `available`: bytes free before it runs."""

    batch_size: int
    checkpoint: bool
    needed: int
    available: int

    @property
    def fits(self) -> bool:
        """Whether the estimate lies within the share of memory that is planned with."""
        return self.needed <= SHARE * self.available

    def __str__(self) -> str:
        how = "with" if self.checkpoint else "without"
        verdict = "" if self.fits else f", more than the {SHARE:.0%} of it that is planned with"
        return (
            f"batches of {self.batch_size} {how} checkpointing need about {self.needed / 1e9:.2f} GB "
            f"of the {self.available / 1e9:.2f} GB there{verdict}"
        )


def plan_memory(
    model: HookedModel,
    lengths: Sequence[int],
    *,
    n_predicted: int | None = None,
    batch_size: int | None = None,
    checkpoint: bool | None = None,
    available: int | None = None,
) -> MemoryPlan:
    """Choose the batch size and whether to checkpoint, from the model's shape and the lengths of the sequences.

    The largest batch that fits, up to 16, is taken; where not even one sequence fits, the same with checkpointing. What
    is given is kept. Nothing is run.

    Args:
        lengths: positions of each sequence, virtual tokens counted.
        n_predicted: the most positions of one sequence that are in the loss; None: all.
        available: bytes; None: what the model's device has free now.

    Raises:
        DPCInterpError: no lengths, or a `batch_size` below 1.
    """
    if not lengths:
        raise DPCInterpError("there are no lengths to plan for; give at least one")
    if batch_size is not None and batch_size < 1:
        raise DPCInterpError(f"batch_size is {batch_size}; give at least 1")
    if available is None:
        available = free_memory(torch.device(model.cfg.device or "cpu"))
    longest = max(lengths)
    predicted = longest if n_predicted is None else n_predicted
    largest = min(BATCH_SIZE, len(lengths))
    sizes = [batch_size] if batch_size else [largest, *(n for n in (8, 4, 2, 1) if n < largest)]
    plan: MemoryPlan | None = None
    for again in [False, True] if checkpoint is None else [checkpoint]:
        for size in sizes:
            plan = MemoryPlan(size, again, estimate(model, size, longest, predicted, again), available)
            if plan.fits:
                return plan
    assert plan is not None
    return plan


def estimate(model: HookedModel, batch_size: int, length: int, n_predicted: int, checkpoint: bool) -> int:
    """Bytes above the weights at the peak of one analysed pass, by the formula above."""
    cfg = model.cfg
    e = cfg.dtype.itemsize
    heads, h, d = cfg.n_heads, cfg.d_head, cfg.d_model
    key_heads, (g, m) = cfg.n_key_value_heads or heads, _mlp(model)
    positions = batch_size * length
    a_position = (2 * e + 1) * heads * length + 24 * d + e * ((2 * heads + 4 * key_heads) * h + g * m)
    kept = positions * a_position + e * block_weights(model)
    logits = 12 * batch_size * n_predicted * cfg.d_vocab + e * d * cfg.d_vocab
    back = 3 * e * positions * heads * length
    if checkpoint:
        return int(cfg.n_layers * e * positions * d + max(logits, kept + back))
    return int(cfg.n_layers * kept + max(logits, back))


def block_weights(model: HookedModel) -> int:
    """Weights of a block, keys and values counted for each head, for so they are laid out."""
    cfg, (g, m) = model.cfg, _mlp(model)
    return 4 * cfg.d_model * cfg.n_heads * cfg.d_head + g * cfg.d_model * m


def _mlp(model: HookedModel) -> tuple[int, int]:
    """Matrices of the MLP, and its width."""
    return (3 if getattr(model.cfg, "gated_mlp", True) else 2), model.cfg.d_mlp or 4 * model.cfg.d_model


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device now; on a CPU within the limit of the container, where there is one."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()))
    return free
