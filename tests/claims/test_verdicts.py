"""Verdicts where the truth is known: claims true or false by construction, in 100 seeded repeats each."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from dpc_interp import DPCInterpError, Results, verdicts
from dpc_interp.claims.measures import COLUMNS, grounded_share
from dpc_interp.claims.verdicts import CLAIMS
from dpc_interp.stats.bootstrap import resamples
from dpc_interp.stats.contrast import hedges_g

World = Callable[..., list[Results]]
NAMES = [claim.name for claim in CLAIMS if claim.name != "C1 own"]
REPEATS = 100


@pytest.fixture(scope="module", autouse=True)
def cheap_garbage_collection() -> Iterator[None]:
    """statsmodels collects garbage at each correction, which takes half a second with everything the tests import."""
    gc.freeze()
    yield
    gc.unfreeze()


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
    assert counts["C4"]["undecided"] >= 85, "the effect is exactly the null"


@pytest.mark.usefixtures("fewer_resamples")
def test_shuffled_outcomes_destroy_true_claims(world: World) -> None:
    frames = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shuffled = []
        for result in world(seed, true=True):
            correct = result.instances.query("method == 'pt'")["correct"].to_numpy()
            instances = result.instances.assign(correct=np.tile(rng.permutation(correct), 4))
            shuffled.append(replace(result, instances=instances))
        frames.append(verdicts(shuffled, model="synthetic"))
    counts = count_verdicts(frames)
    assert all(counts[name]["holds"] <= 3 for name in ("C2", "C2 steps", "C4"))
    assert all(counts[name]["holds"] == 0 for name in ("C5", "C5 random"))


@pytest.fixture(scope="module")
def results(world: World) -> list[Results]:
    return world(7, true=True)


def test_effects_are_means_over_prompts_of_values_by_scipy_and_scikit_learn(results: list[Results]) -> None:
    frame = verdicts(results, model="synthetic").set_index("claim")
    expected: dict[str, list[float]] = {name: [] for name in NAMES}
    for result in results:
        stats = result.statistics
        wrong = ~stats["correct"].to_numpy()
        right = result.instances.pivot_table("correct", "instance", "method", aggfunc="first").astype(float)
        share = grounded_share(result.analysis)[stats["instance"]].to_numpy()
        expected["C1"].append(stats["peak_ratio"].mean())
        flow = stats[["deep_flow"]].to_numpy()
        expected["C2"].append(hedges_g(flow[wrong], flow[~wrong])[0][0])
        expected["C2 steps"].append(hedges_g(share[~wrong, None], share[wrong, None])[0][0])
        expected["C3"].append(spearmanr(stats["peak_ratio"], stats["late_share"]).statistic)
        expected["C4"].append(roc_auc_score(wrong, stats["late_share"]))
        expected["C5"].append((right["dpc"] - right["pt"]).mean())
        expected["C5 random"].append((right["random"] - right["pt"]).mean())
        expected["C5 always"].append((right["always"] - right["pt"]).mean())
    assert frame["effect"].to_dict() == pytest.approx({name: np.mean(values) for name, values in expected.items()})
    assert frame[["n", "n_prompts"]].drop_duplicates().to_numpy().tolist() == [[120, 3]]
    assert (frame["low"] < frame["effect"]).all()
    assert (frame["effect"] < frame["high"]).all()
    assert (frame["p_holm"] >= frame["p"]).all()


def test_verdicts_follow_from_intervals(results: list[Results], world: World) -> None:
    frame = pd.concat([verdicts(results, model="a"), verdicts(world(1, true=False), model="b")])
    sign = np.where(frame["side"] == "above", 1, -1)
    ends = np.sort(np.stack([sign * (frame["low"] - frame["null"]), sign * (frame["high"] - frame["null"])]), axis=0)
    expected = np.where(ends[0] > 0, "holds", np.where(ends[1] < 0, "fails", "undecided"))
    assert frame["verdict"].tolist() == expected.tolist()
    assert set(frame["verdict"]) == {"holds", "fails", "undecided"}
    assert ((frame["p"] < 0.05) == (frame["verdict"] != "undecided")).all()


def test_a_method_that_changes_no_answer_lifts_nothing(results: list[Results]) -> None:
    same = []
    for result in results:
        right = result.instances.query("method == 'pt'")["correct"].to_numpy()
        same.append(replace(result, instances=result.instances.assign(correct=np.tile(right, 4))))
    frame = verdicts(same, model="synthetic").set_index("claim")
    assert frame.loc["C5", ["effect", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    assert frame["verdict"][["C5", "C5 random", "C5 always"]].tolist() == ["fails", "fails", "holds"]


def test_too_few_problems_methods_or_outcomes_are_undecided(results: list[Results], world: World) -> None:
    few = verdicts(world(0, true=True, n=25), model="synthetic")
    assert set(few["verdict"]) == {"undecided"}
    assert few["n_prompts"].eq(0).all()
    no_dpc = [replace(r, instances=r.instances.query("method == 'pt'")) for r in results]
    frame = verdicts(no_dpc, model="synthetic").set_index("claim")
    assert frame["verdict"][["C5", "C5 random", "C5 always"]].tolist() == ["undecided"] * 3
    assert frame["verdict"]["C1"] == "holds"
    few_wrong = results[0].instances.assign(correct=np.arange(480) % 120 > 5)
    frame = verdicts([replace(results[0], instances=few_wrong), *results[1:]], model="synthetic").set_index("claim")
    assert frame["n_prompts"][["C1", "C2", "C4"]].tolist() == [3, 2, 2], "a prompt has too few wrong answers"


def test_the_learned_part_of_the_accumulation(results: list[Results]) -> None:
    """The untrained prompt's peak ratio is that of the trained one plus 1: accumulation was not learned."""
    parts = []
    for result in results:
        for condition, shift in (("trained", 0.0), ("untrained", 1.0)):
            stats = result.statistics[["instance", "peak_ratio"]].assign(condition=condition)
            named = stats.assign(task="story", prompt=result.instances["prompt"].iloc[0])
            parts.append(named.assign(peak_ratio=named["peak_ratio"] + shift))
    frame = verdicts(results, model="synthetic", controls=pd.concat(parts)).set_index("claim")
    assert frame.loc["C1 own", ["effect", "verdict", "figure"]].tolist() == [-1, "fails", "fig8_sink_control"]
    assert frame["verdict"]["C1"] == "holds"


def test_no_results_or_a_prompt_twice_raise(results: list[Results]) -> None:
    with pytest.raises(DPCInterpError, match="no results to judge"):
        verdicts([], model="synthetic")
    with pytest.raises(DPCInterpError, match="give each tuned prompt once"):
        verdicts([results[0], results[0]], model="synthetic")


def test_problems_without_a_rationale_count_for_accuracy_only(results: list[Results]) -> None:
    partial = replace(results[0], statistics=results[0].statistics.iloc[:100])
    frame = verdicts([partial], model="synthetic").set_index("claim")
    assert frame["n"][["C1", "C5"]].tolist() == [100, 120]


def test_every_claim_names_columns_and_a_figure_and_states_its_rule() -> None:
    rules = {claim.name: claim.rule for claim in CLAIMS}
    assert len(rules) == len(CLAIMS)
    assert rules["C1"] == "holds where the mean peak ratio of the shallow layers is above 2"
    assert rules["C5 always"] == "holds where the accuracy of always minus that of pt is below 0.01"
    assert {column for claim in CLAIMS for column in claim.columns} | {"correct"} == set(COLUMNS)
