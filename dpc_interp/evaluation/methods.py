"""The methods of an evaluation: where each one fires and what it corrupts (docs/method.md, section 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.evaluation.jobs import Intervention
from dpc_interp.interventions.option_plans import Corrupts

Fires = Literal["never", "rule", "matched_rate", "always", "oracle"]
"""Never; by the rule; at random at the rate of the rule; always; where PT was wrong (an upper bound)."""
METHODS: dict[str, tuple[Fires, Corrupts]] = {
    "base": ("never", "peak"),
    "pt": ("never", "peak"),
    "random": ("matched_rate", "random"),
    "always": ("always", "peak"),
    "dpc": ("rule", "peak"),
    "oracle": ("oracle", "peak"),
    "dpc, random token": ("rule", "random"),
    "dpc, mask only": ("rule", "mask only"),
    "dpc, gamma only": ("rule", "gamma only"),
}
"""Method -> where it fires and what it corrupts; `base` has no prompt. The last three are ablations of dpc."""
MAIN_METHODS = ("base", "pt", "random", "always", "dpc", "oracle")
"""The methods that `evaluate` compares by default."""
Contexts = Mapping[str, Intervention]
"""Further methods by name: within such a context every problem is answered again."""


def check_methods(methods: Sequence[str], contexts: Contexts) -> None:
    """Raise `DPCInterpError` for an unknown method, or a context whose name or repr is ambiguous."""
    for method in methods:
        if method not in METHODS:
            raise UnknownNameError("method", method, list(METHODS))
    for name, context in contexts.items():
        if name in METHODS:
            raise DPCInterpError(f"{name!r} is the name of a method; give the context another name")
        if " at 0x" in repr(context):  # the repr is part of the stored stage's key
            raise DPCInterpError(
                f"the context {name!r} needs a repr that shows its options; make it a frozen dataclass"
            )


def needs_rule(methods: Sequence[str]) -> bool:
    """Whether some method fires by the trigger rule, or at its rate."""
    return any(METHODS[method][0] in ("rule", "matched_rate") for method in methods)
