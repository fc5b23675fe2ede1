"""Digests: short hashes of the model, prompt and problems that results depend on, for manifests and stage names."""

from __future__ import annotations

import hashlib

from dpc_interp.models.hooked import HookedModel


def digest(*parts: bytes) -> str:
    """A hash of byte strings, which also depends on where one string ends and the next begins.

    Args:
        parts: in order.

    Returns:
        16 hexadecimal digits (BLAKE2b).
    """
    hasher = hashlib.blake2b(digest_size=8)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big") + part)  # the length separates (ab, c) from (a, bc)
    return hasher.hexdigest()


def model_digest(model: HookedModel) -> str:
    """A hash of a model's weights and their precision, the same on every device.

    Args:
        model: whose parameters are hashed, in their order.

    Returns:
        16 hexadecimal digits.
    """
    weights = list(model.parameters())
    precision = ",".join(str(weight.dtype) for weight in weights).encode()
    # NumPy has no bfloat16: the weights are hashed as float32, so their precision is hashed too
    return digest(precision, *(weight.detach().cpu().float().numpy().tobytes() for weight in weights))
