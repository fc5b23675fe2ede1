"""Whether the Hugging Face Hub can be reached: one short request, made before any of its clients is called.

The clients retry for minutes when the Hub does not answer; this check fails in `TIMEOUT_SECONDS`.
"""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import constants

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
