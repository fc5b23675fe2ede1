"""Saliency flow: attention times its gradient (paper, eq. 1; Wang et al. 2023).

    S_l = sum_h A[l,h] * dL/dA[l,h]        I_l = |S_l|

A[l,h] is the pattern at `hook_pattern` (query heads; rows are destinations, columns sources), L the mean next-token NLL
of everything after the question, the stop token included. The diagonal is left out; saliency is float32 whatever the
model is.

1. A forward hook at every `hook_pattern` asks autograd for the gradient of the pattern there. Logits are made only of
   the positions in L.
2. One backward pass from L to the first pattern: each layer's gradient meets its pattern, is reduced at once, let go.

No gradient reaches the rows of what follows the prompt through the virtual tokens themselves, which read only each
other. Where their own rows are not asked for, the prompt is read once, and no backward pass goes through it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformer_lens.hook_points import HookPoint

from dpc_interp.analysis.checkpoint import checkpointed
from dpc_interp.errors import DPCInterpError, NonFiniteError, ShapeError, UnknownNameError
from dpc_interp.lm.hooked import CachedDecoding, Hook, HookedModel
from dpc_interp.lm.nonfinite import mend_of, not_finite
from dpc_interp.lm.prefix import can_be_shared, read_prompt
from dpc_interp.lm.soft_prompt import (
    SoftPrompt,
    check_length,
    check_prompt,
    logits_behind,
    write_prompt,
)

HeadReduction = Literal["abs_of_sum", "sum_of_abs", "mean_of_abs"]
"""How heads become one value: |sum| (default, eq. 1), sum of |.|, mean of |.|."""
LayerReduction = Callable[[int, Float[Tensor, "batch dest src"]], None]


def saliency(
    model: HookedModel,
    tokens: Int[Tensor, " n_tokens"],
    prompt: SoftPrompt | Float[Tensor, "n_virtual d_model"],
    n_question: int,
    *,
    head_reduction: HeadReduction = "abs_of_sum",
    checkpoint: bool = False,
) -> Float[Tensor, "layer dest src"]:
    """The saliency of one sequence (paper, eq. 1).

    Args:
        tokens: ids of the question (BOS first, where the model has one) and the rationale.
        prompt: the soft prompt in front, or its vectors.
        n_question: how many of `tokens` are the question; the loss is the mean NLL of the rest.
        checkpoint: run each block again in the backward pass instead of keeping its activations.

    Returns:
        float32 [layer, destination, source] over n_virtual + len(tokens) positions; zero on and above the diagonal.

    Raises:
        ShapeError, NonFiniteError: the prompt does not fit, or the saliency is not finite.
        ContextLengthError: the sequence is longer than the context.
        DPCInterpError: nothing follows the question, or a pattern hook lies off the loss path.
    """
    vectors = prompt.vectors if isinstance(prompt, SoftPrompt) else prompt
    if tokens.ndim != 1:
        raise ShapeError(f"tokens are {list(tokens.shape)}; give one sequence [n_tokens]")
    if not 1 <= n_question < len(tokens):
        raise DPCInterpError(
            f"n_question is {n_question} of {len(tokens)} tokens; a question and a rationale must both be there"
        )
    maps: dict[int, Tensor] = {}

    def keep(layer: int, flow: Float[Tensor, "batch dest src"]) -> None:
        maps[layer] = flow[0]

    flow_pass(model, [tokens], [n_question], vectors, keep, head_reduction=head_reduction, checkpoint=checkpoint)
    return torch.stack([maps[layer] for layer in range(model.cfg.n_layers)])


def flow_pass(
    model: HookedModel,
    sequences: list[Int[Tensor, " _"]],
    n_question: list[int],
    vectors: Float[Tensor, "n_virtual d_model"],
    reduce: LayerReduction,
    *,
    head_reduction: HeadReduction = "abs_of_sum",
    targets: list[Int[Tensor, " _"]] | None = None,
    checkpoint: bool = False,
    prompt_rows: bool = True,
    behind: CachedDecoding | None = None,
) -> Float[Tensor, "batch pos"]:
    """One forward and one backward pass of a right-padded batch; `reduce(layer, I)` is called once a layer.

    I is float32 [batch, destination, source] with a zero diagonal. The loss is the sum over rows of each row's mean
    NLL: a row's saliency is what it would be alone. `targets` are the tokens whose NLL is taken where they are not the
    `sequences` that the model reads; as long as these. `checkpoint` runs each block again in the backward pass instead
    of keeping its activations: memory for about one block, for a forward pass more. Without `prompt_rows` the
    destinations begin behind the prompt, which, without `checkpoint`, is then read once for several rows; `behind` is a
    row that has read it.

    Returns:
        The NLL of each token [batch, pos] over n_virtual + longest positions, 0 outside the loss.
    """
    if head_reduction not in get_args(HeadReduction):
        raise UnknownNameError("head_reduction", head_reduction, get_args(HeadReduction))
    check_prompt(model, vectors)
    n_virtual = vectors.shape[0]
    check_length(model, n_virtual + max(len(s) for s in sequences))
    tokens = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True).to(model.cfg.device)
    told = tokens
    if targets is not None:
        told = torch.nn.utils.rnn.pad_sequence(list(targets), batch_first=True).to(tokens.device)
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    starts = torch.tensor(n_question, device=tokens.device)[:, None]
    stops = torch.tensor([len(s) for s in sequences], device=tokens.device)[:, None]
    counted = (positions >= starts) & (positions < stops)

    several = behind is not None or len(sequences) > 1  # for one, a pass of its own costs more than it saves
    alone = several and not (prompt_rows or checkpoint) and can_be_shared(model, n_virtual + tokens.shape[1])
    finite: dict[int, Tensor] = {}
    leaf = torch.zeros((), device=tokens.device, requires_grad=True)
    entrance: list[int] = []

    def watch(pattern: Float[Tensor, "batch head dest src"], hook: HookPoint) -> Tensor | None:
        layer = hook.layer()
        if not pattern.requires_grad:  # so it is in the first layer; elsewhere it is off the loss path, and told below
            entrance[:] = entrance or [layer]
            if layer != entrance[0]:
                return None

        def meet(pattern: Tensor, grad: Tensor) -> None:
            flow = _reduce_heads(pattern, grad, head_reduction)
            finite[layer] = torch.isfinite(flow.sum())
            reduce(layer, flow if prompt_rows or alone else flow[:, n_virtual:])

        return _Watched.apply(pattern, leaf, meet)

    def needed(resid: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Float[Tensor, "1 counted d_model"]:
        return resid[:, -tokens.shape[1] : -1][counted[:, 1:]][None]  # logits of a large vocabulary are dear

    hooks: list[Hook] = [(lambda name: name.endswith("attn.hook_pattern"), watch), ("unembed.hook_in", needed)]
    with torch.no_grad():
        read = None
        if alone:
            read = (behind or read_prompt(model, vectors, 1)).copied(torch.zeros(len(tokens), dtype=torch.long))
    if read is None:
        hooks.insert(0, ("hook_embed", write_prompt(vectors.detach())))
    with torch.enable_grad(), model.hooks(fwd_hooks=hooks), checkpointed(model) if checkpoint else nullcontext():
        logits = logits_behind(model, tokens, n_virtual) if read is None else read(tokens)
        nll = cross_entropy(logits.flatten(0, 1).float(), told[counted], reduction="none")
        del logits  # before the backward pass
        loss = (nll / counted.sum(1, keepdim=True).expand_as(counted)[counted]).sum()
        if not torch.isfinite(loss):
            raise not_finite(model, tokens, vectors)
        if loss.requires_grad:  # if not, no pattern is on the loss path
            # to the patterns alone: nothing before the first one, and no gradient into the caller's weights
            torch.autograd.grad(loss, leaf)
    missing = sorted(set(range(model.cfg.n_layers)) - set(finite))
    if missing:
        raise DPCInterpError(
            f"no gradient reached the pattern of layer {missing[0]}; it is off the loss path: "
            "use a HookedTransformer, and see check_model(model)"
        )
    deepest = max((layer for layer, is_finite in finite.items() if not is_finite), default=None)
    if deepest is not None:  # gradients run from the deepest layer to the first
        raise NonFiniteError(f"the saliency is not finite from layer {deepest} down; {mend_of(model)}")
    written = torch.zeros(counted.shape, device=nll.device).masked_scatter_(counted, nll.detach())
    return torch.nn.functional.pad(written, (n_virtual, 0))


class _Watched(torch.autograd.Function):
    """The pattern as it is; its gradient on the way back meets it in `meet`.

    The pattern is kept as autograd keeps any tensor, so that under checkpointing it is the one of the second run. The
    scalar `leaf` is what the gradient is asked for: it makes the graph begin at the first pattern.
    """

    @staticmethod
    def forward(ctx: Any, pattern: Tensor, leaf: Tensor, meet: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(pattern)
        ctx.meet = meet
        return pattern.view_as(pattern)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (pattern,) = ctx.saved_tensors
        ctx.meet(pattern, grads[0])
        return grads[0] if ctx.needs_input_grad[0] else None, grads[0].new_zeros(()), None


def _reduce_heads(
    pattern: Float[Tensor, "batch head dest src"], grad: Float[Tensor, "batch head dest src"], how: HeadReduction
) -> Float[Tensor, "batch dest src"]:
    """Head by head, so that nothing of the size of a pattern is made."""
    flow = torch.zeros_like(pattern[:, 0], dtype=torch.float32)
    for head in range(pattern.shape[1]):
        weight, slope = pattern[:, head].float(), grad[:, head].float()
        if how == "abs_of_sum":
            flow.addcmul_(weight, slope)
        else:
            flow += (weight * slope).abs_()
    if how == "abs_of_sum":
        flow.abs_()
    elif how == "mean_of_abs":
        flow /= pattern.shape[1]
    flow.diagonal(offset=flow.shape[2] - flow.shape[1], dim1=1, dim2=2).zero_()
    return flow
