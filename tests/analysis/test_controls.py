"""Sink controls: what stands in front is what is said, and accumulation is read from the prompt's own positions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pandas as pd
import pytest
import torch

from dpc_interp import (
    DPCInterpError,
    Problem,
    SoftPrompt,
    Transcript,
    analyse,
    control_peaks,
    generate,
    peaks,
    saliency_map,
    sink_controls,
    sink_summary,
    tune_prompt,
    with_rationale,
)
from dpc_interp.analysis.controls import CONDITIONS, TEXT, control_prompts
from dpc_interp.lm.lens import HookedTransformer
from dpc_interp.lm.soft_prompt import ContextLengthError

N_VIRTUAL = 5


@pytest.fixture(scope="module")
def runs(model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt) -> list[Transcript]:
    return with_rationale(generate(model, problems[:6], prompt, max_new_tokens=12, progress=False), model)


@pytest.fixture(scope="module")
def found(model: HookedTransformer, runs: list[Transcript], prompt: SoftPrompt) -> pd.DataFrame:
    return sink_controls(model, runs, prompt, progress=False)


def rows(found: pd.DataFrame, condition: str) -> pd.DataFrame:
    of = found[found["condition"] == condition].reset_index(drop=True)
    return of[["instance", "layer", "virtual_token", "value"]]


def test_each_condition_has_each_token_of_each_instance(found: pd.DataFrame, runs: list[Transcript]) -> None:
    assert tuple(found["condition"].unique()) == CONDITIONS
    for condition in CONDITIONS:
        assert len(rows(found, condition)) == len(runs) * 3 * N_VIRTUAL
        assert sorted(rows(found, condition)["virtual_token"].unique()) == list(range(N_VIRTUAL))
    assert set(found["task"]) == {"story"}
    assert set(found["prompt"]) == {"random"}


def test_trained_is_the_analysis_itself(
    model: HookedTransformer, found: pd.DataFrame, runs: list[Transcript], prompt: SoftPrompt
) -> None:
    expected = analyse(model, runs, prompt, progress=False).accumulation
    pd.testing.assert_frame_equal(rows(found, "trained"), expected)


def test_behind_a_text_the_prompts_own_positions_are_read(
    model: HookedTransformer, found: pd.DataFrame, runs: list[Transcript], prompt: SoftPrompt
) -> None:
    """From the whole map of the longer sequence: rows of question and rationale, columns behind the text."""
    text = model.tokenizer(TEXT).input_ids
    front = SoftPrompt(torch.cat([model.W_E[text], prompt.vectors]))
    shifted = rows(found, "trained after text").set_index(["instance", "layer", "virtual_token"])["value"]
    for run in runs[:2]:
        map_ = saliency_map(model, run, front)
        readers = slice(map_.segments.question[0], map_.segments.rationale[1])
        expected = map_.values[:, readers, len(text) : len(text) + N_VIRTUAL].mean(1)
        for layer in range(3):
            got = shifted[run.problem.id][layer].to_numpy()
            np.testing.assert_allclose(got, expected[layer], rtol=1e-4)


def test_untrained_is_where_tuning_starts(model: HookedTransformer, problems: list[Problem]) -> None:
    for seed in (0, 2):
        start = tune_prompt(model, problems, 7, seed, n_steps=0, progress=False)
        found = control_prompts(model, start)
        assert torch.equal(found["untrained"], start.vectors), "the seed is read from the recipe"
        assert not torch.equal(control_prompts(model, start, seed=5)["untrained"], start.vectors)


def test_other_vectors_are_what_is_said(model: HookedTransformer, prompt: SoftPrompt) -> None:
    found = control_prompts(model, prompt)
    torch.testing.assert_close(found["random"].norm(dim=1), prompt.vectors.norm(dim=1))
    assert torch.equal(found["random"], control_prompts(model, prompt)["random"])
    assert not torch.equal(found["random"], control_prompts(model, prompt, seed=1)["random"])
    short = control_prompts(model, prompt, text="Show the")["text"]
    one, two = model.W_E[model.tokenizer("Show the").input_ids]
    torch.testing.assert_close(short, torch.stack([one, two, one, two, one]))
    assert list(control_prompts(model, prompt, conditions=["text", "trained"])) == ["text", "trained"]


def test_peaks_and_their_summary_are_those_of_each_condition(found: pd.DataFrame, runs: list[Transcript]) -> None:
    top = control_peaks(found)
    assert len(top) == len(CONDITIONS) * len(runs)
    summary = sink_summary(top).set_index("condition")
    trained = peaks(rows(found, "trained"))["peak_ratio"]
    for condition in CONDITIONS:
        expected = peaks(rows(found, condition))
        mine = top[top["condition"] == condition].set_index("instance")
        assert mine["peak_token"].to_dict() == expected["peak_token"].to_dict()
        with_first = peaks(rows(found, condition), exclude_sink=False)["peak_token"]
        assert mine["first_is_peak"].to_dict() == (with_first == 0).to_dict()
        row = summary.loc[condition]
        assert row["peak_ratio"] == pytest.approx(expected["peak_ratio"].mean())
        assert row["own_ratio"] == pytest.approx((trained - expected["peak_ratio"]).mean(), abs=1e-12)
        assert row["low"] <= row["peak_ratio"] <= row["high"]
        assert row["peak_share"] == pytest.approx((expected["peak_token"] == row["peak_token"]).mean())
        assert row["first_share"] == pytest.approx((with_first == 0).mean())


def test_the_model_is_left_as_it_was(
    model: HookedTransformer,
    runs: list[Transcript],
    prompt: SoftPrompt,
    unchanged: Callable[[HookedTransformer], AbstractContextManager[None]],
) -> None:
    with unchanged(model):
        sink_controls(model, runs[:1], prompt, conditions=["trained after text"], progress=False)


def test_what_cannot_be_read_is_refused_first(
    model: HookedTransformer, runs: list[Transcript], prompt: SoftPrompt
) -> None:
    with pytest.raises(DPCInterpError, match="unknown condition 'sink'; known: trained, untrained"):
        sink_controls(model, runs, prompt, conditions=["sink"])
    with pytest.raises(DPCInterpError, match="vocabulary lacks words of 'quantum'; give text="):
        sink_controls(model, runs, prompt, text="quantum")
    with pytest.raises(DPCInterpError, match="no runs to analyse"):
        sink_controls(model, [], prompt)
    with pytest.raises(ContextLengthError, match="exceed the model's context of 224"):
        sink_controls(model, runs, prompt, text=TEXT * 20)
