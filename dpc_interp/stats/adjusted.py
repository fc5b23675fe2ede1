"""The difference of two groups adjusted for covariates, for weighted instances (see `weighted.py`).

    y = b positive + covariates + one constant a stratum + error        effect = b / SD of y

by weighted least squares. Without covariates and with one stratum it is the difference of means in standard deviations
of all values.
"""

from __future__ import annotations

import numpy as np

from dpc_interp.stats.weighted import Array, Flags


def weighted_adjusted_difference(
    values: Array, positive: Flags, covariates: Array, strata: Array, weights: Array
) -> Array:
    """How much larger a value is where an outcome is positive, covariates and stratum being equal.

    Args:
        values: [n].
        positive: [n].
        covariates: [n, k].
        strata: [n], labels.
        weights: [n_resamples, n].

    Returns:
        [n_resamples], in standard deviations of `values`; NaN where a resample has one outcome only, nothing varies, or
        the outcome is a function of the strata.
    """
    scale = covariates.std(axis=0)
    scaled = (covariates - covariates.mean(axis=0)) / np.where(scale > 0, scale, 1)
    constants = (strata[:, None] == np.unique(strata)).astype(float)
    design = np.column_stack([positive.astype(float), scaled, constants])
    n, k = design.shape
    centred = values - values.mean()
    gram = (weights @ (design[:, :, None] * design[:, None, :]).reshape(n, k * k)).reshape(-1, k, k)
    moments = weights @ (design * centred[:, None])
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = weights @ centred**2 / total - (weights @ centred / total) ** 2
        # by Frisch and Waugh: what the other columns leave of `positive` decides whether b is defined
        others = np.linalg.pinv(gram[:, 1:, 1:], hermitian=True)
        cross = gram[:, 0, 1:]
        fitted = np.einsum("ri,rij->rj", cross, others)
        left = gram[:, 0, 0] - np.einsum("rj,rj->r", fitted, cross)
        coefficient = (moments[:, 0] - np.einsum("rj,rj->r", fitted, moments[:, 1:])) / left
        effect = coefficient / np.sqrt(variance)
    return np.where((left > 1e-9 * total) & (variance > 1e-18), effect, np.nan)
