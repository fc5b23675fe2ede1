"""Thresholds of a trigger that is calibrated again on redrawn validation problems (docs/method.md, section 8.3).

A threshold is chosen on some 100 validation problems, and another draw of them may choose another one: redrawing moved
the firing rate of one bundled rule from 1% to 80%. An interval that holds the threshold fixed leaves that out.
"""

from __future__ import annotations

import numpy as np

from dpc_interp.stats.weighted import Array


def redrawn_thresholds(values: Array, positive: Array, negative: Array, weights: Array, *, normed: bool) -> Array:
    """The best threshold in each resample of the calibration instances.

    A threshold scores the `positive` of the instances above it minus their `negative`. Of thresholds that score alike
    the highest is taken, which fires least.

    Args:
        values: the statistic, [n].
        positive: [n], what firing on the instance gains: 1 where PT was wrong, or where corruption fixes the answer.
        negative: [n], what firing on it costs: 1 where PT was right, or where corruption breaks the answer.
        weights: how often each instance was drawn, [n_resamples, n].
        normed: divide both by their sums in the resample, as Youden's J does.

    Returns:
        [n_resamples]; the trigger fires strictly above the threshold. Where no threshold scores above 0, and with
        `normed` where either sum is 0, it is infinite, and the trigger never fires.
    """
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.diff(values[order], append=-np.inf))  # a threshold cannot part equal values
    gains, costs = (weights * kind for kind in (positive, negative))
    if normed:
        with np.errstate(invalid="ignore"):
            gains, costs = (part / part.sum(axis=1, keepdims=True) for part in (gains, costs))
    scores = np.nan_to_num((gains - costs)[:, order].cumsum(axis=1)[:, ends])
    best = scores.round(12).argmax(axis=1)  # so that rounding errors break no tie
    thresholds = np.nextafter(values[order][ends], -np.inf)
    return np.where(np.take_along_axis(scores, best[:, None], axis=1)[:, 0] > 1e-12, thresholds[best], np.inf)
