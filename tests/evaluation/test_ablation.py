"""`ablate` gives the rows of its cells evaluated one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dpc_interp import DPCInterpError, Problem, SoftPrompt, ablate, evaluate, generate
from dpc_interp.models.hooked import HookedModel

pytestmark = pytest.mark.usefixtures("text_is_the_answer")


def test_a_grid_is_its_cells_evaluated_one_by_one(
    grid_arguments: dict[str, Any],
    model: HookedModel,
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    decoding: dict[str, Any],
) -> None:
    grid = {"gamma": [10, 25], "deep": [None, [0, 2]]}
    rows = ablate(**grid_arguments, methods=["random", "dpc"], grid=grid, mask=0.5)
    assert list(rows["gamma"]) == [10, 10, 10, 10, 25, 25, 25, 25]
    assert list(rows["deep"]) == ["2", "2", "0,2", "0,2"] * 2
    assert set(rows["shallow"]) == {"0"}
    assert (rows["mask"] == 0.5).all()
    assert set(rows["split"]) == {"test"}
    assert set(rows["n_validation"]) == {9}
    for i, (gamma, deep) in enumerate([(10, None), (10, [0, 2]), (25, None), (25, [0, 2])]):
        options = {"gamma": gamma, "deep": deep, "mask": 0.5, **decoding}
        single = evaluate(model, reported, prompt, ["random", "dpc"], validation=validation, **options)
        cell = rows.iloc[2 * i : 2 * i + 2].reset_index(drop=True)
        expected = single.summary[single.summary["method"] != "pt"].reset_index(drop=True)
        pd.testing.assert_frame_equal(cell[expected.columns], expected)
        assert cell["threshold"].tolist() == [single.rule.threshold] * 2
    assert rows["difference"].abs().sum() > 0, "corruption must change some answers"


def test_validation_answers_that_are_all_alike_leave_the_other_methods_measured(
    grid_arguments: dict[str, Any], validation: list[Problem]
) -> None:
    grid_arguments["validation"] = {"story": [replace(problem, answer="neither") for problem in validation]}
    rows = ablate(**grid_arguments, methods=["always", "dpc"], grid={"gamma": [0, 25]})
    assert rows["method"].tolist() == ["always", "dpc"] * 2
    by_method = rows.groupby("method")
    assert by_method.get_group("always")["accuracy"].notna().all()
    assert (by_method.get_group("always")["reason"] == "").all()
    assert by_method.get_group("dpc")[["accuracy", "threshold"]].isna().all(axis=None)
    assert by_method.get_group("dpc")["reason"].str.startswith("every validation answer has the same outcome").all()


def test_contexts_are_methods_that_fire_everywhere(
    grid_arguments: dict[str, Any],
    model: HookedModel,
    reported: list[Problem],
    prompt: SoftPrompt,
    decoding: dict[str, Any],
    scaled_attention,
    unchanged,
) -> None:
    contexts = {"half": scaled_attention(1, 0.5), "none": scaled_attention(1, 0.0)}
    validation = grid_arguments["validation"]["story"]
    with unchanged(model):
        results = evaluate(model, reported, prompt, ["pt"], validation=validation, contexts=contexts, **decoding)
    for name, context in contexts.items():
        with context(model):
            expected = [run.text for run in generate(model, reported, prompt, **decoding)]
        rows = results.instances[results.instances["method"] == name]
        assert rows["answer"].fillna("").tolist() == expected
        assert rows["fired"].all()
    assert results.instances.groupby("method")["answer"].apply(tuple).nunique() == 3
    rows = ablate(**grid_arguments, methods=[], contexts=contexts)
    assert rows["method"].tolist() == ["half", "none"]
    np.testing.assert_array_equal(rows["accuracy"], results.summary["accuracy"][1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": {"gamma": [10]}, "gamma": 5}, "gamma is in the grid and given for all cells; give it once"),
        ({"grid": {"gamma": []}}, "the grid has no list of values for gamma"),
        ({"grid": {"target": "gold"}}, "the grid has no list of values for target"),
        ({"grid": {"gama": [10]}}, "unknown option 'gama'; the closest known ones are gamma"),
        ({"gama": 10}, "unknown option 'gama'; the closest known ones are gamma, "),
    ],
)
def test_ambiguous_or_unknown_options_raise(arguments: dict[str, Any], message: str) -> None:
    """Before the models and the prompts are loaded."""
    with pytest.raises(DPCInterpError, match=message):
        ablate("no such model", "no such task", "no such prompt", **arguments)


def test_answers_are_read_as_each_cell_says(
    grid_arguments: dict[str, Any],
    model: HookedModel,
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    decoding: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Texts are shared by the cells, answers and outcomes are not."""
    extractions = [lambda text: text, lambda text: text[:-1]]
    rows = ablate(**grid_arguments, methods=["pt", "always"], grid={"extraction": extractions})
    for extraction, (_, cell) in zip(extractions, rows.groupby(rows.index // 2), strict=True):
        keywords = {**decoding, "extraction": extraction, "validation": validation}
        single = evaluate(model, reported, prompt, ["pt", "always"], **keywords)
        columns = ["accuracy", "difference"]
        assert cell[columns].to_numpy().tolist() == single.summary[columns].to_numpy().tolist()
    assert rows["accuracy"].nunique() > 1
