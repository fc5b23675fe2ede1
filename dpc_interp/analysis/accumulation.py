"""Information accumulation: the virtual token from which question and rationale draw most (METHOD 3).

acc_l(j) = mean over i in Q and R of I_l(i, j),  j in P
j* = argmax_j of the mean of acc_l(j) over the shallow layers;  peak ratio = acc(j*) / mean over P of acc
"""

from __future__ import annotations

import pandas as pd

from dpc_interp.errors import DPCInterpError


def shallow_layers(n_layers: int) -> tuple[int, ...]:
    """The default shallow layers: the first third, at least one."""
    return tuple(range(max(1, n_layers // 3)))


def deep_layers(n_layers: int) -> tuple[int, ...]:
    """The default deep layers: the last third, at least one."""
    return tuple(range(n_layers - max(1, n_layers // 3), n_layers))


def check_layers(layers: tuple[int, ...], n_layers: int) -> tuple[int, ...]:
    """Refuse layers that a model of `n_layers` lacks."""
    lacking = [layer for layer in layers if not 0 <= layer < n_layers]
    if lacking:
        raise DPCInterpError(f"there is no layer {lacking[0]}; this model has layers 0 to {n_layers - 1}")
    return layers


def peaks(
    accumulation: pd.DataFrame, *, layers: tuple[int, ...] | None = None, exclude_sink: bool = True
) -> pd.DataFrame:
    """The accumulation token of each instance.

    Args:
        accumulation: the frame of `analyse`: instance, layer, virtual_token, value.
        layers: the shallow layers; None: the first third.
        exclude_sink: leave virtual token 0 out of the argmax: the first token is usually an attention sink.

    Returns:
        Indexed by `instance`, in the frame's order: `peak_token` (j*) and `peak_ratio` (its mean counts the sink).
    """
    n_layers = int(accumulation["layer"].max()) + 1
    layers = check_layers(layers or shallow_layers(n_layers), n_layers)
    chosen = accumulation[accumulation["layer"].isin(layers)]
    by_token = chosen.pivot_table(index="instance", columns="virtual_token", values="value", sort=False).sort_index(
        axis=1
    )
    candidates = by_token.drop(columns=0) if exclude_sink else by_token
    if candidates.empty:
        raise DPCInterpError(
            "no virtual token is left to be the peak; use a prompt of at least 2 virtual tokens or exclude_sink=False"
        )
    ratio = candidates.max(axis=1) / by_token.mean(axis=1)
    return pd.DataFrame({"peak_token": candidates.idxmax(axis=1).astype(int), "peak_ratio": ratio})
