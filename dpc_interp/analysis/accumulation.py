"""Information accumulation: the virtual token from which question and rationale draw most (docs/method.md, section 3).

acc_l(j) = mean over i in Q and R of I_l(i, j),  j in P
j* = argmax_j of the mean of acc_l(j) over the shallow layers;  peak ratio = acc(j*) / mean over P of acc

Attention sinks (`prompts/sinks.py`) are left out of the argmax and of the mean unless `exclude_sink` is False.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from dpc_interp.analysis.layers import check_layers, shallow_layers
from dpc_interp.analysis.options import Options
from dpc_interp.errors import DPCInterpError

N_PERMUTATIONS = 100
"""Random deals behind `chance_peak_ratio`."""
SMALLEST_SHARE = 1e-9
"""Accumulation below this share of an instance's mean counts as this share, so that it has a logarithm."""


def accumulation_peaks(
    accumulation: pd.DataFrame, *, layers: Sequence[int] | None = None, exclude_sink: bool = Options.exclude_sink
) -> pd.DataFrame:
    """Find the accumulation token of each instance.

    Args:
        accumulation: the frame of `analyse`: instance, layer, virtual_token, value, sink; without the column `sink`,
            virtual token 0 is the only one.
        layers: the shallow layers; None: the first third.
        exclude_sink: leave the attention sinks (see `attention_sinks`) out of the argmax and of the mean.

    Returns:
        Indexed by `instance`, in the order of the frame: `peak_token` (j*) and `peak_ratio`.

    Raises:
        DPCInterpError: no rows, as without a soft prompt; a layer that the model does not have, or no virtual token
            besides the sinks.

    Example:
        >>> import pandas as pd
        >>> import dpc_interp as dpc
        >>> frame = pd.DataFrame({"instance": "a", "layer": 0, "virtual_token": [0, 1, 2], "value": [4.0, 1.0, 3.0]})
        >>> dpc.accumulation_peaks(frame)["peak_token"].tolist()
        [2]
    """
    if accumulation.empty:
        raise DPCInterpError("accumulation needs a soft prompt, and these transcripts were analysed without one")
    n_layers = int(accumulation["layer"].max()) + 1
    layers = check_layers(shallow_layers(n_layers) if layers is None else layers, n_layers)
    return peaks_of(by_virtual_token(accumulation, layers, exclude_sink=exclude_sink))


def peaks_of(by_token: pd.DataFrame) -> pd.DataFrame:
    """The accumulation token of each instance, as `accumulation_peaks` returns it.

    Args:
        by_token: of `by_virtual_token`.
    """
    ratio = by_token.max(axis=1) / by_token.mean(axis=1)
    return pd.DataFrame({"peak_token": by_token.idxmax(axis=1).astype(int), "peak_ratio": ratio})


def sinks_in(accumulation: pd.DataFrame) -> tuple[int, ...]:
    """The virtual tokens that a frame marks as attention sinks; virtual token 0 where it has no column `sink`.

    Args:
        accumulation: the frame of `analyse`.
    """
    return tuple(sorted(accumulation.loc[_is_sink(accumulation), "virtual_token"].unique().tolist()))


def _is_sink(accumulation: pd.DataFrame) -> pd.Series:
    """Whether each row is about an attention sink."""
    return accumulation["sink"] if "sink" in accumulation else accumulation["virtual_token"] == 0


def by_virtual_token(
    accumulation: pd.DataFrame,
    layers: Sequence[int],
    column: str = "value",
    *,
    exclude_sink: bool = Options.exclude_sink,
) -> pd.DataFrame:
    """The mean accumulation over some layers, one row per instance and one column per virtual token.

    Args:
        accumulation: the frame of `analyse`.
        layers: that are averaged.
        column: `value`, the flow into question and rationale, or `into_question`, that into the question alone.
        exclude_sink: see `accumulation_peaks`.

    Raises:
        DPCInterpError: no virtual token besides the sinks.
    """
    chosen = accumulation[accumulation["layer"].isin(layers)]
    if exclude_sink:
        chosen = chosen[~_is_sink(chosen)]
    if chosen.empty:
        raise DPCInterpError(
            "no virtual token is left to be the peak; use a prompt of at least 2 virtual tokens or exclude_sink=False"
        )
    table = chosen.groupby(["instance", "virtual_token"])[column].mean().unstack("virtual_token")
    return table.reindex(chosen["instance"].unique())  # in their order


def evenness(by_token: pd.DataFrame) -> pd.Series:
    """How evenly instances draw on the virtual tokens (Pielou's evenness, the entropy of the shares over its maximum).

    Args:
        by_token: of `by_virtual_token`, with at least two virtual tokens.

    Returns:
        1 where each token has the same share, 0 where one has everything; NaN where nothing is drawn.
    """
    shares = by_token.div(by_token.sum(axis=1), axis=0)
    entropy = -(shares * np.log(shares.where(shares > 0, 1))).sum(axis=1, skipna=False)
    return entropy / np.log(by_token.shape[1])


def chance_peak_ratio(by_token: pd.DataFrame, *, seed: int = 0) -> float:
    """The mean peak ratio of exchangeable virtual tokens (docs/method.md, section 3).

    The logarithms of each instance's accumulation, less their mean, are dealt out anew over all instances and tokens,
    100 times. What remains of a peak is that the largest of n heavy-tailed values is far above their mean. Taking off
    the mean of k values shrinks them, so they are stretched by sqrt(k / (k - 1)). For exchangeable tokens the level is
    within 2% of the peak ratio where values are lognormal or Pareto, and up to 7% above it where they are gamma
    distributed (20 tokens, 300 instances).

    Args:
        by_token: of `by_virtual_token`; instances that draw on no token are left out.
        seed: seed of the draws.

    Returns:
        The geometric mean over instances and draws.
    """
    values = by_token[by_token.mean(axis=1) > 0].to_numpy(float)
    logs = np.log(np.maximum(values, SMALLEST_SHARE * values.mean(axis=1, keepdims=True)))
    k = logs.shape[1]
    cells = (logs - logs.mean(axis=1, keepdims=True)) * np.sqrt(k / max(1, k - 1))
    rng, levels = np.random.default_rng(seed), []
    for _ in range(N_PERMUTATIONS):
        dealt = np.exp(rng.permuted(cells.ravel()).reshape(cells.shape))
        levels.append(np.log(dealt.max(axis=1) / dealt.mean(axis=1)).mean())
    return float(np.exp(np.mean(levels)))


def accumulation_frame(
    values: Float[Tensor, "batch layer n_virtual"],
    into_question: Float[Tensor, "batch layer n_virtual"],
    instances: list[str],
    sinks: Sequence[int],
) -> pd.DataFrame:
    """The `accumulation` frame of a batch; `sinks` are the virtual tokens of `attention_sinks`."""
    index = pd.MultiIndex.from_product(
        [instances, range(values.shape[1]), range(values.shape[2])], names=["instance", "layer", "virtual_token"]
    )
    columns = {"value": values.flatten().numpy(), "into_question": into_question.flatten().numpy()}
    frame = pd.DataFrame(columns, index=index).reset_index()
    return frame.assign(sink=frame["virtual_token"].isin(sinks))
