"""Whether the Hugging Face Hub can be reached: one short request, made before any of its clients is called.

The clients retry for minutes when the Hub does not answer; this check fails in `TIMEOUT_SECONDS`.
"""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import constants, try_to_load_from_cache

from dpc_interp.errors import DPCInterpError

TIMEOUT_SECONDS = 5.0
"""Seconds after which the Hub counts as unreachable."""


def hub_is_reachable() -> bool:
    """Check that the Hub answers, at the address `HF_ENDPOINT`.

    Returns:
        True if the Hub answers the request, with an error status as well. False if it does not answer within
        `TIMEOUT_SECONDS`, or if the environment variable `HF_HUB_OFFLINE` is set: then nothing is sent.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=TIMEOUT_SECONDS).close()
    except HTTPError:  # an error status is still an answer: some mirrors reject HEAD requests
        return True
    except OSError:
        return False
    return True


def need_cached_if_unreachable(name: str, hint: str) -> bool:
    """Check that a model can be read from the Hub or from its local cache.

    Args:
        name: `owner/name` on the Hub.
        hint: what to do if it can be read from neither, as the second half of an error message.

    Returns:
        Whether to read from the cache only, because the Hub cannot be reached.

    Raises:
        DPCInterpError: the Hub cannot be reached and the cache lacks the model.
    """
    if hub_is_reachable():
        return False
    if not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise fetch_error(name, OSError("the hub cannot be reached and the model is not in its cache"), hint)
    return True


def fetch_error(name: str, error: OSError, hint: str) -> DPCInterpError:
    """The error for a model that cannot be fetched, to be raised by the caller.

    Args:
        name: `owner/name` on the Hub.
        error: what a client of the Hub raised.
        hint: what to do, as the second half of the message.
    """
    reason = str(error).partition("\n")[0][:120]
    return DPCInterpError(f"{name!r} is no folder here, and its weights cannot be fetched ({reason}); {hint}")
