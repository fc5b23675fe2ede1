"""`check_model` passes on correct models; on planted faults it fails and names the check and the reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge.generalized_components import AttentionBridge

from dpc_interp import DPCInterpError, Problem, SoftPrompt, generate, load_model, load_prompt
from dpc_interp.generation.padding import LeftPadded, left_padded
from dpc_interp.models.hooked import HookedModel
from dpc_interp.parity.check import ModelCheck, check_model
from dpc_interp.prompts.embed_hooks import PromptIndex, prompt_index

LOGITS, EDITS, GRADIENTS = "logits = Hugging Face's", "pattern edits change the loss", "every pattern has its gradient"
RIGHT, LEFT, CACHED = "right-padded batch = rows alone", "left-padded batch = rows alone", "cached = uncached"
IN_FRONT = "prompted logits = inputs_embeds"
FUSED = "fused saliency = that of patterns"
ALL = [LOGITS, EDITS, GRADIENTS, FUSED, RIGHT, LEFT, CACHED, IN_FRONT]
FAMILIES = ["llama", "mistral", "qwen2", "gpt2"]


@pytest.fixture(params=["hooked", "bridge"])
def wrap(request: pytest.FixtureRequest) -> Callable[..., HookedModel]:
    """Make a hooked model from a Hugging Face model, by either backend."""
    return request.getfixturevalue(request.param)


def failed(check: ModelCheck) -> list[str]:
    assert check.table["check"].tolist() == ALL
    assert set(check.table["verdict"]) <= {"pass", "fail", "not checked"}
    return check.table["check"][check.table["verdict"] == "fail"].tolist()


def reason(check: ModelCheck, name: str) -> str:
    return check.table.set_index("check").loc[name, "reason"]


@pytest.mark.parametrize("family", FAMILIES)
def test_correct_models_pass(
    hugging_face: Callable, wrap: Callable, prompt: SoftPrompt, family: str, unchanged
) -> None:
    model = wrap(hugging_face(family))
    with unchanged(model):
        check = check_model(model, hf_model=hugging_face(family), prompt=prompt)
    assert set(check.table["verdict"]) == {"pass"}, str(check)
    assert check.passed
    assert "passed 8 checks" in str(check).splitlines()[-1]


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_a_bridge_is_compared_with_its_own_weights(hugging_face: Callable, bridge: Callable, family: str) -> None:
    model = bridge(hugging_face(family))
    with torch.no_grad():
        model.blocks[1].mlp.out.weight.mul_(1.5)  # the reference shares the weights, so both change
    assert set(check_model(model).table["verdict"]) == {"pass"}
    model.blocks[1].mlp.hook_out.add_hook(lambda value, hook: 1.5 * value)  # only the bridge changes
    assert {LOGITS, IN_FRONT} <= set(failed(check_model(model)))


def test_default_tolerance_depends_on_the_dtype(hugging_face: Callable, wrap: Callable) -> None:
    check = check_model(wrap(hugging_face("llama", dtype=torch.bfloat16)), hf_model=hugging_face("llama"))
    assert check.passed, str(check)
    assert check.table["tolerance"].min() == 5e-2
    assert check.table["error"].max() > 1e-4, "otherwise the tolerance of float32 would be enough"


def test_tolerance_can_be_given(hugging_face: Callable, hooked: Callable) -> None:
    model = hooked(hugging_face("llama", dtype=torch.float64))
    assert check_model(model, hf_model=hugging_face("llama", dtype=torch.float64)).passed
    assert failed(check_model(model, hf_model=hugging_face("llama", dtype=torch.float64), tolerance=1e-9))


def test_logits_that_are_not_finite_fail_and_raise(
    hugging_face: Callable, bridge: Callable, problems: list[Problem]
) -> None:
    """Where it keeps patterns, a bridge in float64 computes NaN at left padding: its mask overflows in transformers."""
    model = bridge(hugging_face("llama", dtype=torch.float64))
    assert LEFT in failed(check_model(model))
    reads_pattern = (lambda name: name.endswith("hook_pattern"), lambda pattern, hook: None)
    with model.hooks(fwd_hooks=[reads_pattern]), pytest.raises(DPCInterpError, match="logits are not finite"):
        generate(model, problems[:4], max_new_tokens=2, progress=False)


def test_the_reasoner_passes(backend: str) -> None:
    model = load_model("reasoner", device="cpu", backend=backend)
    check = check_model(model, prompt=load_prompt("reasoner/story"))
    assert set(check.table["verdict"]) == {"pass"}, str(check)
    source = {"hooked": "assets/reasoner", "bridge": "its own weights in a plain Hugging Face model"}[backend]
    assert reason(check, LOGITS).endswith(source)


@pytest.mark.usefixtures("needs_hooked")
def test_without_a_reference_two_checks_are_not_made(build: Callable) -> None:
    """A random model with the reasoner's tokenizer must not be taken for the reasoner."""
    check = check_model(build("gqa"))
    verdicts = check.table.set_index("check")["verdict"]
    assert verdicts[[LOGITS, IN_FRONT]].tolist() == ["not checked"] * 2
    assert verdicts.drop([LOGITS, IN_FRONT]).eq("pass").all()
    assert "give hf_model=" in reason(check, LOGITS)
    assert f"passed 6 checks (not checked: {LOGITS}; {IN_FRONT})" in check.verdict


# planted faults


def test_a_pattern_off_the_loss_path_in_a_hooked_transformer(hugging_face: Callable, hooked: Callable, monkeypatch):
    """Layer 1 weights its values by a pattern that no hook has seen."""
    model = hooked(hugging_face("llama"))
    attention, unhooked = model.blocks[1].attn, []
    weight_values = attention.calculate_z_scores
    monkeypatch.setattr(attention.hook_pattern, "forward", lambda pattern: unhooked.append(pattern) or pattern.clone())
    monkeypatch.setattr(attention, "calculate_z_scores", lambda values, pattern: weight_values(values, unhooked[-1]))
    check = check_model(model, hf_model=hugging_face("llama"))
    assert failed(check) == [EDITS, GRADIENTS]
    assert reason(check, EDITS) == "layers [1]: zeroing hook_pattern does not change the loss"
    assert reason(check, GRADIENTS) == "layer 1: none reaches hook_pattern"


def test_a_pattern_with_a_gradient_whose_edits_have_no_effect(hugging_face: Callable, hooked: Callable, monkeypatch):
    model = hooked(hugging_face("gpt2"))
    attention, unhooked = model.blocks[0].attn, []
    weight_values = attention.calculate_z_scores
    monkeypatch.setattr(attention.hook_pattern, "forward", lambda pattern: unhooked.append(pattern) or pattern)
    monkeypatch.setattr(attention, "calculate_z_scores", lambda values, pattern: weight_values(values, unhooked[-1]))
    check = check_model(model, hf_model=hugging_face("gpt2"))
    assert failed(check) == [EDITS]
    assert "layers [0]" in reason(check, EDITS)


def test_a_bridge_layer_that_runs_sdpa(hugging_face: Callable, bridge: Callable, monkeypatch) -> None:
    """Layer 0 calls Hugging Face's attention, which never computes a pattern."""
    model = bridge(hugging_face("llama"))
    plain = hugging_face("llama")
    plain.set_attn_implementation("sdpa")
    monkeypatch.setitem(model.blocks[0].attn.__dict__, "forward", plain.model.layers[0].self_attn.forward)
    check = check_model(model, hf_model=hugging_face("llama"))
    assert {EDITS, GRADIENTS} <= set(failed(check))
    assert LOGITS not in failed(check), "its logits are correct"
    assert "layers [0]" in reason(check, EDITS)
    assert "layer 0" in reason(check, GRADIENTS)


def test_a_wrong_rotary_base(hugging_face: Callable, wrap: Callable) -> None:
    check = check_model(wrap(hugging_face("llama", rotary_base=500.0)), hf_model=hugging_face("llama"))
    assert failed(check) == [LOGITS, IN_FRONT]
    assert not check.passed
    assert check.table.set_index("check").loc[LOGITS, "error"] > 1e-3
    assert "largest difference" in reason(check, LOGITS)
    assert f"failed: {LOGITS}; {IN_FRONT}" in str(check)


@pytest.mark.parametrize("family", ["gpt2"])
def test_padding_on_the_other_side(hugging_face: Callable, wrap: Callable, family: str, monkeypatch) -> None:
    """The model treats left padding as if it were right padding."""
    model = wrap(hugging_face(family))
    forward = model.forward

    def swapped(*inputs: Tensor, attention_mask: Tensor | None = None, **options: object) -> object:
        flipped = None if attention_mask is None else attention_mask.flip(1)
        return forward(*inputs, attention_mask=flipped, **options)

    monkeypatch.setattr(model, "forward", swapped)
    check = check_model(model, hf_model=hugging_face(family))
    assert set(failed(check)) - {CACHED} == {LEFT}
    assert "largest difference: row" in reason(check, LEFT)


def test_batch_padded_on_the_other_side(hugging_face: Callable, wrap: Callable, monkeypatch) -> None:
    """The same fault in this package: questions on the left, mask and prompt as for questions on the right."""

    def swapped(rows: list[Tensor], n_virtual: int) -> LeftPadded:
        tokens, mask, starts = left_padded(rows, n_virtual)
        tokens = torch.stack([row.roll(-int(start)) for row, start in zip(tokens, starts, strict=True)])
        return LeftPadded(tokens, mask, starts)

    monkeypatch.setattr("dpc_interp.parity.probe.left_padded", swapped)
    assert failed(check_model(wrap(hugging_face("llama")), hf_model=hugging_face("llama"))) == [LEFT, CACHED]


def test_a_prompt_written_backwards(hugging_face: Callable, wrap: Callable, monkeypatch) -> None:
    def backwards(batch_size: int, n_virtual: int, starts: Tensor | None) -> PromptIndex:
        rows, columns = prompt_index(batch_size, n_virtual, starts)
        return PromptIndex(rows, columns.flip(1))

    model = wrap(hugging_face("llama"))
    monkeypatch.setattr("dpc_interp.prompts.embed_hooks.prompt_index", backwards)
    check = check_model(model, hf_model=hugging_face("llama"))
    assert IN_FRONT in failed(check)
    assert LOGITS not in failed(check)
    assert "largest difference: row" in reason(check, IN_FRONT)


def test_cached_tokens_at_the_wrong_position(hugging_face: Callable, bridge: Callable, monkeypatch) -> None:
    """Positions of cached tokens that count the padding."""
    model = bridge(hugging_face("gpt2"))
    forward = model.forward

    def counted(tokens: Tensor, **options: object) -> object:
        if options.get("past_key_values") is not None and tokens.shape[1] == 1:
            length = options["attention_mask"].shape[1]
            options["position_ids"] = torch.full_like(tokens, length - 1)
        return forward(tokens, **options)

    monkeypatch.setattr(model, "forward", counted)
    check = check_model(model)
    assert failed(check) == [CACHED]
    assert "cached token" in reason(check, CACHED)


def test_patterns_that_forget_the_cache(hugging_face: Callable, bridge: Callable, monkeypatch) -> None:
    """As with transformers 5.24, whose layers are given the cache by a name that TransformerLens does not read."""
    model = bridge(hugging_face("llama"))
    monkeypatch.setattr(AttentionBridge, "_update_kv_cache", lambda self, k, v, **keywords: (k, v))
    check = check_model(model)
    assert failed(check) == [CACHED]
    assert "cached token" in reason(check, CACHED)
    assert "patterns" in reason(check, CACHED)


# errors before any forward pass


def test_a_reference_that_is_the_model_itself_raises(hugging_face: Callable, bridge: Callable) -> None:
    model = bridge(hugging_face("llama"))
    with pytest.raises(DPCInterpError, match="compared with itself; load it once more"):
        check_model(model, hf_model=model.original_model)


def test_bad_input_raises(build: Callable) -> None:
    with pytest.raises(DPCInterpError, match="tune one for it"):
        check_model(build("gqa"), prompt=SoftPrompt(torch.zeros(3, 7)))
    with pytest.raises(DPCInterpError, match="exceed the model's context of 12"):
        check_model(build("gqa", n_ctx=12))


def test_another_vocabulary_fails(hugging_face: Callable, hooked: Callable) -> None:
    other = hugging_face("llama")
    other.resize_token_embeddings(300)
    check = check_model(hooked(hugging_face("llama")), hf_model=other)
    assert failed(check) == [LOGITS, IN_FRONT]
    assert "the vocabularies differ" in reason(check, LOGITS)


def test_a_dtype_without_a_tolerance_raises(build: Callable) -> None:
    model = build("gqa")
    model.cfg.dtype = torch.complex64
    with pytest.raises(DPCInterpError, match=r"no tolerance is known for .*complex64.*; give tolerance="):
        check_model(model)


def test_the_verdict_in_one_line() -> None:
    table = pd.DataFrame(
        {
            "check": ["a", "b", "c"],
            "verdict": ["pass", "fail", "not checked"],
            "error": [1.25e-7, 0.5, np.nan],
            "tolerance": [1e-4, 1e-4, np.nan],
            "reason": ["row 0", "row 1", "no model"],
        }
    )
    check = ModelCheck("tiny", table)
    assert not check.passed
    assert check.verdict == "tiny failed: b (not checked: c)"
    assert ModelCheck("tiny", table[:1]).verdict == "tiny passed 1 checks"
    header, *rows, verdict = str(check).splitlines()
    assert header.split() == ["check", "verdict", "error", "tolerance", "reason"]
    assert rows[0].split() == ["a", "pass", "1.2e-07", "1e-04", "row", "0"]
    assert rows[2].split() == ["c", "not", "checked", "no", "model"], "NaN is shown as nothing"
    assert verdict == check.verdict
