"""How well saliency predicts the effect of a knock-out: scores of the frames of `causal_edges`.

See docs/method.md, section 7.3.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpc_interp.stats.bootstrap import percentile_interval, resamples
from dpc_interp.stats.weighted import weighted_mean


def rank_correlation(groups: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of the flow of a group with the effect of its removal.

    Args:
        groups: of `causal_edges`.

    Returns:
        One row per instance: instance, correct, absolute (correlation with the size of the change in loss, which is all
        that an unsigned saliency can predict), signed (with the change itself, higher where removal hurts). NaN where
        either is constant.

    Example:
        >>> import pandas as pd
        >>> import dpc_interp as dpc
        >>> rows = {"instance": "a", "correct": True, "flow": [1.0, 2.0, 3.0], "loss_change": [-0.1, 0.2, -0.3]}
        >>> dpc.rank_correlation(pd.DataFrame(rows)).round(6).to_dict("records")
        [{'instance': 'a', 'correct': True, 'absolute': 1.0, 'signed': -0.5}]
    """
    from scipy.stats import spearmanr

    rows = []
    for (instance, correct), group in groups.groupby(["instance", "correct"], sort=False):
        effects = {"absolute": group["loss_change"].abs(), "signed": group["loss_change"]}
        values = {
            name: float(spearmanr(group["flow"], effect).statistic)
            if min(group["flow"].nunique(), effect.nunique()) > 1
            else float("nan")
            for name, effect in effects.items()
        }
        rows.append({"instance": instance, "correct": correct, **values})
    return pd.DataFrame(rows)


def redundancy_ratio(redundancy: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """The effect of removing some virtual tokens together over the sum of their single effects, by layer.

    Near 1 their effects add up. Above 1 they do more together, as tokens do that carry the same information
    (docs/method.md, section 8.5); so does any loss that is not linear in them.

    Args:
        redundancy: of `causal_edges`.
        seed: seed of the bootstrap over instances.

    Returns:
        One row per layer: layer, n (instances); the means joint, single and single_size (nats); ratio (joint over
        single) with its 95% interval low and high; size_ratio (the mean size of joint over single_size). Single effects
        of opposite sign cancel in `single`: where its interval contains 0, ratio, low and high are NaN.

    Example:
        >>> import pandas as pd
        >>> import dpc_interp as dpc
        >>> rows = {"instance": ["a", "b"], "layer": 0, "joint": [0.3, 0.5], "single": 0.1, "single_size": 0.2}
        >>> dpc.redundancy_ratio(pd.DataFrame(rows))[["ratio", "size_ratio"]].round(6).to_numpy().tolist()
        [[4.0, 2.0]]
    """
    rows = []
    for layer, effects in redundancy.groupby("layer"):
        columns = effects[["joint", "single", "single_size"]].to_numpy(float)
        weights = np.concatenate([np.ones((1, len(columns))), resamples(len(columns), seed=seed)])
        joint, single, size = weighted_mean(columns, weights).T
        lowest, highest = percentile_interval(single[1:])
        is_known = lowest > 0 or highest < 0
        ratios = joint / single if is_known else np.full(len(weights), np.nan)
        low, high = percentile_interval(ratios[1:])
        row = {"layer": layer, "n": len(columns), "joint": joint[0], "single": single[0], "single_size": size[0]}
        row |= {"ratio": ratios[0], "low": float(low), "high": float(high)}
        rows.append(row | {"size_ratio": np.abs(columns[:, 0]).mean() / size[0] if size[0] else np.nan})
    return pd.DataFrame(rows)


def curve_areas(curves: pd.DataFrame, *, absolute: bool = True) -> pd.DataFrame:
    """The area under each curve, averaged over random draws.

    Args:
        curves: of `causal_edges`.
        absolute: of the size of the change in loss, which is all that an unsigned saliency can predict; False: of the
            change itself.

    Returns:
        One row per instance, kind and order: instance, correct, kind, order, area (nats), advantage (nats). The
        advantage is the area between the curve and the random one, positive where the order does better than chance:
        under deletion the loss changes sooner, under insertion it recovers sooner.

    Example:
        >>> import pandas as pd
        >>> import dpc_interp as dpc
        >>> curve = {"instance": "a", "correct": True, "kind": "deletion", "draw": 0, "fraction": [0.0, 0.5, 1.0]}
        >>> top = pd.DataFrame(curve | {"order": "saliency", "loss_change": [0.0, 4.0, 4.0]})
        >>> chance = pd.DataFrame(curve | {"order": "random", "loss_change": [0.0, 2.0, 4.0]})
        >>> dpc.curve_areas(pd.concat([top, chance]))[["order", "area", "advantage"]].to_numpy().tolist()
        [['saliency', 3.0, 1.0], ['random', 2.0, 0.0]]
    """
    from scipy.integrate import trapezoid

    keys = ["instance", "correct", "kind", "order"]
    if absolute:
        curves = curves.assign(loss_change=curves["loss_change"].abs())
    mean = curves.groupby([*keys, "fraction"], sort=False)["loss_change"].mean().reset_index().sort_values("fraction")
    rows = [
        (*key, float(trapezoid(curve["loss_change"], curve["fraction"])))
        for key, curve in mean.groupby(keys, sort=False)
    ]
    areas = pd.DataFrame(rows, columns=[*keys, "area"])
    random_areas = areas[areas["order"] == "random"].set_index(["instance", "kind"])["area"]
    chance = random_areas.loc[pd.MultiIndex.from_frame(areas[["instance", "kind"]])].to_numpy()
    sign = np.where(areas["kind"] == "deletion", 1.0, -1.0)
    return areas.assign(advantage=sign * (areas["area"] - chance))
