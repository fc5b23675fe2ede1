"""The methods of an evaluation: where each one fires and what it corrupts (docs/method.md, section 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from dpc_interp.analysis.options import Options
from dpc_interp.errors import DPCInterpError, UnknownNameError, warn_renamed
from dpc_interp.evaluation.jobs import Intervention
from dpc_interp.interventions.option_plans import Corrupts

Fires = Literal["rule", "matched_rate", "always", "oracle"]
"""By the rule; at random at the rate of the rule; always; where PT was wrong (an upper bound)."""
UNTRIGGERED = {
    "bare": "the question alone",
    "instruct": "the question with the written instruction of `Options.instruction`: the base model of the paper",
    "random_prompt": "a random prompt in place of the tuned one, drawn anew for each problem",
    "cut_off": "everything that is written cannot attend to the prompt, at any layer",
    "pt": "prompt tuning",
}
"""Method without a trigger -> what the model reads."""
TRIGGERED: dict[str, tuple[Fires, Corrupts]] = {
    "random": ("matched_rate", "random"),
    "always": ("always", "peak"),
    "dpc": ("rule", "peak"),
    "oracle": ("oracle", "peak"),
    "dpc, random token": ("rule", "random"),
    "dpc, mask only": ("rule", "mask only"),
    "dpc, gamma only": ("rule", "gamma only"),
}
"""Method -> where it fires and what it corrupts. The last three are ablations of dpc."""
METHODS = (*UNTRIGGERED, *TRIGGERED)
SHARED_METHODS = ("bare", "instruct", "random_prompt")
"""Methods that do not read the tuned prompt; all prompts of a task have the same answers."""
MAIN_METHODS = ("bare", "instruct", "random_prompt", "pt", "random", "always", "dpc", "oracle")
"""The methods that `evaluate` compares by default."""
Contexts = Mapping[str, Intervention]
"""Further methods by name: within such a context every problem is answered again."""


def check_methods(methods: Sequence[str], contexts: Contexts) -> list[str]:
    """Check methods and contexts.

    Args:
        methods: names from `METHODS`, or `base`, the former name of `bare`.
        contexts: further methods by name.

    Returns:
        The methods by their present names.

    Raises:
        DPCInterpError: an unknown method, or a context whose name or repr is ambiguous.
    """
    if "base" in methods:
        warn_renamed("the method 'base'", "'bare'")
    methods = ["bare" if method == "base" else method for method in methods]
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
    return methods


def needs_rule(methods: Sequence[str]) -> bool:
    """Whether some method fires by the trigger rule, or at its rate."""
    return any(TRIGGERED[method][0] in ("rule", "matched_rate") for method in methods if method in TRIGGERED)


def needs_placebo(methods: Sequence[str], options: Options) -> bool:
    """Whether some method corrupts random tokens."""
    return options.token == "random" or any(TRIGGERED[name][1] == "random" for name in methods if name in TRIGGERED)
