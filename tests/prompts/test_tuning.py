"""Tuning lowers the loss, returns the best prompt on validation, and changes nothing but the vectors."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import torch
from transformer_lens.hook_points import HookPoint

from dpc_interp import DPCInterpError, Problem, SoftPrompt, TuningConfig, load_problems, prompted, tune_prompt
from dpc_interp.errors import NonFiniteError
from dpc_interp.models.encoding import QuestionFormat, encode_question
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.lens import HookedTransformer
from dpc_interp.prompts.tuning import _example, _gradient, _held_out_loss, prompt_loss

TOKENS = torch.randint(3, 200, (2, 9), generator=torch.Generator().manual_seed(7))
FAST = {
    "n_virtual_tokens": 4,
    "max_steps": 30,
    "batch_size": 8,
    "eval_steps": 5,
    "learning_rate": 0.1,
    "progress": False,
}


@pytest.fixture(scope="module")
def train() -> list[Problem]:
    return load_problems("story", "train", n=40, max_steps=1)


@pytest.fixture(scope="module")
def held_out() -> list[Problem]:
    return load_problems("story", "validation", n=12, max_steps=1)


def validation_loss(model: HookedTransformer, problems: list[Problem], vectors: torch.Tensor) -> float:
    return _held_out_loss(model, [_example(model, p, QuestionFormat()) for p in problems], vectors, 32)


@pytest.fixture(scope="module")
def tuned(model: HookedTransformer, train: list[Problem], held_out: list[Problem]) -> SoftPrompt:
    return tune_prompt(model, train, validation=held_out, name="story/seed0", **FAST)


def test_loss_is_the_mean_over_the_tokens_after_each_question(
    model: HookedTransformer, train: list[Problem], prompt: SoftPrompt
) -> None:
    total = n_tokens = 0.0
    for problem in train[:5]:
        question = encode_question(model, problem.question)
        ids = [*model.tokenizer(problem.rationale, add_special_tokens=False).input_ids, model.tokenizer.eos_token_id]
        with prompted(model, prompt) as run:
            logits = run(torch.cat([question, torch.tensor(ids)])[None])[0]
        for k, token in enumerate(ids):  # the logits one position before token k predict it
            total -= logits[prompt.n_virtual + len(question) + k - 1].log_softmax(-1)[token].item()
        n_tokens += len(ids)
    loss = prompt_loss(model, [_example(model, p, QuestionFormat()) for p in train[:5]], prompt.vectors)
    assert loss.item() == pytest.approx(total / n_tokens, rel=1e-5)
    for batch_size in (1, 2, 5):
        examples = [_example(model, p, QuestionFormat()) for p in train[:5]]
        assert _held_out_loss(model, examples, prompt.vectors, batch_size) == pytest.approx(total / n_tokens, rel=1e-5)


def test_rows_in_groups_have_the_loss_and_gradient_of_one_batch(
    any_model: HookedModel, prompt: SoftPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [(TOKENS[0], 2), (TOKENS[1, :4], 1), (TOKENS[0, 1:], 3), (TOKENS[1, 1:5], 2)]
    results, sizes = [], []

    def count(resid: torch.Tensor, hook: HookPoint) -> None:
        sizes.append(tuple(resid.shape[:2]))

    for cost in (float("inf"), 0.0):
        monkeypatch.setattr("dpc_interp.prompts.tuning.pass_cost", lambda model, cost=cost: cost)
        vectors = prompt.vectors.clone().requires_grad_()
        with any_model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", count)]):
            loss = prompt_loss(any_model, examples, vectors)
        results.append((loss.detach(), torch.autograd.grad(loss, vectors)[0]))
    n, width = prompt.n_virtual, TOKENS.shape[1]
    assert sizes == [(1, n), (4, width), (1, n), (2, 4), (1, width - 1), (1, width)]
    for name, together, in_groups in zip(("loss", "gradient"), *results, strict=True):
        assert together.norm() > 0, name
        torch.testing.assert_close(in_groups, together, rtol=1e-4, atol=1e-5)


def test_loss_falls(model: HookedTransformer, held_out: list[Problem], tuned: SoftPrompt) -> None:
    generator = torch.Generator().manual_seed(0)
    start = model.W_E[torch.randint(model.cfg.d_vocab, (4,), generator=generator)]
    before, after = (validation_loss(model, held_out, vectors) for vectors in (start, tuned.vectors))
    assert after < before - 0.05
    curve = tuned.recipe["learning_curve"]
    assert [row["step"] for row in curve] == [5, 10, 15, 20, 25, 30]
    assert curve[-1]["train"] < curve[0]["train"] - 0.03


def test_recipe_and_shape(tuned: SoftPrompt) -> None:
    assert tuned.vectors.shape == (4, 16)
    assert tuned.name == "story/seed0"
    expected = {"seed": 0, "n_train": 40, "n_validation": 12, "max_steps": 30, "batch_size": 8, "learning_rate": 0.1}
    assert expected.items() <= tuned.recipe.items()


def test_the_seed_determines_the_prompt(
    model: HookedTransformer, train: list[Problem], held_out: list[Problem], tuned: SoftPrompt
) -> None:
    torch.manual_seed(99)  # the global random state must not matter
    again = tune_prompt(model, train, validation=held_out, name="story/seed0", **FAST)
    assert torch.equal(again.vectors, tuned.vectors)
    assert again.recipe == tuned.recipe
    other = tune_prompt(model, train, seed=1, validation=held_out, **FAST)
    assert not torch.allclose(other.vectors, tuned.vectors)


@pytest.fixture(scope="module")
def opposed(model: HookedTransformer, train: list[Problem], held_out: list[Problem]) -> dict[str, list[Problem]]:
    """Train on one word, validate on the word whose unembedding points away: one loss falls, the other rises."""
    directions = torch.nn.functional.normalize(model.W_U, dim=0)
    (word,) = model.tokenizer(" apples", add_special_tokens=False).input_ids
    opposite = model.tokenizer.decode([int((directions.T @ directions[:, word])[4:].argmin()) + 4])
    return {
        "problems": [replace(problem, rationale=" apples" * 4) for problem in train],
        "validation": [replace(problem, rationale=opposite * 4) for problem in held_out],
    }


def test_the_best_prompt_on_validation_is_returned(model: HookedTransformer, opposed: dict[str, list[Problem]]) -> None:
    tuned = tune_prompt(model, **opposed, **FAST | {"max_steps": 40})
    losses = [row["validation"] for row in tuned.recipe["learning_curve"]]
    assert min(losses) < losses[-1] - 0.01, "the last evaluation must not be the best, or this test shows nothing"
    assert validation_loss(model, opposed["validation"], tuned.vectors) == pytest.approx(min(losses), abs=1e-3)


def test_training_stops_early(model: HookedTransformer, opposed: dict[str, list[Problem]]) -> None:
    tuned = tune_prompt(model, **opposed, **FAST | {"max_steps": 100, "early_stopping_patience": 3})
    losses = [row["validation"] for row in tuned.recipe["learning_curve"]]
    assert len(losses) < 20
    assert len(losses) - 1 - losses.index(min(losses)) == 3


def test_every_tenth_problem_is_held_out(model: HookedTransformer, train: list[Problem]) -> None:
    recipe = tune_prompt(model, train, **FAST | {"max_steps": 1}).recipe
    assert (recipe["n_train"], recipe["n_validation"]) == (36, 4)


def test_the_model_is_not_changed(build, train: list[Problem], unchanged, monkeypatch) -> None:
    model = build("plain").requires_grad_(True)
    with unchanged(model):
        tune_prompt(model, train, **FAST | {"max_steps": 2})

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpc_interp.prompts.tuning.token_nll", fail)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        tune_prompt(model, train, **FAST | {"max_steps": 2})


def test_starts_at_the_embeddings_of_a_text(model: HookedTransformer, train: list[Problem]) -> None:
    """With a negligible learning rate the vectors stay at the tokens of the text, repeated or cut."""
    ids = model.tokenizer("Tom has 7 apples.", add_special_tokens=False).input_ids
    options = FAST | {"max_steps": 1, "learning_rate": 1e-12}
    for n in (3, len(ids) + 2):
        tuned = tune_prompt(model, train, **options | {"n_virtual_tokens": n}, init_text="Tom has 7 apples.")
        assert torch.allclose(tuned.vectors, model.W_E[torch.tensor((ids + ids)[:n])].float(), atol=1e-6)
        assert tuned.recipe["init_text"] == "Tom has 7 apples."


def test_a_text_without_tokens_raises(model: HookedTransformer, train: list[Problem]) -> None:
    with pytest.raises(DPCInterpError, match="init_text has no tokens"):
        tune_prompt(model, train, **FAST, init_text="")


def test_a_config_is_the_same_as_its_fields(
    model: HookedTransformer, train: list[Problem], held_out: list[Problem], tuned: SoftPrompt
) -> None:
    config = TuningConfig(max_steps=30, batch_size=8, eval_steps=5, learning_rate=0.1)
    again = tune_prompt(model, train, 4, validation=held_out, config=config, progress=False)
    assert torch.equal(again.vectors, tuned.vectors)


def test_the_recipe_names_the_fields_of_the_config(tuned: SoftPrompt) -> None:
    fields = {field.name for field in dataclasses.fields(TuningConfig)}
    others = {"template", "prepend_bos", "seed", "n_train", "n_validation", "questions", "learning_curve"}
    assert tuned.recipe.keys() == others | fields


def test_old_keywords_warn(model: HookedTransformer, train: list[Problem], held_out: list[Problem]) -> None:
    options = {"validation": held_out, "progress": False, "batch_size": 4}
    with (
        pytest.warns(DeprecationWarning, match="use max_steps"),
        pytest.warns(DeprecationWarning, match="use eval_steps"),
        pytest.warns(DeprecationWarning, match="use early_stopping_patience"),
    ):
        old = tune_prompt(model, train, 4, n_steps=3, check_every=2, patience=1, **options)
    new = tune_prompt(model, train, 4, max_steps=3, eval_steps=2, early_stopping_patience=1, **options)
    assert torch.equal(old.vectors, new.vectors)
    assert old.recipe == new.recipe
    assert [row["step"] for row in new.recipe["learning_curve"]] == [2, 3]


@pytest.mark.parametrize(
    ("n_problems", "options", "match"),
    [
        (1, {}, "too few problems"),
        (5, {"validation": []}, "too few problems"),
        (5, {"n_virtual_tokens": 0}, "n_virtual_tokens is 0"),
        (5, {"eval_steps": 0}, "eval_steps is 0; give at least 1"),
        (5, {"steps": 3}, "steps"),
    ],
)
def test_bad_input_raises(model: HookedTransformer, train: list[Problem], n_problems, options, match) -> None:
    with pytest.raises((DPCInterpError, TypeError), match=match):
        tune_prompt(model, train[:n_problems], **FAST | options)


def test_a_problem_without_a_rationale_raises(model: HookedTransformer, train: list[Problem]) -> None:
    with pytest.raises(DPCInterpError, match="has no rationale to learn from"):
        tune_prompt(model, [*train[:4], replace(train[4], rationale="")], **FAST)


def test_a_loss_that_is_not_finite_raises(model: HookedTransformer, train: list[Problem]) -> None:
    with pytest.raises(NonFiniteError, match="not finite at training step 2; tune with a smaller learning_rate"):
        tune_prompt(model, train, **FAST | {"learning_rate": float("inf"), "max_steps": 2})


def test_a_validation_loss_that_is_not_finite_raises(
    model: HookedTransformer, train: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpc_interp.prompts.tuning._held_out_loss", lambda *_: float("nan"))
    with pytest.raises(NonFiniteError, match="the validation loss is not finite at training step 1"):
        tune_prompt(model, train, **FAST | {"max_steps": 1})


def test_a_small_gradient_of_a_float16_model_does_not_underflow(
    build, train: list[Problem], prompt: SoftPrompt
) -> None:
    """The loss times 1e-6 has a gradient that float16 cannot hold; a factor of the loss is divided out in float32."""
    half = build("gqa", dtype=torch.float16)
    exact = build("gqa")
    with torch.no_grad():
        for weight, rounded in zip(exact.parameters(), half.parameters(), strict=True):
            weight.copy_(rounded)
    gradients = []
    for model in (half, exact):
        vectors = prompt.vectors.clone().requires_grad_()
        examples = [_example(model, problem, QuestionFormat()) for problem in train[:4]]
        gradients.append(_gradient(model, 1e-6 * prompt_loss(model, examples, vectors), vectors))
    assert gradients[0].dtype == torch.float32
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 0.02
    assert 1e-12 < gradients[1].abs().max() < 1e-5


def test_a_gradient_that_is_not_finite_raises(build, train: list[Problem]) -> None:
    model = build("gqa", dtype=torch.float16)

    def infinite_gradient(resid: torch.Tensor, hook: HookPoint) -> None:
        if resid.requires_grad:
            resid.register_hook(lambda gradient: gradient * float("inf"))

    model.add_hook("blocks.1.hook_resid_post", infinite_gradient)
    with pytest.raises(NonFiniteError, match="gradient of the prompt is not finite; load the model in float32 or bfl"):
        tune_prompt(model, train, **(FAST | {"max_steps": 1}))
