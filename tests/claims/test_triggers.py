"""Triggers of known quality: the outcome itself, noise, a constant, coarse values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dpc_interp import DPCInterpError, Results, compare_triggers
from dpc_interp.evaluation.summary import summarise

N, N_VALIDATION = 400, 120
TRIGGERS = ("late_share", "perfect", "noise", "coarse", "constant")
WRONG, FIXES = "PT was wrong", "corruption fixes it"


@pytest.fixture(scope="module")
def results(planted: Callable[..., Results]) -> Results:
    return planted()


def rows(frame: pd.DataFrame, outcome: str = WRONG) -> pd.DataFrame:
    return frame[frame["outcome"] == outcome].set_index("trigger")


def accuracy(results: Results, method: str) -> float:
    return results.instances.loc[results.instances["method"] == method, "correct"].mean()


def test_the_rule_at_its_own_rate_is_dpc(results: Results) -> None:
    rate = float(results.rule.fires(results.validation).mean())
    frame = rows(compare_triggers(results, [rate], triggers=TRIGGERS)).loc["late_share"]
    dpc = summarise(results.instances).set_index("method").loc["dpc"]
    for column in ("accuracy", "difference"):
        assert frame[column] == pytest.approx(dpc[column]), column
    assert frame["firing_rate"] * frame["n"] == pytest.approx(dpc["firing_rate"] * frame["n_problems"])
    assert (frame["n"], frame["n_problems"], frame["n_prompts"]) == (N - 8, N, 1)
    assert (frame["split"], frame["n_calibration"]) == ("validation", N_VALIDATION)
    assert frame["rate"] == rate
    assert frame["at_threshold"] == 1


def test_the_outcome_itself_ranks_perfectly_and_reaches_the_oracle(results: Results) -> None:
    frame = compare_triggers(results, triggers=TRIGGERS)  # by default at the error rate of the validation instances
    assert set(frame["rate"]) == {(~results.validation["correct"]).mean()}
    wrong, fixes = (rows(frame, which) for which in (WRONG, FIXES))
    for name in ("perfect", "oracle"):
        assert wrong.loc[name, ["auroc", "auroc_low", "average_precision"]].tolist() == [1, 1, 1]
        assert wrong.loc[name, ["hit_rate", "precision", "at_threshold"]].tolist() == [1, 1, 1]
        assert fixes.loc[name, "hit_rate"] == 1
    assert wrong["reason"].drop("constant").eq("").all()
    best = results.instances.query("method in ('pt', 'always')").groupby("instance")["correct"].max().mean()
    assert wrong.loc["perfect", "accuracy"] == wrong.loc["oracle", "accuracy"] == pytest.approx(best)
    assert wrong["accuracy"].max() == wrong.loc["oracle", "accuracy"]


def test_noise_and_random_are_at_chance(results: Results) -> None:
    frame = compare_triggers(results, [0.3], triggers=TRIGGERS)
    for outcome in (WRONG, FIXES):
        random, noise = rows(frame, outcome).loc["random"], rows(frame, outcome).loc["noise"]
        assert random["auroc"] == 0.5
        assert random[["average_precision", "precision"]].tolist() == pytest.approx([random["base_rate"]] * 2)
        assert random[["hit_rate", "firing_rate"]].tolist() == pytest.approx([0.3, 0.3])
        assert noise["auroc_low"] < 0.5 < noise["auroc_high"]
        assert random[["above_random", "above_random_low", "above_random_high"]].tolist() == [0, 0, 0]
    gain = accuracy(results, "always") - accuracy(results, "pt")
    assert rows(frame).loc["random", "difference"] == pytest.approx(0.3 * gain)


def test_intervals_of_noise_cover_chance(planted: Callable[..., Results]) -> None:
    """Sixty triggers of noise, in an evaluation where corruption loses: about 95% of the intervals contain chance,
    although each trigger fires at a different rate on test problems.
    """
    results, rng = planted(n_silent=100), np.random.default_rng(8)
    names = [f"noise {k}" for k in range(60)]

    def noise(stats: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([stats, pd.DataFrame(rng.normal(size=(len(stats), 60)), columns=names)], axis=1)

    noisy = replace(results, statistics=noise(results.statistics), validation=noise(results.validation))
    frame = rows(compare_triggers(noisy, [0.3], triggers=names)).loc[names]
    assert frame["firing_rate"].std() > 0.01
    for score, chance in (("auroc", 0.5), ("above_random", 0.0)):
        covered = (frame[f"{score}_low"] <= chance) & (chance <= frame[f"{score}_high"])
        assert covered.mean() >= 0.87, score
        assert frame[score].mean() == pytest.approx(chance, abs=0.01)


def test_random_and_broken_ties_are_the_mean_over_draws(results: Results) -> None:
    """Ties are broken by a coin: expectations equal the means over many coins."""
    frame = rows(compare_triggers(results, [0.35], triggers=["coarse"]))
    answers = results.instances.pivot_table(index="instance", columns="method", values="correct", aggfunc="first")
    stats = results.statistics.set_index("instance").reindex(answers.index)
    usable = stats["correct"].notna().to_numpy()
    coin = np.random.default_rng(0).random((4000, len(answers)))
    for name, values in (("coarse", stats["coarse"].to_numpy()), ("random", np.where(usable, 0.0, np.nan))):
        row = frame.loc[name]
        fires = (values > row["threshold"]) | ((values == row["threshold"]) & (coin < row["at_threshold"]))
        right = np.where(fires, answers["always"], answers["pt"]).mean()
        assert row["accuracy"] == pytest.approx(right, abs=5e-4)
        assert row["firing_rate"] == pytest.approx(fires[:, usable].mean(), abs=1e-3)
        wrong = ~answers["pt"].to_numpy(bool) & usable
        assert row["hit_rate"] == pytest.approx(fires[:, wrong].mean(), abs=1e-3)
        assert row["precision"] == pytest.approx(fires[:, wrong].sum() / fires[:, usable].sum(), abs=1e-3)


@pytest.mark.parametrize("rate", [0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0])
def test_every_trigger_fires_at_the_rate_on_validation(results: Results, rate: float) -> None:
    frame = rows(compare_triggers(results, [rate], triggers=TRIGGERS)).drop("constant")
    stats = results.validation.assign(random=0.0, oracle=~results.validation["correct"] + 0.0)
    for name, row in frame.iterrows():
        values, cut, share = stats[name], row["threshold"], row["at_threshold"]
        assert (values > cut).mean() + share * (values == cut).mean() == pytest.approx(rate), name
        assert abs((values > cut).mean() - rate) <= max(1 / N_VALIDATION, (values == cut).mean()) + 1e-12
    if rate == 1:
        assert (frame["accuracy"] == accuracy(results, "always")).all()
        assert (frame["firing_rate"] == 1).all()
    if rate == 0:
        assert (frame["difference"] == 0).all()
        assert frame["precision"].isna().all()


def test_no_threshold_depends_on_test_outcomes(results: Results) -> None:
    """Shuffled test outcomes leave every threshold and every firing rate but the oracle's."""
    columns = ["trigger", "rate", "threshold", "at_threshold", "n_calibration", "split"]
    rng = np.random.default_rng(4)
    stats = results.statistics.assign(correct=rng.permutation(results.statistics["correct"]))
    instances = results.instances.copy()
    for method in ("pt", "always"):
        chosen = instances["method"] == method
        instances.loc[chosen, "correct"] = rng.permutation(instances.loc[chosen, "correct"])
    shuffled = replace(results, statistics=stats, instances=instances)
    for rates in (None, [0.2, 0.6]):
        before, after = (compare_triggers(one, rates, triggers=TRIGGERS) for one in (results, shuffled))
        pd.testing.assert_frame_equal(before[columns], after[columns])
        fires = before["trigger"] != "oracle"
        pd.testing.assert_series_equal(before.loc[fires, "firing_rate"], after.loc[fires, "firing_rate"])
        assert not before["accuracy"].equals(after["accuracy"]), "the shuffle must change something"


def test_test_values_do_not_move_a_threshold(results: Results) -> None:
    moved = replace(results, statistics=results.statistics.assign(noise=results.statistics["noise"] + 1))
    before, after = (rows(compare_triggers(one, [0.2], triggers=TRIGGERS)).loc["noise"] for one in (results, moved))
    assert before["threshold"] == after["threshold"]
    assert before["firing_rate"] < after["firing_rate"]


def test_ranking_agrees_with_scikit_learn(results: Results) -> None:
    frame = compare_triggers(results, triggers=TRIGGERS).set_index(["trigger", "outcome"])
    stats = results.statistics
    after = results.instances.query("method == 'always'").set_index("instance")["correct"][stats["instance"]]
    for outcome, labels in ((WRONG, ~stats["correct"]), (FIXES, ~stats["correct"] & after.to_numpy(bool))):
        for name in TRIGGERS:
            row = frame.loc[name, outcome]
            assert row["auroc"] == pytest.approx(roc_auc_score(labels, stats[name]))
            assert row["average_precision"] == pytest.approx(average_precision_score(labels, stats[name]))
            assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
            assert row["base_rate"] == pytest.approx(labels.mean())


def test_prompts_are_averaged_and_problems_resampled_with_all_prompts(
    results: Results, planted: Callable[..., Results]
) -> None:
    """A second prompt with the same answers changes nothing; a statistic on another scale has its own threshold."""
    instances = results.instances.assign(prompt="seed1")
    scaled = results.statistics.assign(**{name: 100 * results.statistics[name] for name in ("perfect", "noise")})
    validation = results.validation.assign(**{name: 100 * results.validation[name] for name in ("perfect", "noise")})
    again = replace(results, instances=instances, statistics=scaled, validation=validation)
    once, twice = (compare_triggers(given, triggers=TRIGGERS) for given in (results, [results, again]))
    counts = ["n", "n_prompts", "n_calibration", "threshold"]
    pd.testing.assert_frame_equal(once.drop(columns=counts), twice.drop(columns=counts))
    assert twice["n"].tolist() == (2 * once["n"]).tolist()
    assert set(twice["n_prompts"]) == {2}

    other = planted(seed=1, prompt="seed1")
    pooled, first, second = (
        rows(compare_triggers(given, triggers=TRIGGERS)) for given in ([results, other], results, other)
    )
    for column in ("accuracy", "difference", "rate", "threshold"):
        np.testing.assert_allclose(pooled[column], (first[column] + second[column]) / 2, err_msg=column)
    assert first["rate"].iloc[0] != second["rate"].iloc[0]
    assert pooled.loc["perfect", ["hit_rate", "precision"]].tolist() == [1, 1], "each prompt at its own error rate"
    wrong = [frame["n"] * frame["base_rate"] for frame in (first, second)]
    pairs = [count * (frame["n"] - count) for count, frame in zip(wrong, (first, second), strict=True)]
    for column, (one, two) in {"auroc": pairs, "average_precision": wrong}.items():
        mean = (one * first[column] + two * second[column]) / (one + two)
        np.testing.assert_allclose(pooled[column], mean, err_msg=column)


def test_degenerate_cases_are_nan_with_a_reason(results: Results) -> None:
    frame = rows(compare_triggers(results, triggers=TRIGGERS)).loc["constant"]
    assert frame["reason"] == "constant on validation"
    assert frame[["threshold", "firing_rate", "hit_rate", "accuracy", "difference_low"]].isna().all()
    assert frame["auroc"] == 0.5

    broken = results.instances.assign(correct=results.instances["correct"] & (results.instances["method"] == "pt"))
    frame = compare_triggers(replace(results, instances=broken), triggers=TRIGGERS)
    assert rows(frame).loc["noise", ["auroc", "accuracy"]].notna().all()
    never = rows(frame, FIXES).loc["noise"]
    assert never["reason"] == "fewer than 5 problems with or without the outcome"
    assert never[["auroc", "average_precision_high", "hit_rate"]].isna().all()
    assert never["accuracy"] < accuracy(results, "pt")

    holes = results.statistics.assign(noise=results.statistics["noise"].where(results.statistics.index > 0))
    frame = rows(compare_triggers(replace(results, statistics=holes), triggers=TRIGGERS)).loc["noise"]
    assert frame["reason"] == "not finite"
    assert frame[["auroc", "accuracy"]].isna().all()


def test_results_that_cannot_be_compared_raise(results: Results, planted: Callable[..., Results]) -> None:
    other = planted(seed=1, prompt="seed1", n=30)
    without = replace(results, instances=results.instances.query("method != 'always'"))
    for given, options, message in (
        ([], {}, "no results"),
        ([results, results], {}, "are of the same prompt"),
        ([results, other], {}, "answered different problems"),
        ([results, replace(other, instances=other.instances.assign(task="rule"))], {}, "several tasks"),
        (without, {}, "without the method 'always'"),
        (replace(results, validation=pd.DataFrame()), {}, "no validation statistics"),
        (results, {"triggers": ["noise", "lenght"]}, "lacks the statistic 'lenght'"),
        (results, {"rates": [0.2, 1.5]}, "a firing rate is 1.5"),
    ):
        with pytest.raises(DPCInterpError, match=message) as caught:
            compare_triggers(given, **({"triggers": TRIGGERS} | options))
        assert "\n" not in str(caught.value)
