"""j*, evenness and the chance level by hand, and a virtual token planted so that everything attends to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np
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
from dpc_interp.analysis.accumulation import (
    accumulation_frame,
    by_virtual_token,
    chance_peak_ratio,
    evenness,
    peaks_of,
    sinks_in,
)
from dpc_interp.models.lens import HookedTransformer


@pytest.fixture
def accumulation() -> pd.DataFrame:
    """Six layers, so 0 and 1 are shallow; three tokens; instance b comes first. The question draws on 9 - value."""
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
    frame = pd.DataFrame(rows, columns=["instance", "layer", "virtual_token", "value"])
    return frame.assign(into_question=9 - frame["value"])


def test_peaks_by_hand(accumulation: pd.DataFrame) -> None:
    """Shallow means: b (6, 2, 1), mean 3; a (1, 2, 3), mean 2. Without the sink, b peaks at 1 with 2 / 1.5 and a at 2
    with 3 / 2.5.
    """
    peaks = accumulation_peaks(accumulation)
    assert peaks.index.tolist() == ["b", "a"]
    assert peaks["peak_token"].tolist() == [1, 2]
    assert peaks["peak_ratio"].tolist() == pytest.approx([2 / 1.5, 3 / 2.5])
    with_sink = accumulation_peaks(accumulation, exclude_sink=False)
    assert with_sink["peak_token"].tolist() == [0, 2]
    assert with_sink["peak_ratio"].tolist() == pytest.approx([2, 3 / 2])
    deep = accumulation_peaks(accumulation, layers=(4, 5))
    assert deep["peak_token"].tolist() == [1, 1]


def test_peaks_on_the_question_by_hand(accumulation: pd.DataFrame) -> None:
    """Shallow means: b (3, 7, 8), mean 6; a (8, 7, 6), mean 7. Without the sink the means are 7.5 and 6.5."""
    into_question = by_virtual_token(accumulation, (0, 1), "into_question")
    peaks = peaks_of(into_question)
    assert peaks["peak_token"].to_dict() == {"b": 2, "a": 1}
    assert peaks["peak_ratio"].tolist() == pytest.approx([8 / 7.5, 7 / 6.5])
    with_sink = peaks_of(by_virtual_token(accumulation, (0, 1), "into_question", exclude_sink=False))
    assert with_sink["peak_token"].to_dict() == {"b": 2, "a": 0}
    assert with_sink["peak_ratio"].tolist() == pytest.approx([8 / 6, 8 / 7])


def test_every_marked_sink_is_left_out(accumulation: pd.DataFrame) -> None:
    """Of (6, 2, 1) and (1, 2, 3) the middle token is left."""
    marked = accumulation.assign(sink=accumulation["virtual_token"].isin([0, 2]))
    assert sinks_in(marked) == (0, 2)
    assert sinks_in(accumulation) == (0,), "a frame without the column"
    peaks = accumulation_peaks(marked)
    assert peaks["peak_token"].tolist() == [1, 1]
    assert peaks["peak_ratio"].tolist() == [1, 1]
    assert accumulation_peaks(marked.assign(sink=False))["peak_token"].tolist() == [0, 2]


def test_means_by_virtual_token(accumulation: pd.DataFrame) -> None:
    """Instances in the order of the frame, tokens in theirs, whatever the order of the rows of an instance."""
    shallow = by_virtual_token(accumulation.iloc[::-1], (0, 1), exclude_sink=False)
    assert shallow.index.tolist() == ["a", "b"]
    assert shallow.columns.tolist() == [0, 1, 2]
    assert shallow.loc[["b", "a"]].to_numpy().tolist() == [[6, 2, 1], [1, 2, 3]]
    assert by_virtual_token(accumulation, (1,), exclude_sink=False).to_numpy().tolist() == [[6, 3, 0], [1, 4, 3]]
    assert by_virtual_token(accumulation, (0,), "into_question").to_numpy().tolist() == [[8, 7], [9, 6]]


def test_evenness_by_hand() -> None:
    """Shares of 1/2 and 1/2 of three tokens have the entropy log 2; shares of 1/4, 1/4 and 1/2 have 3/2 log 2."""
    table = pd.DataFrame([[2, 2, 2], [0, 5, 0], [3, 0, 3], [1, 1, 2], [0, 0, 0]], index=list("abcde"))
    values = evenness(table)
    assert values.index.tolist() == list("abcde")
    assert values.tolist()[:4] == pytest.approx([1, 0, math.log(2) / math.log(3), 1.5 * math.log(2) / math.log(3)])
    assert math.isnan(values["e"])
    assert evenness(1e-12 * table)["d"] == pytest.approx(values["d"]), "the amount does not matter"
    assert evenness(pd.DataFrame([[1.0, 3.0]]))[0] == pytest.approx(
        -(math.log(1 / 4) / 4 + 3 * math.log(3 / 4) / 4) / math.log(2)
    )


def test_the_chance_level_is_the_mean_over_all_deals() -> None:
    """Two instances of two tokens: centred logs times sqrt(2), +-log(3) / sqrt(2) and +-log(7) / sqrt(2)."""
    table = pd.DataFrame([[1.0, 3.0], [10.0, 70.0]])
    cells = [sign * math.log(ratio) / math.sqrt(2) for ratio in (3, 7) for sign in (-1, 1)]
    deals = np.exp(list(permutations(cells))).reshape(-1, 2)
    exact = np.exp(np.log(deals.max(axis=1) / deals.mean(axis=1)).mean())
    levels = [chance_peak_ratio(table, seed=seed) for seed in range(20)]
    assert len(set(levels)) > 10, "the draws depend on the seed"
    assert np.mean(levels) == pytest.approx(exact, rel=0.01)
    assert chance_peak_ratio(table) == levels[0]
    assert chance_peak_ratio(1e-9 * table) == pytest.approx(levels[0])


def test_even_tokens_have_a_chance_level_of_1() -> None:
    even = pd.DataFrame(np.outer([1.0, 5.0, 0.1], np.ones(4)))
    assert chance_peak_ratio(even) == pytest.approx(1)


def test_an_instance_that_draws_on_no_token_has_no_part_in_the_chance_level() -> None:
    table = pd.DataFrame([[1.0, 3.0, 2.0], [10.0, 70.0, 20.0]], index=["a", "b"])
    silent = pd.concat([table, pd.DataFrame([[0.0, 0.0, 0.0]], index=["c"])])
    assert math.isnan(peaks_of(silent)["peak_ratio"]["c"])
    assert chance_peak_ratio(silent) == chance_peak_ratio(table)


@pytest.mark.parametrize("n_virtual", [20, 100])
@pytest.mark.parametrize("family", ["lognormal", "pareto", "gamma"])
def test_exchangeable_tokens_peak_at_their_chance_level(family: str, n_virtual: int) -> None:
    """Also where instances differ in scale; of gamma values the level is somewhat too high, never too low."""
    rng = np.random.default_rng(0)
    shape, gaps = (300, n_virtual), []
    draw = {
        "lognormal": lambda: rng.lognormal(0, 1.5, shape),
        "pareto": lambda: rng.pareto(3, shape) + 1,
        "gamma": lambda: rng.gamma(1, 1, shape),
    }[family]
    for _ in range(3):
        table = pd.DataFrame(draw() * rng.lognormal(0, 2, (300, 1)))
        observed = np.log(peaks_of(table)["peak_ratio"]).mean()
        gaps.append(np.log(chance_peak_ratio(table)) - observed)
    assert -0.04 < np.mean(gaps) < (0.08 if family == "gamma" else 0.04)


def test_a_planted_token_peaks_above_chance() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.lognormal(0, 1, (400, 20)))
    table[7] += 20 * table.mean(axis=1)
    planted = np.exp(np.log(peaks_of(table)["peak_ratio"]).mean())
    assert planted > 1.4 * chance_peak_ratio(table)


def test_unknown_layers_and_a_prompt_of_the_sink_alone_raise(accumulation: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="there is no layer 6"):
        accumulation_peaks(accumulation, layers=(0, 6))
    sink = accumulation[accumulation["virtual_token"] == 0]
    with pytest.raises(DPCInterpError, match="no virtual token is left to be the peak"):
        accumulation_peaks(sink)
    assert accumulation_peaks(sink, exclude_sink=False)["peak_token"].tolist() == [0, 0]


def test_frame_by_hand() -> None:
    """Values [batch, layer, virtual token] in the order of their instances, layers and tokens."""
    values = torch.arange(8.0).view(2, 2, 2)
    frame = accumulation_frame(values, 10 * values, ["b", "a"], sinks=(0,))
    assert frame.columns.tolist() == ["instance", "layer", "virtual_token", "value", "into_question", "sink"]
    assert frame["sink"].tolist() == 4 * [True, False]
    frame = frame.drop(columns="sink")
    assert frame.to_numpy().tolist()[:3] == [["b", 0, 0, 0.0, 0.0], ["b", 0, 1, 1.0, 10.0], ["b", 1, 0, 2.0, 20.0]]
    assert frame.to_numpy().tolist()[-1] == ["a", 1, 1, 7.0, 70.0]


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
    with_sink = accumulation_peaks(analysis.accumulation, exclude_sink=False)
    assert (accumulation_peaks(analysis.accumulation)["peak_ratio"] < with_sink["peak_ratio"]).all()
    assert {plan.tokens for plan in plan_corruption(analysis, exclude_sink=False)} == {(0,)}
