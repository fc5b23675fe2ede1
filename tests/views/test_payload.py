"""What a page is sent is the flow, to the stated error."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from numpy.typing import NDArray

from dpc_interp import DPCInterpError
from dpc_interp.views.payload import FlowCode, encode_flow


def random_maps(n_maps: int, n_positions: int) -> list[NDArray[np.float32]]:
    """Heavy-tailed, lower triangular, with some rows and values of zero."""
    rng = np.random.default_rng(0)
    maps = np.exp(rng.normal(-12, 4, (n_maps, n_positions, n_positions))) * (rng.random((n_maps, 1, n_positions)) < 0.9)
    maps[:, 2] = 0
    return list(np.tril(maps, -1).astype(np.float32))


def decode(code: FlowCode, data: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The maps and the sums of their rows, as `view.js` reads them."""
    numbers = np.frombuffer(gzip.decompress(data), "<u2").astype(np.int64)
    n_rows = code.n_maps * code.n_positions
    counts, sums, rest = numbers[:n_rows], numbers[n_rows : 2 * n_rows], numbers[2 * n_rows :]
    sources, values = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    read = lambda codes: np.where(codes == 0, 0.0, np.exp(code.log_low + (codes - 1) * code.log_step))  # noqa: E731
    maps = np.zeros((n_rows, code.n_positions))
    maps[np.repeat(np.arange(n_rows), counts), sources] = read(values)
    return maps.reshape(code.n_maps, code.n_positions, -1), read(sums).reshape(code.n_maps, -1)


def test_everything_is_kept_where_it_fits() -> None:
    maps = random_maps(3, 40)
    code, data = encode_flow(maps)
    decoded, sums = decode(code, data)
    assert code.largest_dropped == 0
    assert code.kept == pytest.approx(1)
    assert code.relative_error < 1e-3
    np.testing.assert_allclose(decoded, maps, rtol=1.01 * code.relative_error)
    np.testing.assert_allclose(sums, np.sum(maps, axis=2, dtype=np.float64), rtol=1.01 * code.relative_error)
    assert encode_flow(maps)[1] == data, "the same bytes, whatever the clock"


def test_the_largest_of_each_source_and_of_each_row_are_kept_where_it_does_not() -> None:
    maps = random_maps(3, 60)
    code, data = encode_flow(maps, max_entries=600)
    decoded, sums = decode(code, data)
    truth = np.array(maps, dtype=np.float64)
    kept = decoded > 0
    assert (kept.sum(axis=(1, 2)) == 200).all()
    np.testing.assert_allclose(decoded[kept], truth[kept], rtol=1.01 * code.relative_error)
    np.testing.assert_allclose(sums, truth.sum(2), rtol=1.01 * code.relative_error)
    shares = truth / np.maximum(truth.sum(2, keepdims=True), 1e-300)
    assert shares[~kept].max() == pytest.approx(code.largest_dropped)
    for k in range(3):
        largest = truth[k] == truth[k].max(0)
        assert kept[k][largest & (truth[k] > 0)].all()
        assert shares[k][kept[k] & ~largest].min() >= shares[k][~kept[k]].max()
    assert code.kept == pytest.approx(truth[kept].sum() / truth.sum())


def test_row_shares_keep_half_of_the_budget() -> None:
    """Where a map has more sources than values that are kept."""
    (flow,) = random_maps(1, 300)
    code, data = encode_flow([flow], max_entries=200)
    kept = decode(code, data)[0][0] > 0
    largest = (flow == flow.max(0)) & (flow > 0)
    assert kept[largest].all()
    assert (kept & ~largest).sum() == 100
    assert len(data) < 8 * (kept.sum() + 300), "four bytes a value, compressed, and the rows"


def test_a_long_text_of_a_deep_model_is_under_two_megabytes() -> None:
    """2,000 tokens, 32 layers and three groups; as text of a page, a third more."""
    flow = random_maps(1, 2000)[0]
    _, data = encode_flow([flow] * 35)
    assert len(data) * 4 / 3 < 1.8e6


def test_maps_without_flow_and_too_many_tokens() -> None:
    code, data = encode_flow([np.zeros((3, 3), np.float32)])
    assert not decode(code, data)[0].any()
    with pytest.raises(DPCInterpError, match="at most 65535 tokens, not 65536; shorten"):
        encode_flow([np.broadcast_to(np.float32(0), (65536, 65536))])
