"""Each check on a correct model, and the error that it reports for a model that differs by a known amount."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from dpc_interp import SoftPrompt, saliency
from dpc_interp.errors import ContextLengthError
from dpc_interp.parity.comparison import CheckRow
from dpc_interp.parity.probe import LENGTHS, Probe
from dpc_interp.parity.reference import Reference

NO_REFERENCE = Reference(None, "no reference")


def test_a_reference_with_one_logit_changed(hugging_face: Callable, bridge: Callable) -> None:
    """The reported error is that of the changed log-probabilities, and it passes exactly up to the tolerance."""
    hf_model, changed = hugging_face("llama"), hugging_face("llama")

    def raise_one_logit(module: object, args: object, logits: torch.Tensor) -> torch.Tensor:
        return logits + 3.0 * (torch.arange(logits.shape[-1]) == 9)

    changed.lm_head.register_forward_hook(raise_one_logit)
    model = bridge(hugging_face("llama"))
    probe = Probe(model, Reference(changed, "changed"), None, 1e-4)
    with torch.no_grad():
        row = probe.logits()
        tokens = probe.sequences[0][None]
        log_probs, expected = (m(tokens).logits.double().log_softmax(-1) for m in (hf_model, changed))
        error = float((log_probs - expected).abs().max() / expected.abs().max())
        assert (row.check, row.verdict, row.reason) == (
            "logits = Hugging Face's",
            "fail",
            "largest difference: from changed",
        )
        assert row.error == pytest.approx(error, rel=1e-3)
        probe.tolerance = 1.01 * error
        assert probe.logits().verdict == "pass"


@torch.no_grad()
def test_every_check_of_a_correct_model(hugging_face: Callable, bridge: Callable, unchanged) -> None:
    model = bridge(hugging_face("gpt2"))
    with unchanged(model):
        probe = Probe(model, Reference(hugging_face("gpt2"), "hf_model"), None, 1e-4)
        compared = [probe.logits(), probe.inputs_embeds(), probe.right_padded(), probe.left_padded(), probe.cached()]
        fused = probe.fused_saliency()
        on_the_loss_path = [probe.pattern_edits(), probe.pattern_gradients()]
    for row in compared:
        assert row.verdict == "pass"
        assert 0 <= row.error < row.tolerance == 1e-4
    assert fused.verdict == "pass"
    assert 0 <= fused.error < 2e-5
    assert fused.tolerance == 4e-4
    for row in on_the_loss_path:
        assert (row.verdict, row.reason) == ("pass", "in every layer")


@torch.no_grad()
def test_fused_saliency_is_compared_with_that_of_patterns(
    hugging_face: Callable, bridge: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fused pass that is wrong by a tenth fails; with a hook on a pattern there is no fused pass."""
    from dpc_interp.parity import probe as module

    probe = Probe(bridge(hugging_face("llama")), NO_REFERENCE, None, 1e-4)
    computed: list[torch.Tensor] = []

    def wrong_at_first(*given: object) -> torch.Tensor:
        computed.append(saliency(*given))
        return computed[-1] * (1.1 if len(computed) == 1 else 1.0)

    monkeypatch.setattr(module, "saliency", wrong_at_first)
    row = probe.fused_saliency()
    assert (row.verdict, row.error) == ("fail", pytest.approx(0.1, rel=1e-3))
    with probe.model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda pattern, hook: None)]):
        row = probe.fused_saliency()
    assert row.verdict == "not checked"
    assert row.reason == "patterns in 2 of 2 layers: a hook is on the pattern"


def test_fused_layers_are_compared_where_another_one_needs_its_pattern(needs_hooked: None, build: Callable) -> None:
    model = build("gqa")
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda pattern, hook: None)]):
        row = Probe(model, NO_REFERENCE, None, 1e-4).fused_saliency()
    assert row.verdict == "pass"
    assert "patterns in 1 of 3 layers: a hook is on the pattern" in row.reason


def test_without_a_reference(build: Callable) -> None:
    probe = Probe(build("plain"), NO_REFERENCE, None, 1e-4)
    for row in (probe.logits(), probe.inputs_embeds()):
        assert isinstance(row, CheckRow)
        assert (row.verdict, row.reason) == ("not checked", "no reference")
        assert row.error != row.error, "NaN: nothing was compared"


def test_sequences_have_no_special_token(build: Callable, tokenizer: PreTrainedTokenizerBase) -> None:
    probe = Probe(build("plain"), NO_REFERENCE, None, 1e-4)
    assert tuple(map(len, probe.sequences)) == LENGTHS
    assert not set(torch.cat(probe.sequences).tolist()) & set(tokenizer.all_special_ids)
    assert probe.prompt.n_virtual == 4


def test_a_prompt_that_leaves_no_room_raises(build: Callable) -> None:
    model = build("plain", n_ctx=20)
    Probe(model, NO_REFERENCE, SoftPrompt(torch.ones(4, 16)), 1e-4)
    with pytest.raises(ContextLengthError, match="21 positions exceed"):
        Probe(model, NO_REFERENCE, SoftPrompt(torch.ones(5, 16)), 1e-4)
