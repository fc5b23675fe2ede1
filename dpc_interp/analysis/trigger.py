"""The Dynamic Trigger: which instances the prompt harms (paper, section on the trigger; docs/method.md, section 4).

Over the deep layers f(t) = mean over j in P of I(t, j), for each rationale token t. A token of the late half is
affected where f(t) > beta; beta is the mean of f over the early half of the same instance, or by `beta_statistic` its
median or geometric mean, which a few large values move less. R, here `late_share`, is the affected share of the late
half, and the trigger fires where R > alpha. alpha is calibrated on a validation split by a stated criterion.

To add a statistic, describe its column in `schema.TRIGGER_STATISTICS` and compute it in `trigger_statistics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dpc_interp.analysis.accumulation import accumulation_peaks
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.analysis.layers import check_layers, deep_layers, shallow_layers
from dpc_interp.analysis.options import BetaStatistic, Criterion, Options, check_statistic
from dpc_interp.analysis.schema import conform
from dpc_interp.errors import DPCInterpError, OneOutcomeError
from dpc_interp.repr_html import card
from dpc_interp.stats.youden import youden, youden_p


def _geometric_mean(values: pd.Series) -> float:
    from scipy.stats import gmean

    return float(gmean(values))


BETA_STATISTICS: dict[BetaStatistic, Any] = {"mean": "mean", "median": "median", "geometric": _geometric_mean}
"""Option -> how pandas aggregates the flow into the early half."""


@dataclass(frozen=True)
class TriggerRule:
    """A trigger that fires where a statistic lies above a threshold.

    Attributes:
        statistic: column of `trigger_statistics`.
        threshold: alpha; the rule fires strictly above it.
        criterion: how the threshold was chosen.
        split: the split that it was chosen on.
        n: instances of that split.
        n_fired: instances of that split on which it fires.
        youden: Youden's J of the threshold there: hit rate minus false-alarm rate against 'PT was wrong'.
        p: share of shuffled outcomes whose best threshold has a J as large as the best of the true ones; NaN of a given
            rule. Near 1, the statistic tells nothing there.

    Example:
        >>> import pandas as pd
        >>> import dpc_interp as dpc
        >>> rule = dpc.TriggerRule("late_share", threshold=0.5)
        >>> rule.fires(pd.DataFrame({"late_share": [0.2, 0.5, 0.9]})).tolist()
        [False, False, True]
    """

    statistic: str
    threshold: float
    criterion: str = "given"
    split: str = "none"
    n: int = 0
    n_fired: int = 0
    youden: float = float("nan")
    p: float = float("nan")

    def _repr_html_(self) -> str:
        facts = {
            "fires where": f"{self.statistic} > {self.threshold:.4g}",
            "calibrated": f"criterion {self.criterion}, {self.n} instances of the {self.split} split",
            "fired there": f"{self.n_fired} of {self.n}",
            "Youden's J": f"{self.youden:.3g} (p = {self.p:.3g}, by chance alone)",
        }
        return card("TriggerRule", facts)

    def fires(self, stats: pd.DataFrame) -> pd.Series:
        """One boolean per instance, in the order of the frame."""
        return stats[self.statistic].astype(float) > self.threshold  # float32 would round the threshold


def trigger_statistics(
    analysis: Analysis,
    *,
    deep: Sequence[int] | None = None,
    shallow: Sequence[int] | None = None,
    beta: float | None = None,
    beta_statistic: BetaStatistic = Options.beta_statistic,
    exclude_sink: bool = Options.exclude_sink,
) -> pd.DataFrame:
    """The statistics that a trigger can read, one row per instance.

    Args:
        analysis: result of `analyse`.
        deep: deep layers; None: the last third.
        shallow: shallow layers; None: the first third.
        beta: flow above which a token counts as affected; None: that of the early half of the same instance.
        beta_statistic: what beta is of the flow into the early half, see `Options`; without effect where `beta` is
            given.
        exclude_sink: see `accumulation_peaks`.

    Returns:
        The frame `statistics` of `schema.py`: instance, task, correct, peak_token (j*) and the columns of
        `TRIGGER_STATISTICS`. `late_share` is NaN for a rationale of one token where `beta` is None: there is no early
        half.

    Raises:
        DPCInterpError: a layer that the model does not have, or an analysis without a soft prompt.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> runs = dpc.generate(model, dpc.load_problems("story", n=2), prompt, progress=False)
        >>> stats = dpc.trigger_statistics(dpc.analyse(model, runs, prompt, progress=False))
        >>> stats["late_share"].between(0, 1).all()
        np.True_
    """
    if not analysis.n_virtual:
        raise DPCInterpError("trigger statistics need a soft prompt, and these transcripts were analysed without one")
    n_layers = analysis.n_layers
    deep = check_layers(deep_layers(n_layers) if deep is None else deep, n_layers)
    shallow = check_layers(shallow_layers(n_layers) if shallow is None else shallow, n_layers)
    by_token = affected_tokens(analysis, deep=deep, beta=beta, beta_statistic=beta_statistic)
    late = by_token[by_token["late"]]
    affected = late["affected"].astype(float).where(late["beta"].notna())
    flow = analysis.flow
    question_flow = flow[
        (flow["source"] == "prompt") & (flow["destination"] == "question") & flow["layer"].isin(shallow)
    ]
    columns = {
        "late_share": affected.groupby(late["instance"]).mean(),
        "deep_flow": late.groupby("instance")["value"].mean(),
        "row_share": late.groupby("instance")["row_share"].mean(),
        "shallow_flow": question_flow.groupby("instance")["value"].mean(),
    }
    stats = analysis.instances.set_index("instance").assign(**columns)
    stats = stats.join(accumulation_peaks(analysis.accumulation, layers=shallow, exclude_sink=exclude_sink))
    stats = stats.rename(columns={"n_rationale_tokens": "length"}).drop(columns="n_steps").reset_index()
    return conform(stats, "statistics")


def affected_tokens(
    analysis: Analysis,
    *,
    deep: Sequence[int] | None = None,
    beta: float | None = None,
    beta_statistic: BetaStatistic = Options.beta_statistic,
) -> pd.DataFrame:
    """Which rationale tokens the prompt affects: those whose mean flow from it over the deep layers is above beta.

    Args:
        analysis, deep, beta, beta_statistic: see `trigger_statistics`.

    Returns:
        One row per rationale token: instance, position, value (mean flow), row_share, late, beta and affected. The late
        share R of an instance is the mean of `affected` over its late tokens.
    """
    deep = check_layers(deep_layers(analysis.n_layers) if deep is None else deep, analysis.n_layers)
    by_token = (
        analysis.tokens[analysis.tokens["layer"].isin(deep)]
        .groupby(["instance", "position"], sort=False)
        .agg(value=("value", "mean"), row_share=("row_share", "mean"), late=("late", "first"))
        .reset_index()
    )
    early = by_token[~by_token["late"]].groupby("instance")["value"].agg(BETA_STATISTICS[beta_statistic])
    threshold = by_token["instance"].map(early) if beta is None else pd.Series(beta, index=by_token.index)
    return by_token.assign(beta=threshold, affected=by_token["value"] > threshold)


def calibrate_trigger(
    stats: pd.DataFrame,
    criterion: Criterion = Options.criterion,
    statistic: str = Options.statistic,
    split: str = "validation",
) -> TriggerRule:
    """Choose the threshold of a statistic on a calibration split.

    Args:
        stats: `trigger_statistics` of instances that will not be reported. `accuracy` also needs the column
            `corrupted_correct`: whether the answer under corruption is correct.
        criterion: `youden` maximises hit rate minus false-alarm rate against 'PT was wrong'; `accuracy` maximises the
            correct answers of the combination, the higher threshold (fewer corruptions) on a tie.
        statistic: key of `TRIGGER_STATISTICS`, a column of `stats`.
        split: name of the calibration split, kept with the rule.

    Raises:
        DPCInterpError: all outcomes are alike, so there is nothing to calibrate on; a column is missing; NaN.

    Example:
        >>> import pandas as pd
        >>> import dpc_interp as dpc
        >>> stats = pd.DataFrame({"late_share": [0.1, 0.2, 0.8, 0.9], "correct": [True, True, False, False]})
        >>> round(dpc.calibrate_trigger(stats).threshold, 6)
        0.8
    """
    from sklearn.metrics import roc_curve

    check_statistic(statistic, criterion)
    for column in (statistic, "correct"):
        if column not in stats:
            raise DPCInterpError(f"the statistics lack the column {column!r}; give those of dpc.trigger_statistics")
    values, wrong = stats[statistic].to_numpy(float), ~stats["correct"].to_numpy(bool)
    if np.isnan(values).any():
        raise DPCInterpError(f"the statistic {statistic!r} contains NaN; leave those instances out")
    if criterion == "accuracy":
        threshold = _best_for_accuracy(stats, values)
    else:
        if wrong.all() or not wrong.any():
            raise OneOutcomeError(
                "every validation answer has the same outcome; give harder or easier validation problems, or a rule="
            )
        false_alarm, hit, thresholds = roc_curve(wrong, values)
        # roc_curve calls a value positive at or above its threshold, the rule fires strictly above; the first threshold
        # of roc_curve is infinite: no instance fires
        threshold = min(np.nextafter(thresholds[int(np.argmax(hit - false_alarm))], -np.inf), values.max())
    threshold = float(threshold)
    n_fired = int((values > threshold).sum())
    worth = youden(values, wrong, threshold), youden_p(values, wrong)
    return TriggerRule(statistic, threshold, criterion, split, len(stats), n_fired, *worth)


def _best_for_accuracy(stats: pd.DataFrame, values: np.ndarray) -> float:
    if "corrupted_correct" not in stats:
        raise DPCInterpError(
            "criterion 'accuracy' needs the column corrupted_correct; "
            "add the outcomes of generate(..., plans=plan_corruption(...))"
        )
    thresholds = np.append(np.unique(values)[::-1], -np.inf)
    gains = stats["corrupted_correct"].to_numpy(int) - stats["correct"].to_numpy(int)
    total_gains = [int(gains[values > threshold].sum()) for threshold in thresholds]
    return float(thresholds[int(np.argmax(total_gains))])
