"""Each step of an analysis on a device: the numbers of a bridge on the CPU.

`make test-gpu` runs this file on `cuda`. Float32 sums are taken in another order there, so numbers agree to about 1e-4;
a text may change where two tokens are equally likely to that precision.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch

import dpc_interp as dpc
from dpc_interp.execution.digest import model_digest
from dpc_interp.execution.memory_plan import free_memory
from dpc_interp.models.hooked import HookedModel

pytestmark = pytest.mark.gpu
N = 8
CLOSE = {"rtol": 2e-3, "atol": 1e-5}
RULE = dpc.TriggerRule("late_share", 0.5)


@pytest.fixture(scope="module")
def story() -> dpc.SoftPrompt:
    return dpc.load_prompt("reasoner/story")


@pytest.fixture(scope="module")
def questions() -> list[dpc.Problem]:
    return dpc.load_problems("story", n=N, max_steps=2)


@pytest.fixture(scope="module")
def reference() -> HookedModel:
    return dpc.load_model("reasoner", device="cpu", backend="bridge")


@pytest.fixture(scope="module")
def runs(reference: HookedModel, questions: list, story: dpc.SoftPrompt) -> list[dpc.Transcript]:
    """What the reference wrote."""
    return dpc.generate(reference, questions, story, progress=False)


@pytest.fixture(scope="module", params=["hooked", "bridge"])
def load(request: pytest.FixtureRequest, device: str) -> Callable[..., HookedModel]:
    """Load the reasoner on the device."""
    if request.param == "hooked":
        request.getfixturevalue("needs_hooked")
    return lambda **options: dpc.load_model("reasoner", device=device, backend=request.param, **options)


@pytest.fixture(scope="module")
def loaded(load: Callable[..., HookedModel]) -> HookedModel:
    return load()


def assert_frames_close(mine: pd.DataFrame, theirs: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(mine, theirs, check_exact=False, **CLOSE)


def test_weights_are_on_the_device(loaded: HookedModel, device: str) -> None:
    expected = torch.device(device)
    assert {weight.device.type for weight in loaded.parameters()} == {expected.type}
    assert torch.device(str(loaded.cfg.device)).type == expected.type
    assert free_memory(expected) > 0


def test_the_default_device_is_the_gpu_if_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert next(dpc.load_model("reasoner").parameters()).device.type == expected


def test_digest_is_that_of_the_cpu(loaded: HookedModel) -> None:
    before = model_digest(loaded)
    on_cpu = dpc.load_model(
        "reasoner", device="cpu", backend="bridge" if type(loaded).__name__ == "TransformerBridge" else "hooked"
    )
    assert before == model_digest(on_cpu)


def test_texts(loaded: HookedModel, questions: list, story: dpc.SoftPrompt, runs: list) -> None:
    mine = dpc.generate(loaded, questions, story, progress=False, batch_size=3)
    assert sum(a.text == b.text for a, b in zip(mine, runs, strict=True)) >= N - 1
    assert all(not run.generated_tokens.is_cuda and not run.question_tokens.is_cuda for run in mine)


def test_logits_with_a_prompt(loaded: HookedModel, reference: HookedModel, story: dpc.SoftPrompt, runs: list) -> None:
    tokens = runs[0].tokens[None]
    logits = []
    for model in (loaded, reference):
        with torch.no_grad(), dpc.prompted(model, story) as run:
            logits.append(run(tokens).cpu())
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)


def test_saliency(loaded: HookedModel, reference: HookedModel, story: dpc.SoftPrompt, runs: list) -> None:
    maps = [dpc.saliency_map(model, runs[0], story).values.cpu() for model in (loaded, reference)]
    assert maps[0].dtype == torch.float32
    assert maps[0].max() > 0
    torch.testing.assert_close(*maps, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_analysis(
    loaded: HookedModel, reference: HookedModel, story: dpc.SoftPrompt, runs: list, gradient_checkpointing: bool
) -> None:
    mine = dpc.analyse(loaded, runs, story, gradient_checkpointing=gradient_checkpointing, progress=False)
    theirs = dpc.analyse(reference, runs, story, progress=False)
    for name in ("flow", "accumulation", "tokens", "instances"):
        assert_frames_close(getattr(mine, name), getattr(theirs, name))
    assert_frames_close(dpc.trigger_statistics(mine), dpc.trigger_statistics(theirs))


def test_corruption(loaded: HookedModel, reference: HookedModel, story: dpc.SoftPrompt, runs: list) -> None:
    plan = dpc.plan_corruption(dpc.analyse(reference, runs[:1], story, progress=False))[0]
    tokens, logits = runs[0].tokens[None], []
    for model in (loaded, reference):
        with torch.no_grad(), dpc.corrupted(model, story, plan) as run:
            logits.append(run(tokens).cpu())
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)


def test_evaluation(loaded: HookedModel, reference: HookedModel, questions: list, story: dpc.SoftPrompt) -> None:
    """With corruption that silences tokens by attention and one that scales vectors, and a random one."""
    methods = ["bare", "instruct", "random_prompt", "cut_off", "pt", "random", "dpc"]
    options = {"rule": RULE, "progress": False, "shard_size": 4}
    mine, theirs = (dpc.evaluate(model, questions, story, methods, **options) for model in (loaded, reference))
    assert mine.instances["method"].tolist() == theirs.instances["method"].tolist()
    assert (mine.instances["correct"] != theirs.instances["correct"]).sum() <= len(methods)
    assert_frames_close(mine.statistics, theirs.statistics)


def test_tuning(loaded: HookedModel, reference: HookedModel, questions: list) -> None:
    prompts = [
        dpc.tune_prompt(model, questions, n_virtual_tokens=4, max_steps=3, seed=1, progress=False)
        for model in (loaded, reference)
    ]
    assert not prompts[0].vectors.is_cuda
    torch.testing.assert_close(prompts[0].vectors, prompts[1].vectors, rtol=1e-3, atol=1e-4)


def test_bfloat16(load: Callable[..., HookedModel], reference: HookedModel, story: dpc.SoftPrompt, runs: list) -> None:
    """Numbers have 8 bits; totals of a flow agree to a few per cent."""
    model = load(dtype="bfloat16")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert len(dpc.generate(model, [run.problem for run in runs], story, progress=False)) == N
    totals = [
        dpc.analyse(either, runs, story, progress=False).flow.groupby("layer")["value"].sum()
        for either in (model, reference)
    ]
    pd.testing.assert_series_equal(*totals, check_exact=False, rtol=0.15)
