"""Dynamic Corruption: how a soft prompt is changed for one instance (docs/method.md, section 5).

v[j] <- mask * v[j] + (1 - mask) * r[j]   for the chosen tokens j (the accumulation token j*)
v[j][k] <- 0                              for the gamma percent of entries smallest in magnitude, in every other vector

r[j] is 0 (`mask`, the paper's choice), the mean vector of the prompt (`mean`), or a Gaussian vector with the norm of
v[j] (`noise`). The mean and the norms are those of the uncorrupted prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from dpc_interp.analysis.accumulation import accumulation_peaks
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.options import Options, Replace, check_corruption
from dpc_interp.errors import DPCInterpError
from dpc_interp.repr_html import card


@dataclass(frozen=True)
class CorruptionPlan:
    """A corruption of one prompt; calling it maps the prompt's vectors to corrupted ones.

    Attributes:
        tokens: the virtual tokens that are corrupted.
        mask: factor of their vectors, 0 to 1.
        gamma: percentage of entries of smallest magnitude that are zeroed in every other vector, 0 to 100.
        replace: what replaces the corrupted vectors: `mask` (zeros), `mean` or `noise`.
        seed: seed of the noise; 0 without noise, so that equal corruptions are equal plans.

    Raises:
        DPCInterpError: `mask`, `gamma` or `replace` is out of range.

    Example:
        >>> import torch
        >>> import dpc_interp as dpc
        >>> plan = dpc.CorruptionPlan(tokens=(1,), gamma=50)
        >>> plan(torch.tensor([[3.0, -1.0], [5.0, 4.0]]))
        tensor([[3., 0.],
                [0., 0.]])
    """

    tokens: tuple[int, ...] = ()
    mask: float = Options.mask
    gamma: float = 0.0  # a plan without arguments changes nothing, so this is not `Options.gamma`
    replace: Replace = Options.replace
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))  # a list could not be hashed
        check_corruption(self.mask, self.gamma, self.replace)

    def _repr_html_(self) -> str:
        chosen = ", ".join(map(str, self.tokens)) or "none"
        rest = "" if self.replace == "mask" else f", the rest is replaced: {self.replace}"
        facts = {
            "virtual tokens": f"{chosen}: {self.mask:g} of the vector is kept{rest}",
            "all others": f"the {self.gamma:g}% of entries of smallest magnitude are zeroed",
        }
        return card("CorruptionPlan", facts)

    def __call__(self, vectors: Float[Tensor, "n_virtual d_model"]) -> Float[Tensor, "n_virtual d_model"]:
        """Return the corrupted vectors; `vectors` itself is not changed.

        Raises:
            DPCInterpError: the plan names a virtual token that the prompt does not have.
        """
        check_tokens(self.tokens, len(vectors))
        corrupted = vectors.clone()
        n_zero = round(vectors.shape[1] * self.gamma / 100)
        if n_zero:
            smallest = vectors.abs().argsort(dim=1, stable=True)[:, :n_zero]
            corrupted.scatter_(1, smallest, 0.0)
        # computed from `vectors`: in `corrupted` the chosen tokens have lost their smallest entries, too
        for token in self.tokens:
            corrupted[token] = self.mask * vectors[token]
        if self.replace != "mask":
            for token, replacement in zip(self.tokens, self._replacements(vectors), strict=True):
                corrupted[token] += (1 - self.mask) * replacement
        return corrupted

    def _replacements(self, vectors: Float[Tensor, "n_virtual d_model"]) -> Float[Tensor, "n_chosen d_model"]:
        """r[j] of each chosen token."""
        chosen = vectors[list(self.tokens)]
        if self.replace == "mean":
            return vectors.mean(dim=0).expand_as(chosen)
        # drawn on the CPU in float32, so that every device gets the same noise
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(chosen.shape, generator=generator, dtype=torch.float32, device="cpu")
        return (noise / noise.norm(dim=1, keepdim=True)).to(chosen) * chosen.norm(dim=1, keepdim=True)


def plan_corruption(
    analysis: Analysis,
    gamma: float = Options.gamma,
    mask: float = Options.mask,
    *,
    layers: Sequence[int] | None = None,
    exclude_sink: bool = Options.exclude_sink,
    top_k: int = Options.top_k,
    replace: Replace = Options.replace,
    seed: int = Options.seed,
) -> list[CorruptionPlan]:
    """Plan the corruption of each instance: mask its accumulation token, sparsify the other vectors.

    Args:
        analysis: result of `analyse`.
        gamma: percentage of entries that are zeroed in every other vector.
        mask: factor of the accumulation token.
        layers: the shallow layers; None: the first third.
        exclude_sink: see `accumulation_peaks`.
        top_k: number of tokens of largest accumulation that are corrupted.
        replace: what replaces a corrupted vector, see `CorruptionPlan`.
        seed: seed of the noise, which differs between instances.

    Returns:
        One plan per instance, in the order of `analysis.instances`.

    Raises:
        DPCInterpError: a layer that the model does not have, or an option out of range.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> runs = dpc.generate(model, dpc.load_problems("story", n=2), prompt, progress=False)
        >>> plans = dpc.plan_corruption(dpc.analyse(model, runs, prompt, progress=False), gamma=10)
        >>> [(len(plan.tokens), plan.gamma) for plan in plans]
        [(1, 10), (1, 10)]
    """
    chosen = _largest_accumulation(analysis, top_k, layers, exclude_sink)
    return [
        CorruptionPlan(tokens, mask, gamma, replace, noise_seed(replace, seed, instance))
        for instance, tokens in zip(analysis.instances["instance"], chosen, strict=True)
    ]


def plan_random(
    instances: Sequence[str],
    n_virtual: int,
    seed: int,
    gamma: float = Options.gamma,
    mask: float = Options.mask,
    *,
    peaks: Sequence[int] | None = None,
    sinks: Sequence[int] = (0,),
    top_k: int = Options.top_k,
    replace: Replace = Options.replace,
) -> list[CorruptionPlan]:
    """Plan the placebo: corrupt `top_k` random tokens instead of the accumulation token.

    The tokens depend on `seed`, the id of the instance and its accumulation token only; those of a smaller `top_k` are
    among those of a larger one.

    Args:
        instances: ids of the problems.
        n_virtual: virtual tokens of the prompt.
        seed: seed of the tokens and of the noise.
        gamma, mask, replace: see `CorruptionPlan`.
        peaks: accumulation token of each instance, which is not drawn; None: any token is.
        sinks: virtual tokens that are never drawn, see `attention_sinks`.
        top_k: number of tokens that are drawn.

    Returns:
        One plan per instance, in the order given.

    Raises:
        DPCInterpError: more tokens than the prompt has, or an option out of range.

    Example:
        >>> import dpc_interp as dpc
        >>> plans = dpc.plan_random(["story-0", "story-1"], n_virtual=20, seed=0)
        >>> all(1 <= plan.tokens[0] < 20 for plan in plans)
        True
    """
    candidates = [token for token in range(n_virtual) if token not in sinks]
    check_placebo(top_k, len(candidates) - (peaks is not None))
    excluded: Sequence[int | None] = [None] * len(instances) if peaks is None else peaks
    plans = []
    for instance, peak in zip(instances, excluded, strict=True):
        rng = random.Random(f"{seed}/{instance}")
        drawn: list[int] = []
        # one draw at a time, not `rng.sample`: a larger top_k extends the tokens of a smaller one
        while len(drawn) < top_k:
            token = rng.choice(candidates)
            if token != peak and token not in drawn:
                drawn.append(token)
        plans.append(CorruptionPlan(tuple(drawn), mask, gamma, replace, noise_seed(replace, seed, instance)))
    return plans


def noise_seed(replace: Replace, seed: int, instance: str) -> int:
    """The seed of an instance's noise; 0 without noise, so that equal corruptions are equal plans.

    Args:
        replace: see `CorruptionPlan`.
        seed: seed of the evaluation.
        instance: id of the problem.
    """
    return random.Random(f"noise/{seed}/{instance}").getrandbits(63) if replace == "noise" else 0


def check_tokens(tokens: Sequence[int], n_virtual: int) -> None:
    """Raise `DPCInterpError` for a token that a prompt of `n_virtual` virtual tokens does not have."""
    unknown = [token for token in tokens if not 0 <= token < n_virtual]
    if unknown:
        raise DPCInterpError(f"the plan names token {unknown[0]}; the prompt has {n_virtual} virtual tokens")


def check_top_k(top_k: int, n_candidates: int) -> None:
    """Raise `DPCInterpError` unless `top_k` is from 1 to `n_candidates`."""
    if not 1 <= top_k <= n_candidates:
        raise DPCInterpError(f"top_k is {top_k}; choose 1 to {n_candidates} of this prompt's virtual tokens")


def check_placebo(top_k: int, n_candidates: int) -> None:
    """Raise `DPCInterpError` unless the placebo can draw `top_k` of `n_candidates` tokens."""
    if not 1 <= top_k <= n_candidates:
        raise DPCInterpError(
            f"the placebo draws {top_k} virtual tokens, and besides the accumulation token and sinks the prompt has "
            f"{n_candidates}; use a smaller top_k or a longer prompt, or leave the placebo out"
        )


def _largest_accumulation(
    analysis: Analysis, top_k: int, layers: Sequence[int] | None, exclude_sink: bool
) -> list[tuple[int, ...]]:
    """The `top_k` tokens of largest accumulation of each instance, the largest first."""
    # at least 1: a prompt of sinks only is reported by `accumulation_peaks`, whose message is clearer
    check_top_k(top_k, max(1, analysis.n_virtual - exclude_sink * len(analysis.sinks)))
    candidates = analysis.accumulation
    ranks: list[pd.Series] = []
    for _ in range(top_k):
        ranks.append(accumulation_peaks(candidates, layers=layers, exclude_sink=exclude_sink)["peak_token"])
        candidates = candidates[candidates["virtual_token"] != candidates["instance"].map(ranks[-1])]
    table = pd.concat(ranks, axis=1).loc[analysis.instances["instance"]]
    return [tuple(int(token) for token in row) for row in table.to_numpy()]
