"""The answers of every method, recomputed by single generations; an interrupted run resumes.

As in `conftest.py` the complete text is the answer, and the gold answers are chosen so that some problems are answered
correctly, some only under corruption, and some never.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
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
    drop_empty_rationales,
    evaluate,
    generate,
    load_problems,
    plan_corruption,
    plan_random,
    trigger_statistics,
)
from dpc_interp.analysis.schema import TRIGGER_STATISTICS
from dpc_interp.evaluation.evaluate import N_VALIDATION
from dpc_interp.evaluation.methods import METHODS, TRIGGERED
from dpc_interp.interventions.knockout import KnockoutPlan
from dpc_interp.interventions.random_prompt import plan_random_prompts
from dpc_interp.models.lens import HookedTransformer
from dpc_interp.tasks.answers import is_correct

pytestmark = pytest.mark.usefixtures("text_is_the_answer")
OPTIONS = {"max_new_tokens": 16, "progress": False, "seed": 1, "gamma": 25, "mask": 0.5}


@pytest.fixture(scope="module")
def model(build: Callable[..., HookedTransformer], prompt: SoftPrompt) -> HookedTransformer:
    """The first random model some of whose transcripts have no rationale."""
    problems = load_problems("story", "test", n=27, max_steps=2)
    for seed in range(40):
        model = build("gqa", seed=seed, stop_logit=1.6)
        runs = generate(model, problems, prompt, max_new_tokens=16, progress=False)
        if 15 < len(drop_empty_rationales(model, runs)) < 25:
            return model
    raise AssertionError("none of 40 models is suitable")


Texts = dict[str, str]


def texts(
    model: HookedTransformer,
    problems: list[Problem],
    prompt: SoftPrompt | None,
    plans: dict[str, CorruptionPlan] | None = None,
) -> Texts:
    """The text for each problem; problems without a plan are not corrupted."""
    applied = None if plans is None else [plans.get(problem.id, CorruptionPlan()) for problem in problems]
    runs = generate(model, problems, prompt, plans=applied, max_new_tokens=16, progress=False)
    return {run.problem.id: run.text for run in runs}


def peak_plans(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt, gamma: float = 25
) -> dict[str, CorruptionPlan]:
    runs = drop_empty_rationales(model, generate(model, problems, prompt, max_new_tokens=16, progress=False))
    analysis = analyse(model, runs, prompt, progress=False)
    return dict(zip(analysis.instances["instance"], plan_corruption(analysis, gamma, 0.5), strict=True))


def with_gold(model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt) -> list[Problem]:
    """In turn: correct, correct under corruption, wrong either way."""
    before, after = texts(model, problems, prompt), texts(model, problems, prompt, peak_plans(model, problems, prompt))
    golds = [(before[p.id], after[p.id], "neither")[k % 3] for k, p in enumerate(problems)]
    return [replace(p, answer=gold) for p, gold in zip(problems, golds, strict=True)]


@pytest.fixture(scope="module")
def reported(model: HookedTransformer, prompt: SoftPrompt, text_is_the_answer: None) -> list[Problem]:
    return with_gold(model, load_problems("story", "test", n=27, max_steps=2), prompt)


@pytest.fixture(scope="module")
def validation(model: HookedTransformer, prompt: SoftPrompt, text_is_the_answer: None) -> list[Problem]:
    return with_gold(model, load_problems("story", "validation", n=24, max_steps=2), prompt)


@pytest.fixture(scope="module")
def results(
    model: HookedTransformer, reported: list[Problem], validation: list[Problem], prompt: SoftPrompt
) -> Results:
    return evaluate(model, reported, prompt, list(METHODS), validation=validation, **OPTIONS)


@pytest.fixture(scope="module")
def half_fired(model: HookedTransformer, reported: list[Problem], prompt: SoftPrompt, results: Results) -> Results:
    """By a rule that fires on about half of the problems."""
    rule = replace(results.rule, threshold=float(results.statistics["late_share"].median()))
    return evaluate(model, reported, prompt, list(METHODS), rule=rule, **OPTIONS)


@pytest.fixture(scope="module")
def tables(results: Results) -> dict[str, pd.DataFrame]:
    return {method: frame.set_index("instance") for method, frame in results.instances.groupby("method")}


def test_each_method_has_each_problem_in_order(
    results: Results, tables: dict[str, pd.DataFrame], reported: list[Problem]
) -> None:
    assert list(results.instances["method"].unique()) == list(METHODS)
    for table in tables.values():
        assert table.index.tolist() == [problem.id for problem in reported]
    assert set(results.instances["task"]) == {"story"}
    assert set(results.instances["prompt"]) == {"random"}


def test_some_transcripts_have_no_rationale(results: Results, reported: list[Problem]) -> None:
    assert 10 < len(results.statistics) < len(reported), "some transcripts must be impossible to analyse"


def test_the_rule_is_calibrated_on_validation_problems_only(
    model: HookedTransformer, results: Results, validation: list[Problem], prompt: SoftPrompt
) -> None:
    runs = drop_empty_rationales(model, generate(model, validation, prompt, max_new_tokens=16, progress=False))
    stats = trigger_statistics(analyse(model, runs, prompt, progress=False))
    expected = calibrate_trigger(stats)
    assert (results.rule.statistic, results.rule.split, results.rule.n) == ("late_share", "validation", len(stats))
    assert results.rule.threshold == pytest.approx(expected.threshold)
    pd.testing.assert_frame_equal(results.validation, stats, rtol=1e-4)


def test_the_validation_problems_do_not_depend_on_the_seed(
    model: HookedTransformer,
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[object, ...]] = []
    patched = "dpc_interp.evaluation.evaluate.validation_problems"
    monkeypatch.setattr(patched, lambda *given: drawn.append(given) or validation)
    for seed in (0, 1):
        evaluate(model, reported[:2], prompt, ["pt"], **OPTIONS | {"seed": seed})
    assert drawn == [("story", N_VALIDATION)] * 2


def test_answers_of_methods_that_never_fire(
    model: HookedTransformer, tables: dict[str, pd.DataFrame], reported: list[Problem], prompt: SoftPrompt
) -> None:
    for method, soft_prompt in (("bare", None), ("pt", prompt)):
        expected = texts(model, reported, soft_prompt)
        assert tables[method]["answer"].fillna("").to_dict() == expected
        assert not tables[method]["fired"].any()


def test_instructed_answers_are_those_of_the_instructed_questions_without_a_prompt(
    model: HookedTransformer, tables: dict[str, pd.DataFrame], reported: list[Problem], prompt: SoftPrompt
) -> None:
    asked = [replace(problem, question=f"Think step by step.\n{problem.question}") for problem in reported]
    expected = texts(model, asked, None)
    assert expected != texts(model, reported, None)
    assert tables["instruct"]["answer"].fillna("").to_dict() == expected
    instruction = "Show the steps.\n{question}\nShow the steps."
    asked = [replace(problem, question=f"Show the steps.\n{problem.question}\nShow the steps.") for problem in reported]
    rule = TriggerRule("late_share", 0.5)
    others = evaluate(model, reported, prompt, ["instruct"], rule=rule, instruction=instruction, **OPTIONS).instances
    rows = others[others["method"] == "instruct"].set_index("instance")
    assert rows["answer"].fillna("").to_dict() == texts(model, asked, None) != expected


def test_a_random_prompt_is_another_one_for_each_problem(
    model: HookedTransformer, tables: dict[str, pd.DataFrame], reported: list[Problem], prompt: SoftPrompt
) -> None:
    """Each answer is that of a prompt of the drawn vectors, whatever the tuned ones are."""
    plans = plan_random_prompts(model, [problem.id for problem in reported], seed=1)
    drawn = [SoftPrompt(plan(torch.zeros_like(prompt.vectors))) for plan in plans]
    expected: Texts = {}
    for problem, random_prompt in zip(reported, drawn, strict=True):
        expected |= texts(model, [problem], random_prompt)
    assert tables["random_prompt"]["answer"].fillna("").to_dict() == expected
    same = [replace(reported[0], id=f"copy-{k}") for k in range(6)]
    rule = TriggerRule("late_share", 0.5)
    copies = evaluate(model, same, prompt, ["bare", "random_prompt"], rule=rule, **OPTIONS).instances
    n_texts = copies.fillna({"answer": ""}).groupby("method")["answer"].nunique()
    assert (n_texts["bare"], n_texts["pt"]) == (1, 1)
    assert n_texts["random_prompt"] > 1


def test_cut_off_answers_cannot_attend_to_the_prompt(
    model: HookedTransformer, tables: dict[str, pd.DataFrame], reported: list[Problem], prompt: SoftPrompt
) -> None:
    """The first token is chosen at the end of the question, which reads the prompt; nothing later does."""
    plan = KnockoutPlan((0, 1, 2, 3, 4))
    runs = generate(model, reported, prompt, plans=[plan] * len(reported), max_new_tokens=16, progress=False)
    assert tables["cut_off"]["answer"].fillna("").to_dict() == {run.problem.id: run.text for run in runs}
    before = generate(model, reported, prompt, max_new_tokens=16, progress=False)
    pairs = list(zip(runs, before, strict=True))
    changed = [not torch.equal(run.generated_tokens, other.generated_tokens) for run, other in pairs]
    assert tables["cut_off"]["changed"].tolist() == changed
    assert sum(changed) > 0
    assert all(run.generated_tokens[0] == other.generated_tokens[0] for run, other in pairs)


def test_base_is_the_deprecated_name_of_bare(
    model: HookedTransformer, tables: dict[str, pd.DataFrame], reported: list[Problem], prompt: SoftPrompt
) -> None:
    with pytest.warns(DeprecationWarning, match="the method 'base'"):
        renamed = evaluate(model, reported, prompt, ["base"], rule=TriggerRule("late_share", 0.5), **OPTIONS)
    assert renamed.summary["method"].tolist() == ["bare", "pt"]
    rows = renamed.instances[renamed.instances["method"] == "bare"].set_index("instance")
    pd.testing.assert_frame_equal(rows, tables["bare"])


def test_changed_says_where_the_text_is_not_that_of_pt(tables: dict[str, pd.DataFrame]) -> None:
    """Here the text is the answer, apart from a stop token."""
    for method in METHODS:
        table, before = tables[method], tables["pt"]
        differs = table["answer"].fillna("") != before["answer"].fillna("")
        assert table["changed"][differs].all()
        same_end = table["finished"] == before["finished"]
        assert not table["changed"][~differs & same_end].any()
    assert not tables["pt"]["changed"].any()
    assert not tables["dpc"]["changed"][~tables["dpc"]["fired"]].any()


@pytest.mark.parametrize("method", TRIGGERED)
def test_answers_are_corrupted_where_a_method_fires(
    model: HookedTransformer,
    half_fired: Results,
    reported: list[Problem],
    prompt: SoftPrompt,
    method: str,
) -> None:
    ids = half_fired.statistics["instance"].tolist()
    peaks = half_fired.statistics["peak_token"].tolist()
    plans = {
        "random": dict(zip(ids, plan_random(ids, prompt.n_virtual, 1, 25, 0.5, peaks=peaks), strict=True)),
        "dpc, mask only": peak_plans(model, reported, prompt, gamma=0),
        "dpc, gamma only": {name: CorruptionPlan(gamma=25) for name in ids},
    }
    plans["dpc, random token"] = plans["random"]
    before = texts(model, reported, prompt)
    after = texts(model, reported, prompt, plans.get(method, peak_plans(model, reported, prompt)))
    table = half_fired.instances[half_fired.instances["method"] == method].set_index("instance")
    expected = {name: after[name] if fired else before[name] for name, fired in table["fired"].items()}
    assert table["answer"].fillna("").to_dict() == expected
    assert expected != before, "corruption must change some answers"
    golds = {problem.id: problem.answer for problem in reported}
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


def test_oracle_is_an_upper_bound(results: Results) -> None:
    accuracy = results.summary.set_index("method")["accuracy"]
    assert accuracy["oracle"] == accuracy[["pt", *TRIGGERED]].max() > accuracy["pt"]
    assert results.summary.set_index("method").loc["oracle", "broken"] == 0


def test_triggers_are_ranked_against_both_outcomes(results: Results, tables: dict[str, pd.DataFrame]) -> None:
    ids = results.statistics["instance"]
    outcomes = {
        "PT was wrong": ~tables["pt"]["correct"][ids].to_numpy(bool),
        "corruption fixes it": (tables["always"]["correct"] & ~tables["pt"]["correct"])[ids].to_numpy(bool),
    }
    triggers = results.triggers.set_index(["outcome", "statistic"])
    for (outcome, statistic), row in triggers.iterrows():
        expected = roc_auc_score(outcomes[outcome], results.statistics[statistic])
        assert row["auroc"] == pytest.approx(expected), (outcome, statistic)
        assert row["base_rate"] == pytest.approx(outcomes[outcome].mean())
    assert len(triggers) == 2 * len(TRIGGER_STATISTICS)


def test_accuracy_criterion_uses_the_corrupted_validation_answers(
    model: HookedTransformer, reported: list[Problem], validation: list[Problem], prompt: SoftPrompt
) -> None:
    results = evaluate(model, reported[:6], prompt, ["dpc"], validation=validation, criterion="accuracy", **OPTIONS)
    after = texts(model, validation, prompt, peak_plans(model, validation, prompt))
    golds = {problem.id: problem.answer for problem in validation}
    stats = results.validation
    expected = [after[name] != "" and after[name] == golds[name] for name in stats["instance"]]
    assert stats["corrupted_correct"].tolist() == expected
    assert results.rule.threshold == calibrate_trigger(stats, "accuracy").threshold
    assert results.rule.criterion == "accuracy"


FRAMES = ("instances", "summary", "triggers", "statistics", "validation")


def assert_equal(results: Results, expected: Results) -> None:
    for name in FRAMES:
        pd.testing.assert_frame_equal(getattr(results, name), getattr(expected, name))
    for name in ("flow", "accumulation", "tokens", "instances"):
        pd.testing.assert_frame_equal(getattr(results.analysis, name), getattr(expected.analysis, name))
    assert results.analysis.options == expected.analysis.options
    assert results.rule == expected.rule
    assert [run.text for run in results.runs] == [run.text for run in expected.runs]


class Counter:
    """Replaces a function of `jobs`: counts its calls, and interrupts the one with a given number."""

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
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    tmp_path: Path,
) -> None:
    arguments = {"validation": validation, "out": tmp_path / "run", **OPTIONS}
    first = evaluate(model, reported, prompt, list(METHODS), **arguments)
    assert first.instances["answer"].fillna("").tolist() == results.instances["answer"].fillna("").tolist()
    with pytest.MonkeyPatch.context() as patch:
        generated, analysed = Counter(patch, "generate"), Counter(patch, "analyse")
        again = evaluate(model, reported, prompt, list(METHODS), **arguments)
        assert_equal(again, first)
        pd.testing.assert_frame_equal(again.timings, first.timings)
        part = evaluate(model, reported, prompt, ["dpc"], **arguments)
        assert generated.calls <= 1, "fewer methods need at most the generation for fewer problems"
        assert analysed.calls == 0
    dpc = first.instances[first.instances["method"].isin(["pt", "dpc"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(part.instances, dpc)


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 30},
        {"seed": 2},
        {"max_new_tokens": 17},
        {"exclude_sink": False},
        {"criterion": "accuracy"},
        {"instruction": "{question}"},
    ],
)
def test_the_folder_of_a_run_with_other_options_raises(
    model: HookedTransformer,
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    tmp_path: Path,
    change: dict[str, object],
) -> None:
    rule = {"rule": TriggerRule("late_share", 0.5)} if "criterion" not in change else {"validation": validation}
    evaluate(model, reported[:3], prompt, ["pt"], out=tmp_path, **rule, **OPTIONS)
    with pytest.raises(DPCInterpError, match=f"another {next(iter(change))}"):
        evaluate(model, reported[:3], prompt, ["pt"], out=tmp_path, **rule, **OPTIONS | change)


def test_the_folder_of_a_run_with_other_problems_prompts_or_models_raises(
    model: HookedTransformer, build, reported: list[Problem], prompt: SoftPrompt, tmp_path: Path
) -> None:
    options = {"out": tmp_path, "rule": TriggerRule("late_share", 0.5), **OPTIONS}
    evaluate(model, reported[:3], prompt, ["pt"], **options)
    for name, inputs in {
        "problems": (model, reported[1:4], prompt),
        "prompt": (model, reported[:3], SoftPrompt(prompt.vectors + 1e-3)),
        "model": (build("gqa", stop_logit=5.0), reported[:3], prompt),
    }.items():
        with pytest.raises(DPCInterpError, match=f"another {name}"):
            evaluate(*inputs, ["pt"], **options)


@pytest.mark.parametrize(
    ("stage", "stop_at"),
    [("generate", 2), ("analyse", 1), ("generate", 4), ("generate", 5), ("generate", 7), ("analyse", 2)],
)
def test_an_interrupted_run_resumes(
    model: HookedTransformer,
    results: Results,
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    tmp_path: Path,
    unchanged,
    stage: str,
    stop_at: int,
) -> None:
    arguments = {"validation": validation, "out": tmp_path, **OPTIONS}
    with pytest.MonkeyPatch.context() as patch:
        counters = {name: Counter(patch, name, stop_at if name == stage else None) for name in ("generate", "analyse")}
        with unchanged(model), pytest.raises(KeyboardInterrupt):
            evaluate(model, reported, prompt, list(METHODS), **arguments)
    completed = {name: counter.calls - (name == stage) for name, counter in counters.items()}
    with pytest.MonkeyPatch.context() as patch:
        remaining = {name: Counter(patch, name) for name in ("generate", "analyse")}
        resumed = evaluate(model, reported, prompt, list(METHODS), **arguments)
    total = {name: completed[name] + remaining[name].calls for name in completed}
    assert total == {"generate": 10, "analyse": 2}, "nothing is computed twice"
    assert resumed.instances["answer"].fillna("").tolist() == results.instances["answer"].fillna("").tolist()
    np.testing.assert_allclose(resumed.statistics["late_share"], results.statistics["late_share"])


def test_invalid_arguments_raise_before_anything_is_generated(
    model: HookedTransformer,
    reported: list[Problem],
    validation: list[Problem],
    prompt: SoftPrompt,
    tmp_path: Path,
    untyped,
) -> None:
    invalid = {
        "validation and a reported": {"validation": [*validation, reported[4]]},
        "unknown method": {"methods": ["dpc", "magic"]},
        "unknown statistic": {"statistic": "magic"},
        "unknown criterion": {"criterion": "magic"},
        "gamma is 120": {"gamma": 120},
        "mask is -1": {"mask": -1},
        'the instruction lacks "{question}"': {"instruction": "Think step by step."},
        "exceed the model's context": {"methods": ["instruct"], "instruction": "Show the steps.\n" * 99 + "{question}"},
        "lacks 'quantum'": {"methods": ["instruct"], "instruction": "quantum {question}"},
        "several tasks": {"problems": [*reported, replace(reported[0], task="rule", id="rule-0")]},
        "the id": {"problems": [*reported, reported[0]]},
        "no problems": {"problems": []},
        "needs \\[n_virtual, 16\\]": {"prompt": SoftPrompt(prompt.vectors[:, :8])},
    }
    with pytest.MonkeyPatch.context() as patch:
        counter = Counter(patch, "generate")
        for message, change in invalid.items():
            options = {
                "problems": reported,
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
