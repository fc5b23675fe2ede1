"""How a soft prompt is written into a model: hooks at the output of its embedding table.

A frozen model reads `P | Q | ...`. Placeholder tokens reserve the positions of the n virtual tokens, and a hook writes
the prompt's vectors over their embeddings. Positions, masks, caches and `run_with_cache` then work as for any tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import DPCInterpError
from dpc_interp.models.fused_attention import fused_attention
from dpc_interp.models.hooked import HookedModel, check_length
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.entry import embed_hook_name
from dpc_interp.prompts.soft_prompt import AnyPrompt, as_prompt, check_prompt

PLACEHOLDER = 0
"""Token id at the position of a virtual token; its embedding is always overwritten."""

EmbedHook = Callable[[Tensor, HookPoint], Tensor]
"""A forward hook at `embed_hook_name(model)`."""

PromptEdit = Callable[[Tensor], Tensor]
"""Maps the vectors of a prompt [n_virtual, d_model] to the vectors that the model reads instead."""


class PromptIndex(NamedTuple):
    """Indices of the virtual tokens in a batch: `embed[index]` is [batch, n_virtual, d_model].

    Attributes:
        rows: row indices.
        columns: position indices.
    """

    rows: Int[Tensor, "batch n_virtual"]
    columns: Int[Tensor, "batch n_virtual"]


def prompt_index(batch_size: int, n_virtual: int, starts: Int[Tensor, " batch"] | None) -> PromptIndex:
    """Find the virtual tokens of a batch.

    Args:
        batch_size: rows of the batch.
        n_virtual: virtual tokens of each row.
        starts: position of the first virtual token of each row; None: 0 in every row.

    Returns:
        Row and position indices.
    """
    starts = torch.zeros(batch_size, dtype=torch.long, device="cpu") if starts is None else starts
    rows = torch.arange(batch_size, device=starts.device)[:, None].expand(-1, n_virtual)
    return PromptIndex(rows, starts[:, None] + torch.arange(n_virtual, device=starts.device))


def with_placeholders(tokens: Int[Tensor, "batch pos"], n_virtual: int) -> Int[Tensor, "batch n_virtual_and_pos"]:
    """Put placeholder tokens for a soft prompt before `tokens`.

    Args:
        tokens: ids.
        n_virtual: number of virtual tokens.
    """
    return torch.cat([tokens.new_full((tokens.shape[0], n_virtual), PLACEHOLDER), tokens], dim=1)


def forward_with_placeholders(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], n_virtual: int
) -> Float[Tensor, "row logit_pos d_vocab"]:
    """Run one forward pass over placeholder tokens followed by `tokens`; the caller's hook writes the prompt.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        tokens: ids, moved to the device of the model.
        n_virtual: number of virtual tokens; 0: no prompt.

    Returns:
        Logits [batch, n_virtual + pos, d_vocab], or fewer positions where a hook of the caller drops some.
    """
    tokens = with_placeholders(tokens.to(model.cfg.device), n_virtual)
    # With a tokenizer that pads on the left, TransformerLens takes leading pad tokens for padding, and the placeholder
    # id may be the pad token. An explicit mask keeps the virtual tokens visible.
    pads_left = model.tokenizer is not None and model.tokenizer.padding_side == "left"
    with fused_attention(model):
        return model(tokens, attention_mask=torch.ones_like(tokens) if pads_left else None)


def write_prompt(vectors: Tensor, starts: Int[Tensor, " batch"] | None = None) -> EmbedHook:
    """Make a hook for `embed_hook_name(model)` that writes a prompt over the placeholders.

    Args:
        vectors: vectors of the prompt [n_virtual, d_model]; gradients reach them.
        starts: position of the first virtual token of each row (left-padded batches); None: 0 in every row.

    Returns:
        The hook.
    """

    def hook(embed: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Float[Tensor, "batch pos d_model"]:
        index = prompt_index(embed.shape[0], vectors.shape[0], starts)
        # out of place: the embedding may be part of an autograd graph, or cached by another hook
        return embed.index_put(index, vectors.to(embed).expand(embed.shape[0], -1, -1))

    return hook


def edit_prompt(edits: Sequence[PromptEdit], n_virtual: int, starts: Int[Tensor, " batch"] | None = None) -> EmbedHook:
    """Make a hook for `embed_hook_name(model)` that edits the prompt that `write_prompt` has written.

    Args:
        edits: one for each row, or a single one for all rows.
        n_virtual: number of virtual tokens.
        starts: see `write_prompt`.

    Returns:
        The hook. It raises `DPCInterpError` for a batch of another size than the number of edits.
    """

    def hook(embed: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Float[Tensor, "batch pos d_model"]:
        index = prompt_index(embed.shape[0], n_virtual, starts)
        vectors = embed[index]
        if len(edits) not in (1, len(vectors)):
            raise DPCInterpError(f"got {len(edits)} edits for {len(vectors)} rows; give one for all rows or one a row")
        by_row = edits if len(edits) == len(vectors) else [edits[0]] * len(vectors)
        edited = torch.stack([edit(row) for edit, row in zip(by_row, vectors, strict=True)])
        return embed.index_put(index, edited)

    return hook


@contextmanager
def prompted(
    model: AnyModel, prompt: AnyPrompt, *embed_hooks: EmbedHook
) -> Iterator[Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch n_virtual_and_pos d_vocab"]]]:
    """Put a soft prompt before every input of a model, inside a context.

    All hooks are removed on exit, also when the body raises.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        prompt: the soft prompt, or its name.
        embed_hooks: further hooks at `embed_hook_name(model)`, which run after the prompt is written.

    Yields:
        A function from tokens [batch, pos] to logits [batch, n_virtual + pos, d_vocab].

    Raises:
        ShapeError: the prompt is not as wide as the model.
        NonFiniteError: the prompt contains NaN or infinity.
        DPCInterpError: the model cannot read a soft prompt (see `entry.py`).
        ContextLengthError: a sequence longer than the context (raised by the yielded function).

    Example:
        >>> import torch
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> with dpc.prompted(model, prompt) as run:
        ...     logits = run(torch.tensor([[1, 40, 51]]))
        >>> logits.shape[1] == prompt.n_virtual + 3
        True
    """
    prompt, model = as_prompt(prompt), as_model(model)
    check_prompt(model, prompt.vectors)

    def run(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch n_virtual_and_pos d_vocab"]:
        check_length(model, prompt.n_virtual + tokens.shape[1])
        return forward_with_placeholders(model, tokens, prompt.n_virtual)

    hooks = [write_prompt(prompt.vectors), *embed_hooks]
    with model.hooks(fwd_hooks=[(embed_hook_name(model), hook) for hook in hooks]):
        yield run
