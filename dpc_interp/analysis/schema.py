"""The columns of every frame, each with its dtype and meaning, stated once.

Conventions: frames are tidy and long. `instance` is the id of a problem. A step is a rationale step, counted from 0
(figures and views count from 1); a layer is counted from 0. Where a row is not about a single step or layer, the column
is missing (NA), never -1. Shares and accuracies run from 0 to 1; `low` and `high`, alone or as suffixes, bound a 95%
interval. Flow is dimensionless (attention times the gradient of a loss in nats); losses are in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from dpc_interp.errors import DPCInterpError

SIGNIFICANT_DIGITS = 6
"""Digits that numbers are rounded to before they are written, so that every host writes the same bytes."""

Columns = Mapping[str, tuple[str, str]]
"""Column name -> (dtype, meaning)."""

FLOW: Columns = {
    "instance": ("string", "id of the problem"),
    "layer": ("int64", "layer"),
    "source": ("string", "segment that the flow comes from: prompt, question, rationale or answer"),
    "source_step": ("Int64", "rationale step of the source; NA: the whole segment"),
    "destination": ("string", "segment that the flow goes to"),
    "step": ("Int64", "rationale step of the destination; NA: the whole segment"),
    "value": ("float32", "mean of I over the causal pairs of the two position groups"),
}
ACCUMULATION: Columns = {
    "instance": ("string", "id of the problem"),
    "layer": ("int64", "layer"),
    "virtual_token": ("int64", "index of the virtual token"),
    "value": ("float32", "acc(j): mean flow from the token into question and rationale"),
    "into_question": ("float32", "mean flow from the token into the question alone"),
    "sink": ("bool", "whether the token is an attention sink, see `prompts/sinks.py`"),
}
TOKENS: Columns = {
    "instance": ("string", "id of the problem"),
    "position": ("int64", "position in the rationale, counted from 0"),
    "token": ("string", "the token as text"),
    "step": ("int64", "rationale step that the token lies in"),
    "late": ("bool", "whether the token lies in the late half of the rationale"),
    "nll": ("float32", "negative log-likelihood of the token, nats"),
    "layer": ("int64", "layer"),
    "value": ("float32", "f(t): mean flow from the virtual tokens into the token"),
    "row_share": (
        "float32",
        "share of the flow into the token that comes from the virtual tokens",
    ),
}
INSTANCES: Columns = {
    "instance": ("string", "id of the problem"),
    "task": ("string", "task of the problem"),
    "correct": ("bool", "whether the transcript's answer is correct"),
    "n_steps": ("int64", "rationale steps of the written solution"),
    "n_rationale_tokens": ("int64", "tokens of the rationale"),
    "nll": ("float32", "mean negative log-likelihood over rationale, answer and stop token, nats"),
    "answer_nll": ("float32", "that of the last answer token, or without an answer of the last token before the stop"),
}
TRIGGER_STATISTICS: Columns = {
    "late_share": ("float64", "R: share of the late half of the rationale that the prompt affects"),
    "deep_flow": ("float64", "mean flow from the prompt into the late half of the rationale, over the deep layers"),
    "row_share": ("float64", "share of the flow into the late half that comes from the prompt, over the deep layers"),
    "peak_ratio": ("float64", "accumulation at j* over the mean accumulation"),
    "shallow_flow": ("float64", "S_pq: mean flow from prompt to question, over the shallow layers"),
    "nll": ("float32", "mean negative log-likelihood of the transcript, nats"),
    "answer_nll": ("float32", "negative log-likelihood of the last answer token, nats"),
    "length": ("int64", "tokens of the rationale"),
}
"""The statistics that a trigger rule can read; each fires above its threshold. `trigger.py` computes them."""
STATISTICS: Columns = {
    "instance": ("string", "id of the problem"),
    "task": ("string", "task of the problem"),
    "correct": ("bool", "whether the answer of prompt tuning is correct"),
    "peak_token": ("int64", "j*, the accumulation token"),
    **TRIGGER_STATISTICS,
}
SINK_CONTROLS: Columns = {
    "task": ("string", "task of the problem"),
    "prompt": ("string", "name of the trained prompt"),
    "condition": ("string", "what precedes the question, see `analysis/controls.py`"),
    **ACCUMULATION,
}
SANITY: Columns = {
    "instance": ("string", "id of the problem"),
    "test": ("string", "what is randomised: weights or answers"),
    "n_randomised": ("int64", "randomised blocks, counted from the last; 0 for answers"),
    "layer": ("int64", "layer"),
    "source": ("string", "edges compared: from the prompt, or from all earlier positions"),
    "value": ("float64", "Spearman's correlation with the true saliency; NaN where either is constant"),
}
ANSWERS: Columns = {
    "task": ("string", "task of the problem"),
    "prompt": ("string", "name of the prompt"),
    "method": ("string", "method of the evaluation"),
    "instance": ("string", "id of the problem"),
    "answer": ("string", "the extracted answer; NA: none was found"),
    "correct": ("bool", "whether the answer is correct"),
    "finished": ("bool", "False: the text was cut off at max_new_tokens"),
    "fired": ("bool", "whether the method corrupted the prompt here"),
    "changed": ("bool", "whether the text differs from that of pt"),
    "n_tokens": ("int64", "generated tokens"),
}
SUMMARY: Columns = {
    "method": ("string", "method of the evaluation"),
    "n": ("int64", "rows: problems times prompts"),
    "n_prompts": ("int64", "prompts"),
    "accuracy": ("float64", "share of correct answers"),
    "low": ("float64", "lower bound of the accuracy"),
    "high": ("float64", "upper bound of the accuracy"),
    "difference": ("float64", "accuracy minus that of pt on the same problems"),
    "difference_low": ("float64", "lower bound of the difference"),
    "difference_high": ("float64", "upper bound of the difference"),
    "p_mcnemar": ("float64", "exact McNemar p against pt; NaN where several prompts share problems"),
    "fixed": ("int64", "answers that pt has wrong and the method has right"),
    "broken": ("int64", "answers that pt has right and the method has wrong"),
    "both_right": ("int64", "answers that both have right"),
    "both_wrong": ("int64", "answers that both have wrong"),
    "firing_rate": ("float64", "share of problems on which the method fires"),
    "tokens": ("float64", "mean number of generated tokens"),
}
KNOCKOUTS: Columns = {
    "instance": ("string", "id of the problem"),
    "correct": ("bool", "whether the transcript's answer is correct"),
    "layer": ("Int64", "layer of the removed edges; NA: all deep layers at once"),
    "edges": ("string", "which edges are removed: top, bottom or random"),
    "draw": ("int64", "index of the random draw"),
    "n_edges": ("int64", "removed edges"),
    "flow": ("float64", "mean I of the removed edges"),
    "loss_change": ("float64", "loss without the edges minus loss with them, nats"),
    "answer_probability_change": ("float64", "change of the probability of the answer; NaN without an answer"),
    "answer_changed": ("float64", "1 where the most likely token differs at an answer token; NaN without an answer"),
}
REGIME: Columns = {
    "task": ("string", "task"),
    "n": ("int64", "problems"),
    "n_prompts": ("int64", "prompts"),
    "bare": ("float64", "accuracy of the question alone"),
    "bare_low": ("float64", "lower bound"),
    "bare_high": ("float64", "upper bound"),
    "instruct": ("float64", "accuracy with the written instruction"),
    "instruct_low": ("float64", "lower bound"),
    "instruct_high": ("float64", "upper bound"),
    "pt": ("float64", "accuracy with the tuned prompt"),
    "pt_low": ("float64", "lower bound"),
    "pt_high": ("float64", "upper bound"),
    "n_helped": ("int64", "answers that are wrong when instructed and right with the prompt, over all prompts"),
    "n_harmed": ("int64", "answers that are right when instructed and wrong with the prompt, over all prompts"),
    "helped": ("float64", "share of helped answers"),
    "helped_low": ("float64", "lower bound"),
    "helped_high": ("float64", "upper bound"),
    "harmed": ("float64", "share of harmed answers"),
    "harmed_low": ("float64", "lower bound"),
    "harmed_high": ("float64", "upper bound"),
    "late_texts": ("float64", "share of texts that change when all that is written is cut off from the prompt"),
    "late_texts_low": ("float64", "lower bound"),
    "late_texts_high": ("float64", "upper bound"),
    "late_gain": ("float64", "accuracy after that cut-off minus that of pt"),
    "late_gain_low": ("float64", "lower bound"),
    "late_gain_high": ("float64", "upper bound"),
}
VERDICTS: Columns = {
    "model": ("string", "name of the model"),
    "task": ("string", "task"),
    "claim": ("string", "name of the claim"),
    "verdict": ("string", "holds, fails, undecided or not testable"),
    "reason": ("string", "why the claim is not testable; else empty"),
    "effect": ("float64", "mean effect over prompts"),
    "low": ("float64", "lower bound of the effect"),
    "high": ("float64", "upper bound of the effect"),
    "null": ("float64", "value under the null hypothesis"),
    "side": ("string", "side of the null that is claimed: above, below, or within its distance of 0"),
    "excludes_paper": ("bool", "whether the interval excludes an effect as large as the paper reports"),
    "p": ("float64", "two-sided p of the null"),
    "p_holm": ("float64", "p after Holm's correction over all rows of the model"),
    "df": ("float64", "degrees of freedom"),
    "n": ("int64", "problems"),
    "n_prompts": ("int64", "prompts"),
    "rule": ("string", "the rule in words"),
    "figure": ("string", "related figure or table"),
}
FRAMES: Mapping[str, Columns] = {
    "flow": FLOW,
    "accumulation": ACCUMULATION,
    "tokens": TOKENS,
    "instances": INSTANCES,
    "statistics": STATISTICS,
    "sink_controls": SINK_CONTROLS,
    "sanity": SANITY,
    "answers": ANSWERS,
    "summary": SUMMARY,
    "knockouts": KNOCKOUTS,
    "regime": REGIME,
    "verdicts": VERDICTS,
}
"""Frame name -> its columns."""


def conform(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The frame with the columns of its schema, in order and with their dtypes, followed by any others.

    Args:
        frame: the frame as it was built.
        name: key of `FRAMES`.

    Raises:
        DPCInterpError: a column is missing.
    """
    columns = FRAMES[name]
    missing = [column for column in columns if column not in frame]
    if missing:
        raise DPCInterpError(f"the {name} frame lacks the column {missing[0]!r}; it has: {', '.join(frame.columns)}")
    others = [column for column in frame if column not in columns]
    # text stays as it is
    dtypes = {name: dtype for name, (dtype, _) in columns.items() if dtype not in ("string", str(frame[name].dtype))}
    ordered = [*columns, *others]
    if ordered != list(frame.columns):
        frame = frame[ordered]
    return frame.astype(dtypes) if dtypes else frame


def in_order_of(frame: pd.DataFrame, instances: Sequence[str]) -> pd.DataFrame:
    """The rows sorted by the order of `instances`, rows of one instance in their present order."""
    codes, present = pd.factorize(frame["instance"])
    rank = {instance: i for i, instance in enumerate(instances)}
    ranks = np.array([rank[instance] for instance in present], dtype=np.int64)[codes]
    return frame.take(np.argsort(ranks, kind="stable")).reset_index(drop=True)


def round_significant(frame: pd.DataFrame, digits: int = SIGNIFICANT_DIGITS) -> pd.DataFrame:
    """The frame with its floating-point columns rounded to significant digits.

    Example:
        >>> import pandas as pd
        >>> from dpc_interp.analysis.schema import round_significant
        >>> round_significant(pd.DataFrame({"value": [0.00123456789]}))["value"].tolist()
        [0.00123457]
    """
    rounded = frame.copy()
    for column in (name for name in frame if pd.api.types.is_float_dtype(frame[name])):
        rounded[column] = [float(f"{value:.{digits}g}") for value in frame[column].tolist()]
    return rounded
