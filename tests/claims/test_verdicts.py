"""Verdicts where the truth is known: claims true or false by construction, in 100 seeded repeats each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score
from statsmodels.api import OLS

from dpc_interp import DPCInterpError, Results, TriggerRule, verdicts
from dpc_interp.analysis.accumulation import by_virtual_token, chance_peak_ratio
from dpc_interp.claims.measures import COLUMNS, grounded_share
from dpc_interp.claims.verdicts import CLAIMS
from dpc_interp.stats.bootstrap import resamples
from dpc_interp.stats.contrast import hedges_g
from dpc_interp.stats.paired import exact_mcnemar

World = Callable[..., list[Results]]
NAMES = [claim.name for claim in CLAIMS if claim.name != "C1 own"]
REPEATS = 100


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the repeats: 200 resamples give the standard error within a twentieth."""
    monkeypatch.setattr("dpc_interp.claims.verdicts.resamples", partial(resamples, n_resamples=200))


def count_verdicts(frames: list[pd.DataFrame]) -> dict[str, Counter[str]]:
    return {name: Counter(frame.set_index("claim").loc[name, "verdict"] for frame in frames) for name in NAMES}


@pytest.mark.usefixtures("fewer_resamples")
def test_true_claims_hold_in_at_least_95_of_100(world: World) -> None:
    counts = count_verdicts([verdicts(world(seed, true=True), model="synthetic") for seed in range(REPEATS)])
    assert {name: count for name, count in counts.items() if count["holds"] < 95} == {}


@pytest.mark.usefixtures("fewer_resamples")
def test_false_claims_do_not_hold_in_at_least_95_of_100(world: World) -> None:
    counts = count_verdicts([verdicts(world(seed, true=False), model="synthetic") for seed in range(REPEATS)])
    assert {name: count for name, count in counts.items() if count["holds"] > 5} == {}
    assert counts["C1"]["fails"] >= 95, "the effect is far below the null"
    assert counts["C4 wrong"]["undecided"] >= 85, "the effect is exactly the null"


def verdicts_where_wrong_answers_have_more(column: str, log_ratio: float, world: World) -> dict[str, Counter[str]]:
    """Counts of 10 repeats of the false world; the loss and one statistic are larger where answers are wrong."""
    frames = []
    for seed in range(10):
        rng, changed = np.random.default_rng(seed), []
        for result in world(seed, true=False):
            wrong = ~result.statistics["correct"].to_numpy()
            larger = {"nll": np.exp(0.3 * rng.normal(size=len(wrong)) + wrong)}
            larger[column] = np.exp(0.3 * rng.normal(size=len(wrong)) + log_ratio * wrong)
            changed.append(replace(result, statistics=result.statistics.assign(**larger)))
        frames.append(verdicts(changed, model="synthetic"))
    return count_verdicts(frames)


@pytest.mark.usefixtures("fewer_resamples")
def test_flow_that_is_larger_everywhere_because_the_loss_is_larger_does_not_make_c2_hold(world: World) -> None:
    """The loss of wrong answers is larger, and so is every flow; the prompt's share of the row is the same."""
    counts = verdicts_where_wrong_answers_have_more("deep_flow", 1.0, world)
    assert counts["C2 raw"]["holds"] == 10
    assert counts["C2"]["holds"] <= 1


@pytest.mark.usefixtures("fewer_resamples")
def test_flow_that_is_larger_from_the_prompt_alone_makes_c2_hold(world: World) -> None:
    counts = verdicts_where_wrong_answers_have_more("row_share", 0.6, world)
    assert counts["C2"]["holds"] == 10


@pytest.mark.usefixtures("fewer_resamples")
def test_shuffled_outcomes_destroy_true_claims(world: World) -> None:
    frames = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        shuffled = []
        for result in world(seed, true=True):
            correct = result.instances.query("method == 'pt'")["correct"].to_numpy()
            instances = result.instances.assign(correct=np.tile(rng.permutation(correct), 6))
            shuffled.append(replace(result, instances=instances))
        frames.append(verdicts(shuffled, model="synthetic"))
    counts = count_verdicts(frames)
    assert all(counts[name]["holds"] <= 1 for name in ("C1 peak", "C1 even", "C2", "C2 raw", "C2 steps", "C4 wrong"))
    assert all(counts[name]["holds"] == 0 for name in ("C5", "C5 random"))


@pytest.fixture(scope="module")
def results(world: World) -> list[Results]:
    return world(7, true=True)


def test_effects_are_means_over_prompts_of_values_by_other_packages(results: list[Results]) -> None:
    frame = verdicts(results, model="synthetic").set_index("claim")
    expected: dict[str, list[float]] = {name: [] for name in NAMES}
    for result in results:
        stats = result.statistics.set_index("instance")
        wrong = ~stats["correct"].to_numpy()
        right = result.instances.pivot_table("correct", "instance", "method", aggfunc="first").astype(float)
        right = right.loc[stats.index]
        shallow = result.analysis.accumulation.query("layer == 0")
        tokens = shallow.pivot_table("into_question", "instance", "virtual_token").loc[stats.index].to_numpy()
        tokens = tokens[:, 1:]  # without the sink
        table = by_virtual_token(result.analysis.accumulation, [0])
        peak = np.log(tokens.max(axis=1) / tokens.mean(axis=1))
        even = entropy(tokens, axis=1) / np.log(4)
        share = logit(grounded_share(result.analysis)[stats.index].to_numpy())
        row_share = np.log(stats["row_share"].to_numpy())
        expected["C1"].append((np.log(stats["peak_ratio"]) - np.log(chance_peak_ratio(table))).mean())
        expected["C1 peak"].append(hedges_g(peak[wrong, None], peak[~wrong, None])[0][0])
        expected["C1 even"].append(hedges_g(even[~wrong, None], even[wrong, None])[0][0])
        beside = np.column_stack([wrong, np.log(stats["nll"]), np.log(stats["length"]), np.ones(len(wrong))])
        expected["C2"].append(OLS(row_share, beside).fit().params[0] / row_share.std())
        expected["C2 steps"].append(-OLS(share, beside).fit().params[0] / share.std())
        flow = np.log(stats[["deep_flow"]].to_numpy())
        expected["C2 raw"].append(hedges_g(flow[wrong], flow[~wrong])[0][0])
        peaked, deep = peak > np.median(peak), row_share > np.median(row_share)
        expected["C3"].append(deep[peaked].mean() - deep[~peaked].mean())
        harmed = (right["instruct"] > right["pt"]).to_numpy()
        expected["C4"].append(roc_auc_score(harmed, stats["late_share"]))
        expected["C4 wrong"].append(roc_auc_score(wrong, stats["late_share"]))
        expected["C5"].append((right["dpc"] - right["pt"]).mean())
        expected["C5 random"].append((right["random"] - right["pt"]).mean())
        expected["C5 little"].append((right["always"] - right["pt"]).mean())
        expected["C5 always"].append((right["dpc"] - right["always"]).mean())
    assert frame["effect"].to_dict() == pytest.approx({name: np.mean(values) for name, values in expected.items()})
    assert frame[["n", "n_prompts"]].drop_duplicates().to_numpy().tolist() == [[120, 3]]
    assert (frame["low"] < frame["effect"]).all()
    assert (frame["effect"] < frame["high"]).all()
    assert (frame["p_holm"] >= frame["p"]).drop("C5 little").all()


def test_verdicts_follow_from_intervals(results: list[Results], world: World) -> None:
    frame = pd.concat([verdicts(results, model="a"), verdicts(world(1, true=False), model="b")])
    sign = np.where(frame["side"] == "above", 1, -1)
    ends = np.sort(np.stack([sign * (frame["low"] - frame["null"]), sign * (frame["high"] - frame["null"])]), axis=0)
    expected = np.where(ends[0] > 0, "holds", np.where(ends[1] < 0, "fails", "undecided"))
    one_sided = frame["side"] != "within"
    assert frame["verdict"][one_sided].tolist() == expected[one_sided].tolist()
    assert set(frame["verdict"]) == {"holds", "fails", "undecided"}
    assert ((frame["p"] < 0.05) == (frame["verdict"] != "undecided"))[one_sided].all()
    assert frame["p"][~one_sided].isna().all(), "no effect is not the null of an equivalence"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.01, 0.02, "holds"),
        (-0.02, -0.01, "holds"),
        (0.01, 0.03, "undecided"),
        (-0.03, 0.03, "undecided"),
        (0.03, 0.04, "fails"),
        (-0.04, -0.03, "fails"),
    ],
)
def test_an_equivalence_holds_where_the_whole_interval_is_small(low: float, high: float, expected: str) -> None:
    (claim,) = (claim for claim in CLAIMS if claim.name == "C5 little")
    nearest, farthest = claim.distances(low, high)
    assert ("holds" if nearest > 0 else "fails" if farthest < 0 else "undecided") == expected


def test_a_method_that_changes_no_answer_is_undecided_however_often_it_fires(results: list[Results]) -> None:
    same = []
    for result in results:
        right = result.instances.query("method == 'pt'")["correct"].to_numpy()
        instances = result.instances.assign(
            correct=lambda frame, right=right: frame["correct"].where(frame["method"] == "instruct", np.tile(right, 6))
        )
        same.append(replace(result, instances=instances))
    frame = verdicts(same, model="synthetic").set_index("claim")
    assert frame.loc["C5", ["effect", "p"]].tolist() == [0, 1]
    assert frame["low"]["C5"] < 0 < frame["high"]["C5"] < 0.021
    assert frame["verdict"][["C5", "C5 random", "C5 always"]].tolist() == ["undecided"] * 3
    assert frame["excludes_paper"][["C5", "C5 random", "C5 always"]].all(), "no change of 360 answers"


def test_a_trigger_that_fires_on_few_answers_is_not_testable(results: list[Results]) -> None:
    rare = [
        replace(r, instances=r.instances.assign(fired=(r.instances["method"] != "pt") & (np.arange(720) % 120 < 9)))
        for r in results
    ]
    frame = verdicts(rare, model="synthetic").set_index("claim")
    assert frame["verdict"][["C5", "C5 random", "C5 always"]].tolist() == ["not testable"] * 3
    assert frame["reason"]["C5"] == "dpc fired on 27 of 360 answers"
    assert frame["reason"]["C5 random"] == "random fired on 27 of 360 answers"
    assert frame["verdict"]["C1"] == "holds"


def test_a_rule_no_better_than_chance_is_no_trigger(results: list[Results]) -> None:
    rules = [TriggerRule("late_share", 0.5, youden=0.1, p=p) for p in (0.5, 0.4, 0.9)]
    chance = [replace(result, rule=rule) for result, rule in zip(results, rules, strict=True)]
    frame = verdicts(chance, model="synthetic").set_index("claim")
    assert frame["reason"]["C5"] == "no trigger: 40% of shuffled outcomes reach the best rule's J (0.10)"
    assert frame["verdict"]["C4"] == "holds"
    one = [replace(chance[0], rule=replace(chance[0].rule, p=0.01)), *chance[1:]]
    assert verdicts(one, model="synthetic").set_index("claim")["verdict"]["C5"] == "holds"


def test_intervals_of_c5_include_the_calibration_of_the_trigger(results: list[Results]) -> None:
    """Twelve validation problems: another draw of them would choose another threshold."""
    calibrated = [replace(result, validation=result.statistics.head(12)) for result in results]
    fixed, redrawn = (verdicts(given, model="synthetic").set_index("claim") for given in (results, calibrated))
    for name in ("C5", "C5 always"):
        assert redrawn.loc[name, ["effect", "p"]].tolist() == fixed.loc[name, ["effect", "p"]].tolist()
        assert redrawn["low"][name] < fixed["low"][name] - 1e-3
        assert redrawn["high"][name] >= fixed["high"][name]
    others = fixed.index.drop(["C5", "C5 always"])
    pd.testing.assert_frame_equal(redrawn.loc[others], fixed.loc[others])


def test_an_experiment_without_variation_is_not_testable(results: list[Results]) -> None:
    constant = [replace(r, statistics=r.statistics.assign(row_share=0.5, deep_flow=1.0)) for r in results]
    frame = verdicts(constant, model="synthetic").set_index("claim")
    assert frame["reason"][["C2", "C2 raw"]].tolist() == ["nothing varies"] * 2


def test_outside_the_regime_claims_are_not_testable(results: list[Results]) -> None:
    few = []
    for result in results:
        instances = result.instances
        pt = instances.query("method == 'pt'")
        same = instances["method"] == "instruct"
        instances = instances.assign(correct=instances["correct"].mask(same, np.tile(pt["correct"], 6)))
        changed = (instances["method"] == "cut_off") & (np.arange(720) % 120 % 10 == 0)
        few.append(replace(result, instances=instances.assign(changed=changed)))
    frame = verdicts(few, model="synthetic").set_index("claim")
    late = "cutting the text off from the prompt changes 10.0% of texts"
    assert frame["reason"]["C2"] == late
    assert frame["reason"]["C5"] == f"{late}; 0 harmed answers"
    assert frame["verdict"][["C2", "C2 raw", "C2 steps", "C3", "C4", "C5"]].tolist() == ["not testable"] * 6
    assert frame["verdict"][["C1", "C1 peak"]].tolist() == ["holds"] * 2
    assert np.isfinite(frame["effect"]["C5"]), "the number is still there"


@pytest.mark.parametrize(("fixed", "broken"), [(5, 0), (6, 0), (0, 6), (9, 3), (12, 3), (30, 15), (33, 15)])
def test_no_verdict_contradicts_the_exact_test_of_one_prompt(results: list[Results], fixed: int, broken: int) -> None:
    pt = np.arange(120) < 60
    dpc = pt.copy()
    dpc[:broken], dpc[60 : 60 + fixed] = False, True
    instruct = np.arange(120) % 2 == 0  # 30 of the 60 wrong answers are harmed
    instances = results[0].instances.assign(correct=np.concatenate([pt, instruct, dpc, pt, pt, pt]))
    frame = verdicts([replace(results[0], instances=instances)], model="synthetic").set_index("claim")
    p = exact_mcnemar(pt, dpc)
    expected = "undecided" if p >= 0.05 else "holds" if fixed > broken else "fails"
    assert frame.loc["C5", ["verdict", "p"]].tolist() == [expected, pytest.approx(p)]


def test_too_few_problems_methods_or_outcomes_are_not_testable(results: list[Results], world: World) -> None:
    few = verdicts(world(0, true=True, n=25), model="synthetic")
    assert set(few["verdict"]) == {"not testable"}
    assert few["n_prompts"].eq(0).all()
    no_dpc = [replace(r, instances=r.instances.query("method == 'pt'")) for r in results]
    frame = verdicts(no_dpc, model="synthetic").set_index("claim")
    assert frame["verdict"][["C5", "C5 random", "C5 always"]].tolist() == ["not testable"] * 3
    assert frame["reason"]["C2"] == "cut_off was not evaluated"
    assert frame["verdict"]["C1"] == "holds"
    few_wrong = results[0].instances.assign(correct=np.arange(720) % 120 > 5)
    frame = verdicts([replace(results[0], instances=few_wrong), *results[1:]], model="synthetic").set_index("claim")
    assert frame["n_prompts"][["C1", "C2", "C4 wrong"]].tolist() == [3, 2, 2], "a prompt has too few wrong answers"


def test_the_learned_part_of_the_accumulation(results: list[Results]) -> None:
    """The untrained prompt's peak ratio is twice that of the trained one: accumulation was not learned."""
    parts = []
    for result in results:
        for condition, factor in (("trained", 1.0), ("untrained", 2.0)):
            stats = result.statistics[["instance", "peak_ratio"]].assign(condition=condition)
            named = stats.assign(task="story", prompt=result.instances["prompt"].iloc[0])
            parts.append(named.assign(peak_ratio=named["peak_ratio"] * factor))
    frame = verdicts(results, model="synthetic", controls=pd.concat(parts)).set_index("claim")
    assert frame.loc["C1 own", ["verdict", "figure"]].tolist() == ["fails", "fig8_sink_control"]
    assert frame["effect"]["C1 own"] == pytest.approx(np.log(0.5))
    assert frame["verdict"]["C1"] == "holds"
    random = pd.concat(part.assign(condition=part["condition"].replace("untrained", "random")) for part in parts)
    unknown = verdicts(results, model="synthetic", controls=random).set_index("claim").loc["C1 own"]
    assert unknown["verdict"] == "not testable"
    assert unknown["reason"].startswith("no prompt records what its tuning started from")


def test_no_results_or_a_prompt_twice_raise(results: list[Results]) -> None:
    with pytest.raises(DPCInterpError, match="no results to judge"):
        verdicts([], model="synthetic")
    with pytest.raises(DPCInterpError, match="give each prompt once"):
        verdicts([results[0], results[0]], model="synthetic")


def test_problems_without_a_rationale_count_for_accuracy_only(results: list[Results]) -> None:
    partial = replace(results[0], statistics=results[0].statistics.iloc[:100])
    frame = verdicts([partial], model="synthetic").set_index("claim")
    assert frame["n"][["C1", "C5"]].tolist() == [100, 120]


def test_every_claim_names_columns_and_a_figure_and_states_its_rule() -> None:
    rules = {claim.name: claim.rule for claim in CLAIMS}
    assert len(rules) == len(CLAIMS)
    assert rules["C4"].endswith("against 'right when instructed, wrong with the prompt' is above 0.5")
    assert rules["C5 little"] == "holds where the accuracy of always minus that of pt is within 0.021 of 0"
    assert rules["C5 always"] == "holds where the accuracy of dpc minus that of always is above 0"
    read = {column for claim in CLAIMS for column in claim.columns}
    assert read | {"correct", "always", "dpc_fired", "random_fired", "always_fired"} == set(COLUMNS)
