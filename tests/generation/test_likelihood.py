"""Teacher forcing against log-softmax by hand, one row at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dpc_interp import SoftPrompt, generate
from dpc_interp.analysis.saliency import saliency_pass
from dpc_interp.errors import ContextLengthError, NonFiniteError
from dpc_interp.generation.likelihood import likelihood
from dpc_interp.models.hooked import HookedModel

TEXTS = ("buys 8: 9 + 8 = 17\n#### 17", "9 + 8 = 17\nbuys 2: 17 + 2 = 19\n#### 19")


@pytest.mark.parametrize("bare", [False, True], ids=["prompted", "bare"])
def test_nll_is_log_softmax_of_each_token(
    each_model: HookedModel, prompt: SoftPrompt, written: Callable, bare: bool
) -> None:
    runs = [written(text, name=f"story-{i}") for i, text in enumerate(TEXTS)]
    result = likelihood(each_model, runs, None if bare else prompt)
    n = 0 if bare else prompt.n_virtual
    vectors = prompt.vectors[:n]
    for row, run in enumerate(runs):
        ids = torch.cat([torch.full((n,), 9), run.question_tokens, run.generated_tokens])[None]
        hook = ("hook_embed", lambda embed, hook: torch.cat([vectors[None], embed[:, n:]], dim=1))
        logits = each_model.run_with_hooks(ids, fwd_hooks=[hook])[0]
        first, stop = n + len(run.question_tokens), ids.shape[1]
        nll = -logits.log_softmax(-1)[first - 1 : stop - 1].gather(1, run.generated_tokens[:, None])[:, 0]
        torch.testing.assert_close(result.nll[row, first:stop], nll, rtol=1e-4, atol=1e-5)
        assert not result.nll[row, :first].any()
        assert not result.nll[row, stop:].any()
        assert result.loss[row].item() == pytest.approx(nll.mean().item(), rel=1e-5)
        # position 0 without a prompt, and the virtual tokens with one, are predicted by nothing
        n_unpredicted = max(n, 1)
        assert (result.predicted[row, :n_unpredicted] == -1).all()
        assert torch.equal(result.predicted[row, n_unpredicted:stop], logits[n_unpredicted - 1 : stop - 1].argmax(-1))


def test_greedy_text_is_predicted_token_by_token(model: HookedModel, problems, prompt: SoftPrompt) -> None:
    runs = generate(model, problems[:5], prompt, max_new_tokens=9, progress=False)
    result = likelihood(model, runs, prompt)
    for row, run in enumerate(runs):
        first = prompt.n_virtual + len(run.question_tokens)
        assert torch.equal(result.predicted[row, first:][: len(run.generated_tokens)], run.generated_tokens)


def test_nll_is_that_of_the_saliency(model: HookedModel, prompt: SoftPrompt, written: Callable) -> None:
    runs = [written(text) for text in TEXTS]
    n_question = [len(run.question_tokens) for run in runs]
    result = saliency_pass(model, [run.tokens for run in runs], n_question, prompt.vectors, lambda flow: None)
    torch.testing.assert_close(likelihood(model, runs, prompt).nll, result.nll, rtol=1e-4, atol=1e-6)


def test_hooks_of_the_caller_act(model: HookedModel, prompt: SoftPrompt, written: Callable) -> None:
    """With the residual stream zeroed, every position has the same logits: those of the biases alone."""
    run = written(TEXTS[0])
    zero = ("unembed.hook_in", lambda resid, hook: torch.zeros_like(resid))
    with model.hooks(fwd_hooks=[zero]):
        result = likelihood(model, [run], prompt)
    expected = -model.unembed.b_U.log_softmax(-1)[run.generated_tokens]
    torch.testing.assert_close(result.nll[0, -len(expected) :], expected)


def test_a_loss_that_is_not_finite_raises(model: HookedModel, written: Callable) -> None:
    broken = ("unembed.hook_in", lambda resid, hook: resid * torch.nan)
    with model.hooks(fwd_hooks=[broken]), pytest.raises(NonFiniteError, match="the loss is not finite"):
        likelihood(model, [written(TEXTS[0])])


def test_past_the_context_raises(model: HookedModel, prompt: SoftPrompt, written: Callable) -> None:
    with pytest.raises(ContextLengthError):
        likelihood(model, [written("9 + 8 = 17\n" * 60)], prompt)
