"""Verdicts where the truth is known: claims true or false by construction, in 100 seeded repeats each."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from dpc_interp import DPCInterpError, Results, verdicts, verdicts_markdown
from dpc_interp.evaluation.intervals import hedges_g, resamples
from dpc_interp.evaluation.measures import grounded_share, measures
from dpc_interp.evaluation.verdict_page import write_page
from dpc_interp.evaluation.verdicts import CLAIMS

World = Callable[..., list[Results]]
NAMES = [claim.name for claim in CLAIMS if claim.name != "C1 own"]
REPEATS = 100


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> Iterator[None]:
    """statsmodels collects garbage at each correction, half a second with all that the tests have loaded."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the repeats: the standard error of 200 resamples is good to a twentieth."""
    monkeypatch.setattr("dpc_interp.evaluation.verdicts.resamples", partial(resamples, n_resamples=200))


def counted(found: list[pd.DataFrame]) -> dict[str, Counter[str]]:
    return {name: Counter(f.set_index("claim").loc[name, "verdict"] for f in found) for name in NAMES}


@pytest.mark.usefixtures("fewer_resamples")
def test_what_is_true_holds_in_at_least_95_of_100(world: World) -> None:
    counts = counted([verdicts(world(seed, true=True), model="made") for seed in range(REPEATS)])
    assert {name: count for name, count in counts.items() if count["holds"] < 95} == {}


@pytest.mark.usefixtures("fewer_resamples")
def test_what_is_false_does_not_hold_in_at_least_95_of_100(world: World) -> None:
    counts = counted([verdicts(world(seed, true=False), model="made") for seed in range(REPEATS)])
    assert {name: count for name, count in counts.items() if count["holds"] > 5} == {}
    assert counts["C1"]["fails"] >= 95, "it is false by far"
    assert counts["C4"]["undecided"] >= 85, "nothing is there to be found"


@pytest.mark.usefixtures("fewer_resamples")
def test_shuffled_outcomes_destroy_what_was_true(world: World) -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shuffled = []
        for result in world(seed, true=True):
            right = result.instances.query("method == 'pt'")["correct"].to_numpy()
            mixed = result.instances.assign(correct=np.tile(rng.permutation(right), 4))
            shuffled.append(replace(result, instances=mixed))
        found.append(verdicts(shuffled, model="made"))
    counts = counted(found)
    assert all(counts[name]["holds"] <= 3 for name in ("C2", "C2 steps", "C4"))
    assert all(counts[name]["holds"] == 0 for name in ("C5", "C5 random"))


@pytest.fixture(scope="module")
def results(world: World) -> list[Results]:
    return world(7, true=True)


def test_effects_are_the_means_over_prompts_of_the_libraries_values(results: list[Results]) -> None:
    found = verdicts(results, model="made").set_index("claim")
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
    assert found["effect"].to_dict() == pytest.approx({name: np.mean(values) for name, values in expected.items()})
    assert found[["n", "n_prompts"]].drop_duplicates().to_numpy().tolist() == [[120, 3]]
    assert (found["low"] < found["effect"]).all()
    assert (found["effect"] < found["high"]).all()
    assert (found["p_holm"] >= found["p"]).all()


def test_steps_are_grounded_by_late_steps_of_deep_layers_alone(results: list[Results]) -> None:
    """Steps 2 and 3 of four: prompt 1, question g, earlier steps g each: the share is 2 g / (1 + 2 g)."""
    share = grounded_share(results[0].analysis)
    flow = results[0].analysis.flow
    one = flow[(flow["layer"] == 2) & (flow["step"] == 3) & (flow["source"] == "question")].set_index("instance")
    g = one["value"]
    pd.testing.assert_series_equal(share.sort_index(), (2 * g / (1 + 2 * g)).sort_index(), check_names=False)


def test_verdicts_follow_from_intervals(results: list[Results], world: World) -> None:
    found = pd.concat([verdicts(results, model="a"), verdicts(world(1, true=False), model="b")])
    sign = np.where(found["side"] == "above", 1, -1)
    ends = np.sort(np.stack([sign * (found["low"] - found["null"]), sign * (found["high"] - found["null"])]), axis=0)
    expected = np.where(ends[0] > 0, "holds", np.where(ends[1] < 0, "fails", "undecided"))
    assert found["verdict"].tolist() == expected.tolist()
    assert set(found["verdict"]) == {"holds", "fails", "undecided"}
    assert ((found["p"] < 0.05) == (found["verdict"] != "undecided")).all()


def test_what_never_changes_an_answer_lifts_nothing(results: list[Results]) -> None:
    same = []
    for result in results:
        right = result.instances.query("method == 'pt'")["correct"].to_numpy()
        same.append(replace(result, instances=result.instances.assign(correct=np.tile(right, 4))))
    found = verdicts(same, model="made").set_index("claim")
    assert found.loc["C5", ["effect", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    assert found["verdict"][["C5", "C5 random", "C5 always"]].tolist() == ["fails", "fails", "holds"]


def test_too_little_is_undecided(results: list[Results], world: World) -> None:
    few = verdicts(world(0, true=True, n=25), model="made")
    assert set(few["verdict"]) == {"undecided"}
    assert few["n_prompts"].eq(0).all()
    no_dpc = [replace(r, instances=r.instances.query("method == 'pt'")) for r in results]
    found = verdicts(no_dpc, model="made").set_index("claim")
    assert found["verdict"][["C5", "C5 random", "C5 always"]].tolist() == ["undecided"] * 3
    assert found["verdict"]["C1"] == "holds"
    one_right = results[0].instances.assign(correct=np.arange(480) % 120 > 5)
    found = verdicts([replace(results[0], instances=one_right), *results[1:]], model="made").set_index("claim")
    assert found["n_prompts"][["C1", "C2", "C4"]].tolist() == [3, 2, 2], "a prompt without wrong answers tells nothing"


def test_the_prompts_own_part_of_the_accumulation(results: list[Results]) -> None:
    """The untrained prompt's peak ratio is that of the trained one plus 1: what accumulates is not its own."""
    parts = []
    for result in results:
        for condition, shift in (("trained", 0.0), ("untrained", 1.0)):
            stats = result.statistics[["instance", "peak_ratio"]].assign(condition=condition)
            named = stats.assign(task="story", prompt=result.instances["prompt"].iloc[0])
            parts.append(named.assign(peak_ratio=named["peak_ratio"] + shift))
    found = verdicts(results, model="made", controls=pd.concat(parts)).set_index("claim")
    assert found.loc["C1 own", ["effect", "verdict", "figure"]].tolist() == [-1, "fails", "fig8_sink_control"]
    assert found["verdict"]["C1"] == "holds"


def test_no_results_and_a_prompt_twice_are_refused(results: list[Results]) -> None:
    with pytest.raises(DPCInterpError, match="no results to judge"):
        verdicts([], model="made")
    with pytest.raises(DPCInterpError, match="give each tuned prompt once"):
        verdicts([results[0], results[0]], model="made")


def test_problems_without_a_rationale_count_for_accuracy_alone(results: list[Results]) -> None:
    part = replace(results[0], statistics=results[0].statistics.iloc[:100])
    table = measures(part)
    assert table[["dpc", "correct"]].notna().all(axis=None)
    assert table["late_share"].notna().sum() == 100
    found = verdicts([part], model="made").set_index("claim")
    assert found["n"][["C1", "C5"]].tolist() == [100, 120]


def test_the_page_says_what_the_table_says(results: list[Results], world: World, tmp_path: Path) -> None:
    for model, made in (("first", results), ("second", world(1, true=False))):
        (tmp_path / model).mkdir()
        verdicts(made, model=model).to_csv(tmp_path / model / "verdicts.csv", index=False)
    text = write_page(tmp_path).read_text()
    both = pd.concat([verdicts(results, model="first"), verdicts(world(1, true=False), model="second")])
    assert text.startswith(verdicts_markdown(both))
    assert text.index("## first") < text.index("## second")
    first = verdicts(results, model="first").set_index("claim")
    row = first.loc["C4"]
    assert f"{row['effect']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in text
    assert "- C1. Information accumulates in few prompt tokens, in shallow layers. Rule: holds where" in text
    assert "It **fails** on story. See fig3_accumulation." in text
    with pytest.raises(DPCInterpError, match="run make verdicts first"):
        write_page(tmp_path / "first")
