"""Ranges of layers: shallow and deep thirds, and how a range is written."""

from __future__ import annotations

from collections.abc import Sequence

from dpc_interp.errors import DPCInterpError


def shallow_layers(n_layers: int) -> tuple[int, ...]:
    """The default shallow layers: the first third, at least one."""
    return tuple(range(max(1, n_layers // 3)))


def deep_layers(n_layers: int) -> tuple[int, ...]:
    """The default deep layers: the last third, at least one."""
    return tuple(range(n_layers - max(1, n_layers // 3), n_layers))


def check_layers(layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Return `layers` as a tuple; raise `DPCInterpError` for one that a model of `n_layers` does not have."""
    layers = tuple(int(layer) for layer in layers)
    unknown = [layer for layer in layers if not 0 <= layer < n_layers]
    if unknown:
        raise DPCInterpError(f"there is no layer {unknown[0]}; this model has layers 0 to {n_layers - 1}")
    return layers


def layer_range(layers: Sequence[int], *, dash: str = "-", comma: str = ",") -> str:
    """Write layers as `4`, `4-5` where they are consecutive, or `0,2`."""
    if len(layers) > 1 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}{dash}{layers[-1]}"
    return comma.join(map(str, layers))
