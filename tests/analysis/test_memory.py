"""The estimate against measured peaks, what is planned from it, and what `analyse` does with the plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import dpc_interp as dpc
from dpc_interp import DPCInterpError, MemoryPlan, SoftPrompt, plan_memory
from dpc_interp.analysis import analyse as analyse_module
from dpc_interp.analysis.memory import SHARE, estimate, free_memory
from dpc_interp.analysis.saliency import flow_pass
from dpc_interp.errors import NonFiniteError
from dpc_interp.lm.hooked import HookedModel

LONG = 200


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes of tensors held at once on the CPU, above those held before: every allocation is counted."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        work()
    held = peak = 0
    events = measured.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def peak_of_pass(model: HookedModel, batch_size: int, length: int, n_predicted: int, checkpoint: bool) -> int:
    generator = torch.Generator().manual_seed(1)
    vectors = 0.1 * torch.randn(5, model.cfg.d_model, generator=generator)
    rows = [torch.randint(3, 200, (length - 5,), generator=generator) for _ in range(batch_size)]
    n_question = [length - 5 - n_predicted] * batch_size

    def nothing(layer: int, flow: Tensor) -> None: ...

    return peak_bytes(lambda: flow_pass(model, rows, n_question, vectors, nothing, checkpoint=checkpoint))


@pytest.fixture(scope="module", params=["hooked", "bridge"])
def wide(request: pytest.FixtureRequest, hugging_face: Callable, bridge: Callable) -> HookedModel:
    """Wide enough that activations, not bookkeeping, are what is held."""
    if request.param == "bridge":
        return bridge(hugging_face("llama"))
    request.getfixturevalue("needs_hooked")
    return request.getfixturevalue("build")("gqa", d_model=96, d_head=24, rotary_dim=24, d_mlp=256, n_layers=4)


@pytest.mark.parametrize("checkpoint", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize(("batch_size", "length"), [(1, LONG), (6, 60)])
def test_the_estimate_is_near_the_measured_peak(
    wide: HookedModel, batch_size: int, length: int, checkpoint: bool, untyped
) -> None:
    peak = peak_of_pass(wide, batch_size, length, length // 2, checkpoint)
    assert peak <= 1.2 * estimate(wide, batch_size, length, length // 2, checkpoint)
    assert peak >= 0.5 * estimate(wide, batch_size, length, length // 2, checkpoint)


@pytest.mark.usefixtures("needs_hooked")
def test_checkpointed_memory_does_not_grow_with_depth(build: Callable[..., HookedModel], untyped) -> None:
    few, many = (build("gqa", n_layers=n) for n in (3, 24))
    peaks = {
        (model.cfg.n_layers, checkpoint): peak_of_pass(model, 1, LONG, LONG // 2, checkpoint)
        for model in (few, many)
        for checkpoint in (False, True)
    }
    assert peaks[24, False] > 5 * peaks[3, False]
    assert peaks[24, True] < 1.5 * peaks[3, True]
    assert peaks[24, True] < peaks[24, False] / 4


@pytest.mark.usefixtures("needs_hooked")
def test_logits_are_made_of_the_predicted_positions_alone(build: Callable[..., HookedModel], untyped) -> None:
    model = build("plain", d_vocab=5000)
    few, all_of_them = (peak_of_pass(model, 1, LONG, n, False) for n in (10, LONG - 6))
    assert all_of_them - few > 2 * 4 * 5000 * (LONG - 20)


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=40),
    available=st.integers(0, 10**9),
    given_size=st.none() | st.integers(1, 64),
    given_checkpoint=st.none() | st.booleans(),
)
def test_plans(
    model: HookedModel, lengths: list[int], available: int, given_size: int | None, given_checkpoint: bool | None
) -> None:
    options: dict[str, Any] = {"batch_size": given_size, "checkpoint": given_checkpoint, "available": available}
    plan = plan_memory(model, lengths, **options)
    assert plan.batch_size == given_size or given_size is None
    assert plan.checkpoint == given_checkpoint or given_checkpoint is None
    assert plan.needed == estimate(model, plan.batch_size, max(lengths), max(lengths), plan.checkpoint)
    assert plan.fits == (plan.needed <= SHARE * available)
    if not plan.fits:  # only what needs least is left
        assert plan.checkpoint or given_checkpoint is False
        assert plan.batch_size == (given_size or 1)
    more = plan_memory(model, lengths, **options | {"available": 2 * available})
    assert (more.fits, not more.checkpoint, more.batch_size) >= (plan.fits, not plan.checkpoint, 0)


def test_a_plan_reads_as_a_sentence() -> None:
    plan = MemoryPlan(batch_size=4, checkpoint=True, needed=1_200_000_000, available=8_000_000_000)
    assert str(plan) == "batches of 4 with checkpointing need about 1.20 GB of the 8.00 GB there"
    assert "more than the 50%" in str(MemoryPlan(1, True, 5, 8))


def test_free_memory_is_that_of_the_machine() -> None:
    assert 10**7 < free_memory(torch.device("cpu")) < 10**14


@pytest.fixture
def runs(written: Callable) -> list[dpc.Transcript]:
    lines = ["buys 8: 9 + 8 = 17", "9 + 8 = 17\nbuys 2: 17 + 2 = 19", "9 + 8 = 17\n17 + 2 = 19\n19 + 1 = 20"]
    return [written(f"{lines[i % 3]}\n#### 17", name=f"story-{i}") for i in range(5)]


def same(found: dpc.Analysis, expected: dpc.Analysis) -> None:
    for name in ("flow", "accumulation", "tokens", "instances"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-9)


def test_analyse_goes_by_the_plan(model, runs, prompt: SoftPrompt, monkeypatch, capsys) -> None:
    expected = dpc.analyse(model, runs, prompt)
    assert "checkpointing" not in "".join(capsys.readouterr())
    longest = max(len(run.question_tokens) + len(run.generated_tokens) for run in runs) + prompt.n_virtual
    needed = estimate(model, 1, longest, max(len(run.generated_tokens) for run in runs), False)
    monkeypatch.setattr("dpc_interp.analysis.memory.free_memory", lambda device: int(needed / SHARE) - 2)
    same(dpc.analyse(model, runs, prompt), expected)
    assert "with checkpointing need about" in "".join(capsys.readouterr())


def test_analyse_refuses_what_no_plan_holds(model, runs, prompt: SoftPrompt, monkeypatch) -> None:
    monkeypatch.setattr("dpc_interp.analysis.memory.free_memory", lambda device: 1000)
    with pytest.raises(DPCInterpError, match=r"batches of 1 with checkpointing need .* batch_size=1"):
        dpc.analyse(model, runs, prompt, progress=False)
    dpc.analyse(model, runs, prompt, batch_size=1, progress=False)


def test_analyse_halves_where_memory_runs_out(model, runs, prompt: SoftPrompt, monkeypatch, unchanged) -> None:
    expected = dpc.analyse(model, runs, prompt, progress=False)
    reduce = analyse_module.Groups.reduce

    def only_two(self, flow: Tensor):
        if len(flow) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")
        return reduce(self, flow)

    monkeypatch.setattr(analyse_module.Groups, "reduce", only_two)
    monkeypatch.setattr("gc.collect", lambda: 0)  # seconds among the objects of a test session
    with unchanged(model), pytest.warns(UserWarning, match="going on with") as told:
        found = dpc.analyse(model, runs, prompt, progress=False)
    assert [str(w.message).split()[-1] for w in told] == ["3", "2"]
    same(found, expected)


def test_analyse_of_one_sequence_too_large(model, runs, prompt: SoftPrompt, monkeypatch) -> None:
    def never(self, flow: Tensor):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(analyse_module.Groups, "reduce", never)
    for checkpoint, mend in ((False, "checkpoint=True"), (True, "smaller dtype")):
        with pytest.raises(DPCInterpError, match=f"single sequence.*{mend}"):
            dpc.analyse(model, runs[:1], prompt, checkpoint=checkpoint, progress=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_not_finite_is_told_by_layer(build, runs, prompt: SoftPrompt, dtype: torch.dtype) -> None:
    model, times = build("gqa", dtype=dtype), 1e5 if dtype == torch.float16 else float("nan")
    mend = "load the model in float32" if dtype == torch.float16 else "look for NaN in the weights"
    with (
        model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", lambda x, hook: x * times)]),
        pytest.raises(NonFiniteError, match=f"what block 1 writes is not finite; {mend}"),
    ):
        dpc.analyse(model, runs, prompt, progress=False)


def test_a_gradient_that_is_not_finite_is_told_by_layer(build, runs, prompt: SoftPrompt) -> None:
    class Blows(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0] * float("inf")

    model = build("gqa")
    with (
        model.hooks(fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: Blows.apply(z))]),
        pytest.raises(NonFiniteError, match="the saliency is not finite from layer 1 down; look for NaN"),
    ):
        dpc.analyse(model, runs, prompt, progress=False)
