"""Each public call gives the same numbers under every mode of PyTorch that a notebook may have set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import dpc_interp as dpc
from dpc_interp import DPCInterpError, Problem, SoftPrompt, Transcript
from dpc_interp.generation.likelihood import likelihood
from dpc_interp.host.torch_state import need_weights_with_gradients, torch_defaults
from dpc_interp.models.hooked import HookedModel

pytestmark = pytest.mark.filterwarnings("ignore:torch.set_default_tensor_type")
TOKENS = torch.tensor([1, 40, 51, 62, 9, 13, 20, 33, 20, 87, 101, 2])
FIXED_RULE = dpc.TriggerRule("late_share", 0.5)


@contextmanager
def setting(setter: Callable[[Any], None], value: object, before: object) -> Iterator[None]:
    """A setting of the process or the thread, as a cell at the top of a notebook sets it."""
    setter(value)
    try:
        yield
    finally:
        setter(before)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "gradients off": partial(setting, torch.set_grad_enabled, False, True),
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "float64": partial(setting, torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": partial(setting, torch.set_default_dtype, torch.bfloat16, torch.float32),
    "double tensors": partial(setting, torch.set_default_tensor_type, torch.DoubleTensor, torch.FloatTensor),
    "cpu": partial(setting, torch.set_default_device, "cpu", None),
    "meta": partial(setting, torch.set_default_device, "meta", None),
}
COMMON_MODES = ("gradients off", "inference mode", "float64", "meta")
QUICK = ("saliency", "generate", "tune_prompt")
"""Calls that are tried under the other modes too."""


@dataclass
class World:
    """What the calls use."""

    model: HookedModel
    prompt: SoftPrompt
    problems: list[Problem]
    runs: list[Transcript]
    analysis: dpc.Analysis

    def decode(self, **options: Any) -> list[Tensor]:
        problems = [run.problem for run in self.runs]
        runs = dpc.generate(self.model, problems, self.prompt, max_new_tokens=8, progress=False, **options)
        return [run.generated_tokens for run in runs]

    def calibrated(self) -> list[Tensor]:
        with dpc.attention_calibration(self.model, [(0, 0), (1, 2)], threshold=0.05):
            return self.decode()

    def corrupted(self) -> Tensor:
        with dpc.corrupted(self.model, self.prompt, dpc.CorruptionPlan((2,), replace="noise", seed=3)) as run:
            return run(TOKENS[None])

    def cut(self) -> Tensor:
        with dpc.knocked_out(self.model, {1: dpc.edge_mask([(5, 2)], len(TOKENS))}):
            return self.model(TOKENS[None])

    def plain_calibrated(self) -> Tensor:
        with dpc.attention_calibration(self.model, [(0, 0)], alpha=1.0):
            return self.model(TOKENS[None])

    def evaluated(self) -> pd.DataFrame:
        options: dict[str, Any] = {"rule": FIXED_RULE, "methods": ["pt", "always"], "max_new_tokens": 8}
        return dpc.evaluate(self.model, self.problems[:2], self.prompt, progress=False, **options).summary


NOISE_PLANS = [dpc.CorruptionPlan((k % 4 + 1,), replace="noise", seed=k) for k in range(3)]
CALLS: dict[str, Callable[[World], Any]] = {
    "saliency": lambda w: dpc.saliency(w.model, TOKENS, w.prompt, 6),
    "saliency of plain text": lambda w: dpc.saliency(w.model, TOKENS, None, 6),
    "saliency_map": lambda w: dpc.saliency_map(w.model, w.runs[0], w.prompt).values,
    "analyse": lambda w: dpc.analyse(w.model, w.runs, w.prompt, progress=False).frames,
    "analyse, checkpointing": lambda w: (
        dpc.analyse(w.model, w.runs, w.prompt, gradient_checkpointing=True, progress=False).frames
    ),
    "sanity": lambda w: dpc.saliency_sanity(w.model, w.runs[:1], w.prompt, progress=False),
    "sinks": lambda w: dpc.sink_controls(
        w.model, w.runs[:1], w.prompt, conditions=["random", "untrained"], progress=False
    ),
    "generate": lambda w: w.decode(),
    "generate, noise": lambda w: w.decode(plans=NOISE_PLANS),
    "generate, knock-out": lambda w: w.decode(plans=dpc.plan_knockout(w.analysis)),
    "likelihood": lambda w: likelihood(w.model, w.runs, w.prompt).nll,
    "tune_prompt": lambda w: dpc.tune_prompt(w.model, w.problems[:6], 3, max_steps=2, progress=False).vectors,
    "causal_edges": lambda w: (
        dpc.causal_edges(
            w.model, w.runs[:1], w.prompt, fractions=(0.5,), n_draws=1, n_groups=2, progress=False
        ).knockouts
    ),
    "head_gains": lambda w: dpc.head_gains(w.model, w.runs[:1], w.prompt, progress=False),
    "check_model": lambda w: dpc.check_model(w.model, prompt=w.prompt).table[["verdict", "error"]],
    "a random prompt": lambda w: dpc.SoftPrompt.random(w.model, 3).vectors,
    "a prompt of a text": lambda w: dpc.SoftPrompt.from_text(w.model, "Tom has 7 apples.").vectors,
    "read_transcripts": lambda w: (
        dpc.analyse(
            w.model,
            dpc.read_transcripts(w.model, w.problems[:2], [p.rationale for p in w.problems[:2]]),
            w.prompt,
            target="gold",
            progress=False,
        ).frames
    ),
    "ACT while generating": lambda w: w.calibrated(),
    "ACT": lambda w: w.plain_calibrated(),
    "corrupted": lambda w: w.corrupted(),
    "knocked_out": lambda w: w.cut(),
    "trigger_statistics": lambda w: dpc.trigger_statistics(w.analysis),
    "evaluate": lambda w: w.evaluated(),
}


@pytest.fixture(scope="module")
def world(model: HookedModel, prompt: SoftPrompt, problems: list[Problem], written) -> World:
    texts = ["9 + 8 = 17\n17 - 2 = 15\n#### 15", "Tom has 9.\n#### 9", "buys 8: 9 + 8 = 17\n#### 17"]
    runs = [written(text, name=f"story-{k}") for k, text in enumerate(texts)]
    return World(model, prompt, problems, runs, dpc.analyse(model, runs, prompt, progress=False))


@pytest.fixture(scope="module")
def usual(world: World) -> dict[str, Any]:
    """What each call gives in a fresh process."""
    return {name: call(world) for name, call in CALLS.items()}


def assert_same(actual: Any, expected: Any) -> None:
    """The same numbers, bit for bit, in tensors of the same dtype that a backward pass may use."""
    if isinstance(expected, Tensor):
        assert actual.dtype == expected.dtype
        assert torch.equal(actual, expected)
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(actual, expected, check_exact=True)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for name in expected:
            assert_same(actual[name], expected[name])
    else:
        assert isinstance(expected, Sequence)
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize(
    ("call", "mode"), [(call, mode) for call in CALLS for mode in MODES if call in QUICK or mode in COMMON_MODES]
)
def test_a_call_within_a_mode(world: World, usual: dict[str, Any], call: str, mode: str) -> None:
    state = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    with MODES[mode]():
        within = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_device()
        actual = CALLS[call](world)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_device()) == within
    assert_same(actual, usual[call])
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == state


@pytest.mark.parametrize("mode", COMMON_MODES)
def test_a_model_and_a_prompt_loaded_within_a_mode(mode: str) -> None:
    with MODES[mode]():
        model, prompt = dpc.load_model("reasoner", device="cpu"), dpc.load_prompt("reasoner/story")
        within = dpc.saliency(model, TOKENS, prompt, 6)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert torch.equal(dpc.saliency(model, TOKENS, prompt, 6), within)
    usual = dpc.load_model("reasoner", device="cpu"), dpc.load_prompt("reasoner/story")
    assert torch.equal(dpc.saliency(usual[0], TOKENS, usual[1], 6), within)


@pytest.mark.parametrize("call", ["generate", "tune_prompt", "saliency", "likelihood"])
def test_tensors_of_inference_mode_can_be_used_outside(world: World, call: str) -> None:
    """Autograd refuses to save inference tensors, so none may come out of a call."""
    with torch.inference_mode():
        result = CALLS[call](world)
    for tensor in result if isinstance(result, list) else [result]:
        assert not tensor.is_inference()


def test_a_prompt_and_transcripts_made_within_inference_mode(world: World, usual: dict[str, Any]) -> None:
    with torch.inference_mode():
        prompt = SoftPrompt(world.prompt.vectors.clone(), world.prompt.name)
        tokens = TOKENS.clone()
    assert torch.equal(dpc.saliency(world.model, tokens, prompt, 6), usual["saliency"])
    within = World(world.model, prompt, world.problems, world.runs, world.analysis)
    assert_same(CALLS["analyse"](within), usual["analyse"])


@pytest.mark.parametrize("mode", COMMON_MODES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_bridge_within_a_mode(world: World, hugging_face, bridge, family: str, mode: str) -> None:
    bridged = World(bridge(hugging_face(family)), world.prompt, world.problems, world.runs, world.analysis)
    calls = [CALLS[name] for name in ("saliency", "generate", "likelihood", "tune_prompt", "analyse")]
    expected = [call(bridged) for call in calls]
    with MODES[mode]():
        actual = [call(bridged) for call in calls]
    assert_same(actual, expected)


def test_weights_made_within_inference_mode_are_refused_in_one_line(build, prompt: SoftPrompt, problems) -> None:
    with torch.inference_mode():
        model = build("gqa")
    for refused in (
        lambda: dpc.saliency(model, TOKENS, prompt, 6),
        lambda: dpc.saliency(model, TOKENS, None, 6, gradient_checkpointing=True),
        lambda: dpc.tune_prompt(model, problems, 3, max_steps=1, progress=False),
    ):
        with pytest.raises(DPCInterpError, match=r"load the model outside of it, or give copy.deepcopy\(model\)"):
            refused()
    # the advice works
    expected = dpc.saliency(build("gqa"), TOKENS, prompt, 6)
    assert torch.equal(dpc.saliency(copy.deepcopy(model), TOKENS, prompt, 6), expected)


def test_a_table_that_was_extended_within_inference_mode_is_replaced_by_a_copy(build, prompt: SoftPrompt) -> None:
    model = build("gqa")
    expected = dpc.saliency(model, TOKENS, prompt, 6)
    with torch.inference_mode():
        for module in model.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                module._buffers[name] = buffer.clone()
    assert any(buffer.is_inference() for buffer in model.buffers())
    assert torch.equal(dpc.saliency(model, TOKENS, prompt, 6), expected)
    assert not any(buffer.is_inference() for buffer in model.buffers())


def test_another_thread(world: World, usual: dict[str, Any]) -> None:
    results: list[Tensor] = []
    thread = Thread(target=lambda: results.append(CALLS["saliency"](world)))
    thread.start()
    thread.join()
    assert torch.equal(results[0], usual["saliency"])


def test_the_modes_are_restored_after_an_error() -> None:
    def fail() -> None:
        with torch_defaults(gradients=True):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            assert torch.zeros(1).device.type == "cpu"
            raise KeyboardInterrupt

    with MODES["meta"](), torch.inference_mode():
        with pytest.raises(KeyboardInterrupt):
            fail()
        assert torch.is_inference_mode_enabled()
        assert torch.zeros(1).device.type == "meta"
    with pytest.raises(KeyboardInterrupt), torch.no_grad():
        fail()
    assert torch.is_grad_enabled()


def test_frozen_weights_are_no_reason_to_refuse(model: HookedModel) -> None:
    need_weights_with_gradients(model)
