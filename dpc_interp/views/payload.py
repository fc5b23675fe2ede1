"""The saliency of an instance, small enough for a web page.

A page of 2,000 tokens and 32 layers would hold 64 million values of I_l(destination, source). Of each layer the largest
value out of each source is kept, and of the others the largest shares of their row: all where a sequence is short, else
about `MAX_ENTRIES` values of all layers together. A row is the flow into one destination; its sum is sent with it, so
that row shares and what is left out can be computed. Values are 16-bit codes of their logarithms:

    code(v) = 0 for v = 0, else 1 + round((log v - log_low) / log_step)
    relative error <= exp(log_step / 2) - 1
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from dpc_interp.errors import DPCInterpError

MAX_ENTRIES = 250_000
"""Values of one instance that are kept: 1 MB before compression, with sums of rows 1.3 MB for 2,000 tokens."""
N_CODES = 2**16 - 1
"""Codes of values above zero."""


@dataclass(frozen=True)
class FlowCode:
    """How the values of a payload are read.

    Attributes:
        n_maps: maps, one a layer or group of layers.
        n_positions: destinations of each map, and sources.
        log_low: logarithm of the smallest value.
        log_step: difference of the logarithms of two neighbouring codes.
        relative_error: of a value, at most.
        largest_dropped: the largest share of its row of a value that is left out; 0: none is.
        kept: share of all flow that is kept.
    """

    n_maps: int
    n_positions: int
    log_low: float
    log_step: float
    relative_error: float
    largest_dropped: float
    kept: float

    def as_dict(self) -> dict[str, float]:
        """The attributes by name, for JSON."""
        return asdict(self)


def encode_flow(maps: Sequence[NDArray[np.floating]], *, max_entries: int = MAX_ENTRIES) -> tuple[FlowCode, bytes]:
    """Encode saliency maps.

    Args:
        maps: [destination, source] each, of one size, without negative values.
        max_entries: values that are kept of all maps together, where those out of each source take less than half.

    Returns:
        How to read them, and the compressed data: number of values of each row, sums of rows, sources and values, each
        little-endian uint16, in the order of maps, destinations and sources.

    Raises:
        DPCInterpError: a sequence of 65,536 tokens or more.
    """
    n_maps, n_positions = len(maps), len(maps[0])
    if n_positions > N_CODES:
        raise DPCInterpError(f"a view shows at most {N_CODES} tokens, not {n_positions}; shorten the text")
    counts, totals, sources, values = [], [], [], []
    largest_dropped = kept_sum = 0.0
    for flow in maps:
        row_sums = flow.sum(axis=1, dtype=np.float64)
        shares = np.divide(flow, row_sums[:, None], out=np.zeros(flow.shape), where=row_sums[:, None] > 0)
        chosen = _chosen(flow, shares, max_entries // n_maps)
        largest_dropped = max(largest_dropped, float(shares[~chosen].max(initial=0.0)))
        counts.append(chosen.sum(axis=1))
        totals.append(row_sums)
        sources.append(np.nonzero(chosen)[1])
        values.append(flow[chosen].astype(np.float64))
        kept_sum += values[-1].sum()
    sums, kept = np.concatenate(totals), np.concatenate(values)
    positive = np.concatenate([sums[sums > 0], kept])
    log_low, log_high = (float(np.log(end(positive))) for end in (np.min, np.max)) if len(positive) else (0.0, 0.0)
    step = max((log_high - log_low) / (N_CODES - 1), 1e-9)
    arrays = [np.concatenate(counts), _codes(sums, log_low, step), np.concatenate(sources), _codes(kept, log_low, step)]
    data = gzip.compress(b"".join(array.astype("<u2").tobytes() for array in arrays), mtime=0)
    share = float(kept_sum / sums.sum()) if sums.sum() > 0 else 1.0
    error = float(np.expm1(step / 2))
    return FlowCode(n_maps, n_positions, log_low, step, error, largest_dropped, share), data


def _chosen(flow: NDArray[np.floating], shares: NDArray[np.float64], n_kept: int) -> NDArray[np.bool_]:
    """Which values are kept: all of them where there are few enough."""
    n_positive = int((shares > 0).sum())
    if n_positive <= n_kept:
        return np.asarray(shares > 0)
    largest = np.zeros(flow.shape, dtype=bool)  # out of each source
    largest[flow.argmax(axis=0), np.arange(flow.shape[1])] = True
    largest &= shares > 0
    others = np.where(largest, 0, shares)
    limit = others.size - 1 - max(n_kept - int(largest.sum()), n_kept // 2)
    return np.asarray(largest | (others > np.partition(others, limit, axis=None)[limit]))


def _codes(values: NDArray[np.float64], log_low: float, step: float) -> NDArray[np.float64]:
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    return np.where(values > 0, 1 + np.round((logs - log_low) / step), 0)
