"""Triggers whose worth is planted: the outcome itself, noise, a constant, coarse copies; nothing is read from test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dpc_interp import Analysis, DPCInterpError, Results, TriggerRule, compare_triggers, triggers_table
from dpc_interp.evaluation.ranking import ranking_sums
from dpc_interp.evaluation.statistics import summarise

N, N_VALIDATION = 400, 120
PLANTED = ("late_share", "perfect", "noise", "coarse", "constant")
WRONG, FIXES = "PT was wrong", "corruption fixes it"


def statistics(n: int, seed: int, name: str) -> pd.DataFrame:
    """`late_share` takes six values and leans to wrong instances; `perfect` is the outcome; `coarse` is two-valued."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.4
    return pd.DataFrame(
        {
            "instance": [f"{name}-{i:03d}" for i in range(n)],
            "task": "story",
            "correct": ~wrong,
            "late_share": np.round(np.clip(0.4 + 0.2 * wrong + rng.normal(0, 0.2, n), 0, 1) * 5) / 5,
            "perfect": wrong + 0.0,
            "noise": rng.normal(size=n),
            "coarse": (rng.random(n) < 0.7) + 0.0,
            "constant": 3.0,
        }
    )


def planted(seed: int = 0, prompt: str = "seed0", n: int = N, n_silent: int = 8) -> Results:
    """Corruption fixes half of the wrong and breaks a fifth of the right; the last problems have no rationale."""
    stats, validation = statistics(n, seed, "test"), statistics(N_VALIDATION, seed + 100, "validation")
    rng = np.random.default_rng(seed + 200)
    before = stats["correct"].to_numpy()
    after = np.where(before, rng.random(n) >= 0.2, rng.random(n) < 0.5)
    silent = np.arange(n) >= n - n_silent
    after[silent] = before[silent]
    rule = TriggerRule("late_share", 0.5, "youden", "validation", N_VALIDATION)
    dpc = rule.fires(stats).to_numpy() & ~silent
    answers = {"pt": before, "always": after, "dpc": np.where(dpc, after, before)}
    fired = {"pt": np.zeros(n, dtype=bool), "always": ~silent, "dpc": dpc}
    rows = [
        stats[["task", "instance"]].assign(
            prompt=prompt, method=method, correct=answers[method], fired=fired[method], n_tokens=9
        )
        for method in answers
    ]
    empty = pd.DataFrame()
    return Results(
        instances=pd.concat(rows, ignore_index=True),
        summary=empty,
        triggers=empty,
        statistics=stats[~silent].reset_index(drop=True),
        rule=rule,
        validation=validation,
        timings=empty,
        analysis=Analysis(empty, empty, empty, empty, {}),
        runs=[],
    )


@pytest.fixture(scope="module")
def results() -> Results:
    return planted()


def rows(found: pd.DataFrame, outcome: str = WRONG) -> pd.DataFrame:
    return found[found["outcome"] == outcome].set_index("trigger")


def accuracy(results: Results, method: str) -> float:
    return results.instances.loc[results.instances["method"] == method, "correct"].mean()


def test_paper_s_rule_at_its_own_rate_is_dpc(results: Results) -> None:
    found = rows(compare_triggers(results, triggers=PLANTED)).loc["late_share"]
    dpc = summarise(results.instances).set_index("method").loc["dpc"]
    for column in ("accuracy", "difference", "difference_low", "difference_high"):
        assert found[column] == pytest.approx(dpc[column]), column
    assert found["firing_rate"] * found["n"] == pytest.approx(dpc["firing_rate"] * found["n_problems"])
    assert (found["n"], found["n_problems"], found["n_prompts"]) == (N - 8, N, 1)
    assert (found["split"], found["n_calibration"]) == ("validation", N_VALIDATION)
    assert found["rate"] == results.rule.fires(results.validation).mean()
    assert found["at_threshold"] == 1


def test_the_outcome_itself_ranks_perfectly_and_reaches_the_oracle(results: Results) -> None:
    rate = float((~results.validation["correct"]).mean())
    wrong, fixes = (rows(compare_triggers(results, [rate], triggers=PLANTED), which) for which in (WRONG, FIXES))
    for name in ("perfect", "oracle"):
        assert wrong.loc[name, ["auroc", "auroc_low", "average_precision"]].tolist() == [1, 1, 1]
        assert wrong.loc[name, ["hit_rate", "precision", "at_threshold"]].tolist() == [1, 1, 1]
        assert fixes.loc[name, "hit_rate"] == 1
    assert wrong["reason"].drop("constant").eq("").all()
    best = results.instances.query("method in ('pt', 'always')").groupby("instance")["correct"].max().mean()
    assert wrong.loc["perfect", "accuracy"] == wrong.loc["oracle", "accuracy"] == pytest.approx(best)
    assert wrong["accuracy"].max() == wrong.loc["oracle", "accuracy"]


def test_noise_and_random_lie_at_chance(results: Results) -> None:
    found = compare_triggers(results, [0.3], triggers=PLANTED)
    for outcome in (WRONG, FIXES):
        random, noise = rows(found, outcome).loc["random"], rows(found, outcome).loc["noise"]
        assert random["auroc"] == 0.5
        assert random[["average_precision", "precision"]].tolist() == pytest.approx([random["base_rate"]] * 2)
        assert random[["hit_rate", "firing_rate"]].tolist() == pytest.approx([0.3, 0.3])
        assert noise["auroc_low"] < 0.5 < noise["auroc_high"]
        assert random[["above_random", "above_random_low", "above_random_high"]].tolist() == [0, 0, 0]
    gain = accuracy(results, "always") - accuracy(results, "pt")
    assert rows(found).loc["random", "difference"] == pytest.approx(0.3 * gain)


def test_intervals_of_noise_cover_chance() -> None:
    """Sixty triggers of noise on one evaluation where corruption loses: about 95% of the intervals hold chance, though
    on test each fires at another rate.
    """
    results, rng = planted(n_silent=100), np.random.default_rng(8)
    names = [f"noise {k}" for k in range(60)]

    def noise(stats: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([stats, pd.DataFrame(rng.normal(size=(len(stats), 60)), columns=names)], axis=1)

    noisy = replace(results, statistics=noise(results.statistics), validation=noise(results.validation))
    found = rows(compare_triggers(noisy, [0.3], triggers=names)).loc[names]
    assert found["firing_rate"].std() > 0.01
    for score, chance in (("auroc", 0.5), ("above_random", 0.0)):
        covered = (found[f"{score}_low"] <= chance) & (chance <= found[f"{score}_high"])
        assert covered.mean() >= 0.87, score
        assert found[score].mean() == pytest.approx(chance, abs=0.01)


def test_random_and_broken_ties_are_the_mean_over_draws(results: Results) -> None:
    """Ties are broken by a coin: the expectations are the means over many coins."""
    found = rows(compare_triggers(results, [0.35], triggers=["coarse"]))
    answers = results.instances.pivot_table(index="instance", columns="method", values="correct", aggfunc="first")
    stats = results.statistics.set_index("instance").reindex(answers.index)
    usable = stats["correct"].notna().to_numpy()
    coin = np.random.default_rng(0).random((4000, len(answers)))
    for name, values in (("coarse", stats["coarse"].to_numpy()), ("random", np.where(usable, 0.0, np.nan))):
        row = found.loc[name]
        fires = (values > row["threshold"]) | ((values == row["threshold"]) & (coin < row["at_threshold"]))
        right = np.where(fires, answers["always"], answers["pt"]).mean()
        assert row["accuracy"] == pytest.approx(right, abs=5e-4)
        assert row["firing_rate"] == pytest.approx(fires[:, usable].mean(), abs=1e-3)
        wrong = ~answers["pt"].to_numpy(bool) & usable
        assert row["hit_rate"] == pytest.approx(fires[:, wrong].mean(), abs=1e-3)
        assert row["precision"] == pytest.approx(fires[:, wrong].sum() / fires[:, usable].sum(), abs=1e-3)


@pytest.mark.parametrize("rate", [0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0])
def test_every_trigger_fires_at_the_rate_on_validation(results: Results, rate: float) -> None:
    found = rows(compare_triggers(results, [rate], triggers=PLANTED)).drop("constant")
    stats = results.validation.assign(random=0.0, oracle=~results.validation["correct"] + 0.0)
    for name, row in found.iterrows():
        values, cut, share = stats[name], row["threshold"], row["at_threshold"]
        assert (values > cut).mean() + share * (values == cut).mean() == pytest.approx(rate), name
        assert abs((values > cut).mean() - rate) <= max(1 / N_VALIDATION, (values == cut).mean()) + 1e-12
    if rate == 1:
        assert (found["accuracy"] == accuracy(results, "always")).all()
        assert (found["firing_rate"] == 1).all()
    if rate == 0:
        assert (found["difference"] == 0).all()
        assert found["precision"].isna().all()


def test_nothing_is_chosen_on_test(results: Results) -> None:
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
        before, after = (compare_triggers(one, rates, triggers=PLANTED) for one in (results, shuffled))
        pd.testing.assert_frame_equal(before[columns], after[columns])
        fires = before["trigger"] != "oracle"
        pd.testing.assert_series_equal(before.loc[fires, "firing_rate"], after.loc[fires, "firing_rate"])
        assert not before["accuracy"].equals(after["accuracy"]), "or the shuffle did nothing"


def test_test_values_alone_do_not_move_a_threshold(results: Results) -> None:
    moved = replace(results, statistics=results.statistics.assign(noise=results.statistics["noise"] + 1))
    before, after = (rows(compare_triggers(one, [0.2], triggers=PLANTED)).loc["noise"] for one in (results, moved))
    assert before["threshold"] == after["threshold"]
    assert before["firing_rate"] < after["firing_rate"]


def test_ranking_agrees_with_scikit_learn(results: Results) -> None:
    found = compare_triggers(results, triggers=PLANTED).set_index(["trigger", "outcome"])
    stats = results.statistics
    after = results.instances.query("method == 'always'").set_index("instance")["correct"][stats["instance"]]
    for outcome, labels in ((WRONG, ~stats["correct"]), (FIXES, ~stats["correct"] & after.to_numpy(bool))):
        for name in PLANTED:
            row = found.loc[name, outcome]
            assert row["auroc"] == pytest.approx(roc_auc_score(labels, stats[name]))
            assert row["average_precision"] == pytest.approx(average_precision_score(labels, stats[name]))
            assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
            assert row["base_rate"] == pytest.approx(labels.mean())


def test_weighted_ranking_is_that_of_repeated_instances() -> None:
    rng = np.random.default_rng(5)
    values, positive = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.4
    weights = rng.integers(0, 4, (6, 40)).astype(float)
    above, below = ranking_sums(values, positive, weights)
    for found, drawn in zip(above / below, weights.astype(int), strict=True):
        labels, scores = np.repeat(positive, drawn), np.repeat(values, drawn)
        assert found == pytest.approx([roc_auc_score(labels, scores), average_precision_score(labels, scores)])


def test_prompts_are_averaged_and_problems_resampled_whole(results: Results) -> None:
    """A second prompt that answers alike tells nothing new; one on another scale is cut on its own scale."""
    instances = results.instances.assign(prompt="seed1")
    scaled = results.statistics.assign(**{name: 100 * results.statistics[name] for name in ("perfect", "noise")})
    validation = results.validation.assign(**{name: 100 * results.validation[name] for name in ("perfect", "noise")})
    again = replace(results, instances=instances, statistics=scaled, validation=validation)
    once, twice = (compare_triggers(given, triggers=PLANTED) for given in (results, [results, again]))
    alone = ["n", "n_prompts", "n_calibration", "threshold"]
    pd.testing.assert_frame_equal(once.drop(columns=alone), twice.drop(columns=alone))
    assert twice["n"].tolist() == (2 * once["n"]).tolist()
    assert set(twice["n_prompts"]) == {2}

    other = planted(seed=1, prompt="seed1")
    pooled, first, second = (
        rows(compare_triggers(given, triggers=PLANTED)) for given in ([results, other], results, other)
    )
    for column in ("accuracy", "difference", "rate", "threshold"):
        np.testing.assert_allclose(pooled[column], (first[column] + second[column]) / 2, err_msg=column)
    wrong = [frame["n"] * frame["base_rate"] for frame in (first, second)]
    pairs = [count * (frame["n"] - count) for count, frame in zip(wrong, (first, second), strict=True)]
    for column, (one, two) in {"auroc": pairs, "average_precision": wrong}.items():
        mean = (one * first[column] + two * second[column]) / (one + two)
        np.testing.assert_allclose(pooled[column], mean, err_msg=column)
    both = summarise(pd.concat([results.instances, other.instances])).set_index("method").loc["dpc"]
    for column in ("accuracy", "difference", "difference_low", "difference_high"):
        assert pooled.loc["late_share", column] == pytest.approx(both[column]), column


def test_degenerate_cases_are_nan_with_a_reason(results: Results) -> None:
    found = rows(compare_triggers(results, triggers=PLANTED)).loc["constant"]
    assert found["reason"] == "constant on validation"
    assert found[["threshold", "firing_rate", "hit_rate", "accuracy", "difference_low"]].isna().all()
    assert found["auroc"] == 0.5

    broken = results.instances.assign(correct=results.instances["correct"] & (results.instances["method"] == "pt"))
    found = compare_triggers(replace(results, instances=broken), triggers=PLANTED)
    assert rows(found).loc["noise", ["auroc", "accuracy"]].notna().all()
    never = rows(found, FIXES).loc["noise"]
    assert never["reason"] == "fewer than 5 problems with or without the outcome"
    assert never[["auroc", "average_precision_high", "hit_rate"]].isna().all()
    assert never["accuracy"] < accuracy(results, "pt")

    holes = results.statistics.assign(noise=results.statistics["noise"].where(results.statistics.index > 0))
    found = rows(compare_triggers(replace(results, statistics=holes), triggers=PLANTED)).loc["noise"]
    assert found["reason"] == "not finite"
    assert found[["auroc", "accuracy"]].isna().all()


def test_what_cannot_be_compared_is_refused(results: Results) -> None:
    other = planted(seed=1, prompt="seed1", n=30)
    without = replace(results, instances=results.instances.query("method != 'always'"))
    for given, options, message in (
        ([], {}, "no results"),
        ([results, results], {}, "two results are of the same prompt"),
        ([results, other], {}, "answered other problems"),
        ([results, replace(other, instances=other.instances.assign(task="rule"))], {}, "several tasks"),
        (without, {}, "add 'always'"),
        (replace(results, validation=pd.DataFrame()), {}, "no validation statistics"),
        (results, {"triggers": ["noise", "lenght"]}, "lacks the statistic 'lenght'"),
        (results, {"rates": [0.2, 1.5]}, "a firing rate is 1.5"),
    ):
        with pytest.raises(DPCInterpError, match=message) as caught:
            compare_triggers(given, **({"triggers": PLANTED} | options))
        assert "\n" not in str(caught.value)


def test_table_has_a_row_a_trigger_in_percent_and_points(results: Results) -> None:
    frame = compare_triggers(results, [0.3], triggers=PLANTED)
    table = triggers_table(frame).set_index("trigger")
    assert table.index.tolist() == [*PLANTED, "random", "oracle"]
    row = rows(frame).loc["late_share"]
    assert table.loc["late_share", "AUROC wrong [95%]"] == (
        f"{row['auroc']:.2f} [{row['auroc_low']:.2f}, {row['auroc_high']:.2f}]"
    )
    assert table.loc["late_share", "accuracy % [95%]"].startswith(f"{100 * row['accuracy']:.1f} [")
    assert table.loc["late_share", "hit rate wrong %"] == f"{100 * row['hit_rate']:.1f}"
    assert table.loc["constant", "minus pt, points [95%]"] == "–"
    assert table.loc["random", "AUROC fixed [95%]"] == "0.50 [0.50, 0.50]"
    assert table["asked %"].eq("30.0").all()
    assert len(triggers_table(compare_triggers(results, [0.1, 0.3], triggers=PLANTED))) == 2 * len(table)
