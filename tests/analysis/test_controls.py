"""Sink controls: the vectors of each condition, and accumulation at the positions of the prompt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import gmean

from dpc_interp import (
    DPCInterpError,
    Problem,
    SoftPrompt,
    Transcript,
    accumulation_peaks,
    analyse,
    control_peaks,
    drop_empty_rationales,
    generate,
    saliency_map,
    sink_controls,
    sink_summary,
    tune_prompt,
)
from dpc_interp.analysis.accumulation import chance_peak_ratio
from dpc_interp.analysis.controls import CONDITIONS, TEXT, control_prompts
from dpc_interp.errors import ContextLengthError
from dpc_interp.models.lens import HookedTransformer

N_VIRTUAL = 5


@pytest.fixture(scope="module")
def runs(model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt) -> list[Transcript]:
    return drop_empty_rationales(model, generate(model, problems[:6], prompt, max_new_tokens=12, progress=False))


@pytest.fixture(scope="module")
def controls(model: HookedTransformer, runs: list[Transcript], prompt: SoftPrompt) -> pd.DataFrame:
    return sink_controls(model, runs, prompt, seed=0, progress=False)


def rows(controls: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The accumulation under one condition."""
    chosen = controls[controls["condition"] == condition].reset_index(drop=True)
    return chosen[["instance", "layer", "virtual_token", "value", "into_question", "sink"]]


def test_each_condition_has_each_token_of_each_instance(controls: pd.DataFrame, runs: list[Transcript]) -> None:
    assert tuple(controls["condition"].unique()) == CONDITIONS
    for condition in CONDITIONS:
        assert len(rows(controls, condition)) == len(runs) * 3 * N_VIRTUAL
        assert sorted(rows(controls, condition)["virtual_token"].unique()) == list(range(N_VIRTUAL))
    assert set(controls["task"]) == {"story"}
    assert set(controls["prompt"]) == {"random"}


def test_trained_is_the_analysis_itself(
    model: HookedTransformer, controls: pd.DataFrame, runs: list[Transcript], prompt: SoftPrompt
) -> None:
    expected = analyse(model, runs, prompt, progress=False).accumulation
    pd.testing.assert_frame_equal(rows(controls, "trained"), expected)


def test_after_a_text_the_positions_of_the_prompt_are_read(
    model: HookedTransformer, controls: pd.DataFrame, runs: list[Transcript], prompt: SoftPrompt
) -> None:
    """From the map of the longer sequence: rows of question and rationale, columns of the prompt after the text."""
    text = model.tokenizer(TEXT, add_special_tokens=False).input_ids
    front = SoftPrompt(torch.cat([model.W_E[text], prompt.vectors]))
    shifted = rows(controls, "trained after text").set_index(["instance", "layer", "virtual_token"])["value"]
    for run in runs[:2]:
        map_ = saliency_map(model, run, front)
        destinations = slice(map_.segments.question[0], map_.segments.rationale[1])
        expected = map_.values[:, destinations, len(text) : len(text) + N_VIRTUAL].mean(1)
        for layer in range(3):
            actual = shifted[run.problem.id][layer].to_numpy()
            np.testing.assert_allclose(actual, expected[layer], rtol=1e-4)


def test_untrained_vectors_are_where_tuning_starts(model: HookedTransformer, problems: list[Problem]) -> None:
    for seed in (0, 2):
        start = tune_prompt(model, problems, 7, seed, max_steps=0, progress=False)
        vectors = control_prompts(model, start)
        assert torch.equal(vectors["untrained"], start.vectors), "the seed is read from the recipe"
        assert not torch.equal(control_prompts(model, start, seed=5)["untrained"], start.vectors)


def test_untrained_vectors_of_a_prompt_that_started_from_a_text(
    model: HookedTransformer, problems: list[Problem]
) -> None:
    """A tuning that starts from a text draws no tokens; the control is the text, with any seed."""
    start = tune_prompt(model, problems, 7, init_text="Tom has 7 apples.", max_steps=0, progress=False)
    controls = control_prompts(model, start)
    assert torch.equal(controls["untrained"], start.vectors)
    assert torch.equal(control_prompts(model, start, seed=5)["untrained"], start.vectors)
    drawn = control_prompts(model, SoftPrompt(start.vectors, recipe={"seed": start.recipe["seed"]}))
    assert not torch.equal(drawn["untrained"], start.vectors)
    assert torch.equal(controls["random"], drawn["random"]), "the draws of the other conditions are the same"


def test_untrained_vectors_are_left_out_where_nothing_records_the_start(
    model: HookedTransformer, prompt: SoftPrompt
) -> None:
    bare = SoftPrompt(prompt.vectors)
    assert list(control_prompts(model, bare)) == [name for name in CONDITIONS if name != "untrained"]
    assert "untrained" in control_prompts(model, bare, seed=0)


def test_special_tokens_of_a_text_that_peft_started_from(model: HookedTransformer, prompt: SoftPrompt) -> None:
    recipe = {"init_text": "Tom has", "init_special_tokens": True}
    ids = model.tokenizer("Tom has").input_ids
    assert ids != model.tokenizer("Tom has", add_special_tokens=False).input_ids
    untrained = control_prompts(model, SoftPrompt(prompt.vectors, recipe=recipe))["untrained"]
    torch.testing.assert_close(untrained[: len(ids)], model.W_E[ids])


def test_random_and_text_vectors(model: HookedTransformer, prompt: SoftPrompt) -> None:
    vectors = control_prompts(model, prompt)
    torch.testing.assert_close(vectors["random"].norm(dim=1), prompt.vectors.norm(dim=1))
    assert torch.equal(vectors["random"], control_prompts(model, prompt)["random"])
    assert not torch.equal(vectors["random"], control_prompts(model, prompt, seed=1)["random"])
    short = control_prompts(model, prompt, text="Show the")["text"]
    one, two = model.W_E[model.tokenizer("Show the", add_special_tokens=False).input_ids]
    torch.testing.assert_close(short, torch.stack([one, two, one, two, one]))
    assert list(control_prompts(model, prompt, conditions=["text", "trained"])) == ["text", "trained"]


def test_peaks_and_their_summary_are_those_of_each_condition(controls: pd.DataFrame, runs: list[Transcript]) -> None:
    peaks = control_peaks(controls)
    assert len(peaks) == len(CONDITIONS) * len(runs)
    summary = sink_summary(peaks).set_index("condition")
    trained = accumulation_peaks(rows(controls, "trained"))["peak_ratio"]
    for condition in CONDITIONS:
        expected = accumulation_peaks(rows(controls, condition))
        of_condition = peaks[peaks["condition"] == condition].set_index("instance")
        assert of_condition["peak_token"].to_dict() == expected["peak_token"].to_dict()
        with_first = accumulation_peaks(rows(controls, condition), exclude_sink=False)["peak_token"]
        assert of_condition["first_is_peak"].to_dict() == (with_first == 0).to_dict()
        row = summary.loc[condition]
        assert row["peak_ratio"] == pytest.approx(gmean(expected["peak_ratio"]))
        assert row["own_ratio"] == pytest.approx(gmean(trained / expected["peak_ratio"]))
        by_token = rows(controls, condition).query("layer == 0 and virtual_token > 0")
        table = by_token.pivot_table("value", "instance", "virtual_token")
        assert row["chance"] == of_condition["chance"].iloc[0] == pytest.approx(chance_peak_ratio(table), rel=0.05)
        assert row["low"] <= row["peak_ratio"] <= row["high"]
        assert row["peak_share"] == pytest.approx((expected["peak_token"] == row["peak_token"]).mean())
        assert row["first_share"] == pytest.approx((with_first == 0).mean())


def test_the_model_is_left_unchanged(
    model: HookedTransformer,
    runs: list[Transcript],
    prompt: SoftPrompt,
    unchanged: Callable[[HookedTransformer], AbstractContextManager[None]],
) -> None:
    with unchanged(model):
        sink_controls(model, runs[:1], prompt, conditions=["trained after text"], progress=False)


def test_invalid_arguments_raise_before_the_first_pass(
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
