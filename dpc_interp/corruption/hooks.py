"""Corruption through hook points: the prompt is written at `hook_embed`, then edited there, weights untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaxtyping import Float, Int
from torch import Tensor

from dpc_interp.corruption.plan import CorruptionPlan
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import SoftPrompt, check_prompt, edit_prompt, prompted


@contextmanager
def corrupted(
    model: HookedModel, prompt: SoftPrompt, plan: CorruptionPlan
) -> Iterator[Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch n_virtual_and_pos d_vocab"]]]:
    """`prompted` with a corrupted prompt: inside, `run(tokens)` gives the logits; afterwards nothing is left behind.

    Raises:
        DPCInterpError: what `prompted` refuses, or a plan that names a token the prompt lacks; before any forward pass.
    """
    check_prompt(model, prompt.vectors)
    plan(prompt.vectors)
    with prompted(model, prompt, edit_prompt([plan], prompt.n_virtual)) as run:
        yield run
