"""Batched, cached decoding against one question at a time with a full forward pass for every token."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dpc_interp import CorruptionPlan, Problem, SoftPrompt, Transcript, generate
from dpc_interp.errors import DPCInterpError
from dpc_interp.lm.decoding import decode
from dpc_interp.lm.drafts import AHEAD
from dpc_interp.lm.generation import question_tokens
from dpc_interp.lm.lens import HookedTransformer

MAX_NEW = 24


def slow(model: HookedTransformer, question: Tensor, vectors: Tensor | None) -> list[int]:
    """Greedy decoding without cache, batch or padding, the prompt joined on by hand."""
    vectors = torch.zeros(0, model.cfg.d_model) if vectors is None else vectors
    n, written = len(vectors), []
    while len(written) < MAX_NEW and (not written or written[-1] != model.tokenizer.eos_token_id):
        ids = torch.cat([torch.full((n,), 9), question, torch.tensor(written, dtype=torch.long)])[None]
        hook = ("hook_embed", lambda value, hook: torch.cat([vectors[None], value[:, n:]], dim=1))
        written.append(int(model.run_with_hooks(ids, fwd_hooks=[hook])[0, -1].argmax()))
    return written


def written(run: Transcript) -> Tensor:
    return run.generated_tokens


def tokens_of(runs: list[Transcript]) -> list[list[int]]:
    return [run.generated_tokens.tolist() for run in runs]


@pytest.fixture(scope="module", params=["prompted", "bare"])
def either(request: pytest.FixtureRequest, prompt: SoftPrompt) -> SoftPrompt | None:
    return prompt if request.param == "prompted" else None


def test_cached_is_uncached(model: HookedTransformer, problems: list[Problem], either: SoftPrompt | None) -> None:
    vectors = None if either is None else either.vectors
    expected = [slow(model, question_tokens(model, p.question), vectors) for p in problems]
    lengths = {len(ids) for ids in expected}
    assert len(lengths) > 4, "rows must leave the batch at different times"
    assert MAX_NEW in lengths, "and one must not stop by itself"
    found = generate(model, problems, either, max_new_tokens=MAX_NEW, progress=False)
    assert tokens_of(found) == expected


@pytest.mark.parametrize("kind", ["plain", "learned"])
def test_cached_is_uncached_of_other_models(
    build: Callable[..., HookedTransformer], problems: list[Problem], prompt: SoftPrompt, kind: str
) -> None:
    """Left padding must not shift learned positions."""
    model = build(kind, stop_logit=1.8)
    expected = [slow(model, question_tokens(model, p.question), prompt.vectors) for p in problems[:8]]
    assert len({tuple(ids) for ids in expected}) > 4
    assert tokens_of(generate(model, problems[:8], prompt, max_new_tokens=MAX_NEW, progress=False)) == expected


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_text_does_not_depend_on_the_batch(
    model: HookedTransformer, problems: list[Problem], either: SoftPrompt | None, batch_size: int
) -> None:
    whole = generate(model, problems, either, max_new_tokens=MAX_NEW, progress=False)
    found = generate(model, problems, either, max_new_tokens=MAX_NEW, batch_size=batch_size, progress=False)
    assert tokens_of(found) == tokens_of(whole)
    assert [run.problem for run in found] == problems


@pytest.mark.parametrize("kind", ["own", "another prompt's", "cut short", "too long", "spoilt", "shifted", "empty"])
def test_text_does_not_depend_on_the_drafts(
    model: HookedTransformer, problems: list[Problem], either: SoftPrompt | None, kind: str
) -> None:
    own = generate(model, problems, either, max_new_tokens=MAX_NEW, progress=False)
    other = generate(model, problems, None if either else SoftPrompt(torch.ones(2, model.cfg.d_model)), progress=False)
    drafts = {
        "own": [run.generated_tokens for run in own],
        "another prompt's": [run.generated_tokens for run in other],
        "cut short": [run.generated_tokens[:5] for run in own],
        "too long": [torch.cat([run.generated_tokens, torch.full((MAX_NEW,), 7)]) for run in own],
        "spoilt": [torch.where(torch.arange(len(ids)) % 4 == 2, 5, ids) for ids in map(written, own)],
        "shifted": [torch.cat([ids[:4], torch.full((3,), 5), ids[4:]]) for ids in map(written, own)],
        "empty": [run.generated_tokens[:0] for run in own],
    }[kind]
    found = generate(model, problems, either, drafts=drafts, max_new_tokens=MAX_NEW, progress=False)
    assert tokens_of(found) == tokens_of(own)


def test_a_draft_saves_passes(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt, passes: list[tuple[int, ...]]
) -> None:
    """One that holds is read so many tokens in a pass; one that a token spoils is followed again behind it."""
    options = {"max_new_tokens": MAX_NEW, "progress": False}
    own = [run.generated_tokens for run in generate(model, problems, prompt, **options)]
    assert len(passes) == 1 + MAX_NEW, "a prompt, a question and all but the last token"
    spoilt = [torch.where(torch.arange(len(ids)) == len(ids) // 2, 5, ids) for ids in own]
    for drafts, more in ((own, 0), (spoilt, 2)):
        passes.clear()
        assert tokens_of(generate(model, problems, prompt, drafts=drafts, **options)) == [ids.tolist() for ids in own]
        assert all(width <= 1 + AHEAD for _, width in passes[2:])
        assert len(passes) <= 2 + math.ceil((MAX_NEW - 1) / (1 + AHEAD)) + more


def test_a_wrong_draft_stays_within_the_context(
    build: Callable[..., HookedTransformer],
    problems: list[Problem],
    prompt: SoftPrompt,
    passes: list[tuple[int, ...]],
) -> None:
    """Refused tokens stay in the cache: near the end of the context none are read ahead."""
    longest = max(len(question_tokens(build("gqa"), p.question)) for p in problems)
    n_ctx = prompt.n_virtual + longest + MAX_NEW + 10
    model = build("gqa", n_ctx=n_ctx, stop_logit=1.8)
    own = generate(model, problems, prompt, max_new_tokens=MAX_NEW, progress=False)
    passes.clear()
    drafts = [torch.stack([ids, torch.full_like(ids, 5)], dim=1).flatten() for ids in map(written, own)]
    found = generate(model, problems, prompt, drafts=drafts, max_new_tokens=MAX_NEW, progress=False)
    assert tokens_of(found) == tokens_of(own)
    widths = [width for _, width in passes]
    assert n_ctx - 10 < sum(widths) <= n_ctx
    assert max(widths[2:]) == 1 + AHEAD
    assert widths[-1] == 1


def test_a_changed_text_is_that_without_drafts(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt, passes: list[tuple[int, ...]]
) -> None:
    """And the rows that a corruption does not change leave early."""
    runs = generate(model, problems, prompt, max_new_tokens=MAX_NEW, progress=False)
    drafts = [run.generated_tokens for run in runs]
    plans = [CorruptionPlan((j % prompt.n_virtual,) if j % 2 else ()) for j in range(len(problems))]
    corrupted = generate(model, problems, prompt, plans=plans, max_new_tokens=MAX_NEW, progress=False)
    changed = sum(a != b for a, b in zip(tokens_of(corrupted), tokens_of(runs), strict=True))
    assert 0 < changed <= len(problems) // 2
    passes.clear()
    found = generate(model, problems, prompt, plans=plans, drafts=drafts, max_new_tokens=MAX_NEW, progress=False)
    assert tokens_of(found) == tokens_of(corrupted)
    standing = 2 + math.ceil((MAX_NEW - 1) / (1 + AHEAD))
    assert max(rows for rows, _ in passes[standing:]) <= changed
    with pytest.raises(DPCInterpError, match="one for each"):
        generate(model, problems, prompt, drafts=drafts[:1])


def test_each_row_has_its_own_plan(model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt) -> None:
    plans = [CorruptionPlan((i % prompt.n_virtual,), mask=0.0, gamma=25.0 * (i % 2)) for i in range(len(problems))]
    found = generate(model, problems, prompt, plans=plans, max_new_tokens=MAX_NEW, batch_size=7, progress=False)
    expected = [
        slow(model, question_tokens(model, p.question), plan(prompt.vectors))
        for p, plan in zip(problems, plans, strict=True)
    ]
    assert tokens_of(found) == expected
    assert expected != tokens_of(generate(model, problems, prompt, max_new_tokens=MAX_NEW, progress=False))


def test_transcript_reads_and_checks_the_answer(model: HookedTransformer, prompt: SoftPrompt, monkeypatch) -> None:
    """What `decode` returns becomes text, answer and verdict."""
    problem = Problem("story", "Tom has 9 apples.", "#### 17", "17", 1, "story-0")
    ids = torch.tensor([*model.tokenizer("buys 8: 9 + 8 = 17\n#### 17").input_ids, model.tokenizer.eos_token_id])
    monkeypatch.setattr("dpc_interp.lm.generation.decode", lambda *_: [ids])
    (run,) = generate(model, [problem], prompt, progress=False)
    assert (run.text, run.answer, run.correct) == ("buys 8: 9 + 8 = 17\n#### 17", "17", True)
    assert model.tokenizer.decode(run.question_tokens) == "<bos>Tom has 9 apples.\n"


def test_leaves_nothing_behind(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt, unchanged, monkeypatch
) -> None:
    with unchanged(model):
        generate(model, problems[:3], prompt, max_new_tokens=3, progress=False)

    def fail(value: Tensor, hook: object) -> Tensor:
        raise KeyboardInterrupt

    def broken(*_: object) -> Callable[..., Tensor]:
        return fail

    other = ("blocks.0.hook_resid_pre", lambda value, hook: value)  # such a prompt is not shared
    for place, hooks in (("prefix", []), ("decoding", [other])):
        monkeypatch.setattr(f"dpc_interp.lm.{place}.write_prompt", broken)
        with unchanged(model), model.hooks(fwd_hooks=hooks), pytest.raises(KeyboardInterrupt):
            generate(model, problems[:3], prompt, max_new_tokens=3, progress=False)
        monkeypatch.undo()


def test_no_problems_give_no_transcripts(model: HookedTransformer, prompt: SoftPrompt) -> None:
    assert generate(model, [], prompt, plans=[], progress=False) == []


def test_a_batch_that_memory_does_not_hold_is_halved(model, prompt, problems, monkeypatch) -> None:
    whole, sizes = generate(model, problems[:6], prompt, max_new_tokens=6, progress=False), []

    def limited(model, questions, *rest):
        sizes.append(len(questions))
        if len(questions) > 2:
            raise torch.OutOfMemoryError("no room")
        return decode(model, questions, *rest)

    monkeypatch.setattr("dpc_interp.lm.generation.decode", limited)
    with pytest.warns(UserWarning, match="memory did not hold"):
        halved = generate(model, problems[:6], prompt, max_new_tokens=6, progress=False)
    assert [run.text for run in halved] == [run.text for run in whole]
    assert sizes == [6, 3, 2, 2, 2]
