"""`generate` gives one transcript for each problem, in order, whatever the batches, drafts and memory."""

from __future__ import annotations

import pytest
import torch

from dpc_interp import CorruptionPlan, Problem, SoftPrompt, Transcript, generate
from dpc_interp.errors import ContextLengthError, DPCInterpError
from dpc_interp.generation.decoding import decode
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.hooked import HookedModel

OPTIONS = {"max_new_tokens": 24, "progress": False}


def tokens_of(runs: list[Transcript]) -> list[list[int]]:
    return [run.generated_tokens.tolist() for run in runs]


@pytest.fixture(scope="module", params=["prompted", "bare"])
def either(request: pytest.FixtureRequest, prompt: SoftPrompt) -> SoftPrompt | None:
    return prompt if request.param == "prompted" else None


def test_transcripts_hold_what_decode_returns(
    model: HookedModel, problems: list[Problem], either: SoftPrompt | None
) -> None:
    """One question at a time, in the order of the problems."""
    runs = generate(model, problems[:6], either, **OPTIONS)
    assert [run.problem for run in runs] == problems[:6]
    for run in runs:
        question = encode_question(model, run.problem.question)
        with torch.no_grad():
            (generated,) = decode(model, [question], None if either is None else either.vectors, None, 24)
        assert torch.equal(run.question_tokens, question)
        assert torch.equal(run.generated_tokens, generated)
        assert run.text == model.tokenizer.decode(generated, skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_text_does_not_depend_on_the_batch_size(
    model: HookedModel, problems: list[Problem], either: SoftPrompt | None, batch_size: int
) -> None:
    problems = problems[:8]
    runs = generate(model, problems, either, **OPTIONS)
    assert tokens_of(generate(model, problems, either, batch_size=batch_size, **OPTIONS)) == tokens_of(runs)


def test_plans_and_drafts_follow_their_problems_into_batches(
    model: HookedModel, problems: list[Problem], prompt: SoftPrompt
) -> None:
    """Batches are formed by length, so a plan or draft at the wrong problem would change a text or no plan."""
    problems = problems[:8]
    plans = [CorruptionPlan((i % prompt.n_virtual,), gamma=25.0 * (i % 2)) for i in range(8)]
    one_by_one = [generate(model, [problems[i]], prompt, plans=[plans[i]], **OPTIONS)[0] for i in range(8)]
    drafts = [run.generated_tokens for run in generate(model, problems, prompt, **OPTIONS)]
    runs = generate(model, problems, prompt, plans=plans, draft_tokens=drafts, batch_size=3, **OPTIONS)
    assert tokens_of(runs) == tokens_of(one_by_one)
    assert tokens_of(runs) != [ids.tolist() for ids in drafts]


def test_the_old_keyword_of_drafts_warns(model: HookedModel, problems: list[Problem], prompt: SoftPrompt) -> None:
    runs = generate(model, problems[:2], prompt, **OPTIONS)
    with pytest.warns(DeprecationWarning, match="drafts= is deprecated .* use draft_tokens="):
        again = generate(model, problems[:2], prompt, drafts=[run.generated_tokens for run in runs], **OPTIONS)
    assert tokens_of(again) == tokens_of(runs)


def test_max_new_tokens_is_the_most(model: HookedModel, problems: list[Problem]) -> None:
    lengths = [len(run.generated_tokens) for run in generate(model, problems, max_new_tokens=3, progress=False)]
    assert max(lengths) == 3


def test_no_problems_give_no_transcripts(model: HookedModel, prompt: SoftPrompt) -> None:
    assert generate(model, [], prompt, plans=[], progress=False) == []


def test_the_model_is_not_changed(model: HookedModel, problems: list[Problem], prompt: SoftPrompt, unchanged) -> None:
    with unchanged(model):
        generate(model, problems[:3], prompt, max_new_tokens=3, progress=False)


def test_a_batch_that_does_not_fit_into_memory_is_halved(model, prompt, problems, monkeypatch) -> None:
    runs, sizes = generate(model, problems[:6], prompt, max_new_tokens=6, progress=False), []

    def decode_at_most_two(model, questions, *args):
        sizes.append(len(questions))
        if len(questions) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return decode(model, questions, *args)

    monkeypatch.setattr("dpc_interp.generation.generate.decode", decode_at_most_two)
    with pytest.warns(UserWarning, match="did not fit into memory"):
        halved = generate(model, problems[:6], prompt, max_new_tokens=6, progress=False)
    assert tokens_of(halved) == tokens_of(runs)
    assert sizes == [6, 3, 2, 2, 2]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"plans": [CorruptionPlan(())]}, "one plan for each problem"),
        ({"prompt": None, "plans": [CorruptionPlan(())] * 3}, "corruption needs a soft prompt"),
        ({"draft_tokens": [torch.tensor([5])]}, "got 1 draft_tokens for 3 problems; give one for each"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"prompt": SoftPrompt(torch.zeros(5, 8))}, "tune one for it"),
    ],
)
def test_bad_input_raises(model: HookedModel, problems: list[Problem], prompt: SoftPrompt, options, match) -> None:
    with pytest.raises(DPCInterpError, match=match):
        generate(model, problems[:3], **({"prompt": prompt, "progress": False} | options))


def test_past_the_context_raises(model: HookedModel, problems: list[Problem], prompt: SoftPrompt) -> None:
    n_ctx, n_question = model.cfg.n_ctx, len(encode_question(model, problems[0].question))
    n_left = n_ctx - n_question - prompt.n_virtual
    generate(model, problems[:1], prompt, max_new_tokens=n_left, progress=False)
    with pytest.raises(ContextLengthError):
        generate(model, problems[:1], prompt, max_new_tokens=n_left + 1, progress=False)
