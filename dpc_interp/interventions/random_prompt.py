"""A random prompt in place of the tuned one, drawn anew for each instance: the baseline of any soft prompt.

Gaussian vectors with the moments of the embedding table, which reach the accuracy of tuned prompts on mathematics in
several settings (arXiv 2605.11936).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.embedding import embedding_moments, gaussian_vectors


@dataclass(frozen=True)
class RandomPromptPlan:
    """A corruption of the whole prompt: every vector is replaced by a random one.

    Attributes:
        seed: seed of the vectors.
        mean: of each column of the embedding table.
        std: standard deviation of each column.

    Example:
        >>> import dpc_interp as dpc
        >>> from dpc_interp.interventions.random_prompt import plan_random_prompts
        >>> (plan,) = plan_random_prompts(dpc.load_model("reasoner"), ["story-0"], seed=0)
        >>> plan(dpc.load_prompt("reasoner/story").vectors).shape
        torch.Size([20, 128])
    """

    seed: int
    mean: Float[Tensor, " width"] = field(repr=False, compare=False)  # of the model, which identifies a stage already
    std: Float[Tensor, " width"] = field(repr=False, compare=False)

    def __call__(self, vectors: Float[Tensor, "n_virtual width"]) -> Float[Tensor, "n_virtual width"]:
        """Random vectors in place of `vectors`."""
        return gaussian_vectors(self.mean, self.std, len(vectors), self.seed).to(vectors)


def plan_random_prompts(model: HookedModel, instances: Sequence[str], seed: int) -> list[RandomPromptPlan]:
    """Plan a random prompt for each instance.

    Args:
        model: whose embedding table gives the moments.
        instances: ids of the problems.
        seed: seed of the evaluation; the vectors depend on it and on the id.

    Returns:
        One plan per instance, in the order given.

    Raises:
        DPCInterpError: an embedding table of fewer than 2 rows.
    """
    mean, std = embedding_moments(model)
    seeds = (random.Random(f"prompt/{seed}/{instance}").getrandbits(63) for instance in instances)
    return [RandomPromptPlan(drawn, mean, std) for drawn in seeds]
