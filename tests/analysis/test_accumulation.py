"""j* by hand, and a virtual token planted so that everything attends to it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch

from dpc_interp import (
    CorruptionPlan,
    Problem,
    SoftPrompt,
    Transcript,
    analyse,
    generate,
    peaks,
    plan_corruption,
    trigger_statistics,
    with_rationale,
)
from dpc_interp.analysis.accumulation import deep_layers, shallow_layers
from dpc_interp.lm.lens import HookedTransformer


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
    """Shallow means: b (6, 2, 1), mean 3; a (1, 2, 3), mean 2. Without the sink b peaks at 1 with 2 / 3, a at 2 with 3
    / 2.
    """
    found = peaks(accumulation)
    assert found.index.tolist() == ["b", "a"]
    assert found["peak_token"].tolist() == [1, 2]
    assert found["peak_ratio"].tolist() == pytest.approx([2 / 3, 3 / 2])
    with_sink = peaks(accumulation, exclude_sink=False)
    assert with_sink["peak_token"].tolist() == [0, 2]
    assert with_sink["peak_ratio"].tolist() == pytest.approx([2, 3 / 2])
    deep = peaks(accumulation, layers=(4, 5))
    assert deep["peak_token"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("n_layers", "shallow", "deep"),
    [
        (1, (0,), (0,)),
        (2, (0,), (1,)),
        (3, (0,), (2,)),
        (6, (0, 1), (4, 5)),
        (8, (0, 1), (6, 7)),
        (32, range(10), range(22, 32)),
    ],
)
def test_layers_are_the_first_and_the_last_third(n_layers: int, shallow, deep) -> None:
    assert shallow_layers(n_layers) == tuple(shallow)
    assert deep_layers(n_layers) == tuple(deep)


@pytest.fixture
def drawn(build: Callable[..., HookedTransformer]) -> HookedTransformer:
    """Every query is the same vector q; keys read the residual's direction u into q. What carries u is looked at."""
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


def planted(at: int) -> SoftPrompt:
    vectors = 0.3 * torch.randn(6, 16, generator=torch.Generator().manual_seed(2))
    vectors[:, [3, 7]] = 0.0
    vectors[at, 3], vectors[at, 7] = 2.0, -2.0
    return SoftPrompt(vectors, f"planted-{at}")


@pytest.fixture
def runs(drawn: HookedTransformer, problems: list[Problem]) -> list[Transcript]:
    return with_rationale(generate(drawn, problems[:6], planted(1), max_new_tokens=12, progress=False), drawn)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_planted_token_is_found(drawn: HookedTransformer, runs: list[Transcript], at: int) -> None:
    found = analyse(drawn, runs, planted(at), progress=False)
    top = peaks(found.accumulation)
    assert len(top) == len(runs) > 3
    assert (top["peak_token"] == at).all()
    assert (top["peak_ratio"] > 3).all()
    assert plan_corruption(found) == [CorruptionPlan((at,), 0.0, 10)] * len(runs)
    stats = trigger_statistics(found)
    assert stats["peak_token"].tolist() == [at] * len(runs)
    assert stats["peak_ratio"].tolist() == pytest.approx(top["peak_ratio"].tolist())


def test_planted_first_token_counts_as_the_sink(drawn: HookedTransformer, runs: list[Transcript]) -> None:
    found = analyse(drawn, runs, planted(0), progress=False)
    assert (peaks(found.accumulation, exclude_sink=False)["peak_token"] == 0).all()
    assert (peaks(found.accumulation)["peak_token"] != 0).all()
    assert (peaks(found.accumulation)["peak_ratio"] < 1).all()
    assert {plan.tokens for plan in plan_corruption(found, exclude_sink=False)} == {(0,)}
