"""The mixed models find planted effects, cover 0 where there is none, and say why where there is no estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dpc_interp import DPCInterpError, Results, mixed_models
from dpc_interp.claims.mixed_models import mixed_table

World = Callable[..., list[Results]]


def fits(results: list[Results]) -> pd.DataFrame:
    return mixed_models(results).set_index("claim")


def with_changes(results: list[Results], changes: list[np.ndarray]) -> list[Results]:
    """Let dpc fix (1) or break (-1) answers of pt."""
    changed = []
    for result, change in zip(results, changes, strict=True):
        instances = result.instances.copy()
        pt, dpc = (instances["method"] == method for method in ("pt", "dpc"))
        instances.loc[pt, "correct"] = change < 0
        instances.loc[dpc, "correct"] = change > 0
        changed.append(replace(result, instances=instances))
    return changed


def test_planted_effects_are_found(world: World) -> None:
    """In the true world dpc fixes 7 of 10 wrong answers, and wrong answers have 0.6 more log row share."""
    true = fits(world(0, true=True))
    assert (true["low"] > 0).all()
    assert (true["p"] < 0.01).all()


def test_absent_effects_are_not_found(world: World) -> None:
    absent = [fits(world(seed, true=False)) for seed in range(4)]
    for claim in ("C5", "C2"):
        covers = [frame.loc[claim, "low"] < 0 < frame.loc[claim, "high"] for frame in absent]
        assert sum(covers) >= 3, claim


def test_c5_is_as_sure_as_a_paired_test(world: World) -> None:
    """Each of three prompts fixes the answers of five other problems: no variance between prompts or problems."""
    changes = [np.roll(np.eye(1, 120)[0] + np.eye(1, 120, 30)[0] + np.eye(1, 120, 60)[0], shift) for shift in (0, 1, 2)]
    row = fits(with_changes(world(1, true=True), changes)).loc["C5"]
    stacked = np.concatenate(changes)
    paired = stacked.std(ddof=1) / np.sqrt(len(stacked))
    assert row["effect"] == pytest.approx(3 / 120, abs=1e-6)
    assert row["low"] == pytest.approx(3 / 120 - 1.96 * paired, rel=0.02)
    assert (row["n"], row["n_problems"], row["n_prompts"]) == (360, 120, 3)


def test_an_effect_that_differs_between_prompts_is_less_sure(world: World) -> None:
    """Two prompts fix nothing, one fixes a quarter: most of the variance is between three prompts."""
    quarter = (np.arange(120) % 4 == 0).astype(float)
    row = fits(with_changes(world(1, true=True), [quarter, 0 * quarter, 0 * quarter])).loc["C5"]
    assert row["df"] < 3
    assert row["low"] < 0 < row["high"]


def test_without_an_estimate_there_is_a_reason(world: World) -> None:
    results = world(2, true=True)
    assert fits(results[:1])["reason"].tolist() == ["one prompt", "one prompt"]
    without = [replace(result, instances=result.instances.query("method != 'dpc'")) for result in results]
    row = fits(without).loc["C5"]
    assert row["reason"] == "not evaluated with dpc"
    assert row[["effect", "low", "high", "p"]].isna().all()
    assert fits(with_changes(results, [np.zeros(120)] * 3)).loc["C5", "reason"] == "nothing varies"
    assert fits(world(2, true=True, n=20))["reason"].tolist() == ["fewer than 30 problems"] * 2
    constant = [replace(r, statistics=r.statistics.assign(row_share=0.5)) for r in results]
    assert fits(constant).loc["C2", "reason"] == "nothing varies"
    same = [replace(r, statistics=r.statistics.assign(nll=r.statistics["length"])) for r in results]
    assert fits(same).loc["C2", "reason"] == "the covariates are collinear"


def test_results_that_do_not_belong_together_raise(world: World) -> None:
    results = world(2, true=True)
    other = replace(results[0], instances=results[0].instances.assign(task="rule"))
    with pytest.raises(DPCInterpError, match="2 tasks"):
        mixed_models([*results, other])
    with pytest.raises(DPCInterpError, match="same prompt"):
        mixed_models([results[0], results[0]])


def test_a_table_has_an_estimate_or_a_reason(world: World) -> None:
    results = world(3, true=True)
    frame = pd.concat([mixed_models(results), mixed_models(results[:1])], ignore_index=True)
    table = mixed_table(frame)
    assert table["claim"].tolist() == ["C5", "C2"] * 2
    row = frame.iloc[0]
    assert table["estimate [95%]"][0] == f"{row['effect']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    assert table["estimate [95%]"][2:].tolist() == ["one prompt"] * 2
    assert table["p"][2:].tolist() == ["–"] * 2
