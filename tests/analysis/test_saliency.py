"""`saliency` against autograd on ones, finite differences and a flow worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp import (
    DPCInterpError,
    SoftPrompt,
    generate,
    load_model,
    load_problems,
    load_prompt,
    prompted,
    saliency,
)
from dpc_interp.errors import NonFiniteError
from dpc_interp.models.lens import HAS_HOOKED, HookedTransformer

N_QUESTION = 6
TOKENS = torch.tensor([1, 40, 51, 62, 9, 13, 20, 33, 20, 87, 101, 2])
REDUCE: dict[str, Callable[[Tensor], Tensor]] = {
    "abs_of_sum": lambda product: product.sum(1).abs(),
    "sum_of_abs": lambda product: product.abs().sum(1),
    "mean_of_abs": lambda product: product.abs().mean(1),
}


def loss_of(model: HookedTransformer, vectors: Tensor, change: Callable[[Tensor, HookPoint], Tensor]) -> Tensor:
    """Mean NLL of the tokens after the question; `change` is applied to each pattern, a hook writes the prompt."""
    n = len(vectors)
    ids = torch.cat([torch.full((n,), 7), TOKENS])[None]
    hooks = [
        ("hook_embed", lambda value, hook: torch.cat([vectors[None].to(value), value[:, n:]], dim=1)),
        (lambda name: name.endswith("hook_pattern"), change),
    ]
    predicted = model.run_with_hooks(ids, fwd_hooks=hooks)[0, n + N_QUESTION - 1 : -1].log_softmax(-1)
    return -predicted.gather(1, TOKENS[N_QUESTION:, None]).mean()


def brute_force(model: HookedTransformer, vectors: Tensor) -> Tensor:
    """A * dL/dA [layer, head, dest, src]: the gradient of the loss to ones multiplied into each pattern."""
    size = len(vectors) + len(TOKENS)
    shape = (model.cfg.n_heads, size, size)
    ones = [torch.ones(shape, dtype=model.cfg.dtype, requires_grad=True) for _ in range(model.cfg.n_layers)]
    loss = loss_of(model, vectors, lambda pattern, hook: pattern * ones[hook.layer()])
    return torch.stack(torch.autograd.grad(loss, ones))


@pytest.mark.parametrize("reduction", REDUCE)
def test_equals_the_gradient_of_ones(each_model: HookedTransformer, prompt: SoftPrompt, reduction: str) -> None:
    expected = REDUCE[reduction](brute_force(each_model, prompt.vectors))
    expected.diagonal(dim1=1, dim2=2).zero_()
    values = saliency(each_model, TOKENS, prompt, N_QUESTION, head_reduction=reduction)  # type: ignore[arg-type]
    assert values.dtype == torch.float32
    assert values.shape == expected.shape
    for layer in range(len(expected)):
        assert expected[layer].max() > 1e-4
        assert (values[layer] - expected[layer]).abs().max() <= 1e-5 * expected[layer].max()


@pytest.mark.parametrize("kind", ["gqa", "plain", "learned"])
def test_every_entry_in_double_precision(
    build: Callable[..., HookedTransformer], prompt: SoftPrompt, kind: str
) -> None:
    """Nothing cancels between heads here, so every entry can be compared to 1e-5."""
    model = build(kind, dtype=torch.float64)
    expected = REDUCE["sum_of_abs"](brute_force(model, prompt.vectors)).tril(-1)
    values = saliency(model, TOKENS, prompt.vectors, N_QUESTION, head_reduction="sum_of_abs").double()
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["gqa", "learned"])
def test_gradient_is_that_of_finite_differences(
    build: Callable[..., HookedTransformer], prompt: SoftPrompt, kind: str
) -> None:
    if kind == "gqa" and not HAS_HOOKED:
        pytest.skip("Hugging Face's Llama computes its norms in float32, too imprecise for differences of 1e-5")
    model = build(kind, dtype=torch.float64)
    size, step = len(prompt.vectors) + len(TOKENS), 1e-5
    patterns = torch.zeros(model.cfg.n_layers, model.cfg.n_heads, size, size, dtype=torch.float64)

    def record(pattern: Tensor, hook: HookPoint) -> None:
        patterns[hook.layer()] = pattern[0]

    loss_of(model, prompt.vectors, record)
    values = saliency(model, TOKENS, prompt, N_QUESTION)
    generator = torch.Generator().manual_seed(1)
    for layer in range(model.cfg.n_layers):
        for _ in range(6):
            i = int(torch.randint(2, size - 1, (), generator=generator))
            j = int(torch.randint(i, (), generator=generator))
            signed = 0.0
            for head in range(model.cfg.n_heads):

                def shifted(by: float, layer: int = layer, head: int = head, i: int = i, j: int = j) -> float:
                    def shift(pattern: Tensor, hook: HookPoint) -> Tensor:
                        if hook.layer() != layer:
                            return pattern
                        moved = pattern.clone()
                        moved[0, head, i, j] += by
                        return moved

                    return loss_of(model, prompt.vectors, shift).item()

                slope = (shifted(step) - shifted(-step)) / (2 * step)
                signed += patterns[layer, head, i, j].item() * slope
            assert values[layer, i, j].item() == pytest.approx(abs(signed), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("reduction", REDUCE)
def test_plain_text_equals_the_gradient_of_ones(each_model: HookedTransformer, reduction: str) -> None:
    expected = REDUCE[reduction](brute_force(each_model, torch.empty(0, each_model.cfg.d_model)))
    expected.diagonal(dim1=1, dim2=2).zero_()
    values = saliency(each_model, TOKENS, None, N_QUESTION, head_reduction=reduction)  # type: ignore[arg-type]
    assert values.shape == expected.shape == (each_model.cfg.n_layers, len(TOKENS), len(TOKENS))
    for layer in range(len(expected)):
        assert expected[layer].max() > 1e-4
        assert (values[layer] - expected[layer]).abs().max() <= 1e-5 * expected[layer].max()


@pytest.mark.parametrize("n_virtual", [1, 4])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_plain_text_is_a_prompt_of_its_own_embeddings(
    any_model: HookedTransformer, n_virtual: int, checkpointing: bool
) -> None:
    """The first tokens, BOS among them, as virtual tokens at the same positions."""
    plain = saliency(any_model, TOKENS, None, N_QUESTION, gradient_checkpointing=checkpointing)
    vectors = any_model.W_E[TOKENS[:n_virtual]].detach()
    as_prompt = saliency(any_model, TOKENS[n_virtual:], SoftPrompt(vectors), N_QUESTION - n_virtual)
    assert (plain - as_prompt).abs().max() <= 1e-5 * plain.max()


def test_a_question_of_bos_alone_needs_no_prompt(model: HookedTransformer) -> None:
    values = saliency(model, TOKENS, None, 1)
    assert (values[:, 1:-1, 0] > 0).all()


def wired_by_hand() -> tuple[HookedTransformer, Tensor]:
    """Two attention layers of one head, no norm, no MLP, no positions; values and unembedding are the identity."""
    from transformer_lens import HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=2,
        d_model=2,
        n_heads=1,
        d_head=2,
        n_ctx=4,
        d_vocab=2,
        attn_only=True,
        normalization_type=None,
        device="cpu",
    )
    model = HookedTransformer(cfg)
    for weight in model.parameters():
        weight.data.zero_()
    for block in model.blocks:
        block.attn.W_V.data[0] = block.attn.W_O.data[0] = torch.eye(2)
    model.unembed.W_U.data = torch.eye(2)
    model.embed.W_E.data = torch.tensor([[1.0, -2.0], [0.5, -0.0625]])
    return model, torch.tensor([[-1.0, 2.0]])


@pytest.mark.usefixtures("needs_hooked")
def test_two_layers_and_four_tokens_by_hand() -> None:
    """Prompt p, question (token 0, token 1), rationale (token 0): positions 0 to 3, one loss, at position 2.

    Queries are zero, so every row of both patterns is uniform, A[i, j] = 1 / (i + 1), and no gradient passes through
    the patterns. Only the difference d = second - first entry of each vector matters to a softmax over two tokens:
        d(p) = 3, d(token 0) = -3, d(token 1) = -9/16.
    Layer 0 adds the mean up to each position:  h0 = 3 + 3 = 6,  h1 = -3 + 0 = -3,  h2 = -9/16 + (-9/16) / 3 = -3/4.
    Layer 1 at position 2:                     -3/4 + (6 - 3 - 3/4) / 3 = 0: both tokens have probability 1/2.
    The target is the first token: dL/d(logits) = (-1/2, 1/2) = g, so g . x = d(x) / 2.
    Layer 1: dL/dA[2, j] = g . h_j, A = 1/3:   I[2, 0] = 6 / 2 / 3 = 1,  I[2, 1] = 3 / 2 / 3 = 1/2.
    Layer 0: dL/dh2 = g (1 + 1/3), dL/dh1 = dL/dh0 = g / 3:
        I[2, 0] = 1/3 * 4/3 * 3/2 = 2/3,  I[2, 1] = 1/3 * 4/3 * 3/2 = 2/3,  I[1, 0] = 1/2 * 1/3 * 3/2 = 1/4.
    No loss depends on position 3; the diagonal is left out.
    """
    model, vectors = wired_by_hand()
    expected = torch.zeros(2, 4, 4)
    expected[0, 1, 0], expected[0, 2, 0], expected[0, 2, 1] = 1 / 4, 2 / 3, 2 / 3
    expected[1, 2, 0], expected[1, 2, 1] = 1, 1 / 2
    torch.testing.assert_close(saliency(model, torch.tensor([0, 1, 0]), vectors, 2), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_differs_by_its_rounding(
    build: Callable[..., HookedTransformer], prompt: SoftPrompt, dtype: torch.dtype
) -> None:
    """The saliency is float32, and each layer is within 10 machine epsilons (8% and 1%) of the float32 model's."""
    exact = saliency(build("gqa"), TOKENS, prompt, N_QUESTION)
    rounded = saliency(build("gqa", dtype=dtype), TOKENS, prompt, N_QUESTION)
    assert rounded.dtype == torch.float32
    error = (rounded - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert error.max() < 10 * torch.finfo(dtype).eps


def is_pattern(name: str) -> bool:
    return name.endswith("hook_pattern")


@pytest.fixture(scope="module")
def reasoner() -> tuple[HookedTransformer, HookedTransformer, SoftPrompt, torch.Tensor]:
    """The reasoner in float16, with the same rounded weights in float32, its prompt, and a question with its answer."""
    half = load_model("reasoner", device="cpu", dtype=torch.float16)
    exact = load_model("reasoner", device="cpu")
    with torch.no_grad():
        for weight, rounded in zip(exact.parameters(), half.parameters(), strict=True):
            weight.copy_(rounded)
    prompt = load_prompt("reasoner/story")
    runs = generate(exact, load_problems("story", n=4), prompt, progress=False)
    run = max(runs, key=lambda run: len(run.tokens))
    return half, exact, prompt, run


@pytest.mark.parametrize("checkpointing", [False, True])
def test_float16_gradients_do_not_underflow(reasoner, checkpointing: bool, monkeypatch) -> None:
    """Measured here: with a loss scale 43% of the edges from the prompt to the rationale are 0, all of them because the
    pattern is 0 in float16, and the mean flow of a layer is off by at most 3% (float16 rounding of the forward pass).
    Without one 84% are 0, and a layer loses 99% of its flow. In float32 no edge is 0.
    """
    half, exact, prompt, run = reasoner
    n_question = len(run.question_tokens)
    first = prompt.n_virtual + n_question

    def edges(model: HookedTransformer) -> Tensor:
        values = saliency(model, run.tokens, prompt, n_question, gradient_checkpointing=checkpointing)
        return values[:, first:-1, : prompt.n_virtual].double()

    expected, scaled = edges(exact), edges(half)
    monkeypatch.setattr("dpc_interp.analysis.saliency.loss_scales", lambda model: (1.0,))
    unscaled = edges(half)
    patterns: list[Tensor] = []

    def keep(pattern: Tensor, hook: HookPoint) -> None:
        patterns.append(pattern)

    with prompted(half, prompt) as forward, half.hooks(fwd_hooks=[(is_pattern, keep)]):
        forward(run.tokens[None])
    pattern_is_zero = torch.stack(patterns, 1)[0, :, :, first:-1, : prompt.n_virtual].eq(0).all(1)
    assert not (expected == 0).any()
    assert ((scaled == 0) & ~pattern_is_zero).double().mean() < 0.01
    assert ((unscaled == 0) & ~pattern_is_zero).double().mean() > 0.2
    error, error_unscaled = ((values.mean((1, 2)) / expected.mean((1, 2)) - 1).abs() for values in (scaled, unscaled))
    assert error.max() < 0.05
    assert error_unscaled.max() > 0.5


def test_a_float16_loss_scale_that_overflows_is_lowered(build, prompt: SoftPrompt, monkeypatch) -> None:
    """The unembedding is so large that the first gradient overflows times 2**16, and not times 2**4."""
    model = build("gqa", dtype=torch.float16)
    expected = saliency(model, TOKENS, prompt, N_QUESTION)
    tried: list[float] = []
    backward = torch.autograd.grad

    def record(loss: Tensor, root: Tensor, scale: Tensor, **options: bool) -> tuple[Tensor, ...]:
        tried.append(float(scale))
        return backward(loss, root, scale, **options)

    monkeypatch.setattr(torch.autograd, "grad", record)
    saliency(model, TOKENS, prompt, N_QUESTION)
    assert tried == [2.0**16]
    model.add_hook("unembed.hook_in", lambda resid, hook: resid * 256)
    model.unembed.W_U.data *= 8
    tried.clear()
    values = saliency(model, TOKENS, prompt, N_QUESTION)
    assert len(tried) > 1
    assert tried == [2.0**16, 2.0**12, 2.0**8, 2.0**4, 1.0][: len(tried)]
    exact = build("gqa")
    exact.unembed.W_U.data *= 8
    exact.add_hook("unembed.hook_in", lambda resid, hook: resid * 256)
    wide = saliency(exact, TOKENS, prompt, N_QUESTION)
    assert ((values - wide).norm() / wide.norm()) < 0.1
    assert expected.max() > 0


def test_a_float16_gradient_that_always_overflows_is_an_error(build, prompt: SoftPrompt) -> None:
    model = build("gqa", dtype=torch.float16)

    def infinite_gradient(resid: Tensor, hook: HookPoint) -> None:
        resid.register_hook(lambda gradient: gradient * float("inf"))

    model.add_hook("blocks.1.hook_resid_post", infinite_gradient)
    with pytest.raises(NonFiniteError, match="from layer 1 down; load the model in float32 or bfloat16"):
        saliency(model, TOKENS, prompt, N_QUESTION)


def test_autocast_to_float16_has_float16_gradients(reasoner) -> None:
    """The weights are float32, the products are not."""
    _, exact, prompt, run = reasoner
    first = prompt.n_virtual + len(run.question_tokens)

    def flow() -> Tensor:
        return saliency(exact, run.tokens, prompt, len(run.question_tokens))[:, first:-1, : prompt.n_virtual]

    expected = flow().mean((1, 2))
    with torch.autocast("cpu", dtype=torch.float16):
        values = flow()
    assert ((values.mean((1, 2)) / expected - 1).abs() < 0.1).all()


def test_unfrozen_model_under_no_grad(build: Callable[..., HookedTransformer], prompt: SoftPrompt, unchanged) -> None:
    frozen = saliency(build("plain"), TOKENS, prompt, N_QUESTION)
    model = build("plain").requires_grad_(True)
    with unchanged(model), torch.no_grad():
        assert torch.equal(saliency(model, TOKENS, prompt, N_QUESTION), frozen)


def test_the_model_is_left_unchanged(each_model: HookedTransformer, prompt: SoftPrompt, unchanged) -> None:
    with unchanged(each_model):
        saliency(each_model, TOKENS, prompt, N_QUESTION)


def test_the_model_is_left_unchanged_after_an_error(
    model: HookedTransformer, prompt: SoftPrompt, unchanged, monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpc_interp.analysis.recorder.reduce_heads", fail)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        saliency(model, TOKENS, prompt, N_QUESTION)


def test_a_pattern_off_the_loss_path_raises(build: Callable[..., HookedTransformer], prompt: SoftPrompt) -> None:
    model = build("gqa")
    model.add_hook("blocks.1.attn.hook_z", lambda z, hook: z.detach())
    with pytest.raises(DPCInterpError, match="pattern of layer 1"):
        saliency(model, TOKENS, prompt, N_QUESTION)
