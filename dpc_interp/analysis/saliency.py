"""Saliency flow: attention times its gradient (paper, eq. 1; Wang et al. 2023).

    S_l = sum_h A[l,h] * dL/dA[l,h]        I_l = |S_l|

A[l,h] is the attention pattern (query heads; rows are destinations, columns sources), L the mean next-token NLL of
everything after the question, including the stop token. The diagonal is left out; saliency is float32 whatever the
dtype of the model.

1. `prepare_inputs`: a right-padded batch, its labels and its loss mask. Virtual tokens attend only to each other, so
   no gradient flows through the prompt into later destinations. Unless its own destinations are needed, the prompt is
   prefilled once for the batch, outside the graph.
2. `forward_loss`: one forward pass with fused attention. Logits are computed only at the positions in L.
3. `backward_reduce`: one backward pass from L to the first layer's attention, in which a `SaliencyRecorder` reduces
   each layer. In a float16 model it starts from L times a power of two, which the saliency is divided by in float32
   (`nonfinite.py`).

`saliency_pass` runs the three; `saliency` returns the full map of one sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dpc_interp.analysis.options import HeadReduction, Options
from dpc_interp.analysis.recorder import Reduced, Reduction, SaliencyRecorder, whole_map
from dpc_interp.errors import DPCInterpError, NonFiniteError, ShapeError, UnknownNameError, renamed_keywords
from dpc_interp.host.torch_state import need_weights_with_gradients, torch_defaults
from dpc_interp.models.encoding import loss_mask
from dpc_interp.models.fused_attention import fused_attention, pattern_layers
from dpc_interp.models.gradient_checkpointing import checkpointed
from dpc_interp.models.hooked import CachedDecoding, HookedModel, check_length, suggest_pattern_fix
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.models.nonfinite import loss_scales, non_finite_error, suggested_fix
from dpc_interp.models.token_nll import token_nll
from dpc_interp.prompts.embed_hooks import forward_with_placeholders, write_prompt
from dpc_interp.prompts.entry import embed_hook_name
from dpc_interp.prompts.prefill import can_share_prompt_cache, prefill_prompt
from dpc_interp.prompts.soft_prompt import AnyPrompt, as_prompt, check_prompt


@renamed_keywords({"checkpoint": "gradient_checkpointing"})
@torch_defaults()
def saliency(
    model: AnyModel,
    tokens: Int[Tensor, " n_tokens"],
    prompt: AnyPrompt | Float[Tensor, "n_virtual d_model"] | None,
    n_question: int,
    *,
    head_reduction: HeadReduction = Options.head_reduction,
    gradient_checkpointing: bool = False,
) -> Float[Tensor, "layer dest src"]:
    """The saliency of one sequence (paper, eq. 1).

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        tokens: ids of the question (with BOS first, where the model has one) and the rationale.
        prompt: the soft prompt in front, its name or its vectors; None: plain text.
        n_question: number of `tokens` that are the question; the loss is the mean NLL of the others.
        head_reduction: how heads are reduced to one value.
        gradient_checkpointing: recompute each block in the backward pass instead of keeping its activations.

    Returns:
        float32 [layer, destination, source] over n_virtual + len(tokens) positions; zero on and above the diagonal.

    Raises:
        ShapeError, NonFiniteError: the prompt does not fit, or the saliency is not finite.
        ContextLengthError: the sequence is longer than the context.
        DPCInterpError: nothing follows the question, a pattern hook is not on the loss path, or the weights were
            created within `torch.inference_mode()`.

    Example:
        >>> import torch
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> dpc.saliency(model, torch.tensor([1, 40, 51, 62, 2]), prompt, n_question=3).shape
        torch.Size([6, 25, 25])
    """
    model = as_model(model)
    vectors = prompt if isinstance(prompt, Tensor | None) else as_prompt(prompt).vectors
    if tokens.ndim != 1:
        raise ShapeError(f"tokens are {list(tokens.shape)}; give one sequence [n_tokens]")
    if not 1 <= n_question < len(tokens):
        raise DPCInterpError(
            f"n_question is {n_question} of {len(tokens)} tokens; a question and a rationale must both be there"
        )
    result = saliency_pass(
        model,
        [tokens],
        [n_question],
        vectors,
        lambda blocks: whole_map(blocks)[0],
        head_reduction=head_reduction,
        gradient_checkpointing=gradient_checkpointing,
    )
    return torch.stack(result.layers)


@dataclass(frozen=True)
class SaliencyPass(Generic[Reduced]):
    """The result of one forward and one backward pass.

    Attributes:
        layers: the reduced saliency of each layer.
        nll: negative log-likelihood of each token [batch, pos] over n_virtual + longest positions, 0 outside the loss.
    """

    layers: list[Reduced]
    nll: Float[Tensor, "batch pos"]


@dataclass(frozen=True)
class PassInputs:
    """The inputs of a pass over a right-padded batch.

    Attributes:
        tokens: ids of questions and rationales.
        labels: ids whose NLL is the loss; `tokens` unless targets were given.
        loss_mask: True at the tokens in the loss.
        prompt_cache: rows that have read the prompt; None: the prompt is read in every row.
    """

    tokens: Int[Tensor, "batch pos"]
    labels: Int[Tensor, "batch pos"]
    loss_mask: Bool[Tensor, "batch pos"]
    prompt_cache: CachedDecoding | None


@torch_defaults(gradients=True)
def saliency_pass(
    model: HookedModel,
    sequences: list[Int[Tensor, " _"]],
    n_question: list[int],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    reduce: Reduction[Reduced],
    *,
    head_reduction: HeadReduction = Options.head_reduction,
    targets: list[Int[Tensor, " _"]] | None = None,
    gradient_checkpointing: bool = False,
    prompt_rows: bool = True,
    prompt_cache: CachedDecoding | None = None,
) -> SaliencyPass[Reduced]:
    """One forward and one backward pass of a right-padded batch.

    The loss is the sum over rows of each row's mean NLL, so the saliency of a row is what it would be alone.

    Args:
        model: see `saliency`.
        sequences: ids of question and rationale, one sequence per row.
        n_question: number of question tokens of each row.
        vectors: vectors of the soft prompt; None: no prompt.
        reduce: called once a layer with its saliency in blocks of rows, see `recorder.py`.
        head_reduction: see `saliency`.
        targets: tokens whose NLL is the loss, as long as `sequences`; None: the sequences themselves.
        gradient_checkpointing: recompute each block in the backward pass: memory for about one block, at the cost of
            one more forward pass.
        prompt_rows: whether the destinations include the virtual tokens. Without them the prompt is read once for
            several rows (not under gradient checkpointing).
        prompt_cache: one row that has read the prompt.

    Raises:
        DPCInterpError: see `saliency`.
    """
    if head_reduction not in get_args(HeadReduction):
        raise UnknownNameError("head_reduction", head_reduction, get_args(HeadReduction))
    need_weights_with_gradients(model)
    if vectors is not None:
        check_prompt(model, vectors)
    n_virtual, width = 0 if vectors is None else vectors.shape[0], max(len(s) for s in sequences)
    check_length(model, n_virtual + width)
    # for a single row, prefilling the prompt costs more than it saves
    share_prompt = prompt_cache is not None or len(sequences) > 1
    share_prompt = share_prompt and not (prompt_rows or gradient_checkpointing)
    share_prompt = share_prompt and can_share_prompt_cache(model, n_virtual + width)
    if vectors is None or not share_prompt:
        prompt_cache = None
    elif prompt_cache is None:
        with torch.no_grad():
            prompt_cache = prefill_prompt(model, vectors, 1)
    inputs = prepare_inputs(model, sequences, n_question, targets, prompt_cache)
    first_destination = 0 if prompt_rows else n_virtual
    recorder = SaliencyRecorder(reduce, head_reduction, inputs.tokens.device, first_destination)
    patterns = pattern_layers(model)
    with (
        fused_attention(model, recorder.gradient),
        model.hooks(fwd_hooks=recorder.hooks(inputs.loss_mask, patterns)),
        checkpointed(model) if gradient_checkpointing else nullcontext(),
    ):
        loss, nll = forward_loss(model, inputs, vectors)
        layers = backward_reduce(model, loss, recorder, loss_scales(model))
    return SaliencyPass(layers, torch.nn.functional.pad(nll, (n_virtual, 0)))


def prepare_inputs(
    model: HookedModel,
    sequences: list[Int[Tensor, " _"]],
    n_question: list[int],
    targets: list[Int[Tensor, " _"]] | None,
    prompt_cache: CachedDecoding | None,
) -> PassInputs:
    """Pad the sequences and mark the tokens in the loss; the prompt cache is forked for each row."""
    tokens = pad_sequence(list(sequences), batch_first=True).to(model.cfg.device)
    labels = tokens if targets is None else pad_sequence(list(targets), batch_first=True).to(tokens.device)
    mask = loss_mask(n_question, [len(s) for s in sequences], tokens.shape[1], tokens.device)
    with torch.no_grad():
        rows = None if prompt_cache is None else prompt_cache.fork(torch.zeros(len(tokens), dtype=torch.long))
    return PassInputs(tokens, labels, mask, rows)


def forward_loss(
    model: HookedModel, inputs: PassInputs, vectors: Float[Tensor, "n_virtual d_model"] | None
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch pos"]]:
    """The loss and the NLL of each token, 0 outside the loss. The recorder's hooks must be on the model.

    Raises:
        NonFiniteError: the loss is not finite.
    """

    def forward_in_rows() -> Float[Tensor, "row logit_pos d_vocab"]:
        if vectors is None:
            return forward_with_placeholders(model, inputs.tokens, 0)
        with model.hooks(fwd_hooks=[(embed_hook_name(model), write_prompt(vectors.detach()))]):
            return forward_with_placeholders(model, inputs.tokens, vectors.shape[0])

    cache, mask = inputs.prompt_cache, inputs.loss_mask
    logits = forward_in_rows() if cache is None else cache(inputs.tokens)
    nll = token_nll(logits.flatten(0, 1), inputs.labels[mask])
    loss = (nll / mask.sum(1, keepdim=True).expand_as(mask)[mask]).sum()
    if not torch.isfinite(loss):
        raise non_finite_error(model, forward_in_rows)
    return loss, nll.new_zeros(mask.shape).masked_scatter_(mask, nll.detach())


def backward_reduce(
    model: HookedModel, loss: Float[Tensor, ""], recorder: SaliencyRecorder[Reduced], scales: Sequence[float]
) -> list[Reduced]:
    """Run the backward pass and return the reduced saliency of each layer.

    Args:
        model: the model whose loss it is.
        loss: of `forward_loss`.
        recorder: whose hooks were on the model.
        scales: factors of the loss, tried in turn until the saliency is finite.

    Raises:
        DPCInterpError: a pattern is not on the loss path.
        NonFiniteError: the saliency is not finite.
    """
    for scale in scales if loss.requires_grad else ():  # otherwise no pattern is on the loss path
        recorder.loss_scale = scale
        # only as far as the first pattern, and no gradient into the caller's weights
        torch.autograd.grad(
            loss,
            recorder.gradient.graph_root,
            torch.full_like(loss, scale),
            retain_graph=scale != scales[-1],
            allow_unused=True,  # in an unfrozen model with no pattern on the loss path
        )
        if all(recorder.is_finite.values()):
            break
    missing = sorted(set(range(model.cfg.n_layers)) - set(recorder.reduced))
    if missing:
        raise DPCInterpError(
            f"no gradient reached the pattern of layer {missing[0]}, which is not on the loss path; "
            f"{suggest_pattern_fix(model)}"
        )
    deepest = max((layer for layer, is_finite in recorder.is_finite.items() if not is_finite), default=None)
    if deepest is not None:  # gradients run from the deepest layer to the first
        raise NonFiniteError(f"the saliency is not finite from layer {deepest} down; {suggested_fix(model)}")
    return [recorder.reduced[layer] for layer in range(model.cfg.n_layers)]
