"""Information accumulation: the virtual token from which question and rationale draw most (docs/method.md, section 3).

acc_l(j) = mean over i in Q and R of I_l(i, j),  j in P
j* = argmax_j of the mean of acc_l(j) over the shallow layers;  peak ratio = acc(j*) / mean over P of acc
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from dpc_interp.analysis.layers import check_layers, shallow_layers
from dpc_interp.analysis.options import Options
from dpc_interp.errors import DPCInterpError


def accumulation_peaks(
    accumulation: pd.DataFrame, *, layers: Sequence[int] | None = None, exclude_sink: bool = Options.exclude_sink
) -> pd.DataFrame:
    """Find the accumulation token of each instance.

    Args:
        accumulation: the frame of `analyse`: instance, layer, virtual_token, value.
        layers: the shallow layers; None: the first third.
        exclude_sink: leave virtual token 0 out of the argmax: the first token is usually an attention sink.

    Returns:
        Indexed by `instance`, in the order of the frame: `peak_token` (j*) and `peak_ratio`, whose mean includes the
        sink.

    Raises:
        DPCInterpError: no rows, as without a soft prompt; a layer that the model does not have, or no virtual token
            besides the sink.

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
    layers = check_layers(layers or shallow_layers(n_layers), n_layers)
    shallow = accumulation[accumulation["layer"].isin(layers)]
    by_token = shallow.pivot_table(index="instance", columns="virtual_token", values="value", sort=False).sort_index(
        axis=1
    )
    candidates = by_token.drop(columns=0) if exclude_sink else by_token
    if candidates.empty:
        raise DPCInterpError(
            "no virtual token is left to be the peak; use a prompt of at least 2 virtual tokens or exclude_sink=False"
        )
    ratio = candidates.max(axis=1) / by_token.mean(axis=1)
    return pd.DataFrame({"peak_token": candidates.idxmax(axis=1).astype(int), "peak_ratio": ratio})


def accumulation_frame(values: Float[Tensor, "batch layer n_virtual"], instances: list[str]) -> pd.DataFrame:
    """The `accumulation` frame of a batch."""
    index = pd.MultiIndex.from_product(
        [instances, range(values.shape[1]), range(values.shape[2])], names=["instance", "layer", "virtual_token"]
    )
    return pd.DataFrame({"value": values.flatten().numpy()}, index=index).reset_index()
