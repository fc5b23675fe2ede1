"""Dynamic Corruption: what is changed in a soft prompt for one instance (paper, section on corruption; METHOD 5).

v[j] <- mask * v[j]                       for the chosen tokens j (the accumulation token j*)
v[j][k] <- 0 for the gamma percent of entries smallest in magnitude,    in every other vector
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dpc_interp.analysis.accumulation import peaks
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.errors import DPCInterpError


@dataclass(frozen=True)
class CorruptionPlan:
    """Multiply the vectors of `tokens` by `mask`, zero the `gamma` percent smallest entries of the others."""

    tokens: tuple[int, ...] = ()
    mask: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 100:
            raise DPCInterpError(f"gamma is {self.gamma}; give a percentage from 0 to 100")
        if not 0 <= self.mask <= 1:
            raise DPCInterpError(f"mask is {self.mask}; give a factor from 0 to 1")

    def __call__(self, vectors: Float[Tensor, "n_virtual d_model"]) -> Float[Tensor, "n_virtual d_model"]:
        """The corrupted vectors; `vectors` itself is not changed."""
        lacking = [token for token in self.tokens if not 0 <= token < len(vectors)]
        if lacking:
            raise DPCInterpError(f"the plan names token {lacking[0]}; the prompt has {len(vectors)} virtual tokens")
        corrupted = vectors.clone()
        n_zero = round(vectors.shape[1] * self.gamma / 100)
        if n_zero:
            smallest = vectors.abs().argsort(dim=1, stable=True)[:, :n_zero]
            corrupted.scatter_(1, smallest, 0.0)
        for token in self.tokens:
            corrupted[token] = self.mask * vectors[token]
        return corrupted


def plan_corruption(
    found: Analysis,
    gamma: float = 10,
    mask: float = 0.0,
    *,
    layers: tuple[int, ...] | None = None,
    exclude_sink: bool = True,
) -> list[CorruptionPlan]:
    """One plan an instance of `found`, in its order: mask the accumulation token, thin out the other vectors.

    Args:
        gamma: percent of the entries of every other vector that are set to 0.
        mask: factor of the accumulation token.
        layers, exclude_sink: see `peaks`.
    """
    tokens = peaks(found.accumulation, layers=layers, exclude_sink=exclude_sink)["peak_token"]
    return [CorruptionPlan((int(token),), mask, gamma) for token in tokens[found.instances["instance"]]]


def plan_random(
    instances: Sequence[str],
    n_virtual: int,
    seed: int,
    gamma: float = 10,
    mask: float = 0.0,
    *,
    exclude_sink: bool = True,
) -> list[CorruptionPlan]:
    """The placebo: a random token in place of the accumulation token, drawn from `seed` and the instance's name."""
    first = 1 if exclude_sink and n_virtual > 1 else 0
    return [
        CorruptionPlan((random.Random(f"{seed}/{instance}").randrange(first, n_virtual),), mask, gamma)
        for instance in instances
    ]
