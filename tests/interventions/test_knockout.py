"""Removing an edge equals a score of minus infinity, in one forward pass and during decoding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dpc_interp import Analysis, CorruptionPlan, Problem, SoftPrompt, accumulation_peaks, analyse, generate, prompted
from dpc_interp.errors import DPCInterpError, ShapeError
from dpc_interp.interventions.knockout import KnockoutPlan, edge_mask, knocked_out, plan_knockout
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.lens import HookedTransformer

TOKENS = torch.tensor([[1, 40, 51, 62, 9, 13], [1, 33, 20, 87, 101, 2]])
N = 5 + TOKENS.shape[1]
MAX_NEW = 16


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def random_edges(*batch: int) -> dict[int, Tensor]:
    """About a third of the edges of layer 0 and of layer 1."""
    generator = torch.Generator().manual_seed(1)
    return {layer: (torch.rand(*batch, N, N, generator=generator) < 0.3).tril(-1) for layer in (0, 1)}


def score_hooks(model: HookedTransformer, edges: dict[int, Tensor]) -> list[tuple[str, Callable]]:
    return [
        (
            f"blocks.{layer}.attn.hook_attn_scores",
            lambda scores, hook, mask=mask: scores.masked_fill(mask if mask.ndim == 2 else mask[:, None], -torch.inf),
        )
        for layer, mask in edges.items()
    ]


@pytest.mark.parametrize("batch", [(), (2,)], ids=["one mask", "a mask a row"])
def test_equals_a_score_of_minus_infinity(each_model: HookedTransformer, prompt: SoftPrompt, batch: tuple[int]) -> None:
    edges = random_edges(*batch)
    with prompted(each_model, prompt) as run:
        plain = run(TOKENS)
        with each_model.hooks(fwd_hooks=score_hooks(each_model, edges)):
            expected = run(TOKENS)
        with knocked_out(each_model, edges):
            logits = run(TOKENS)
    assert (logits - plain).abs().max() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_acts_the_same_on_a_bridge(
    family: str, hugging_face: Callable, bridge: Callable, hooked: Callable, prompt: SoftPrompt, unchanged
) -> None:
    logits = []
    for model in (bridge(hugging_face(family)), hooked(hugging_face(family))):
        with unchanged(model), prompted(model, prompt) as run, knocked_out(model, random_edges()):
            logits.append(run(TOKENS))
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_removing_no_edge_changes_nothing(each_model: HookedTransformer, prompt: SoftPrompt) -> None:
    with prompted(each_model, prompt) as run:
        plain = run(TOKENS)
        for edges in ({}, {0: edge_mask([], N), 1: edge_mask([], N)}):
            with knocked_out(each_model, edges):
                assert torch.equal(run(TOKENS), plain)


def test_only_the_row_of_a_removed_edge_changes(model: HookedTransformer) -> None:
    """And the row keeps its mass."""
    patterns: list[Tensor] = []
    record = ("blocks.1.attn.hook_pattern", lambda pattern, hook: patterns.append(pattern.clone()))
    for edges in ({}, {1: edge_mask([(4, 1), (4, 2)], 6)}):
        with knocked_out(model, edges), model.hooks(fwd_hooks=[record]):
            model(TOKENS)
    before, after = patterns
    others = [0, 1, 2, 3, 5]
    assert torch.equal(before[:, :, others], after[:, :, others])
    assert (after[:, :, 4, [1, 2]] == 0).all()
    torch.testing.assert_close(after.sum(-1), torch.ones(2, 4, 6))
    ratio = after[:, :, 4, [0, 3, 4]] / before[:, :, 4, [0, 3, 4]]
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio))


def test_the_model_is_restored(each_model: HookedTransformer, prompt: SoftPrompt, unchanged) -> None:
    with unchanged(each_model), prompted(each_model, prompt) as run, knocked_out(each_model, random_edges()):
        run(TOKENS)
    with unchanged(each_model), pytest.raises(KeyboardInterrupt), knocked_out(each_model, {0: edge_mask([(4, 1)], 6)}):
        interrupt(each_model(TOKENS))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({9: torch.zeros(6, 6, dtype=torch.bool)}, "no layer 9"),
        ({0: edge_mask([(3, 3)], 6)}, "later position"),
        ({0: edge_mask([(2, 3)], 6)}, "later position"),
        ({0: torch.zeros(6, 5, dtype=torch.bool)}, "destination, source"),
        ({0: torch.zeros(3, 6, 6, dtype=torch.bool)}, "of its size"),
        ({0: edge_mask([(3, 1)], 7)}, "of its size"),
    ],
)
def test_edges_that_do_not_fit_raise(
    model: HookedTransformer, edges: dict[int, Tensor], message: str, unchanged
) -> None:
    with unchanged(model), pytest.raises(DPCInterpError, match=message), knocked_out(model, edges):
        model(TOKENS)


def test_a_row_without_a_source_raises(model: HookedTransformer, unchanged) -> None:
    """All attention of the row is on the removed edge, so that there is nothing to rescale."""
    first = torch.zeros(6, 6)
    first[:, 0] = 1
    hook = ("blocks.0.attn.hook_pattern", lambda pattern, hook: first.expand_as(pattern))
    cut, raises = (
        knocked_out(model, {0: edge_mask([(3, 0)], 6)}),
        pytest.raises(DPCInterpError, match="no source left"),
    )
    with unchanged(model), raises, model.hooks(fwd_hooks=[hook]), cut:
        model(TOKENS)
    with pytest.raises(DPCInterpError, match=r"no edge \(6, 0\)"):
        edge_mask([(6, 0)], 6)
    with knocked_out(model, {}), pytest.raises(ShapeError), knocked_out(model, {0: edge_mask([], 4)}):
        model(TOKENS)


def decode_uncached(
    model: HookedTransformer, question: Tensor, vectors: Tensor, plan: KnockoutPlan | CorruptionPlan
) -> list[int]:
    """Greedy decoding by full forward passes of one sequence; edges are removed at the scores."""
    n, generated = len(vectors), []
    vectors = plan(vectors)
    while len(generated) < MAX_NEW and (not generated or generated[-1] != model.tokenizer.eos_token_id):
        ids = torch.cat([torch.full((n,), 9), question, torch.tensor(generated, dtype=torch.long)])[None]
        first, hooks = n + len(question), []
        if isinstance(plan, KnockoutPlan):
            mask = edge_mask([(i, j) for i in range(first, ids.shape[1]) for j in plan.tokens], ids.shape[1])
            layers = range(model.cfg.n_layers) if plan.layers is None else plan.layers
            hooks = score_hooks(model, dict.fromkeys(layers, mask))
        embed = ("hook_embed", lambda value, hook: torch.cat([vectors[None], value[:, n:]], dim=1))
        generated.append(int(model.run_with_hooks(ids, fwd_hooks=[embed, *hooks])[0, -1].argmax()))
    return generated


@pytest.fixture(scope="module")
def strong(prompt: SoftPrompt) -> SoftPrompt:
    """Vectors large enough that hiding one changes texts."""
    return SoftPrompt(3 * prompt.vectors)


def test_decoded_text_is_that_of_full_passes(
    model: HookedTransformer, problems: list[Problem], strong: SoftPrompt, unchanged
) -> None:
    """With left padding, a cache, rows that end at different times, plans of both kinds, and draft tokens."""
    kinds = [KnockoutPlan((1, 3)), KnockoutPlan((2,), (1, 2)), KnockoutPlan(), CorruptionPlan((2,), gamma=20)]
    plans = [kinds[i % 4] for i in range(len(problems))]
    expected = [
        decode_uncached(model, encode_question(model, p.question), strong.vectors, plan)
        for p, plan in zip(problems, plans, strict=True)
    ]
    options = {"max_new_tokens": MAX_NEW, "progress": False}
    plain = [run.generated_tokens for run in generate(model, problems, strong, **options)]
    assert len({len(ids) for ids in expected}) > 3, "rows must leave the batch at different times"
    changed = [tokens.tolist() != ids for tokens, ids in zip(plain, expected, strict=True)]
    assert sum(changed[0::4]) > 1
    assert not any(changed[2::4])
    with unchanged(model):
        for more in ({"batch_size": 7}, {"draft_tokens": plain}, {"draft_tokens": [ids[:4] for ids in plain]}):
            runs = generate(model, problems, strong, plans=plans, **options, **more)
            assert [run.generated_tokens.tolist() for run in runs] == expected


def test_decoding_on_a_bridge(
    hugging_face: Callable, bridge: Callable, hooked: Callable, problems: list[Problem], prompt: SoftPrompt
) -> None:
    plans = [KnockoutPlan((1, 2, 3, 4))] * 6
    texts = []
    for model in (bridge(hugging_face("llama")), hooked(hugging_face("llama"))):
        runs = generate(model, problems[:6], prompt, plans=plans, max_new_tokens=8, progress=False)
        texts.append([run.generated_tokens.tolist() for run in runs])
    assert texts[0] == texts[1]


def test_a_plan_of_an_unknown_token_or_layer_raises(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt
) -> None:
    for plan, message in ((KnockoutPlan((9,)), "names token 9"), (KnockoutPlan((1,), (7,)), "no layer 7")):
        with pytest.raises(DPCInterpError, match=message):
            generate(model, problems[:1], prompt, plans=[plan], progress=False)


def test_plans_hide_the_accumulation_token(model: HookedTransformer, prompt: SoftPrompt, written: Callable) -> None:
    runs = [written("buys 8: 9 + 8 = 17\n#### 17"), written("9 + 8 = 17\n#### 17", name="story-1")]
    analysis: Analysis = analyse(model, runs, prompt, progress=False)
    tokens = accumulation_peaks(analysis.accumulation)["peak_token"]
    plans = plan_knockout(analysis, knock_out_at=(0, 2))
    assert plans == [KnockoutPlan((int(tokens[run.problem.id]),), (0, 2)) for run in runs]
    with pytest.raises(DPCInterpError, match="no layer 5"):
        plan_knockout(analysis, knock_out_at=(5,))
