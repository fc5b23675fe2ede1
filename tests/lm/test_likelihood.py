"""Teacher forcing against log-softmax by hand, one row at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dpc_interp import SoftPrompt
from dpc_interp.analysis.saliency import flow_pass
from dpc_interp.errors import ContextLengthError
from dpc_interp.lm.lens import HookedTransformer
from dpc_interp.lm.likelihood import likelihood

TEXTS = ("buys 8: 9 + 8 = 17\n#### 17", "9 + 8 = 17\nbuys 2: 17 + 2 = 19\n#### 19")


@pytest.mark.parametrize("bare", [False, True], ids=["prompted", "bare"])
def test_is_log_softmax_of_each_token(
    each_model: HookedTransformer, prompt: SoftPrompt, written: Callable, bare: bool
) -> None:
    runs = [written(text, name=f"story-{i}") for i, text in enumerate(TEXTS)]
    found = likelihood(each_model, runs, None if bare else prompt)
    n = 0 if bare else prompt.n_virtual
    vectors = prompt.vectors[:n]
    for row, run in enumerate(runs):
        ids = torch.cat([torch.full((n,), 9), run.question_tokens, run.generated_tokens])[None]
        hook = ("hook_embed", lambda value, hook: torch.cat([vectors[None], value[:, n:]], dim=1))
        logits = each_model.run_with_hooks(ids, fwd_hooks=[hook])[0]
        first, stop = n + len(run.question_tokens), ids.shape[1]
        nll = -logits.log_softmax(-1)[first - 1 : stop - 1].gather(1, run.generated_tokens[:, None])[:, 0]
        torch.testing.assert_close(found.nll[row, first:stop], nll, rtol=1e-4, atol=1e-5)
        assert not found.nll[row, :first].any()
        assert not found.nll[row, stop:].any()
        assert found.loss[row].item() == pytest.approx(nll.mean().item(), rel=1e-5)
        assert torch.equal(found.predicted[row, first:stop], logits[first - 1 : stop - 1].argmax(-1))


def test_is_the_loss_of_the_saliency(model: HookedTransformer, prompt: SoftPrompt, written: Callable) -> None:
    runs = [written(text) for text in TEXTS]
    rows = [torch.cat([run.question_tokens, run.generated_tokens]) for run in runs]
    nll = flow_pass(model, rows, [len(run.question_tokens) for run in runs], prompt.vectors, lambda layer, flow: None)
    torch.testing.assert_close(likelihood(model, runs, prompt).nll, nll, rtol=1e-4, atol=1e-6)


def test_past_the_context_is_refused(model: HookedTransformer, prompt: SoftPrompt, written: Callable) -> None:
    with pytest.raises(ContextLengthError):
        likelihood(model, [written("9 + 8 = 17\n" * 60)], prompt)
