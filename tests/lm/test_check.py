"""`check_model` passes on models that are right and fails, saying which check and why, on planted faults."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dpc_interp import DPCInterpError, Problem, SoftPrompt, generate, load_model, load_prompt
from dpc_interp.lm.check import ModelCheck, check_model
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import prompt_index

LOGITS, EDITS, GRADIENTS = "logits = Hugging Face's", "pattern edits change the loss", "every pattern has its gradient"
RIGHT, LEFT, CACHED = "right-padded batch = rows alone", "left-padded batch = rows alone", "cached = uncached"
IN_FRONT = "prompted logits = inputs_embeds"
ALL = [LOGITS, EDITS, GRADIENTS, RIGHT, LEFT, CACHED, IN_FRONT]
FAMILIES = ["llama", "mistral", "qwen2", "gpt2"]


@pytest.fixture(params=["hooked", "bridge"])
def wrap(request: pytest.FixtureRequest) -> Callable[..., HookedModel]:
    """Either way from a Hugging Face model to one with hooks."""
    return request.getfixturevalue(request.param)


def failed(found: ModelCheck) -> list[str]:
    assert found.table["check"].tolist() == ALL
    assert set(found.table["verdict"]) <= {"pass", "fail", "not checked"}
    return found.table["check"][found.table["verdict"] == "fail"].tolist()


def reason(found: ModelCheck, check: str) -> str:
    return found.table.set_index("check").loc[check, "reason"]


@pytest.mark.parametrize("family", FAMILIES)
def test_right_models_pass(hugging_face: Callable, wrap: Callable, prompt: SoftPrompt, family: str, unchanged) -> None:
    model = wrap(hugging_face(family))
    with unchanged(model):
        found = check_model(model, hf_model=hugging_face(family), prompt=prompt)
    assert set(found.table["verdict"]) == {"pass"}, str(found)
    assert found.passed
    assert "passed 7 checks" in str(found).splitlines()[-1]


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_a_bridge_is_held_against_its_own_weights(hugging_face: Callable, bridge: Callable, family: str) -> None:
    model = bridge(hugging_face(family))
    with torch.no_grad():
        model.blocks[1].mlp.out.weight.mul_(1.5)  # the reference shares the weights: still equal
    assert set(check_model(model).table["verdict"]) == {"pass"}
    model.blocks[1].mlp.hook_out.add_hook(lambda value, hook: 1.5 * value)  # the bridge alone
    assert {LOGITS, IN_FRONT} <= set(failed(check_model(model)))


def test_tolerance_is_by_dtype(hugging_face: Callable, wrap: Callable) -> None:
    found = check_model(wrap(hugging_face("llama", dtype=torch.bfloat16)), hf_model=hugging_face("llama"))
    assert found.passed, str(found)
    assert found.table["tolerance"].max() == 5e-2
    assert found.table["error"].max() > 1e-4, "or float32's would have done"


def test_tolerance_can_be_given(hugging_face: Callable, hooked: Callable) -> None:
    model = hooked(hugging_face("llama", dtype=torch.float64))
    assert check_model(model, hf_model=hugging_face("llama", dtype=torch.float64)).passed
    assert failed(check_model(model, hf_model=hugging_face("llama", dtype=torch.float64), tolerance=1e-9))


def test_logits_that_are_not_finite_fail_and_are_refused(
    hugging_face: Callable, bridge: Callable, problems: list[Problem]
) -> None:
    """A bridge in float64 makes NaN of left padding: its mask overflows in transformers."""
    model = bridge(hugging_face("llama", dtype=torch.float64))
    assert LEFT in failed(check_model(model))
    with pytest.raises(DPCInterpError, match="logits are not finite"):
        generate(model, problems[:4], max_new_tokens=2, progress=False)


def test_the_reasoner_is_loaded_again_and_passes(backend: str) -> None:
    model = load_model("reasoner", device="cpu", backend=backend)
    found = check_model(model, prompt=load_prompt("reasoner/story"))
    assert set(found.table["verdict"]) == {"pass"}, str(found)
    source = {"hooked": "assets/reasoner", "bridge": "its own weights in a plain Hugging Face model"}[backend]
    assert reason(found, LOGITS).endswith(source)


@pytest.mark.usefixtures("needs_hooked")
def test_without_a_reference_it_is_not_checked(build: Callable) -> None:
    """A random model with the reasoner's tokenizer must not be taken for the reasoner."""
    found = check_model(build("gqa"))
    verdicts = found.table.set_index("check")["verdict"]
    assert verdicts[[LOGITS, IN_FRONT]].tolist() == ["not checked"] * 2
    assert verdicts.drop([LOGITS, IN_FRONT]).eq("pass").all()
    assert "give hf_model=" in reason(found, LOGITS)
    assert f"passed 5 checks (not checked: {LOGITS}; {IN_FRONT})" in found.verdict


# the planted faults


def test_a_pattern_off_the_loss_path_in_a_hooked_transformer(hugging_face: Callable, hooked: Callable, monkeypatch):
    """Layer 1 mixes its values by a pattern that no hook has seen."""
    model = hooked(hugging_face("llama"))
    attention, unhooked = model.blocks[1].attn, []
    mix = attention.calculate_z_scores
    monkeypatch.setattr(attention.hook_pattern, "forward", lambda pattern: unhooked.append(pattern) or pattern.clone())
    monkeypatch.setattr(attention, "calculate_z_scores", lambda values, pattern: mix(values, unhooked[-1]))
    found = check_model(model, hf_model=hugging_face("llama"))
    assert failed(found) == [EDITS, GRADIENTS]
    assert reason(found, EDITS) == "layers [1]: zeroing hook_pattern leaves the loss as it is"
    assert reason(found, GRADIENTS) == "layer 1: none reaches hook_pattern"


def test_a_pattern_that_has_a_gradient_but_takes_no_edit(hugging_face: Callable, hooked: Callable, monkeypatch):
    model = hooked(hugging_face("gpt2"))
    attention, unhooked = model.blocks[0].attn, []
    mix = attention.calculate_z_scores
    monkeypatch.setattr(attention.hook_pattern, "forward", lambda pattern: unhooked.append(pattern) or pattern)
    monkeypatch.setattr(attention, "calculate_z_scores", lambda values, pattern: mix(values, unhooked[-1]))
    found = check_model(model, hf_model=hugging_face("gpt2"))
    assert failed(found) == [EDITS]
    assert "layers [0]" in reason(found, EDITS)


def test_a_bridge_layer_that_runs_sdpa(hugging_face: Callable, bridge: Callable, monkeypatch) -> None:
    """Layer 0 calls Hugging Face's attention, which forms no pattern at all."""
    model = bridge(hugging_face("llama"))
    plain = hugging_face("llama")
    plain.set_attn_implementation("sdpa")
    monkeypatch.setitem(model.blocks[0].attn.__dict__, "forward", plain.model.layers[0].self_attn.forward)
    found = check_model(model, hf_model=hugging_face("llama"))
    assert {EDITS, GRADIENTS} <= set(failed(found))
    assert LOGITS not in failed(found), "its logits are right"
    assert "layers [0]" in reason(found, EDITS)
    assert "layer 0" in reason(found, GRADIENTS)


def test_a_wrong_rotary_base(hugging_face: Callable, wrap: Callable) -> None:
    found = check_model(wrap(hugging_face("llama", rotary_base=500.0)), hf_model=hugging_face("llama"))
    assert failed(found) == [LOGITS, IN_FRONT]
    assert not found.passed
    assert found.table.set_index("check").loc[LOGITS, "error"] > 1e-3
    assert "differs" in reason(found, LOGITS)
    assert f"failed: {LOGITS}; {IN_FRONT}" in str(found)


@pytest.mark.parametrize("family", ["gpt2"])
def test_padding_on_the_other_side(hugging_face: Callable, wrap: Callable, family: str, monkeypatch) -> None:
    """The model takes the padding to be on the right where it is on the left."""
    model = wrap(hugging_face(family))
    forward = model.forward

    def swapped(*inputs: Tensor, attention_mask: Tensor | None = None, **options: object) -> object:
        flipped = None if attention_mask is None else attention_mask.flip(1)
        return forward(*inputs, attention_mask=flipped, **options)

    monkeypatch.setattr(model, "forward", swapped)
    found = check_model(model, hf_model=hugging_face(family))
    assert set(failed(found)) - {CACHED} == {LEFT}
    assert "differs, most in row" in reason(found, LEFT)


def test_batch_padded_on_the_other_side(hugging_face: Callable, wrap: Callable, monkeypatch) -> None:
    """The same fault on our side: questions at the left, the mask and the prompt as for questions at the right."""
    from dpc_interp.lm.decoding import left_padded

    def swapped(rows: list[Tensor], n_virtual: int) -> tuple[Tensor, Tensor, Tensor]:
        tokens, mask, starts = left_padded(rows, n_virtual)
        return torch.stack([t.roll(-int(s)) for t, s in zip(tokens, starts, strict=True)]), mask, starts

    monkeypatch.setattr("dpc_interp.lm.probe.left_padded", swapped)
    assert failed(check_model(wrap(hugging_face("llama")), hf_model=hugging_face("llama"))) == [LEFT, CACHED]


def test_a_prompt_written_backwards(hugging_face: Callable, wrap: Callable, monkeypatch) -> None:
    def backwards(batch: int, n_virtual: int, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        rows, columns = prompt_index(batch, n_virtual, starts)
        return rows, columns.flip(1)

    model = wrap(hugging_face("llama"))
    monkeypatch.setattr("dpc_interp.lm.soft_prompt.prompt_index", backwards)
    found = check_model(model, hf_model=hugging_face("llama"))
    assert IN_FRONT in failed(found)
    assert LOGITS not in failed(found)
    assert "differs, most in row" in reason(found, IN_FRONT)


def test_a_step_at_the_wrong_position(hugging_face: Callable, bridge: Callable, monkeypatch) -> None:
    """Cached steps whose positions count the padding."""
    model = bridge(hugging_face("gpt2"))
    forward = model.forward

    def counted(tokens: Tensor, **options: object) -> object:
        if options.get("past_key_values") is not None and tokens.shape[1] == 1:
            length = options["attention_mask"].shape[1]
            options["position_ids"] = torch.full_like(tokens, length - 1)
        return forward(tokens, **options)

    monkeypatch.setattr(model, "forward", counted)
    found = check_model(model)
    assert failed(found) == [CACHED]
    assert "step" in reason(found, CACHED)


# refused before any work


def test_a_reference_that_is_the_model_itself_is_refused(hugging_face: Callable, bridge: Callable) -> None:
    model = bridge(hugging_face("llama"))
    with pytest.raises(DPCInterpError, match="compared with itself; load it once more"):
        check_model(model, hf_model=model.original_model)


def test_bad_input_is_refused(build: Callable, hugging_face: Callable, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DPCInterpError, match="tune one for it"):
        check_model(build("gqa"), prompt=SoftPrompt(torch.zeros(3, 7)))
    with pytest.raises(DPCInterpError, match="exceed the model's context of 12"):
        check_model(build("gqa", n_ctx=12))


def test_another_vocabulary_is_told(hugging_face: Callable, hooked: Callable) -> None:
    other = hugging_face("llama")
    other.resize_token_embeddings(300)
    found = check_model(hooked(hugging_face("llama")), hf_model=other)
    assert failed(found) == [LOGITS, IN_FRONT]
    assert "the vocabularies differ" in reason(found, LOGITS)
