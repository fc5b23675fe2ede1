"""The memory estimate against measured peaks, the plans made from it, and `analyse` under these plans."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dpc_interp as dpc
from dpc_interp import DPCInterpError, MemoryPlan, SoftPrompt, plan_memory
from dpc_interp.analysis import analyse as analyse_module
from dpc_interp.analysis.recorder import FlowBlock
from dpc_interp.errors import NonFiniteError
from dpc_interp.execution.memory_plan import MEMORY_FRACTION, estimate_bytes, free_memory
from dpc_interp.models.hooked import HookedModel

LONG = 200


@pytest.fixture(scope="module", params=["hooked", "bridge"])
def wide(request: pytest.FixtureRequest, hugging_face: Callable, bridge: Callable) -> HookedModel:
    """A model wide enough that activations take most of the memory."""
    if request.param == "bridge":
        return bridge(hugging_face("llama"))
    request.getfixturevalue("needs_hooked")
    return request.getfixturevalue("build")("gqa", d_model=96, d_head=24, rotary_dim=24, d_mlp=256, n_layers=4)


@pytest.mark.parametrize("gradient_checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("kept", [False, True], ids=["fused", "patterns"])
@pytest.mark.parametrize(("batch_size", "length"), [(1, LONG), (6, 60)])
def test_the_estimate_is_near_the_measured_peak(
    wide: HookedModel, batch_size: int, length: int, gradient_checkpointing: bool, kept: bool, peak_and_estimate
) -> None:
    peak, estimate = peak_and_estimate(wide, batch_size, length, length // 2, gradient_checkpointing, kept=kept)
    assert 0.5 * estimate <= peak <= 1.2 * estimate


@pytest.mark.parametrize("gradient_checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("kept", [False, True], ids=["fused", "patterns"])
@pytest.mark.parametrize("length", [128, 512])
def test_the_estimate_for_the_reasoner(
    backend: str, length: int, gradient_checkpointing: bool, kept: bool, peak_and_estimate
) -> None:
    """512 is the end of its context; `test_smollm2.py` has the other bundled model."""
    model = dpc.load_model("reasoner", device="cpu", backend=backend)
    peak, estimate = peak_and_estimate(model, 1, length, length // 2, gradient_checkpointing, kept=kept)
    assert 0.5 * estimate <= peak <= 1.2 * estimate


@pytest.mark.usefixtures("needs_hooked")
def test_checkpointed_memory_does_not_grow_with_depth(build: Callable[..., HookedModel], peak_and_estimate) -> None:
    peaks = {
        (n_layers, checkpointing): peak_and_estimate(
            build("gqa", n_layers=n_layers), 1, LONG, LONG // 2, checkpointing
        )[0]
        for n_layers in (3, 24)
        for checkpointing in (False, True)
    }
    assert peaks[24, False] > 4 * peaks[3, False]
    kept = (24 - 3) * 4 * LONG * (16 + 2)  # float32, d_model is 16, and two numbers that are compared
    assert peaks[24, True] - peaks[3, True] < 1.5 * kept
    assert peaks[24, True] < peaks[24, False] / 3


@pytest.mark.usefixtures("needs_hooked")
def test_logits_are_computed_at_the_predicted_positions_only(
    build: Callable[..., HookedModel], peak_and_estimate
) -> None:
    model = build("plain", d_vocab=5000)
    peak_of_few, peak_of_all = (peak_and_estimate(model, 1, LONG, n, False)[0] for n in (10, LONG - 6))
    assert peak_of_all - peak_of_few > 2 * 4 * 5000 * (LONG - 20)


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=40),
    available=st.integers(0, 10**9),
    given_size=st.none() | st.integers(1, 64),
    given_checkpointing=st.none() | st.booleans(),
)
def test_a_plan_respects_its_arguments_and_uses_the_memory(
    model: HookedModel, lengths: list[int], available: int, given_size: int | None, given_checkpointing: bool | None
) -> None:
    options: dict[str, Any] = {"batch_size": given_size, "gradient_checkpointing": given_checkpointing}
    options |= {"available": available}
    plan = plan_memory(model, lengths, **options)
    assert plan.batch_size == given_size or given_size is None
    assert plan.gradient_checkpointing == given_checkpointing or given_checkpointing is None
    longest = max(lengths)
    assert plan.needed == estimate_bytes(model, plan.batch_size, longest, longest, plan.gradient_checkpointing)
    assert plan.fits == (plan.needed <= MEMORY_FRACTION * available)
    if not plan.fits:  # then it is the plan that needs least
        assert plan.gradient_checkpointing or given_checkpointing is False
        assert plan.batch_size == (given_size or 1)
    more = plan_memory(model, lengths, **options | {"available": 2 * available})
    assert (more.fits, not more.gradient_checkpointing) >= (plan.fits, not plan.gradient_checkpointing)


def test_the_largest_batch_that_fits_is_chosen_before_checkpointing(build: Callable[..., HookedModel]) -> None:
    model, lengths = build("gqa"), [LONG] * 40
    for size in (16, 8, 4, 2, 1):
        available = 2 * estimate_bytes(model, size, LONG, LONG, False)
        plan = plan_memory(model, lengths, available=available)
        assert (plan.batch_size, plan.gradient_checkpointing, plan.fits) == (size, False, True)
        if size > 1:
            assert plan_memory(model, lengths, available=available - 2).batch_size == size // 2
    too_little = 2 * estimate_bytes(model, 1, LONG, LONG, False) - 2
    assert plan_memory(model, lengths, available=too_little).gradient_checkpointing
    assert plan_memory(model, lengths[:3], available=10**12).batch_size == 3


def test_the_estimate_by_hand(build: Callable[..., HookedModel]) -> None:
    """Two layers, d = 16, 4 heads of size 4, a gated MLP of width 32, float32; 2 rows of 10 positions, 3 predicted."""
    model = build("plain")
    block = 20 * (16 * 16 + 4 * ((2 * 4 + 2 * 4) * 4 + 3 * 32)) + 4 * (4 * 16 * 16 + 3 * 16 * 32)
    logits = 2 * 4 * 2 * 3 * model.cfg.d_vocab + 4 * 16 * model.cfg.d_vocab
    backward = 12 * 20 * 4 * 10 + 28 * 20 * 4 * 4
    assert estimate_bytes(model, 2, 10, 3, False) == 2 * block + max(logits, backward)
    assert estimate_bytes(model, 2, 10, 3, True) == 2 * 4 * 20 * 16 + max(logits, block + backward)
    pattern, backward = 9 * 2 * 4 * 10 * 10, max(backward, 3 * 4 * 2 * 4 * 10 * 10)
    with model.hooks(fwd_hooks=[(lambda name: name.endswith("hook_pattern"), lambda pattern, hook: None)]):
        assert estimate_bytes(model, 2, 10, 3, False) == 2 * (block + pattern) + max(logits, backward)
        checkpointed = 2 * 4 * 20 * 16 + max(logits, block + pattern + backward)
        assert estimate_bytes(model, 2, 10, 3, True) == checkpointed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_estimate_of_other_precisions(build: Callable[..., HookedModel], dtype: torch.dtype) -> None:
    """float64 needs twice the bytes of float32 everywhere; float16 keeps its logits for another backward pass."""
    single, other = build("plain"), build("plain", dtype=dtype)
    shape = (2, 10, 3, False)
    if dtype == torch.float64:
        assert estimate_bytes(other, *shape) == 2 * estimate_bytes(single, *shape)
    else:
        block = 20 * (24 * 16 + 2 * ((2 * 4 + 2 * 4) * 4 + 3 * 32)) + 2 * (4 * 16 * 16 + 3 * 16 * 32)
        logits = 2 * 2 * 2 * 3 * single.cfg.d_vocab + 2 * 16 * single.cfg.d_vocab
        backward = 4 * 20 * 4 * (3 * 10 + 7 * 4) + (logits // 2 if dtype == torch.float16 else 0)
        assert estimate_bytes(other, *shape) == 2 * block + max(logits, backward)


def test_invalid_arguments_are_errors(model: HookedModel) -> None:
    with pytest.raises(DPCInterpError, match="lengths is empty"):
        plan_memory(model, [])
    with pytest.raises(DPCInterpError, match="batch_size is 0"):
        plan_memory(model, [10], batch_size=0)


def test_the_old_names_of_checkpointing_still_work(model: HookedModel) -> None:
    with pytest.warns(DeprecationWarning, match="checkpoint= is deprecated .* use gradient_checkpointing="):
        plan = plan_memory(model, [10], checkpoint=True, available=10**9)  # type: ignore[call-arg]
    assert plan.gradient_checkpointing
    with pytest.warns(DeprecationWarning, match=r"use MemoryPlan\.gradient_checkpointing"):
        assert plan.checkpoint


def test_a_plan_reads_as_a_sentence() -> None:
    plan = MemoryPlan(batch_size=4, gradient_checkpointing=True, needed=1_200_000_000, available=8_000_000_000)
    assert str(plan) == "batches of 4 with gradient checkpointing need about 1.20 GB of the 8.00 GB available"
    assert "more than the 50% that a plan may use" in str(MemoryPlan(1, True, 5, 8))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 900),
        ({"memory.max": "max\n", "memory.current": "400\n"}, 900),
        ({"memory.max": "1000\n", "memory.current": "400\n"}, 600),
        ({"memory.max": "2000\n", "memory.current": "400\n"}, 900),
        (
            {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 400\ninactive_file 250\n"},
            550,
        ),
    ],
    ids=["no container", "without a limit", "container with less", "container with more", "files that were read"],
)
def test_free_memory_is_the_least_of_machine_and_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    """The machine has 900 bytes available; the container's files are read from a folder of the test."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=900, total=5000))
    monkeypatch.setattr("dpc_interp.execution.memory_plan.Path", lambda path: tmp_path / Path(path).name)
    assert free_memory(torch.device("cpu")) == expected


@pytest.fixture
def runs(written: Callable) -> list[dpc.Transcript]:
    lines = ["buys 8: 9 + 8 = 17", "9 + 8 = 17\nbuys 2: 17 + 2 = 19", "9 + 8 = 17\n17 + 2 = 19\n19 + 1 = 20"]
    return [written(f"{lines[i % 3]}\n#### 17", name=f"story-{i}") for i in range(5)]


def assert_equal(analysis: dpc.Analysis, expected: dpc.Analysis) -> None:
    for name in ("flow", "accumulation", "tokens", "instances"):
        pd.testing.assert_frame_equal(getattr(analysis, name), getattr(expected, name), rtol=1e-4, atol=1e-9)


def test_analyse_prints_and_follows_the_plan(model, runs, prompt: SoftPrompt, monkeypatch, capsys) -> None:
    expected = dpc.analyse(model, runs, prompt)
    assert "checkpointing" not in "".join(capsys.readouterr())
    longest = max(len(run.question_tokens) + len(run.generated_tokens) for run in runs) + prompt.n_virtual
    needed = estimate_bytes(model, 1, longest, max(len(run.generated_tokens) for run in runs), False)
    too_little = int(needed / MEMORY_FRACTION) - 2
    monkeypatch.setattr("dpc_interp.execution.memory_plan.free_memory", lambda device: too_little)
    assert_equal(dpc.analyse(model, runs, prompt), expected)
    assert "with gradient checkpointing need about" in "".join(capsys.readouterr())


def test_analyse_raises_an_error_if_no_plan_fits(model, runs, prompt: SoftPrompt, monkeypatch) -> None:
    monkeypatch.setattr("dpc_interp.execution.memory_plan.free_memory", lambda device: 1000)
    with pytest.raises(DPCInterpError, match=r"batches of 1 with gradient checkpointing need .* batch_size=1"):
        dpc.analyse(model, runs, prompt, progress=False)
    dpc.analyse(model, runs, prompt, batch_size=1, progress=False)


def test_analyse_halves_batches_if_memory_runs_out(model, runs, prompt: SoftPrompt, monkeypatch, unchanged) -> None:
    expected = dpc.analyse(model, runs, prompt, progress=False)
    reduce = analyse_module.PositionGroups.reduce

    def at_most_two(self, blocks: Iterable[FlowBlock]):
        if len(self.member) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")
        return reduce(self, blocks)

    monkeypatch.setattr(analyse_module.PositionGroups, "reduce", at_most_two)
    monkeypatch.setattr("gc.collect", lambda: 0)  # takes seconds among the objects of a test session
    with unchanged(model), pytest.warns(UserWarning, match="continuing with") as warned:
        analysis = dpc.analyse(model, runs, prompt, progress=False)
    assert [str(w.message).split()[-1] for w in warned] == ["3", "2"]
    assert_equal(analysis, expected)


def test_analyse_of_one_sequence_too_large(model, runs, prompt: SoftPrompt, monkeypatch) -> None:
    def fail(self, blocks: Iterable[FlowBlock]):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(analyse_module.PositionGroups, "reduce", fail)
    for checkpointing, fix in ((False, "gradient_checkpointing=True"), (True, "smaller dtype")):
        with pytest.raises(DPCInterpError, match=f"single sequence.*{fix}"):
            dpc.analyse(model, runs[:1], prompt, gradient_checkpointing=checkpointing, progress=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_non_finite_output_is_reported_by_layer(build, runs, prompt: SoftPrompt, dtype: torch.dtype) -> None:
    model, factor = build("gqa", dtype=dtype), 1e5 if dtype == torch.float16 else float("nan")
    fix = "load the model in float32" if dtype == torch.float16 else "look for NaN in the weights"
    with (
        model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", lambda x, hook: x * factor)]),
        pytest.raises(NonFiniteError, match=f"the output of block 1 is not finite; {fix}"),
    ):
        dpc.analyse(model, runs, prompt, progress=False)


def test_a_non_finite_gradient_is_reported_by_layer(build, runs, prompt: SoftPrompt) -> None:
    class InfiniteGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0] * float("inf")

    model = build("gqa")
    with (
        model.hooks(fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: InfiniteGradient.apply(z))]),
        pytest.raises(NonFiniteError, match="the saliency is not finite from layer 1 down; look for NaN"),
    ):
        dpc.analyse(model, runs, prompt, progress=False)
