"""Is the Hugging Face hub within reach? Asked before its clients are, for they try again and again."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import constants

TIMEOUT = 5.0
"""Seconds until the hub counts as out of reach."""


def hub_answers() -> bool:
    """Whether the hub (`HF_ENDPOINT`) answers at all; False where it is switched off (`HF_HUB_OFFLINE`)."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=TIMEOUT).close()
    except HTTPError:  # an answer, if only a refusal
        return True
    except OSError:
        return False
    return True
