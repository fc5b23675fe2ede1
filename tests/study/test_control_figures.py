"""fig8 to fig11 from frames written by hand: the captions state their means, and the frames are saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from scipy.integrate import trapezoid

from dpc_interp import plots
from dpc_interp.study.control_figures import (
    fig8_sink_control,
    fig9_triggers,
    fig10_causal,
    fig11_sensitivity,
    fig11_single_tokens,
)
from dpc_interp.study.evaluated import EvaluatedPrompt

INSTANCES = ("a", "b", "c")


def files(folder: Path, name: str) -> set[str]:
    return {file.suffix for file in folder.glob(f"{name}.*")}


def test_fig8_states_how_much_larger_the_peak_of_the_trained_prompt_is(study: EvaluatedPrompt, tmp_path: Path) -> None:
    sinks = pd.DataFrame(
        [
            (condition, name, layer, token, 1.0 + (token == 3) * (condition == "trained"), token == 0)
            for condition in ("trained", "untrained")
            for name in INSTANCES
            for layer in range(6)
            for token in range(5)
        ],
        columns=["condition", "instance", "layer", "virtual_token", "value", "sink"],
    )
    summary = pd.DataFrame(
        {
            "prompt": ["seed0", "seed0", "seed1", "seed1"],
            "condition": ["trained", "untrained"] * 2,
            "peak_ratio": [3.0, 2.0, 5.0, 1.0],
            "low": 0.5,
            "high": 6.0,
            "chance": 1.5,
            "own_ratio": [0.0, 1.0, 0.0, 4.0],
            "own_low": [0.0, 0.75, 0.0, 3.5],
            "own_high": [0.0, 1.25, 0.0, 4.5],
        }
    )
    caption = fig8_sink_control(study, sinks, summary).save(tmp_path)
    assert caption.endswith("seed0 1.00 [0.75, 1.25]; seed1 4.00 [3.50, 4.50].")
    assert files(tmp_path, "fig8_sink_control") == {".png", ".pdf", ".parquet"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "fig8_sink_control_ratios.csv"), summary)


def test_fig9_states_the_firing_rate_of_the_rule(tmp_path: Path) -> None:
    rows = [
        ("story", trigger, outcome, rate, rate, 0.6, 0.5, 0.7, 0.01, 0.0, 0.02, 90)
        for trigger in ("late_share", "random")
        for outcome in ("PT was wrong", "corruption fixes it")
        for rate in (0.1, 0.5)
    ]
    columns = ["task", "trigger", "outcome", "rate", "firing_rate", "auroc", "auroc_low", "auroc_high"]
    columns += ["difference", "difference_low", "difference_high", "n_calibration"]
    by_rate = pd.DataFrame(rows, columns=columns)
    compared = by_rate[by_rate["rate"] == 0.1]
    caption = fig9_triggers(compared, by_rate).save(tmp_path)
    assert "thresholds from 90 validation rows" in caption
    assert "10.0%" in caption
    assert files(tmp_path, "fig9_triggers") == {".png", ".pdf"}, "its first panel is drawn from tab3_triggers"
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "fig9_triggers_by_rate.parquet"), by_rate)


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    """The style in which the study draws; legends above small axes need its font size."""
    with plots.style_context():
        yield


@pytest.fixture
def effects() -> dict[str, pd.DataFrame]:
    """Flow predicts the size of the loss change perfectly; removing the highest saliency first costs most."""
    knockouts = pd.DataFrame(
        [
            (name, layer, edges, 0, size, size, 0.0)
            for name in INSTANCES
            for layer in (0, 1, pd.NA)
            for edges, size in (("top", 0.3), ("random", 0.2), ("bottom", 0.1))
        ],
        columns=["instance", "layer", "edges", "draw", "loss_change", "answer_probability_change", "answer_changed"],
    ).astype({"layer": "Int64"})
    groups = pd.DataFrame(
        [(name, group, 1.0 * group, 0.1 * group * (-1) ** group) for name in INSTANCES for group in range(1, 7)],
        columns=["instance", "group", "flow", "loss_change"],
    )
    redundancy = pd.DataFrame(
        [(name, layer, "3 1", 0.4, 0.1, 0.2) for name in INSTANCES for layer in range(2)],
        columns=["instance", "layer", "tokens", "joint", "single", "single_size"],
    )
    curves = pd.DataFrame(
        [
            (name, kind, order, 0, fraction, fraction**power)
            for name in INSTANCES
            for kind in ("deletion", "insertion")
            for order, power in (("saliency", 0.5), ("random", 1), ("reverse", 2))
            for fraction in (0.0, 0.25, 0.5, 1.0)
        ],
        columns=["instance", "kind", "order", "draw", "fraction", "loss_change"],
    )
    sanity = pd.DataFrame(
        [
            (name, test, n, layer, source, 0.1)
            for name in INSTANCES
            for test, n in (("answers", 0), ("weights", 1), ("weights", 2))
            for layer in range(2)
            for source in ("prompt", "all")
        ],
        columns=["instance", "test", "n_randomised", "layer", "source", "value"],
    )
    frames = {"knockouts": knockouts, "groups": groups, "redundancy": redundancy, "curves": curves, "sanity": sanity}
    return {name: frame.assign(task="story", correct=frame["instance"] != "c") for name, frame in frames.items()}


def test_fig10_states_rank_correlations_and_areas(effects: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    caption = fig10_causal(effects).save(tmp_path)
    assert "3 test instances" in caption
    assert "size of the loss change 1 [1, 1]" in caption
    curve = effects["curves"].query("instance == 'a' and kind == 'deletion'")
    area = {
        order: trapezoid(rows["loss_change"], rows["fraction"]) for order, rows in curve.groupby("order", sort=False)
    }
    advantage = area["saliency"] - area["random"]
    assert f"by size {advantage:.2g} [{advantage:.2g}, {advantage:.2g}]" in caption
    for name in ("groups", "redundancy", "curves", "sanity"):
        assert files(tmp_path, f"fig10_causal_{name}") == {".parquet"}
    ratios = pd.read_csv(tmp_path / "fig10_causal_redundancy_ratio.csv")
    assert ratios[["ratio", "low", "high"]].round(6).to_numpy().tolist() == [[4.0] * 3] * 2, "0.4 over 0.1"
    assert "the 2 virtual tokens of largest flow" in caption
    stored = pd.read_parquet(tmp_path / "fig10_causal.parquet")
    pd.testing.assert_frame_equal(stored, effects["knockouts"], check_dtype=False)


def test_fig10_of_one_instance_has_no_interval(effects: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    first = {name: frame[frame["instance"] == "a"] for name, frame in effects.items()}
    assert "size of the loss change not measured" in fig10_causal(first).save(tmp_path)


def test_fig11_states_the_problems_of_both_splits(tmp_path: Path) -> None:
    rows = [
        ("gamma", value, split, value == "10", value == "20", 0.01 * k, 40, 25)
        for k, value in enumerate(("0", "10", "20"))
        for split in ("validation", "test")
    ]
    columns = ["option", "value", "split", "default", "selected", "difference", "n", "n_validation"]
    frame = pd.DataFrame(rows, columns=columns)
    sensitivity = frame.assign(
        difference_low=frame["difference"] - 0.1, difference_high=frame["difference"] + 0.1, reason=""
    )
    tokens = pd.DataFrame({"virtual_token": range(4), "accumulation": 0.25, "difference": [0.0, 0.1, 0.2, 0.3]})
    tokens = tokens.assign(difference_low=tokens["difference"] - 0.1, difference_high=tokens["difference"] + 0.1)
    caption = fig11_sensitivity({"sensitivity": sensitivity}).save(tmp_path)
    fig11_single_tokens({"tokens": tokens}).save(tmp_path)
    assert "40 test and 25 validation problems" in caption
    for name, stored in (("fig11_sensitivity", sensitivity), ("fig11_single_tokens", tokens)):
        assert files(tmp_path, name) == {".png", ".pdf", ".parquet"}
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), stored, check_dtype=False)
