"""Corruption through hook points: the prompt is written at `hook_embed` and edited there; no weight changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaxtyping import Float, Int
from torch import Tensor

from dpc_interp.interventions.plan import CorruptionPlan
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.embed_hooks import edit_prompt, prompted
from dpc_interp.prompts.soft_prompt import AnyPrompt, as_prompt, check_prompt


@contextmanager
def corrupted(
    model: AnyModel, prompt: AnyPrompt, plan: CorruptionPlan
) -> Iterator[Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch n_virtual_and_pos d_vocab"]]]:
    """Put a corrupted soft prompt in front of whatever the model reads.

    Inside the context `run(tokens)` maps tokens [batch, pos] to logits [batch, n_virtual + pos, d_vocab], as in
    `prompted`. All hooks are removed afterwards, also when the body raises.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        prompt: the soft prompt, or its name; its vectors stay unchanged.
        plan: how it is corrupted.

    Raises:
        DPCInterpError: the prompt does not fit the model, or the plan names a token that it does not have; before any
            forward pass.

    Example:
        >>> import torch
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> with dpc.corrupted(model, prompt, dpc.CorruptionPlan((3,), gamma=10)) as run:
        ...     logits = run(torch.tensor([[1, 5, 6]]))
        >>> logits.shape[1] == prompt.n_virtual + 3
        True
    """
    prompt, model = as_prompt(prompt), as_model(model)
    check_prompt(model, prompt.vectors)
    plan(prompt.vectors)  # raises for an unknown token now, not in the first forward pass
    with prompted(model, prompt, edit_prompt([plan], prompt.n_virtual)) as run:
        yield run
