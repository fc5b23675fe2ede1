"""The mixed models find planted effects, find none where there is none, and say why where there is no estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from dpc_interp import DPCInterpError, Results, mixed_models


def fits(results: list[Results]) -> pd.DataFrame:
    return mixed_models(results).set_index("claim")


def test_planted_effects_are_found_and_absent_ones_are_not(world: Callable[..., list[Results]]) -> None:
    """In the true world dpc fixes 7 of 10 wrong answers, and wrong answers have 0.6 more log row share."""
    true = fits(world(0, true=True))
    assert (true["low"] > 0).all()
    assert (true["p"] < 1e-4).all()
    absent = [fits(world(seed, true=False)) for seed in range(4)]
    for claim in ("C5", "C2"):
        covers = [frame.loc[claim, "low"] < 0 < frame.loc[claim, "high"] for frame in absent]
        assert sum(covers) >= 3, claim


def test_c5_is_the_mean_difference_of_accuracies(world: Callable[..., list[Results]]) -> None:
    results = world(1, true=True)
    answers = pd.concat([result.instances for result in results]).astype({"correct": float})
    accuracy = answers.groupby("method")["correct"].mean()
    row = fits(results).loc["C5"]
    assert row["effect"] == pytest.approx(accuracy["dpc"] - accuracy["pt"], abs=1e-3)
    n = results[0].instances["instance"].nunique()
    assert (row["n"], row["n_problems"], row["n_prompts"]) == (2 * 3 * n, n, 3)


def test_without_an_estimate_there_is_a_reason(world: Callable[..., list[Results]]) -> None:
    results = world(2, true=True)
    assert fits(results[:1])["reason"].tolist() == ["one prompt", "one prompt"]
    without = [replace(result, instances=result.instances.query("method != 'dpc'")) for result in results]
    row = fits(without).loc["C5"]
    assert row["reason"] == "nothing varies"
    assert row[["effect", "low", "high", "p"]].isna().all()
    other = replace(results[0], instances=results[0].instances.assign(task="rule"))
    with pytest.raises(DPCInterpError, match="2 tasks"):
        mixed_models([*results, other])
