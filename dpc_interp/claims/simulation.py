"""Verdicts on gains, simulated: how often the rule errs, and what it finds (docs/method.md, section 8.3).

A method changes a share `changed` of the answers of each prompt. Prompt s fixes (changed + g_s) / 2 of its answers and
breaks (changed - g_s) / 2, with g_s drawn around the true gain with standard deviation `spread`. A share `shared` of
the answers is drawn once for all prompts, because prompts tend to change the same problems.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dpc_interp.claims.verdicts import PAPER_GAIN
from dpc_interp.stats.changes import gain
from dpc_interp.stats.weighted import Array

PAPER_SPREAD = 0.01
"""A spread of one point over tuning seeds."""
CHANGED = (0.001, 0.003, 0.01, 0.03, 0.1)
N_PROMPTS = (3, 5, 10)


def simulate_changes(
    rng: np.random.Generator,
    changed: float,
    n_prompts: int,
    *,
    true_gain: float = 0.0,
    spread: float = 0.0,
    shared: float = 0.5,
    n_problems: int = 500,
) -> Array:
    """Draw one experiment.

    Args:
        rng: random state.
        changed: share of the answers that change, at least the gain.
        n_prompts: tuned prompts.
        true_gain: mean gain in accuracy.
        spread: standard deviation of the gain over prompts.
        shared: share of the draws that all prompts have in common.
        n_problems: problems, which every prompt answers.

    Returns:
        [n_problems, n_prompts], 1 where an answer is fixed, -1 where it is broken, else 0.
    """
    gains = np.clip(true_gain + spread * rng.normal(size=n_prompts), -changed, changed)
    # one draw decides whether an answer changes, another one its sign
    separate = rng.random((2, n_problems, n_prompts))
    common = rng.random((2, n_problems, 1))
    changes, sign = np.where(rng.random((n_problems, n_prompts)) < shared, common, separate)
    return np.where(changes < changed, np.where(sign < (1 + gains / changed) / 2, 1.0, -1.0), 0.0)


def simulate_verdicts(
    changed: Sequence[float] = CHANGED, n_prompts: Sequence[int] = N_PROMPTS, *, n: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Judge simulated experiments without an effect and with the paper's.

    Args:
        changed: shares of changed answers; the paper's effect is simulated where at least 3% change.
        n_prompts: numbers of tuned prompts.
        n: experiments of each kind.
        seed: seed of the draws.

    Returns:
        One row per truth (no effect, the paper's effect), `changed`, `n_prompts` and `shared` (0, 0.5 or 1 without an
        effect, 0.2 with it): the shares `holds` and `fails` of `n` experiments.

    Example:
        >>> from dpc_interp.claims.simulation import simulate_verdicts
        >>> simulate_verdicts([0.01], [3], n=2)["truth"].tolist()
        ['no effect', 'no effect', 'no effect']
    """
    rows = []
    worlds = [("no effect", 0.0, 0.0, shared) for shared in (0.0, 0.5, 1.0)]
    worlds.append(("paper's effect", PAPER_GAIN, PAPER_SPREAD, 0.2))
    for truth, true_gain, spread, shared in worlds:
        for share in changed:
            if true_gain and share < 0.03:
                continue
            for n_seeds in n_prompts:
                rng = np.random.default_rng([seed, n_seeds, int(1e6 * share), int(10 * shared)])
                judged = [
                    gain(simulate_changes(rng, share, n_seeds, true_gain=true_gain, spread=spread, shared=shared))
                    for _ in range(n)
                ]
                holds, fails = np.mean([(g.low > 0, g.high < 0) for g in judged], axis=0)
                rows.append((truth, share, n_seeds, shared, n, holds, fails))
    return pd.DataFrame(rows, columns=["truth", "changed", "n_prompts", "shared", "n", "holds", "fails"])
