"""Batched, cached decoding against one question at a time with a full forward pass for every token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dpc_interp import CorruptionPlan, Problem, SoftPrompt
from dpc_interp.errors import NonFiniteError
from dpc_interp.generation.decoding import decode
from dpc_interp.generation.drafts import MAX_DRAFT_TOKENS
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.hooked import HookedModel

MAX_NEW = 24


@dataclass(frozen=True)
class Hide:
    """A plan that hides one virtual token from the generated tokens at one layer."""

    layer: int
    token: int

    def __call__(self, vectors: Tensor) -> Tensor:
        return vectors

    def hidden_tokens(self, n_layers: int, n_virtual: int) -> Tensor:
        hidden = torch.zeros(n_layers, n_virtual, dtype=torch.bool)
        hidden[self.layer, self.token] = True
        return hidden


def decode_slowly(
    model: HookedModel, question: Tensor, vectors: Tensor | None, plan: Callable[[Tensor], Tensor] | None = None
) -> list[int]:
    """Greedy decoding without cache, batch or padding; the prompt is joined to the embeddings directly."""
    vectors = torch.zeros(0, model.cfg.d_model) if vectors is None else vectors
    n, generated = len(vectors), []
    edited = vectors if plan is None else plan(vectors)
    first = n + len(question)

    def join(embed: Tensor, hook: object) -> Tensor:
        return torch.cat([edited[None], embed[:, n:]], dim=1)

    def hide(scores: Tensor, hook: object) -> Tensor:
        scores = scores.clone()
        scores[:, :, first:, plan.token] = -torch.inf
        return scores

    hooks = [("hook_embed", join)]
    if isinstance(plan, Hide):
        hooks.append((f"blocks.{plan.layer}.attn.hook_attn_scores", hide))
    while len(generated) < MAX_NEW and (not generated or generated[-1] != model.tokenizer.eos_token_id):
        ids = torch.cat([torch.full((n,), 9), question, torch.tensor(generated, dtype=torch.long)])[None]
        generated.append(int(model.run_with_hooks(ids, fwd_hooks=hooks)[0, -1].argmax()))
    return generated


def encode(model: HookedModel, problems: list[Problem]) -> list[Tensor]:
    return [encode_question(model, problem.question) for problem in problems]


@torch.no_grad()
def decode_fast(model: HookedModel, problems: list[Problem], vectors: Tensor | None, *args: object) -> list[list[int]]:
    plans, drafts = (*args, None, None)[:2]
    return [ids.tolist() for ids in decode(model, encode(model, problems), vectors, plans, MAX_NEW, drafts)]


@pytest.fixture(scope="module", params=["prompted", "bare"])
def vectors(request: pytest.FixtureRequest, prompt: SoftPrompt) -> Tensor | None:
    return prompt.vectors if request.param == "prompted" else None


def test_cached_equals_uncached(model: HookedModel, problems: list[Problem], vectors: Tensor | None) -> None:
    expected = [decode_slowly(model, question, vectors) for question in encode(model, problems)]
    lengths = {len(ids) for ids in expected}
    assert len(lengths) > 4, "rows must leave the batch at different times"
    assert MAX_NEW in lengths, "and one must not stop by itself"
    assert decode_fast(model, problems, vectors) == expected


@pytest.mark.parametrize("kind", ["plain", "learned"])
def test_cached_equals_uncached_for_other_models(
    build: Callable[..., HookedModel], problems: list[Problem], prompt: SoftPrompt, kind: str
) -> None:
    """Left padding must not shift learned positions."""
    model = build(kind, stop_logit=1.8)
    expected = [decode_slowly(model, question, prompt.vectors) for question in encode(model, problems[:8])]
    assert len({tuple(ids) for ids in expected}) > 4
    assert decode_fast(model, problems[:8], prompt.vectors) == expected


def test_each_row_has_its_own_plan(model: HookedModel, problems: list[Problem], prompt: SoftPrompt) -> None:
    problems = problems[:8]
    plans = [CorruptionPlan((i % prompt.n_virtual,), mask=0.0, gamma=25.0 * (i % 2)) for i in range(8)]
    expected = [
        decode_slowly(model, question, prompt.vectors, plan)
        for question, plan in zip(encode(model, problems), plans, strict=True)
    ]
    assert decode_fast(model, problems, prompt.vectors, plans) == expected
    assert expected != decode_fast(model, problems, prompt.vectors)


@pytest.mark.parametrize("shared", [True, False], ids=["shared prompt", "prompt in each row"])
def test_hidden_virtual_tokens_get_no_attention_from_generated_tokens(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt, shared: bool
) -> None:
    """A plan of another kind in the same batch is not affected."""
    problems = problems[:9]
    vectors = 3 * prompt.vectors  # large enough that hiding one changes texts
    kinds = [Hide(0, 1), CorruptionPlan(()), Hide(2, 3)]
    plans = [kinds[i % 3] for i in range(len(problems))]
    questions = encode(model, problems)
    expected = [decode_slowly(model, *pair, plan) for *pair, plan in zip(questions, [vectors] * 9, plans, strict=True)]
    plain = decode_fast(model, problems, vectors)
    changed = [hidden != unhidden for hidden, unhidden in zip(expected, plain, strict=True)]
    assert any(changed[0::3])
    assert any(changed[2::3])
    assert not any(changed[1::3])
    other_hooks = [] if shared else [("blocks.0.hook_resid_pre", lambda resid, hook: resid)]
    with model.hooks(fwd_hooks=other_hooks):
        for drafts in (None, [torch.tensor(ids) for ids in plain]):
            assert decode_fast(model, problems, vectors, plans, drafts) == expected


@pytest.mark.parametrize(
    "kind", ["the answer", "another prompt's", "cut short", "too long", "damaged", "shifted", "empty"]
)
def test_drafts_do_not_change_the_tokens(
    model: HookedModel, problems: list[Problem], vectors: Tensor | None, kind: str
) -> None:
    answers = decode_fast(model, problems, vectors)
    other = decode_fast(model, problems, torch.ones(2, model.cfg.d_model) if vectors is None else None)
    make_draft: Callable[[list[int], list[int]], list[int]] = {
        "the answer": lambda answer, other: answer,
        "another prompt's": lambda answer, other: other,
        "cut short": lambda answer, other: answer[:5],
        "too long": lambda answer, other: answer + [7] * MAX_NEW,
        "damaged": lambda answer, other: [5 if i % 4 == 2 else token for i, token in enumerate(answer)],
        "shifted": lambda answer, other: [*answer[:4], 5, 5, 5, *answer[4:]],
        "empty": lambda answer, other: [],
    }[kind]
    drafts = [torch.tensor(make_draft(*pair), dtype=torch.long) for pair in zip(answers, other, strict=True)]
    assert decode_fast(model, problems, vectors, None, drafts) == answers


def test_a_draft_saves_passes(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt, passes: list[tuple[int, ...]]
) -> None:
    """A draft that equals the answer gives several tokens a pass; after a wrong token it is followed again."""
    answers = decode_fast(model, problems, prompt.vectors)
    assert len(passes) == 1 + MAX_NEW, "the prompt, the question, and all generated tokens but the last"
    damaged = [[5 if i == len(ids) // 2 else token for i, token in enumerate(ids)] for ids in answers]
    for drafts, n_extra in ((answers, 0), (damaged, 2)):
        passes.clear()
        assert decode_fast(model, problems, prompt.vectors, None, list(map(torch.tensor, drafts))) == answers
        assert all(width <= 1 + MAX_DRAFT_TOKENS for _, width in passes[2:])
        assert len(passes) <= 2 + math.ceil((MAX_NEW - 1) / (1 + MAX_DRAFT_TOKENS)) + n_extra


def test_wrong_drafts_stay_within_the_context(
    build: Callable[..., HookedModel], problems: list[Problem], prompt: SoftPrompt, passes: list[tuple[int, ...]]
) -> None:
    """Rejected tokens stay in the cache, so near the end of the context no draft tokens are read."""
    longest = max(len(question) for question in encode(build("gqa"), problems))
    n_ctx = prompt.n_virtual + longest + MAX_NEW + 10
    model = build("gqa", n_ctx=n_ctx, stop_logit=1.8)
    answers = decode_fast(model, problems, prompt.vectors)
    passes.clear()
    drafts = [torch.tensor([[token, 5] for token in ids]).flatten() for ids in answers]
    assert decode_fast(model, problems, prompt.vectors, None, drafts) == answers
    widths = [width for _, width in passes]
    assert n_ctx - 10 < sum(widths) <= n_ctx
    assert max(widths[2:]) == 1 + MAX_DRAFT_TOKENS
    assert widths[-1] == 1


def test_rows_whose_draft_is_right_leave_early(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt, passes: list[tuple[int, ...]]
) -> None:
    """As when answers under corruption are drafted from those without: only the rows that change go on."""
    answers = decode_fast(model, problems, prompt.vectors)
    plans = [CorruptionPlan((j % prompt.n_virtual,) if j % 2 else ()) for j in range(len(problems))]
    corrupted = decode_fast(model, problems, prompt.vectors, plans)
    n_changed = sum(a != b for a, b in zip(corrupted, answers, strict=True))
    assert 0 < n_changed <= len(problems) // 2
    passes.clear()
    assert decode_fast(model, problems, prompt.vectors, plans, list(map(torch.tensor, answers))) == corrupted
    n_verified = 2 + math.ceil((MAX_NEW - 1) / (1 + MAX_DRAFT_TOKENS))
    assert max(n_rows for n_rows, _ in passes[n_verified:]) <= n_changed


def test_logits_that_are_not_finite_raise(model: HookedModel, problems: list[Problem]) -> None:
    broken = ("blocks.0.hook_resid_post", lambda resid, hook: resid * torch.nan)
    with model.hooks(fwd_hooks=[broken]), pytest.raises(NonFiniteError, match="the logits are not finite"):
        decode_fast(model, problems[:2], None)


def test_logits_of_a_later_token_that_are_not_finite_raise(model: HookedModel, problems: list[Problem]) -> None:
    n_passes: list[int] = []

    def break_the_fourth(resid: Tensor, hook: object) -> Tensor:
        n_passes.append(1)
        return resid * torch.nan if len(n_passes) == 4 else resid

    broken = ("blocks.0.hook_resid_post", break_the_fourth)
    with model.hooks(fwd_hooks=[broken]), pytest.raises(NonFiniteError, match="the logits are not finite"):
        decode_fast(model, problems[:2], None)
    assert len(n_passes) == 4


@pytest.mark.parametrize("shared", [True, False], ids=["shared prompt", "prompt in each row"])
def test_no_hook_is_left(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt, unchanged, shared: bool
) -> None:
    def interrupt(vectors: Tensor) -> Tensor:
        raise KeyboardInterrupt

    other_hooks = [] if shared else [("blocks.0.hook_resid_pre", lambda resid, hook: resid)]
    with unchanged(model), model.hooks(fwd_hooks=other_hooks):
        decode_fast(model, problems[:3], prompt.vectors, [Hide(0, 1)] * 3)
    with unchanged(model), model.hooks(fwd_hooks=other_hooks), pytest.raises(KeyboardInterrupt):
        decode_fast(model, problems[:3], prompt.vectors, [interrupt] * 3)


def test_a_hook_added_during_decoding_sees_the_patterns_of_later_passes(
    any_model: HookedModel, prompt: SoftPrompt
) -> None:
    question, passes, seen = torch.tensor([5, 9, 20, 33]), [], []

    def add_in_the_fifth_pass(resid: Tensor, hook: object) -> None:
        passes.append(resid.shape[1])
        if len(passes) == 5:
            any_model.blocks[1].attn.hook_pattern.add_hook(lambda pattern, hook: seen.append(pattern.shape[-2]))

    try:
        with any_model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", add_in_the_fifth_pass)]):
            tokens = decode(any_model, [question], prompt.vectors, None, 9, stop_strings=())[0]
    finally:
        any_model.reset_hooks()
    assert len(passes) == len(tokens) > 6
    assert len(passes) - len(seen) in (4, 5)  # a bridge decides at the start of a pass
    assert set(seen) == {1}
