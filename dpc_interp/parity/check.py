"""`check_model`: test that this package computes on a model what the model itself computes.

Each check of `probe.py` is one row of a table with its verdict. A check that needs a Hugging Face model, where none is
found, is `not checked`, which is neither a pass nor a failure.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from transformers import PreTrainedModel

from dpc_interp.errors import DPCInterpError
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.parity.comparison import CheckRow
from dpc_interp.parity.probe import Probe
from dpc_interp.parity.reference import Reference, find_reference, is_wrapped
from dpc_interp.prompts.soft_prompt import AnyPrompt, as_prompt, check_prompt
from dpc_interp.repr_html import card, table_block

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest error that passes, by the dtype of the weights (in float64 too, Hugging Face computes norms in float32)."""


@dataclass(frozen=True)
class ModelCheck:
    """The outcome of `check_model`.

    Attributes:
        model: name of the model.
        table: one row a check: check, verdict (`pass`, `fail` or `not checked`), error, tolerance, reason.

    Example:
        >>> import pandas as pd
        >>> import dpc_interp as dpc
        >>> table = pd.DataFrame({"check": ["logits", "cache"], "verdict": ["pass", "fail"]})
        >>> dpc.ModelCheck("gpt2", table).verdict
        'gpt2 failed: cache'
    """

    model: str
    table: pd.DataFrame

    @property
    def passed(self) -> bool:
        """Whether no check failed; `verdict` names the checks that were not made."""
        return not (self.table["verdict"] == "fail").any()

    @property
    def verdict(self) -> str:
        """One line: passed or failed, the failed checks, and those that were not made."""
        checks = self.table["check"]
        failed = list(checks[self.table["verdict"] == "fail"])
        unchecked = list(checks[self.table["verdict"] == "not checked"])
        outcome = f"failed: {'; '.join(failed)}" if failed else f"passed {len(checks) - len(unchecked)} checks"
        return f"{self.model} {outcome}" + (f" (not checked: {'; '.join(unchecked)})" if unchecked else "")

    def __repr__(self) -> str:
        return f"ModelCheck({self.verdict!r})"

    def _repr_html_(self) -> str:
        return card(self.verdict, {}, table_block(self.table))

    def __str__(self) -> str:
        """The table and the verdict."""
        formatted = self.table.assign(
            error=["" if pd.isna(error) else f"{error:.1e}" for error in self.table["error"]],
            tolerance=["" if pd.isna(tolerance) else f"{tolerance:.0e}" for tolerance in self.table["tolerance"]],
        )
        return f"{formatted.to_string(index=False)}\n{self.verdict}"


@torch_defaults()
def check_model(
    model: AnyModel,
    *,
    hf_model: PreTrainedModel | None = None,
    prompt: AnyPrompt | None = None,
    tolerance: float | None = None,
) -> ModelCheck:
    """Test a model before its numbers are trusted, with a few dozen short forward passes.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        hf_model: the Hugging Face model to compare with. None: loaded again from the path or name that `model` records;
            for a bridge, a plain model of the weights it wraps, which reveals a wrong bridge but not a wrong
            configuration. Checks that need it are `not checked` where none is found.
        prompt: the soft prompt before the sequences, or its name; None: 4 random vocabulary embeddings.
        tolerance: largest error that passes; None: by dtype, see `TOLERANCE`.

    Returns:
        The table of checks and the verdict.

    Raises:
        DPCInterpError: before any forward pass: the prompt does not fit, the model's context is too short, `hf_model`
            is itself wrapped by a bridge, or its dtype has no default tolerance.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.check_model(dpc.load_model("reasoner")).verdict
        'reasoner passed 8 checks'
    """
    prompt, model = as_prompt(prompt, optional=True), as_model(model)
    if prompt is not None:
        check_prompt(model, prompt.vectors)
    if hf_model is not None and is_wrapped(hf_model):
        raise DPCInterpError("hf_model is wrapped by a bridge and would be compared with itself; load it once more")
    reference = find_reference(model) if hf_model is None else Reference(hf_model, "hf_model")
    if tolerance is None:
        tolerance = _default_tolerance(model, reference.hf_model)
    probe = Probe(model, reference, prompt, tolerance)
    with torch.no_grad():
        rows = [probe.logits(), probe.pattern_edits(), probe.pattern_gradients(), probe.fused_saliency()]
        rows += [probe.right_padded(), probe.left_padded(), probe.cached(), probe.inputs_embeds()]
    return ModelCheck(str(model.cfg.model_name), pd.DataFrame(rows, columns=list(CheckRow._fields)))


def _default_tolerance(model: HookedModel, hf_model: PreTrainedModel | None) -> float:
    """The tolerance of the less precise of the two models."""
    dtypes = {model.cfg.dtype} | ({hf_model.dtype} if hf_model is not None else set())
    if not dtypes <= set(TOLERANCE):
        raise DPCInterpError(f"no tolerance is known for {sorted(map(str, dtypes))}; give tolerance=")
    return max(TOLERANCE[dtype] for dtype in dtypes)
