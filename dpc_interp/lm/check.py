"""`check_model`: is what this package computes on a model what the model itself computes?

Each check of `probe.py` becomes one row of a table with its verdict; what has no Hugging Face model to be held against
is told apart from what passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from transformers import PreTrainedModel

from dpc_interp.errors import DPCInterpError
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.probe import Probe
from dpc_interp.lm.reference import is_wrapped, reference_of
from dpc_interp.lm.soft_prompt import SoftPrompt, check_prompt

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest error that passes, by the dtype of the weights (Hugging Face takes norms and angles in float32 at best)."""


@dataclass(frozen=True)
class ModelCheck:
    """The outcome of `check_model`. `table`: check, verdict (pass, fail, not checked), error, tolerance, reason."""

    model: str
    table: pd.DataFrame

    @property
    def passed(self) -> bool:
        """No check failed. A check that was not made has not failed: see `verdict`."""
        return not (self.table["verdict"] == "fail").any()

    @property
    def verdict(self) -> str:
        """One line: passed or failed, on what, and what was not checked."""
        failed, unchecked = (list(self.table["check"][self.table["verdict"] == v]) for v in ("fail", "not checked"))
        said = f"failed: {'; '.join(failed)}" if failed else f"passed {len(self.table) - len(unchecked)} checks"
        return f"{self.model} {said}" + (f" (not checked: {'; '.join(unchecked)})" if unchecked else "")

    def __str__(self) -> str:
        """The table and the verdict."""
        shown = self.table.assign(
            error=[f"{e:.1e}" if e == e else "" for e in self.table["error"]],
            tolerance=[f"{t:.0e}" if t == t else "" for t in self.table["tolerance"]],
        )
        return f"{shown.to_string(index=False)}\n{self.verdict}"


def check_model(
    model: HookedModel,
    *,
    hf_model: PreTrainedModel | None = None,
    prompt: SoftPrompt | None = None,
    tolerance: float | None = None,
) -> ModelCheck:
    """Test a model before its numbers are trusted; a few dozen short forward passes.

    Args:
        hf_model: the Hugging Face model to compare with; None: loaded again from disk by the path or name that `model`
            records, or for a bridge the weights it wraps in a plain Hugging Face model (which tells a wrong bridge, not
            a wrong configuration). Where there is none, what needs it is `not checked`.
        prompt: the soft prompt put in front; None: 4 random vocabulary embeddings.
        tolerance: largest error that passes; None: by dtype, see `TOLERANCE`.

    Raises:
        DPCInterpError: the prompt does not fit, the model's context is too short, `hf_model` is wrapped by a bridge
            itself, or a dtype that has no tolerance; before any forward pass.
    """
    if prompt is not None:
        check_prompt(model, prompt.vectors)
    if hf_model is not None and is_wrapped(hf_model):
        raise DPCInterpError("hf_model is wrapped by a bridge and would be compared with itself; load it once more")
    source = "hf_model"
    if hf_model is None:
        hf_model, source = reference_of(model)
    dtypes = {model.cfg.dtype} | ({hf_model.dtype} if hf_model is not None else set())
    if tolerance is None:
        if not dtypes <= set(TOLERANCE):
            raise DPCInterpError(f"no tolerance is known for {sorted(map(str, dtypes))}; give tolerance=")
        tolerance = max(TOLERANCE[dtype] for dtype in dtypes)
    probe = Probe(model, hf_model, source, prompt, tolerance)
    with torch.no_grad():
        rows = [probe.logits(), probe.pattern_edits(), probe.pattern_gradients(), probe.right_padded()]
        rows += [probe.left_padded(), probe.cached(), probe.in_front()]
    table = pd.DataFrame(rows, columns=["check", "verdict", "error", "tolerance", "reason"])
    return ModelCheck(str(model.cfg.model_name), table)
