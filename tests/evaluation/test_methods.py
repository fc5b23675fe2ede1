"""Every method's answers, put together again from single generations; stored runs go on where they stopped.

The texts of a random model hold no answer: here the whole text is the answer, and the gold answers are chosen so that
some problems are right, some set right by corruption and some wrong either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dpc_interp import (
    CorruptionPlan,
    DPCInterpError,
    Problem,
    Results,
    SoftPrompt,
    TriggerRule,
    analyse,
    calibrate_trigger,
    evaluate,
    generate,
    load_problems,
    plan_corruption,
    plan_random,
    trigger_statistics,
    with_rationale,
)
from dpc_interp.analysis.trigger import STATISTICS
from dpc_interp.evaluation.methods import METHODS
from dpc_interp.lm.lens import HookedTransformer
from dpc_interp.tasks.answers import is_correct

OPTIONS = {"max_new_tokens": 16, "progress": False, "seed": 1, "gamma": 25, "mask": 0.5}


@pytest.fixture(scope="module", autouse=True)
def the_text_is_the_answer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpc_interp.lm.generation.extract_answer", lambda text: text or None)
        yield


@pytest.fixture(scope="module")
def model(build: Callable[..., HookedTransformer], prompt: SoftPrompt) -> HookedTransformer:
    """The first random model that sometimes stops at once, without a rationale."""
    tried = load_problems("story", "test", n=27, max_steps=2)
    for seed in range(40):
        model = build("gqa", seed=seed, stop_logit=1.6)
        runs = generate(model, tried, prompt, max_new_tokens=16, progress=False)
        if 15 < len(with_rationale(runs, model)) < 25:
            return model
    raise AssertionError("no such model among 40")


Texts = dict[str, str]


def texts(
    model: HookedTransformer,
    problems: list[Problem],
    prompt: SoftPrompt | None,
    plans: dict[str, CorruptionPlan] | None = None,
) -> Texts:
    """What the model writes for each problem; problems without a plan are left as they are."""
    applied = None if plans is None else [plans.get(problem.id, CorruptionPlan()) for problem in problems]
    runs = generate(model, problems, prompt, plans=applied, max_new_tokens=16, progress=False)
    return {run.problem.id: run.text for run in runs}


def peak_plans(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt, gamma: float = 25
) -> dict[str, CorruptionPlan]:
    runs = with_rationale(generate(model, problems, prompt, max_new_tokens=16, progress=False), model)
    found = analyse(model, runs, prompt, progress=False)
    return dict(zip(found.instances["instance"], plan_corruption(found, gamma, 0.5), strict=True))


def with_gold(model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt) -> list[Problem]:
    """In turn: right, set right by corruption, wrong either way."""
    before, after = texts(model, problems, prompt), texts(model, problems, prompt, peak_plans(model, problems, prompt))
    golds = [(before[p.id], after[p.id], "neither")[k % 3] for k, p in enumerate(problems)]
    return [replace(p, answer=gold) for p, gold in zip(problems, golds, strict=True)]


@pytest.fixture(scope="module")
def asked(model: HookedTransformer, prompt: SoftPrompt) -> list[Problem]:
    return with_gold(model, load_problems("story", "test", n=27, max_steps=2), prompt)


@pytest.fixture(scope="module")
def validation(model: HookedTransformer, prompt: SoftPrompt) -> list[Problem]:
    return with_gold(model, load_problems("story", "validation", n=24, max_steps=2), prompt)


@pytest.fixture(scope="module")
def results(model: HookedTransformer, asked: list[Problem], validation: list[Problem], prompt: SoftPrompt) -> Results:
    return evaluate(model, asked, prompt, list(METHODS), validation=validation, **OPTIONS)


@pytest.fixture(scope="module")
def halved(model: HookedTransformer, asked: list[Problem], prompt: SoftPrompt, results: Results) -> Results:
    """A rule that fires on about half of the problems, whatever calibration finds."""
    rule = replace(results.rule, threshold=float(results.statistics["late_share"].median()))
    return evaluate(model, asked, prompt, list(METHODS), rule=rule, **OPTIONS)


@pytest.fixture(scope="module")
def tables(results: Results) -> dict[str, pd.DataFrame]:
    return {method: frame.set_index("instance") for method, frame in results.instances.groupby("method")}


def test_each_method_has_each_problem_in_order(
    results: Results, tables: dict[str, pd.DataFrame], asked: list[Problem]
) -> None:
    assert list(results.instances["method"].unique()) == list(METHODS)
    for table in tables.values():
        assert table.index.tolist() == [problem.id for problem in asked]
    assert set(results.instances["task"]) == {"story"}
    assert set(results.instances["prompt"]) == {"random"}


def test_some_run_has_no_rationale(results: Results, asked: list[Problem]) -> None:
    assert 10 < len(results.statistics) < len(asked), "the path of runs that cannot be analysed is taken"


def test_rule_is_calibrated_on_validation_alone(
    model: HookedTransformer, results: Results, validation: list[Problem], prompt: SoftPrompt
) -> None:
    runs = with_rationale(generate(model, validation, prompt, max_new_tokens=16, progress=False), model)
    stats = trigger_statistics(analyse(model, runs, prompt, progress=False))
    expected = calibrate_trigger(stats)
    assert (results.rule.statistic, results.rule.split, results.rule.n) == ("late_share", "validation", len(stats))
    assert results.rule.threshold == pytest.approx(expected.threshold)
    pd.testing.assert_frame_equal(results.validation, stats, rtol=1e-4)


def test_answers_where_nothing_fires(
    model: HookedTransformer, tables: dict[str, pd.DataFrame], asked: list[Problem], prompt: SoftPrompt
) -> None:
    for method, given in (("base", None), ("pt", prompt)):
        expected = texts(model, asked, given)
        assert tables[method]["answer"].fillna("").to_dict() == expected
        assert not tables[method]["fired"].any()


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("base", "pt")])
def test_answers_are_the_corrupted_ones_where_fired(
    model: HookedTransformer,
    halved: Results,
    asked: list[Problem],
    prompt: SoftPrompt,
    method: str,
) -> None:
    ids = halved.statistics["instance"].tolist()
    plans = {
        "random": dict(zip(ids, plan_random(ids, prompt.n_virtual, 1, 25, 0.5), strict=True)),
        "dpc, mask only": peak_plans(model, asked, prompt, gamma=0),
        "dpc, gamma only": {name: CorruptionPlan(gamma=25) for name in ids},
    }
    plans["dpc, random token"] = plans["random"]
    before = texts(model, asked, prompt)
    after = texts(model, asked, prompt, plans.get(method, peak_plans(model, asked, prompt)))
    table = halved.instances[halved.instances["method"] == method].set_index("instance")
    expected = {name: after[name] if fired else before[name] for name, fired in table["fired"].items()}
    assert table["answer"].fillna("").to_dict() == expected
    assert expected != before, "or the test would show nothing"
    golds = {problem.id: problem.answer for problem in asked}
    assert table["correct"].to_dict() == {
        name: is_correct(text or None, golds[name]) for name, text in expected.items()
    }


def test_methods_fire_where_they_should(results: Results, tables: dict[str, pd.DataFrame]) -> None:
    stats = results.statistics.set_index("instance")
    by_rule = stats.index[stats["late_share"] > results.rule.threshold]
    fired = {method: set(table.index[table["fired"]]) for method, table in tables.items()}
    assert 0 < len(by_rule) < len(stats)
    for method in ("dpc", "dpc, random token", "dpc, mask only", "dpc, gamma only"):
        assert fired[method] == set(by_rule)
    assert fired["oracle"] == set(tables["pt"].index[~tables["pt"]["correct"]]) & set(stats.index)
    assert fired["always"] == set(stats.index)
    assert len(fired["random"]) == len(by_rule)
    assert fired["random"] != set(by_rule)


def test_oracle_is_a_ceiling(results: Results) -> None:
    accuracy = results.summary.set_index("method")["accuracy"]
    assert accuracy["oracle"] == accuracy.drop("base").max() > accuracy["pt"]
    assert results.summary.set_index("method").loc["oracle", "broken"] == 0


def test_triggers_are_ranked_against_both_outcomes(results: Results, tables: dict[str, pd.DataFrame]) -> None:
    ids = results.statistics["instance"]
    outcomes = {
        "PT was wrong": ~tables["pt"]["correct"][ids].to_numpy(bool),
        "corruption fixes it": (tables["always"]["correct"] & ~tables["pt"]["correct"])[ids].to_numpy(bool),
    }
    found = results.triggers.set_index(["outcome", "statistic"])
    for (outcome, statistic), row in found.iterrows():
        expected = roc_auc_score(outcomes[outcome], results.statistics[statistic])
        assert row["auroc"] == pytest.approx(expected), (outcome, statistic)
        assert row["base_rate"] == pytest.approx(outcomes[outcome].mean())
    assert len(found) == 2 * len(STATISTICS)


def test_accuracy_criterion_uses_the_corrupted_validation_answers(
    model: HookedTransformer, asked: list[Problem], validation: list[Problem], prompt: SoftPrompt
) -> None:
    results = evaluate(model, asked[:6], prompt, ["dpc"], validation=validation, criterion="accuracy", **OPTIONS)
    after = texts(model, validation, prompt, peak_plans(model, validation, prompt))
    golds = {problem.id: problem.answer for problem in validation}
    stats = results.validation
    expected = [after[name] != "" and after[name] == golds[name] for name in stats["instance"]]
    assert stats["corrupted_correct"].tolist() == expected
    assert results.rule.threshold == calibrate_trigger(stats, "accuracy").threshold
    assert results.rule.criterion == "accuracy"


FRAMES = ("instances", "summary", "triggers", "statistics", "validation")


def assert_same(found: Results, expected: Results) -> None:
    for name in FRAMES:
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))
    for name in ("flow", "accumulation", "tokens", "instances"):
        pd.testing.assert_frame_equal(getattr(found.analysis, name), getattr(expected.analysis, name))
    assert found.analysis.options == expected.analysis.options
    assert found.rule == expected.rule
    assert [run.text for run in found.runs] == [run.text for run in expected.runs]


class Counter:
    """Stands before a stage's function: counts its calls, and stops the one with a given number."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str, stop_at: int | None = None):
        self.calls, self.stop_at = 0, stop_at
        from dpc_interp.evaluation import jobs

        self.function = getattr(jobs, name)
        patch.setattr(jobs, name, self)

    def __call__(self, *args: object, **options: object) -> object:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return self.function(*args, **options)


def test_a_stored_run_is_read_again(
    model: HookedTransformer,
    results: Results,
    asked: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    tmp_path: Path,
) -> None:
    whole = {"validation": validation, "out": tmp_path / "run", **OPTIONS}
    first = evaluate(model, asked, prompt, list(METHODS), **whole)
    assert first.instances["answer"].fillna("").tolist() == results.instances["answer"].fillna("").tolist()
    with pytest.MonkeyPatch.context() as patch:
        generated, analysed = Counter(patch, "generate"), Counter(patch, "analyse")
        again = evaluate(model, asked, prompt, list(METHODS), **whole)
        assert_same(again, first)
        pd.testing.assert_frame_equal(again.timings, first.timings)
        part = evaluate(model, asked, prompt, ["dpc"], **whole)
        assert generated.calls <= 1, "fewer methods need at most the generation for fewer problems"
        assert analysed.calls == 0
    dpc = first.instances[first.instances["method"].isin(["pt", "dpc"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(part.instances, dpc)


@pytest.mark.parametrize(
    "change", [{"gamma": 30}, {"seed": 2}, {"max_new_tokens": 17}, {"exclude_sink": False}, {"criterion": "accuracy"}]
)
def test_a_stored_run_of_other_options_is_refused(
    model: HookedTransformer,
    asked: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    tmp_path: Path,
    change: dict[str, object],
) -> None:
    rule = {"rule": TriggerRule("late_share", 0.5)} if "criterion" not in change else {"validation": validation}
    evaluate(model, asked[:3], prompt, ["pt"], out=tmp_path, **rule, **OPTIONS)
    with pytest.raises(DPCInterpError, match=f"another {next(iter(change))}"):
        evaluate(model, asked[:3], prompt, ["pt"], out=tmp_path, **rule, **OPTIONS | change)


def test_a_stored_run_of_other_problems_prompts_or_models_is_refused(
    model: HookedTransformer, build, asked: list[Problem], prompt: SoftPrompt, tmp_path: Path
) -> None:
    options = {"out": tmp_path, "rule": TriggerRule("late_share", 0.5), **OPTIONS}
    evaluate(model, asked[:3], prompt, ["pt"], **options)
    for what, inputs in {
        "problems": (model, asked[1:4], prompt),
        "prompt": (model, asked[:3], SoftPrompt(prompt.vectors + 1e-3)),
        "model": (build("gqa", stop_logit=5.0), asked[:3], prompt),
    }.items():
        with pytest.raises(DPCInterpError, match=f"another {what}"):
            evaluate(*inputs, ["pt"], **options)


@pytest.mark.parametrize(("stage", "stop_at"), [("generate", 2), ("analyse", 1), ("generate", 4), ("analyse", 2)])
def test_an_interrupted_run_goes_on(
    model: HookedTransformer,
    results: Results,
    asked: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    tmp_path: Path,
    unchanged,
    stage: str,
    stop_at: int,
) -> None:
    whole = {"validation": validation, "out": tmp_path, **OPTIONS}
    with pytest.MonkeyPatch.context() as patch:
        counters = {name: Counter(patch, name, stop_at if name == stage else None) for name in ("generate", "analyse")}
        with unchanged(model), pytest.raises(KeyboardInterrupt):
            evaluate(model, asked, prompt, list(METHODS), **whole)
    done = {name: counter.calls - (name == stage) for name, counter in counters.items()}
    with pytest.MonkeyPatch.context() as patch:
        rest = {name: Counter(patch, name) for name in ("generate", "analyse")}
        found = evaluate(model, asked, prompt, list(METHODS), **whole)
    assert {name: done[name] + rest[name].calls for name in done} == {"generate": 7, "analyse": 2}, (
        "nothing is made twice"
    )
    assert found.instances["answer"].fillna("").tolist() == results.instances["answer"].fillna("").tolist()
    np.testing.assert_allclose(found.statistics["late_share"], results.statistics["late_share"])


def test_refused_before_anything_is_generated(
    model: HookedTransformer,
    asked: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    tmp_path: Path,
    untyped,
) -> None:
    refused = {
        "validation and a reported": {"validation": [*validation, asked[4]]},
        "unknown method": {"methods": ["dpc", "magic"]},
        "unknown statistic": {"statistic": "magic"},
        "unknown criterion": {"criterion": "magic"},
        "gamma is 120": {"gamma": 120},
        "mask is -1": {"mask": -1},
        "several tasks": {"problems": [*asked, replace(asked[0], task="rule", id="rule-0")]},
        "the id": {"problems": [*asked, asked[0]]},
        "no problems": {"problems": []},
        "needs \\[n_virtual, 16\\]": {"prompt": SoftPrompt(prompt.vectors[:, :8])},
    }
    with pytest.MonkeyPatch.context() as patch:
        counter = Counter(patch, "generate")
        for message, change in refused.items():
            options = {
                "problems": asked,
                "prompt": prompt,
                "validation": validation,
                "out": tmp_path / "run",
                **OPTIONS,
            }
            with pytest.raises(DPCInterpError, match=message) as caught:
                evaluate(model, **options | change)
            assert "\n" not in str(caught.value)
        assert counter.calls == 0
    assert not (tmp_path / "run").exists()
