"""j* by hand, and a virtual token planted so that everything attends to it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch

from dpc_interp import (
    CorruptionPlan,
    DPCInterpError,
    Problem,
    SoftPrompt,
    Transcript,
    accumulation_peaks,
    analyse,
    drop_empty_rationales,
    generate,
    plan_corruption,
    trigger_statistics,
)
from dpc_interp.analysis.accumulation import accumulation_frame
from dpc_interp.models.lens import HookedTransformer


@pytest.fixture
def accumulation() -> pd.DataFrame:
    """Six layers, so 0 and 1 are shallow; three tokens; instance b comes first."""
    by_layer = {
        "b": [[6, 1, 2], [6, 3, 0], [0, 9, 9], [0, 9, 9], [0, 9, 9], [0, 9, 9]],
        "a": [[1, 0, 3], [1, 4, 3], [0, 9, 0], [0, 9, 0], [0, 9, 0], [0, 9, 0]],
    }
    rows = [
        (name, layer, token, float(value))
        for name, layers in by_layer.items()
        for layer, values in enumerate(layers)
        for token, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["instance", "layer", "virtual_token", "value"])


def test_peaks_by_hand(accumulation: pd.DataFrame) -> None:
    """Shallow means: b (6, 2, 1), mean 3; a (1, 2, 3), mean 2. Without the sink, b peaks at 1 with a ratio of 2 / 3 and
    a peaks at 2 with 3 / 2.
    """
    peaks = accumulation_peaks(accumulation)
    assert peaks.index.tolist() == ["b", "a"]
    assert peaks["peak_token"].tolist() == [1, 2]
    assert peaks["peak_ratio"].tolist() == pytest.approx([2 / 3, 3 / 2])
    with_sink = accumulation_peaks(accumulation, exclude_sink=False)
    assert with_sink["peak_token"].tolist() == [0, 2]
    assert with_sink["peak_ratio"].tolist() == pytest.approx([2, 3 / 2])
    deep = accumulation_peaks(accumulation, layers=(4, 5))
    assert deep["peak_token"].tolist() == [1, 1]


def test_unknown_layers_and_a_prompt_of_the_sink_alone_raise(accumulation: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="there is no layer 6"):
        accumulation_peaks(accumulation, layers=(0, 6))
    sink = accumulation[accumulation["virtual_token"] == 0]
    with pytest.raises(DPCInterpError, match="no virtual token is left to be the peak"):
        accumulation_peaks(sink)
    assert accumulation_peaks(sink, exclude_sink=False)["peak_token"].tolist() == [0, 0]


def test_frame_by_hand() -> None:
    """Values [batch, layer, virtual token] in the order of their instances, layers and tokens."""
    frame = accumulation_frame(torch.arange(8.0).view(2, 2, 2), ["b", "a"])
    assert frame.columns.tolist() == ["instance", "layer", "virtual_token", "value"]
    assert frame.to_numpy().tolist()[:3] == [["b", 0, 0, 0.0], ["b", 0, 1, 1.0], ["b", 1, 0, 2.0]]
    assert frame.to_numpy().tolist()[-1] == ["a", 1, 1, 7.0]


@pytest.fixture
def attracting(build: Callable[..., HookedTransformer]) -> HookedTransformer:
    """A model that attends to whatever carries the direction u: all queries are one vector, which keys match by u."""
    model = build("learned", seed=4)
    u = torch.zeros(16)
    u[3], u[7] = 1.0, -1.0  # LayerNorm keeps a direction of mean zero
    for block in model.blocks:
        block.attn.W_Q.data.zero_()
        block.attn.b_Q.data.zero_()
        block.attn.b_Q.data[:, 0] = 4.0
        block.attn.W_K.data.mul_(0.1)
        block.attn.W_K.data[:, :, 0] = u
    model.pos_embed.W_pos.data.mul_(0.1)
    model.embed.W_E.data.mul_(0.3)
    model.embed.W_E.data[:, [3, 7]] = 0.0  # no token of the text carries u
    return model


def planted(token: int) -> SoftPrompt:
    """A prompt in which one virtual token carries u."""
    vectors = 0.3 * torch.randn(6, 16, generator=torch.Generator().manual_seed(2))
    vectors[:, [3, 7]] = 0.0
    vectors[token, 3], vectors[token, 7] = 2.0, -2.0
    return SoftPrompt(vectors, f"planted-{token}")


@pytest.fixture
def runs(attracting: HookedTransformer, problems: list[Problem]) -> list[Transcript]:
    transcripts = generate(attracting, problems[:6], planted(1), max_new_tokens=12, progress=False)
    return drop_empty_rationales(attracting, transcripts)


@pytest.mark.parametrize("token", [1, 2, 5])
def test_planted_token_is_the_peak(attracting: HookedTransformer, runs: list[Transcript], token: int) -> None:
    analysis = analyse(attracting, runs, planted(token), progress=False)
    peaks = accumulation_peaks(analysis.accumulation)
    assert len(peaks) == len(runs) > 3
    assert (peaks["peak_token"] == token).all()
    assert (peaks["peak_ratio"] > 3).all()
    assert plan_corruption(analysis) == [CorruptionPlan((token,), 0.0, 10)] * len(runs)
    stats = trigger_statistics(analysis)
    assert stats["peak_token"].tolist() == [token] * len(runs)
    assert stats["peak_ratio"].tolist() == pytest.approx(peaks["peak_ratio"].tolist())


def test_planted_first_token_counts_as_the_sink(attracting: HookedTransformer, runs: list[Transcript]) -> None:
    analysis = analyse(attracting, runs, planted(0), progress=False)
    assert (accumulation_peaks(analysis.accumulation, exclude_sink=False)["peak_token"] == 0).all()
    assert (accumulation_peaks(analysis.accumulation)["peak_token"] != 0).all()
    assert (accumulation_peaks(analysis.accumulation)["peak_ratio"] < 1).all()
    assert {plan.tokens for plan in plan_corruption(analysis, exclude_sink=False)} == {(0,)}
