"""`plan_memory`: how much memory the analysis needs, estimated before anything runs.

For a batch of B sequences of T positions each, C of them predicted, in a model of L layers, H query and K key heads of
size h, width d, MLP width m and V tokens, whose numbers have e bytes:

    block            B T [n d + e ((2 H + 2 K) h + g m)]          n = 4 e, or 24 where e < 4
    pattern          (2e + 1) B H T^2, in each layer that keeps its pattern
    logits           2 e B C V
    backward         3 p B H R T + 7 p B T H h, or 3 e B H T^2 where patterns are kept       p = max(e, 4)
    plain            L block + patterns + max(logits, backward)
    checkpointed     L e B T d + max(logits, block + pattern + backward)

`block` is what autograd saves of one block: inputs of its norms, queries, keys, values, their weighted sum and the MLP.
`backward` are the temporary tensors of one layer's backward pass, which fused attention computes for R queries at a
time (`attention/backward.py`). A float16 model keeps its logits, e B C V, for a second backward pass. A kept pattern is
saved twice (the output of the softmax and the input of the weighted sum of values) with a mask of its NaN. g is 3 for a
gated MLP, else 2. A HookedTransformer whose weights are not stored as `load_model` stores them copies them in each
pass: e (4 d H h + g d m) in each block, e d V in the logits. The weights themselves are not counted: they are in memory
already. Measured peaks lie between half the estimate and 1.2 times it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from dpc_interp.attention.backward import rows_of_block
from dpc_interp.errors import DPCInterpError, renamed_keywords, warn_renamed
from dpc_interp.execution.backoff import check_batch_size
from dpc_interp.models.fused_attention import pattern_layers
from dpc_interp.models.hooked import HookedModel, mlp_shape, n_block_weights
from dpc_interp.models.lens import HookedTransformer
from dpc_interp.repr_html import card

MAX_BATCH_SIZE = 16
"""Maximum number of sequences in one pass: more do not make it faster."""
MEMORY_FRACTION = 0.5
"""Fraction of the available memory that a plan may use; other processes may need the rest."""


@dataclass(frozen=True)
class MemoryPlan:
    """How to run the analysis.

    Attributes:
        batch_size: maximum number of sequences in one pass.
        gradient_checkpointing: whether blocks are recomputed in the backward pass.
        needed: estimated bytes at the peak, without the weights.
        available: free bytes before the analysis.
    """

    batch_size: int
    gradient_checkpointing: bool
    needed: int
    available: int

    @property
    def fits(self) -> bool:
        """Whether the estimate is at most `MEMORY_FRACTION` of the available bytes."""
        return self.needed <= MEMORY_FRACTION * self.available

    @property
    def checkpoint(self) -> bool:
        """Deprecated name of `gradient_checkpointing`."""
        warn_renamed("MemoryPlan.checkpoint", "MemoryPlan.gradient_checkpointing")
        return self.gradient_checkpointing

    def _repr_html_(self) -> str:
        facts = {
            "batch size": self.batch_size,
            "gradient checkpointing": "yes" if self.gradient_checkpointing else "no",
            "needed": f"{self.needed / 1e9:.2f} GB",
            "available": f"{self.available / 1e9:.2f} GB",
        }
        return card("MemoryPlan: fits" if self.fits else "MemoryPlan: does not fit", facts)

    def __str__(self) -> str:
        checkpointing = "with" if self.gradient_checkpointing else "without"
        excess = "" if self.fits else f", more than the {MEMORY_FRACTION:.0%} that a plan may use"
        return (
            f"batches of {self.batch_size} {checkpointing} gradient checkpointing need about "
            f"{self.needed / 1e9:.2f} GB of the {self.available / 1e9:.2f} GB available{excess}"
        )


@renamed_keywords({"checkpoint": "gradient_checkpointing"})
def plan_memory(
    model: HookedModel,
    lengths: Sequence[int],
    *,
    n_predicted: int | None = None,
    batch_size: int | None = None,
    gradient_checkpointing: bool | None = None,
    available: int | None = None,
) -> MemoryPlan:
    """Choose the batch size and whether to checkpoint, from the model's shape and the lengths of the sequences.

    All sequences, up to `MAX_BATCH_SIZE`, are one batch if they fit, else 8, 4, 2 or 1; if not even one fits, the same
    sizes are tried with gradient checkpointing. Nothing is run.

    Args:
        model: the model to analyse.
        lengths: positions of each sequence, including virtual tokens.
        n_predicted: maximum number of positions of one sequence that are in the loss; None: all.
        batch_size: sequences in one pass; None: chosen here.
        gradient_checkpointing: whether blocks are recomputed in the backward pass; None: chosen here.
        available: bytes; None: the free bytes of the model's device.

    Returns:
        The plan; if nothing fits, the plan that needs least, with `fits` False.

    Raises:
        DPCInterpError: no lengths, or a `batch_size` below 1.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.plan_memory(dpc.load_model("reasoner"), [128] * 32, available=2**34).batch_size
        16
    """
    if not lengths:
        raise DPCInterpError("lengths is empty; give the length of at least one sequence")
    if batch_size is not None:
        check_batch_size(batch_size)
    if available is None:
        available = free_memory(torch.device(model.cfg.device or "cpu"))
    longest = max(lengths)
    predicted = longest if n_predicted is None else n_predicted
    largest = min(MAX_BATCH_SIZE, len(lengths))
    sizes = [batch_size] if batch_size else [largest, *(n for n in (8, 4, 2, 1) if n < largest)]
    plan: MemoryPlan | None = None
    for use_checkpointing in [False, True] if gradient_checkpointing is None else [gradient_checkpointing]:
        for size in sizes:
            needed = estimate_bytes(model, size, longest, predicted, use_checkpointing)
            plan = MemoryPlan(size, use_checkpointing, needed, available)
            if plan.fits:
                return plan
    assert plan is not None
    return plan


def estimate_bytes(
    model: HookedModel, batch_size: int, length: int, n_predicted: int, gradient_checkpointing: bool
) -> int:
    """Estimate the bytes at the peak of one analysed pass, without the weights; see the formula of the module.

    Args:
        model: the model to analyse.
        batch_size: sequences in the pass (B).
        length: positions of each (T).
        n_predicted: positions of each that are in the loss (C).
        gradient_checkpointing: whether blocks are recomputed in the backward pass.
    """
    cfg = model.cfg
    e = cfg.dtype.itemsize
    heads, h, d = cfg.n_heads, cfg.d_head, cfg.d_model
    key_heads, (g, m) = cfg.n_key_value_heads or heads, mlp_shape(model)
    positions, n_patterns = batch_size * length, len(pattern_layers(model))
    copies_weights = isinstance(model, HookedTransformer) and not _stores_weights_as_read(model)
    block = positions * ((4 * e if e >= 4 else 24) * d + e * ((2 * heads + 2 * key_heads) * h + g * m))
    block += e * n_block_weights(model) * copies_weights
    pattern = (2 * e + 1) * positions * heads * length
    logits = 2 * e * batch_size * n_predicted * cfg.d_vocab + e * d * cfg.d_vocab * copies_weights
    rows = min(length, rows_of_block(batch_size * heads, length))
    backward = max(e, 4) * positions * heads * (3 * rows + 7 * h)
    if n_patterns:
        backward = max(backward, 3 * e * positions * heads * length)
    if cfg.dtype == torch.float16:
        backward += logits // 2
    if gradient_checkpointing:
        recomputed = block + (pattern if n_patterns else 0) + backward
        return int(cfg.n_layers * e * positions * d + max(logits, recomputed))
    return int(cfg.n_layers * block + n_patterns * pattern + max(logits, backward))


def _stores_weights_as_read(model: HookedTransformer) -> bool:
    """Whether TransformerLens multiplies by the weights without a copy, see `make_weights_contiguous_as_read`."""
    return bool(cast(Any, model.blocks[0]).attn.W_O.permute(2, 0, 1).is_contiguous())


def free_memory(device: torch.device) -> int:
    """The free bytes of a device; on a CPU, at most the rest of the memory limit of the container.

    Args:
        device: CPU or GPU.
    """
    if device.type == "cuda":
        # torch keeps freed blocks in its cache and reuses them: the driver counts them as used
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    free = int(psutil.virtual_memory().available)
    limit_file, used_file, parts_file = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current", "stat"))
    if limit_file.is_file() and used_file.is_file() and (limit := limit_file.read_text().strip()).isdigit():
        parts = dict(line.split() for line in parts_file.read_text().splitlines()) if parts_file.is_file() else {}
        reclaimable = int(parts.get("inactive_file", 0))  # files that were read, such as the weights
        free = min(free, int(limit) - int(used_file.read_text()) + reclaimable)
    return free
