"""A grid is its cells evaluated one by one, each stage made once; sweeps select on validation alone.

As in `test_methods`, a text is its own answer: some golds are what prompt tuning writes, some what a corruption writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dpc_interp import (
    CorruptionPlan,
    DPCInterpError,
    Problem,
    SoftPrompt,
    ablate,
    analyse,
    corruption_variants,
    evaluate,
    generate,
    load_problems,
    peaks,
    plan_random,
    sensitivity,
    single_tokens,
    with_rationale,
)
from dpc_interp.evaluation import jobs
from dpc_interp.evaluation.sweeps import select
from dpc_interp.lm.lens import HookedTransformer

DECODE = {"max_new_tokens": 8, "progress": False}


@pytest.fixture(scope="module", autouse=True)
def the_text_is_the_answer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpc_interp.lm.generation.extract_answer", lambda text: text or None)
        yield


def with_gold(model: HookedTransformer, split: str, n: int, prompt: SoftPrompt) -> list[Problem]:
    """In turn: right, set right by masking token 2, wrong either way; those without a rationale are left out."""
    drawn = load_problems("story", split, n=2 * n, max_steps=2)
    runs = with_rationale(generate(model, drawn, prompt, **DECODE), model)[:n]
    problems = [run.problem for run in runs]
    after = generate(model, problems, prompt, plans=[CorruptionPlan((2,), 0.0, 25)] * len(runs), **DECODE)
    golds = [
        (run.text, changed.text, "neither")[k % 3] for k, (run, changed) in enumerate(zip(runs, after, strict=True))
    ]
    return [replace(p, answer=gold) for p, gold in zip(problems, golds, strict=True)]


@pytest.fixture(scope="module")
def asked(model: HookedTransformer, prompt: SoftPrompt) -> list[Problem]:
    return with_gold(model, "test", 9, prompt)


@pytest.fixture(scope="module")
def validation(model: HookedTransformer, prompt: SoftPrompt) -> list[Problem]:
    return with_gold(model, "validation", 9, prompt)


@pytest.fixture
def where(
    model: HookedTransformer, asked: list[Problem], validation: list[Problem], prompt: SoftPrompt
) -> dict[str, Any]:
    return {"models": model, "tasks": asked, "prompts": prompt, "validation": {"story": validation}, **DECODE}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How often each stage's function was called; `stop` names the generation that is interrupted."""
    counted: dict[str, Any] = {"generate": 0, "analyse": 0, "stop": None}

    def counting(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            if name == "generate" and counted["generate"] + 1 == counted["stop"]:
                raise KeyboardInterrupt
            counted[name] += 1
            return function(*args, **options)

        return call

    for name in ("generate", "analyse"):
        monkeypatch.setattr(jobs, name, counting(name, getattr(jobs, name)))
    return counted


def test_a_grid_is_its_cells_evaluated_one_by_one(
    where: dict[str, Any], model: HookedTransformer, asked: list[Problem], validation: list[Problem], prompt: SoftPrompt
) -> None:
    rows = ablate(**where, methods=["random", "dpc"], grid={"gamma": [10, 25], "deep": [None, [0, 2]]}, mask=0.5)
    assert list(rows["gamma"]) == [10, 10, 10, 10, 25, 25, 25, 25]
    assert list(rows["deep"]) == ["2", "2", "0,2", "0,2"] * 2
    assert set(rows["shallow"]) == {"0"}
    assert (rows["mask"] == 0.5).all()
    assert set(rows["split"]) == {"test"}
    assert set(rows["n_validation"]) == {9}
    for i, (gamma, deep) in enumerate([(10, None), (10, [0, 2]), (25, None), (25, [0, 2])]):
        options = {"gamma": gamma, "deep": deep, "mask": 0.5, **DECODE}
        alone = evaluate(model, asked, prompt, ["random", "dpc"], validation=validation, **options)
        found = rows.iloc[2 * i : 2 * i + 2].reset_index(drop=True)
        expected = alone.summary[alone.summary["method"] != "pt"].reset_index(drop=True)
        pd.testing.assert_frame_equal(found[expected.columns], expected)
        assert found["threshold"].tolist() == [alone.rule.threshold] * 2
    assert rows["difference"].abs().sum() > 0, "or the test would show nothing"


def test_each_distinct_stage_is_made_once(where: dict[str, Any], calls: dict[str, Any], tmp_path: Path) -> None:
    grid = {"gamma": [0, 25], "alpha_offset": [-1.0, 0.0, 0.1]}
    first = ablate(**where, grid=grid, out=tmp_path)
    assert (calls["generate"], calls["analyse"]) == (4, 2), "pt of both splits, two corruptions; two analyses"
    again = ablate(**where, grid=grid, out=tmp_path)
    pd.testing.assert_frame_equal(again, first)
    ablate(**where, grid={"gamma": [25, 0], "beta": [None, 1e-3], "statistic": ["nll", "length"]}, out=tmp_path)
    assert (calls["generate"], calls["analyse"]) == (4, 2), "another grid shares the folder"
    ablate(**where, grid={"target": ["gold"]}, gamma=25, out=tmp_path)
    assert calls["analyse"] == 4


def test_without_a_folder_stages_are_shared_too(where: dict[str, Any], calls: dict[str, Any]) -> None:
    ablate(**where, methods=["always"], grid={"seed": [0, 1, 2]})
    assert (calls["generate"], calls["analyse"]) == (2, 1), "no method needs a trigger, so nothing is calibrated"


def test_a_stopped_grid_goes_on(where: dict[str, Any], calls: dict[str, Any], tmp_path: Path, unchanged) -> None:
    grid = {"gamma": [0, 10, 25], "mask": [0.0, 0.5]}
    whole = ablate(**where, grid=grid)
    needed = dict(calls)
    calls |= {"generate": 0, "analyse": 0, "stop": 5}
    with unchanged(where["models"]), pytest.raises(KeyboardInterrupt):
        ablate(**where, grid=grid, out=tmp_path)
    assert calls["generate"] == 4
    calls["stop"] = None
    pd.testing.assert_frame_equal(ablate(**where, grid=grid, out=tmp_path), whole)
    assert (calls["generate"], calls["analyse"]) == (needed["generate"], needed["analyse"]), "nothing is made twice"


def test_bad_grids_are_refused_before_any_work(
    where: dict[str, Any], prompt: SoftPrompt, calls: dict[str, Any], tmp_path: Path, untyped
) -> None:
    refused: dict[str, dict[str, Any]] = {
        "unknown option 'gama'; known: statistic": {"grid": {"gama": [1]}},
        "unknown method 'magic'": {"methods": ["magic"]},
        "unknown task 'poetry'": {"tasks": ["poetry"]},
        "unknown split 'train'": {"splits": ["train"]},
        "unknown replacement 'zero'": {"grid": {"replace": ["mask", "zero"]}},
        "unknown head_reduction": {"grid": {"head_reduction": ["max"]}},
        "unknown target": {"grid": {"target": ["silver"]}},
        "unknown token 'tallest'": {"grid": {"token": ["tallest"]}},
        "gamma is 120": {"grid": {"gamma": [10, 120]}},
        "no layer 7": {"grid": {"deep": [None, [7]]}},
        "range of layers is empty": {"grid": {"deep": [[]]}},
        "token 5; the prompt has 5": {"grid": {"token": [1, 5]}},
        "top_k is 5; choose 1 to 4": {"grid": {"top_k": [5]}},
        "list of values for gamma": {"grid": {"gamma": []}},
        "in the grid and given": {"grid": {"gamma": [10]}, "gamma": 5},
        "needs \\[n_virtual, 16\\]": {"prompts": [prompt, SoftPrompt(torch.ones(5, 8), "wide")]},
        "two of the prompts are named 'random'": {"prompts": [prompt, prompt]},
        "there is no task": {"tasks": []},
        "must tell its options by its repr": {"contexts": {"mine": lambda model: model.hooks()}},
    }
    for message, change in refused.items():
        with pytest.raises(DPCInterpError, match=message) as caught:
            ablate(**{**where, "out": tmp_path / "grid", **change})
        assert "\n" not in str(caught.value)
    assert (calls["generate"], calls["analyse"]) == (0, 0)
    assert not (tmp_path / "grid").exists()


@dataclass(frozen=True)
class Silenced:
    """The attention of a layer is scaled."""

    layer: int
    factor: float

    def __call__(self, model: HookedTransformer) -> AbstractContextManager[object]:
        name = f"blocks.{self.layer}.attn.hook_pattern"
        return model.hooks(fwd_hooks=[(name, lambda pattern, hook: self.factor * pattern)])


def test_a_context_is_a_method(
    where: dict[str, Any], model: HookedTransformer, asked: list[Problem], prompt: SoftPrompt, unchanged
) -> None:
    contexts = {"half": Silenced(1, 0.5), "none": Silenced(1, 0.0)}
    with unchanged(model):
        found = evaluate(
            model, asked, prompt, ["pt"], validation=where["validation"]["story"], contexts=contexts, **DECODE
        )
    for name, context in contexts.items():
        with context(model):
            expected = [run.text for run in generate(model, asked, prompt, **DECODE)]
        rows = found.instances[found.instances["method"] == name]
        assert rows["answer"].fillna("").tolist() == expected
        assert rows["fired"].all()
    assert found.instances.groupby("method")["answer"].apply(tuple).nunique() == 3
    rows = ablate(**where, methods=[], contexts=contexts)
    assert rows["method"].tolist() == ["half", "none"]
    np.testing.assert_array_equal(rows["accuracy"], found.summary["accuracy"][1:])


def test_variants_are_evaluated_with_their_options(
    where: dict[str, Any], model: HookedTransformer, asked: list[Problem], prompt: SoftPrompt
) -> None:
    changes = {"peak": {}, "random": {"token": "random"}, "two": {"top_k": 2, "replace": "noise"}}
    changes |= {"hidden": {"knock_out": "deep"}}
    rows = corruption_variants(
        **where, methods=["always"], variants=changes, contexts={"half": Silenced(1, 0.5)}, gamma=25
    )
    assert rows["variant"].tolist() == ["peak", "random", "two", "hidden", "half"]
    assert rows["method"].tolist() == ["always", "always", "always", "always", "half"]
    plans = plan_random([p.id for p in asked], prompt.n_virtual, 0, 25)
    golds = [run.correct for run in generate(model, asked, prompt, plans=plans, **DECODE)]
    assert rows.set_index("variant").loc["random", "accuracy"] == np.mean(golds)


def test_single_tokens_are_masked_one_by_one(
    where: dict[str, Any], model: HookedTransformer, asked: list[Problem], prompt: SoftPrompt
) -> None:
    del where["validation"]
    rows = single_tokens(**where, gamma=25)
    assert rows["virtual_token"].tolist() == [0, 1, 2, 3, 4]
    before = generate(model, asked, prompt, **DECODE)
    for row in rows.itertuples():
        plan = CorruptionPlan((row.virtual_token,), 0.0, 25)
        after = generate(model, asked, prompt, plans=[plan] * len(asked), **DECODE)
        change = np.mean([run.correct for run in after]) - np.mean([run.correct for run in before])
        assert row.difference == pytest.approx(change)
        assert row.difference_low <= row.difference <= row.difference_high
    found = analyse(model, before, prompt, progress=False)
    shallow = found.accumulation[found.accumulation["layer"] == 0]
    shares = shallow["value"] / shallow.groupby("instance")["value"].transform("sum")
    np.testing.assert_allclose(rows["accumulation"], shares.groupby(shallow["virtual_token"]).mean(), rtol=1e-4)
    counts = peaks(found.accumulation)["peak_token"].value_counts(normalize=True)
    assert rows.set_index("virtual_token")["peak_share"].loc[counts.index].tolist() == pytest.approx(counts.tolist())
    assert rows["peak_share"].sum() == pytest.approx(1)


@pytest.fixture(scope="module")
def swept(
    model: HookedTransformer, asked: list[Problem], validation: list[Problem], prompt: SoftPrompt
) -> pd.DataFrame:
    values = {
        "gamma": [0, 25],
        "beta": [None, 1.0],
        "shallow": ["third", "all", (1, 2)],
        "target": ["generated", "gold"],
    }
    given = {"values": values, "validation": {"story": validation}, **DECODE}
    return sensitivity(model, asked, prompt, ["always", "dpc"], **given)


def test_one_option_is_changed_at_a_time_on_both_splits(swept: pd.DataFrame) -> None:
    assert list(swept["value"][swept["option"] == "gamma"].unique()) == ["10", "0", "25"]  # the default is measured too
    assert list(swept["value"][swept["option"] == "shallow"].unique()) == ["third", "all", "1-2"]
    assert (swept.groupby(["option", "value", "method"])["split"].apply(set) == {"test", "validation"}).all()
    defaults = {"gamma": "10", "beta": "own", "shallow": "third", "target": "generated"}
    for option, value in defaults.items():
        assert set(swept.loc[(swept["option"] == option) & swept["default"], "value"]) == {value}
    others = swept[swept["option"] != "gamma"]
    assert set(others["gamma"]) == {10}
    counts = swept[swept["default"]].groupby(["split", "method"])["accuracy"].nunique()
    assert (counts == 1).all(), "the default is the same cell whatever option is swept"


def test_sweep_rows_are_those_of_evaluate(
    swept: pd.DataFrame, model: HookedTransformer, asked: list[Problem], validation: list[Problem], prompt: SoftPrompt
) -> None:
    alone = evaluate(model, asked, prompt, ["dpc"], validation=validation, shallow=[1, 2], **DECODE)
    chosen = swept[(swept["value"] == "1-2") & (swept["method"] == "dpc")].set_index("split")
    expected = alone.summary.set_index("method").loc["dpc"]
    assert chosen.loc["test", expected.index[1:]].to_dict() == pytest.approx(expected.iloc[1:].to_dict())
    on_validation = evaluate(model, validation, prompt, ["dpc"], rule=alone.rule, shallow=[1, 2], **DECODE)
    expected = on_validation.summary.set_index("method").loc["dpc"]
    assert chosen.loc["validation", expected.index[1:]].to_dict() == pytest.approx(expected.iloc[1:].to_dict())


def test_selection_never_reads_test_rows(swept: pd.DataFrame) -> None:
    test = swept["split"] == "test"
    shuffled = swept.copy()
    outcomes = ["accuracy", "difference", "difference_low", "difference_high", "fixed", "broken"]
    shuffled.loc[test, outcomes] = swept.loc[test, outcomes].sample(frac=1, random_state=0).to_numpy()
    assert not shuffled["accuracy"].equals(swept["accuracy"])
    pd.testing.assert_series_equal(select(shuffled), swept["selected"], check_names=False)
    per_option = swept[swept["selected"]].groupby(["option", "method", "split"]).size()
    assert (per_option == 1).all()


def test_the_best_on_validation_is_selected_and_the_default_on_a_tie() -> None:
    rows = pd.DataFrame(
        [
            ("gamma", "0", "validation", False, 0.5),
            ("gamma", "10", "validation", True, 0.6),
            ("gamma", "20", "validation", False, 0.6),
            ("mask", "0", "validation", True, 0.6),
            ("mask", "0.5", "validation", False, 0.7),
            ("gamma", "0", "test", False, 0.9),
            ("gamma", "10", "test", True, 0.1),
            ("gamma", "20", "test", False, 0.2),
            ("mask", "0", "test", True, 0.9),
            ("mask", "0.5", "test", False, 0.1),
        ],
        columns=["option", "value", "split", "default", "accuracy"],
    ).assign(model="m", task="t", prompt="p", method="dpc")
    chosen = rows[select(rows)]
    assert list(zip(chosen["option"], chosen["value"], chosen["split"], strict=True)) == [
        ("gamma", "10", "validation"),
        ("mask", "0.5", "validation"),
        ("gamma", "10", "test"),
        ("mask", "0.5", "test"),
    ]
