"""Saliency flow: attention times its gradient (paper, eq. 1; Wang et al. 2023).

    S_l = sum_h A[l,h] * dL/dA[l,h]        I_l = |S_l|

A[l,h] is the pattern at `hook_pattern` (query heads; rows are destinations, columns sources), L the mean next-token NLL
of everything after the question, the stop token included. The diagonal is left out; saliency is float32 whatever the
model is.

1. A forward hook at every `hook_pattern` asks autograd for the gradient of the pattern there.
2. One backward pass from L: each layer's gradient meets its pattern in a tensor hook, is reduced at once and let go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import DPCInterpError, NonFiniteError, ShapeError, UnknownNameError
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import (
    SoftPrompt,
    check_length,
    check_prompt,
    logits_behind,
    with_placeholders,
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
) -> Float[Tensor, "layer dest src"]:
    """The saliency of one sequence (paper, eq. 1).

    Args:
        tokens: ids of the question (BOS first, where the model has one) and the rationale.
        prompt: the soft prompt in front, or its vectors.
        n_question: how many of `tokens` are the question; the loss is the mean NLL of the rest.

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

    flow_pass(model, [tokens], [n_question], vectors, keep, head_reduction=head_reduction)
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
) -> Float[Tensor, "batch pos"]:
    """One forward and one backward pass of a right-padded batch; `reduce(layer, I)` is called once a layer.

    I is float32 [batch, destination, source] with a zero diagonal. The loss is the sum over rows of each row's mean
    NLL: a row's saliency is what it would be alone. `targets` are the tokens whose NLL is taken where they are not the
    `sequences` that the model reads; as long as these.

    Returns:
        The NLL of each token [batch, pos] over n_virtual + longest positions, 0 outside the loss.
    """
    if head_reduction not in get_args(HeadReduction):
        raise UnknownNameError("head_reduction", head_reduction, get_args(HeadReduction))
    check_prompt(model, vectors)
    n_virtual = vectors.shape[0]
    check_length(model, n_virtual + max(len(s) for s in sequences))
    tokens = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True).to(model.cfg.device)
    tokens = with_placeholders(tokens, n_virtual)
    told = tokens
    if targets is not None:
        told = torch.nn.utils.rnn.pad_sequence(list(targets), batch_first=True).to(tokens.device)
        told = with_placeholders(told, n_virtual)
    positions = torch.arange(tokens.shape[1])
    stops = n_virtual + torch.tensor([len(s) for s in sequences])[:, None]
    counted = ((positions >= n_virtual + torch.tensor(n_question)[:, None]) & (positions < stops)).to(tokens.device)

    seen: set[int] = set()
    leaf: list[Tensor] = []

    def require_grad(embed: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Tensor:
        leaf.append(embed.detach().requires_grad_())
        return leaf[0]

    def watch(pattern: Float[Tensor, "batch head dest src"], hook: HookPoint) -> None:
        layer = hook.layer()

        def meet(grad: Float[Tensor, "batch head dest src"]) -> None:
            seen.add(layer)
            reduce(layer, _reduce_heads(pattern.detach(), grad, head_reduction))

        if pattern.requires_grad:  # if not, it is off the loss path, and told below
            pattern.register_hook(meet)

    hooks = [("hook_embed", write_prompt(vectors.detach())), ("hook_embed", require_grad)]
    with torch.enable_grad(), model.hooks(fwd_hooks=[*hooks, (lambda name: name.endswith("attn.hook_pattern"), watch)]):
        logits = logits_behind(model, tokens[:, n_virtual:], n_virtual)
        nll = cross_entropy(logits[:, :-1].flatten(0, 1).float(), told[:, 1:].flatten(), reduction="none")
        nll = torch.cat([nll.new_zeros(len(tokens), 1), nll.view(len(tokens), -1)], dim=1) * counted
        loss = (nll.sum(1) / counted.sum(1)).sum()
        if not torch.isfinite(loss):
            raise NonFiniteError("the loss is not finite; load the model in float32 or bfloat16")
        # only what lies between the loss and the embedding: no gradient is written into the caller's weights
        torch.autograd.grad(loss, leaf[0])
    missing = sorted(set(range(model.cfg.n_layers)) - seen)
    if missing:
        raise DPCInterpError(
            f"no gradient reached the pattern of layer {missing[0]}; it is off the loss path: "
            "use a HookedTransformer, and see check_model(model)"
        )
    return nll.detach()


def _reduce_heads(
    pattern: Float[Tensor, "batch head dest src"], grad: Float[Tensor, "batch head dest src"], how: HeadReduction
) -> Float[Tensor, "batch dest src"]:
    product = pattern.float() * grad.float()
    if how == "abs_of_sum":
        flow = product.sum(1).abs_()
    else:
        flow = product.abs_().sum(1)
        if how == "mean_of_abs":
            flow /= pattern.shape[1]
    flow.diagonal(dim1=1, dim2=2).zero_()
    if not torch.isfinite(flow).all():
        raise NonFiniteError("the saliency is not finite; load the model in float32 or bfloat16")
    return flow
