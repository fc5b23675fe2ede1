"""Dynamic Corruption: what is changed in a soft prompt for one instance (paper, section on corruption; METHOD 5).

v[j] <- mask * v[j] + (1 - mask) * r[j]   for the chosen tokens j (the accumulation token j*)
v[j][k] <- 0 for the gamma percent of entries smallest in magnitude,    in every other vector

r[j] is 0 (`mask`, the paper's), the mean vector of the prompt (`mean`), or a Gaussian vector with the norm of v[j]
(`noise`). The mean and the norms are those of the prompt as it was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from dpc_interp.analysis.accumulation import peaks
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.errors import DPCInterpError, UnknownNameError

Replace = Literal["mask", "mean", "noise"]
"""What takes the place of a chosen vector: nothing, the prompt's mean vector, or noise of the same norm."""


@dataclass(frozen=True)
class CorruptionPlan:
    """Keep the share `mask` of the vectors of `tokens`, zero the `gamma` percent smallest entries of the others.

    `replace` fills what is not kept; `seed` is that of the noise, and 0 where there is none.
    """

    tokens: tuple[int, ...] = ()
    mask: float = 0.0
    gamma: float = 0.0
    replace: Replace = "mask"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 100:
            raise DPCInterpError(f"gamma is {self.gamma}; give a percentage from 0 to 100")
        if not 0 <= self.mask <= 1:
            raise DPCInterpError(f"mask is {self.mask}; give a factor from 0 to 1")
        if self.replace not in get_args(Replace):
            raise UnknownNameError("replacement", self.replace, get_args(Replace))

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
        if self.replace != "mask":
            for token, filling in zip(self.tokens, self._fillings(vectors), strict=True):
                corrupted[token] += (1 - self.mask) * filling
        return corrupted

    def _fillings(self, vectors: Float[Tensor, "n_virtual d_model"]) -> Float[Tensor, "n_chosen d_model"]:
        chosen = vectors[list(self.tokens)]
        if self.replace == "mean":
            return vectors.mean(dim=0).expand_as(chosen)
        # on the CPU in float32: the same noise on every machine
        drawn = torch.randn(chosen.shape, generator=torch.Generator().manual_seed(self.seed))
        return (drawn / drawn.norm(dim=1, keepdim=True)).to(chosen) * chosen.norm(dim=1, keepdim=True)


def plan_corruption(
    found: Analysis,
    gamma: float = 10,
    mask: float = 0.0,
    *,
    layers: tuple[int, ...] | None = None,
    exclude_sink: bool = True,
    top_k: int = 1,
    replace: Replace = "mask",
    seed: int = 0,
) -> list[CorruptionPlan]:
    """One plan an instance of `found`, in its order: mask the accumulation token, thin out the other vectors.

    Args:
        gamma: percent of the entries of every other vector that are set to 0.
        mask: factor of the accumulation token.
        layers, exclude_sink: see `peaks`.
        top_k: so many tokens of largest accumulation are chosen, not the first alone.
        replace: see `CorruptionPlan`.
        seed: of the noise, which is another for each instance.
    """
    chosen = _leading(found, top_k, layers, exclude_sink)
    return [
        CorruptionPlan(tokens, mask, gamma, replace, noise_seed(replace, seed, instance))
        for instance, tokens in zip(found.instances["instance"], chosen, strict=True)
    ]


def plan_random(
    instances: Sequence[str],
    n_virtual: int,
    seed: int,
    gamma: float = 10,
    mask: float = 0.0,
    *,
    exclude_sink: bool = True,
    top_k: int = 1,
    replace: Replace = "mask",
) -> list[CorruptionPlan]:
    """The placebo: `top_k` random tokens in place of the accumulation token, drawn from `seed` and the instance's name.

    The tokens of a smaller `top_k` are among those of a larger one.
    """
    first = 1 if exclude_sink and n_virtual > 1 else 0
    check_top_k(top_k, n_virtual - first)
    plans = []
    for instance in instances:
        rng = random.Random(f"{seed}/{instance}")
        drawn: list[int] = []
        while len(drawn) < top_k:
            token = rng.randrange(first, n_virtual)
            if token not in drawn:
                drawn.append(token)
        plans.append(CorruptionPlan(tuple(drawn), mask, gamma, replace, noise_seed(replace, seed, instance)))
    return plans


def noise_seed(replace: Replace, seed: int, instance: str) -> int:
    """The seed of an instance's noise; 0 where there is none, so that equal plans are equal."""
    return random.Random(f"noise/{seed}/{instance}").getrandbits(63) if replace == "noise" else 0


def check_top_k(top_k: int, n_candidates: int) -> None:
    """Refuse to choose no token, or more than there are."""
    if not 1 <= top_k <= n_candidates:
        raise DPCInterpError(f"top_k is {top_k}; choose 1 to {n_candidates} of this prompt's virtual tokens")


def _leading(found: Analysis, top_k: int, layers: tuple[int, ...] | None, exclude_sink: bool) -> list[tuple[int, ...]]:
    """The `top_k` tokens of largest accumulation of each instance, the largest first."""
    left = found.accumulation
    ranks: list[pd.Series] = []
    # no prompt of one token gets here with the sink left out: `peaks` says why
    check_top_k(top_k, max(1, found.n_virtual - exclude_sink))
    for _ in range(top_k):
        ranks.append(peaks(left, layers=layers, exclude_sink=exclude_sink)["peak_token"])
        left = left[left["virtual_token"] != left["instance"].map(ranks[-1])]
    table = pd.concat(ranks, axis=1).loc[found.instances["instance"]]
    return [tuple(int(token) for token in row) for row in table.to_numpy()]
