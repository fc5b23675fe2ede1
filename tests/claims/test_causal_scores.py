"""Scores of knock-out effects, worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp import curve_areas, rank_correlation, redundancy_ratio


def curves(kind: str, changes: dict[tuple[str, int], tuple[float, ...]], instance: str = "i") -> pd.DataFrame:
    """Curves at fractions 0, 0.5 and 1, from (order, draw) -> loss changes."""
    rows = [
        (instance, True, kind, order, draw, fraction, change)
        for (order, draw), values in changes.items()
        for fraction, change in zip((0.0, 0.5, 1.0), values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["instance", "correct", "kind", "order", "draw", "fraction", "loss_change"])


def test_areas_by_hand() -> None:
    """The mean random curve is 0, 2, 4, whose area is 2."""
    frame = curves("deletion", {("saliency", 0): (0, 4, 4), ("random", 0): (0, 1, 4), ("random", 1): (0, 3, 4)})
    areas = curve_areas(frame).set_index("order")
    assert dict(areas["area"]) == {"saliency": 3.0, "random": 2.0}
    assert dict(areas["advantage"]) == {"saliency": 1.0, "random": 0.0}


def test_a_low_insertion_curve_is_an_advantage() -> None:
    """Insertion starts with all edges removed: an order is good where the loss recovers early."""
    frame = curves("insertion", {("saliency", 0): (4, 0, 0), ("random", 0): (4, 2, 0)})
    assert dict(curve_areas(frame).set_index("order")["advantage"]) == {"saliency": 1.0, "random": 0.0}


def test_the_sign_of_a_change_counts_only_without_absolute() -> None:
    frame = curves("deletion", {("saliency", 0): (0, -4, -4), ("random", 0): (0, 2, -4)})
    assert curve_areas(frame)["area"].tolist() == [3.0, 2.0]
    assert curve_areas(frame, absolute=False)["area"].tolist() == [-3.0, 0.0]
    assert curve_areas(frame, absolute=False)["advantage"].tolist() == [-3.0, 0.0]


def test_each_instance_is_compared_with_its_own_random_curve() -> None:
    frame = pd.concat(
        [
            curves("deletion", {("saliency", 0): (0, 4, 4), ("random", 0): (0, 2, 4)}, "i"),
            curves("deletion", {("saliency", 0): (0, 4, 4), ("random", 0): (0, 4, 4)}, "j"),
        ]
    )
    saliency = curve_areas(frame).query("order == 'saliency'").set_index("instance")
    assert dict(saliency["advantage"]) == {"i": 1.0, "j": 0.0}


def test_rank_correlation_by_hand() -> None:
    """Flow ranks 1 2 3. Sizes of the change rank 1 3 2: rho = 1/2; the changes -1 -3 2 rank 2 1 3: rho = 1/2."""
    groups = pd.DataFrame(
        {"instance": "i", "correct": False, "flow": [0.1, 0.2, 0.3], "loss_change": [-1.0, -3.0, 2.0]}
    )
    (row,) = rank_correlation(groups).to_dict("records")
    assert row == {"instance": "i", "correct": False, "absolute": pytest.approx(0.5), "signed": pytest.approx(0.5)}


def test_a_constant_has_no_rank_correlation() -> None:
    groups = pd.DataFrame({"instance": "i", "correct": True, "flow": [0.1, 0.2], "loss_change": [1.0, -1.0]})
    (row,) = rank_correlation(groups).to_dict("records")
    assert np.isnan(row["absolute"])
    assert row["signed"] == pytest.approx(-1.0)
    assert rank_correlation(groups.assign(flow=1.0))[["absolute", "signed"]].isna().all(axis=None)


def test_redundancy_by_hand() -> None:
    """At layer 0 tokens carry the same, so each alone is missed little; at layer 1 they add up; at 2 nothing counts."""
    rows = [
        (name, layer, joint * size, single * size, 0.3 * size if layer < 2 else 0.0)
        for name, size in (("a", 1.0), ("b", 3.0))
        for layer, joint, single in ((0, 0.4, 0.1), (1, 0.3, 0.3), (2, 0.0, 0.0))
    ]
    ratios = redundancy_ratio(pd.DataFrame(rows, columns=["instance", "layer", "joint", "single", "single_size"]))
    assert ratios[["layer", "n"]].to_numpy().tolist() == [[0, 2], [1, 2], [2, 2]]
    np.testing.assert_allclose(ratios[["joint", "single"]], [[0.8, 0.2], [0.6, 0.6], [0, 0]])
    np.testing.assert_allclose(ratios[["ratio", "low", "high"]], [[4] * 3, [1] * 3, [np.nan] * 3])
    np.testing.assert_allclose(ratios["size_ratio"], [4 / 3, 1, np.nan])


def test_single_effects_that_cancel_have_no_ratio() -> None:
    rows = [(name, 0, 0.5, single, 0.4) for name, single in (("a", -0.1), ("b", 0.1), ("c", 0.02))]
    (row,) = redundancy_ratio(
        pd.DataFrame(rows, columns=["instance", "layer", "joint", "single", "single_size"])
    ).to_dict("records")
    assert np.isnan([row["ratio"], row["low"], row["high"]]).all()
    assert row["size_ratio"] == pytest.approx(0.5 / 0.4)
