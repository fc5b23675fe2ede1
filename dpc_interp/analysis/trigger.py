"""The Dynamic Trigger: which instances the prompt harms (paper, section on the trigger; METHOD 4).

Over the deep layers f(t) = mean over j in P of I(t, j), for each rationale token t. A token of the late half is
affected where f(t) > beta; beta is the mean of f over the early half of the same instance. The paper's R, here
`late_share`, is the affected share of the late half, and the trigger fires where R > alpha. alpha is calibrated on a
validation split by a stated criterion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from dpc_interp.analysis.accumulation import check_layers, deep_layers, peaks, shallow_layers
from dpc_interp.analysis.analyse import Analysis
from dpc_interp.errors import DPCInterpError, UnknownNameError

STATISTICS = ("late_share", "deep_flow", "peak_ratio", "shallow_flow", "nll", "answer_nll", "length")
"""Columns of `trigger_statistics` that a rule can read; each fires above its threshold."""
Criterion = Literal["accuracy", "youden"]
"""Most right answers with corruption where fired; or the best hit rate minus false alarms against 'PT was wrong'."""


@dataclass(frozen=True)
class TriggerRule:
    """Fire where `statistic` > `threshold`; the rest says where the threshold came from."""

    statistic: str
    threshold: float
    criterion: str = "given"
    split: str = "none"
    n: int = 0

    def fires(self, stats: pd.DataFrame) -> pd.Series:
        """One boolean an instance, in the frame's order."""
        return stats[self.statistic] > self.threshold


def trigger_statistics(
    found: Analysis,
    *,
    deep: tuple[int, ...] | None = None,
    shallow: tuple[int, ...] | None = None,
    beta: float | None = None,
    exclude_sink: bool = True,
) -> pd.DataFrame:
    """One row an instance: instance, task, correct, late_share (the paper's R), deep_flow (deep S_pr of the late half),
    shallow_flow (S_pq), peak_token (j*), peak_ratio, nll (mean token NLL, nats), answer_nll (NLL of the
    answer's last token; see `Analysis`), length (rationale tokens).

    Args:
        deep, shallow: layers; None: the last and the first third.
        beta: a strength above which a token counts as affected; None: the mean over the same early half.
        exclude_sink: see `peaks`.

    Raises:
        DPCInterpError: a layer that the model lacks, or an analysis stored before `answer_nll` was a column.
    """
    if "answer_nll" not in found.instances:
        raise DPCInterpError("this analysis was stored without answer_nll; remove its run folder and evaluate again")
    deep = check_layers(deep or deep_layers(found.n_layers), found.n_layers)
    shallow = check_layers(shallow or shallow_layers(found.n_layers), found.n_layers)
    by_token = (
        found.tokens[found.tokens["layer"].isin(deep)]
        .groupby(["instance", "position"], sort=False)
        .agg(value=("value", "mean"), late=("late", "first"))
        .reset_index()
    )
    early = by_token[~by_token["late"]].groupby("instance")["value"].mean()
    late = by_token[by_token["late"]]
    strength = late["instance"].map(early) if beta is None else beta
    affected = (late["value"] > strength).groupby(late["instance"]).mean()
    question_flow = found.flow[
        (found.flow["source"] == "prompt")
        & (found.flow["destination"] == "question")
        & found.flow["layer"].isin(shallow)
    ]
    columns = {
        "late_share": affected,
        "deep_flow": late.groupby("instance")["value"].mean(),
        "shallow_flow": question_flow.groupby("instance")["value"].mean(),
    }
    stats = found.instances.set_index("instance").assign(**columns)
    stats = stats.join(peaks(found.accumulation, layers=shallow, exclude_sink=exclude_sink))
    return stats.rename(columns={"n_rationale_tokens": "length"}).drop(columns="n_steps").reset_index()


def check_names(statistic: str, criterion: str) -> None:
    """Refuse a statistic or a criterion that is not known."""
    if statistic not in STATISTICS:
        raise UnknownNameError("statistic", statistic, STATISTICS)
    if criterion not in get_args(Criterion):
        raise UnknownNameError("criterion", criterion, get_args(Criterion))


def calibrate_trigger(
    stats: pd.DataFrame, criterion: Criterion = "youden", statistic: str = "late_share", split: str = "validation"
) -> TriggerRule:
    """Choose the threshold of a statistic on a calibration split.

    Args:
        stats: `trigger_statistics` of instances that will not be reported. `accuracy` also needs the column
            `corrupted_correct`: whether the answer under corruption was right.
        criterion: `youden` maximises hit rate minus false-alarm rate against 'PT was wrong'; `accuracy` maximises the
            right answers of the combination, the higher threshold (fewer corruptions) on a tie.
        split: the name of the calibration split, kept with the rule.

    Raises:
        DPCInterpError: outcomes are all alike, so there is nothing to calibrate on, or a column is missing.
    """
    check_names(statistic, criterion)
    values, wrong = stats[statistic].to_numpy(float), ~stats["correct"].to_numpy(bool)
    if criterion == "accuracy":
        if "corrupted_correct" not in stats:
            raise DPCInterpError(
                "criterion 'accuracy' needs the column corrupted_correct; generate the validation set with plans"
            )
        thresholds = np.append(np.unique(values)[::-1], -np.inf)
        gains = stats["corrupted_correct"].to_numpy(int) - stats["correct"].to_numpy(int)
        gained = [int(gains[values > threshold].sum()) for threshold in thresholds]
        threshold = thresholds[int(np.argmax(gained))]
    else:
        if wrong.all() or not wrong.any():
            raise DPCInterpError("every validation answer has the same outcome; calibrate on a harder or easier split")
        false_alarm, hit, cuts = roc_curve(wrong, values)
        # roc_curve calls a value positive at or above its cut, the rule strictly above its threshold; its first cut is
        # infinite: no instance fires
        threshold = min(np.nextafter(cuts[int(np.argmax(hit - false_alarm))], -np.inf), values.max())
    return TriggerRule(statistic, float(threshold), criterion, split, len(stats))
