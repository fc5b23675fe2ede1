"""Keywords of a call that are fields of a settings dataclass, such as `Options`, `RunConfig` or `TuningConfig`.

`evaluate(model, problems, prompt, gamma=5, batch_size=32)` is the same call as `evaluate(model, problems, prompt,
options=Options(gamma=5), run=RunConfig(batch_size=32))`: every field can be given by its own name, although it is
declared only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from dpc_interp.errors import DPCInterpError, UnknownNameError, warn_renamed

RENAMED = {
    "draft_rationales": "speculate_from_gold",
    "n_steps": "max_steps",
    "check_every": "eval_steps",
    "patience": "early_stopping_patience",
}
"""Old keyword -> the field that replaces it."""


def read_keywords(keywords: Mapping[str, Any], *settings: Any) -> list[Any]:
    """Put each keyword into the dataclass that has a field of its name.

    Args:
        keywords: field name -> value.
        *settings: dataclass instances, no two of which share a field.

    Returns:
        The instances with these fields replaced, in their order.

    Raises:
        UnknownNameError: no dataclass has a field of this name.
        DPCInterpError: a field is given by its old and its new name.
    """
    index_of = {field.name: i for i, instance in enumerate(settings) for field in fields(instance)}
    changes: list[dict[str, Any]] = [{} for _ in settings]
    for keyword, value in keywords.items():
        name = keyword if keyword in index_of else RENAMED.get(keyword, keyword)
        if name not in index_of:
            raise UnknownNameError("option", keyword, list(index_of))
        if name != keyword:
            warn_renamed(f"{keyword}=", f"{name}=")
        if name in changes[index_of[name]]:
            old = next(old for old, new in RENAMED.items() if new == name and old in keywords)
            raise DPCInterpError(f"{old}= is the old name of {name}=; give only {name}=")
        changes[index_of[name]][name] = value
    return [replace(instance, **changed) for instance, changed in zip(settings, changes, strict=True)]


def changed_keywords(*settings: Any) -> dict[str, Any]:
    """The fields of dataclass instances that differ from their defaults, as keywords of a call.

    Args:
        *settings: instances of dataclasses whose fields all have defaults.

    Example:
        >>> import dpc_interp as dpc
        >>> from dpc_interp.execution.keywords import changed_keywords
        >>> changed_keywords(dpc.Options(gamma=5), dpc.RunConfig())
        {'gamma': 5}
    """
    pairs = [(field.name, instance, type(instance)()) for instance in settings for field in fields(instance)]
    return {
        name: getattr(instance, name)
        for name, instance, default in pairs
        if getattr(instance, name) != getattr(default, name)
    }
