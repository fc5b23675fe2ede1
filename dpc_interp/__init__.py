"""dpc_interp: see, and change, what a soft prompt does inside a language model while it reasons.

The analysis of *Improving Complex Reasoning with Dynamic Prompt Corruption* (ICLR 2025) on TransformerLens hook points.
"""

from importlib.metadata import version
from typing import Any

from dpc_interp import plots
from dpc_interp.analysis.accumulation import accumulation_peaks
from dpc_interp.analysis.analyse import Analysis, SaliencyMap, analyse, drop_empty_rationales, saliency_map
from dpc_interp.analysis.controls import control_peaks, sink_controls, sink_summary
from dpc_interp.analysis.options import Options
from dpc_interp.analysis.saliency import saliency
from dpc_interp.analysis.sanity import saliency_sanity
from dpc_interp.analysis.segments import Segments
from dpc_interp.analysis.trigger import TriggerRule, calibrate_trigger, trigger_statistics
from dpc_interp.claims.causal import CausalEffects, causal_edges
from dpc_interp.claims.causal_scores import curve_areas, rank_correlation, redundancy_ratio
from dpc_interp.claims.mixed_models import mixed_models
from dpc_interp.claims.regime import regime
from dpc_interp.claims.trigger_tables import triggers_table
from dpc_interp.claims.triggers import compare_triggers
from dpc_interp.claims.verdict_page import verdicts_markdown
from dpc_interp.claims.verdicts import verdicts
from dpc_interp.errors import DPCInterpError, warn_renamed
from dpc_interp.evaluation.ablation import ablate
from dpc_interp.evaluation.evaluate import Results, evaluate
from dpc_interp.evaluation.grid import ProblemSample
from dpc_interp.evaluation.sweeps import corruption_variants, option_sensitivity, single_tokens
from dpc_interp.execution.memory_plan import MemoryPlan, plan_memory
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.generation.external_texts import load_transcripts, read_transcripts
from dpc_interp.generation.generate import generate
from dpc_interp.generation.transcript import Transcript
from dpc_interp.interventions.act import Act, attention_calibration, choose_heads, head_gains
from dpc_interp.interventions.corrupted import corrupted
from dpc_interp.interventions.knockout import KnockoutPlan, edge_mask, knocked_out, plan_knockout
from dpc_interp.interventions.plan import CorruptionPlan, plan_corruption, plan_random
from dpc_interp.models.encoding import QuestionFormat
from dpc_interp.models.loading import load_model
from dpc_interp.parity.check import ModelCheck, check_model
from dpc_interp.prompts.embed_hooks import prompted
from dpc_interp.prompts.sinks import attention_sinks
from dpc_interp.prompts.soft_prompt import SoftPrompt, load_prompt
from dpc_interp.prompts.tuning import TuningConfig, tune_prompt
from dpc_interp.stats.regression import trigger_regression
from dpc_interp.study.control_runs import ControlSizes
from dpc_interp.study.study import Study, study
from dpc_interp.study.study_plan import Costs, StudyPlan
from dpc_interp.tasks.problem import Problem
from dpc_interp.tasks.registry import load_problems
from dpc_interp.views.case import Case, case
from dpc_interp.views.view import view

__version__ = version("dpc_interp")
__all__ = [
    "Act",
    "Analysis",
    "Case",
    "CausalEffects",
    "ControlSizes",
    "CorruptionPlan",
    "Costs",
    "DPCInterpError",
    "KnockoutPlan",
    "MemoryPlan",
    "ModelCheck",
    "Options",
    "Problem",
    "ProblemSample",
    "QuestionFormat",
    "Results",
    "RunConfig",
    "SaliencyMap",
    "Segments",
    "SoftPrompt",
    "Study",
    "StudyPlan",
    "Transcript",
    "TriggerRule",
    "TuningConfig",
    "ablate",
    "accumulation_peaks",
    "analyse",
    "attention_calibration",
    "attention_sinks",
    "calibrate_trigger",
    "case",
    "causal_edges",
    "check_model",
    "choose_heads",
    "compare_triggers",
    "control_peaks",
    "corrupted",
    "corruption_variants",
    "curve_areas",
    "drop_empty_rationales",
    "edge_mask",
    "evaluate",
    "generate",
    "head_gains",
    "knocked_out",
    "load_model",
    "load_problems",
    "load_prompt",
    "load_transcripts",
    "mixed_models",
    "option_sensitivity",
    "plan_corruption",
    "plan_knockout",
    "plan_memory",
    "plan_random",
    "plots",
    "prompted",
    "rank_correlation",
    "read_transcripts",
    "redundancy_ratio",
    "regime",
    "saliency",
    "saliency_map",
    "saliency_sanity",
    "single_tokens",
    "sink_controls",
    "sink_summary",
    "study",
    "trigger_regression",
    "trigger_statistics",
    "triggers_table",
    "tune_prompt",
    "verdicts",
    "verdicts_markdown",
    "view",
]

_RENAMED = {"act": "attention_calibration", "peaks": "accumulation_peaks", "sensitivity": "option_sensitivity"}


def __getattr__(name: str) -> Any:
    """Give the old public names for one release, with a `DeprecationWarning`."""
    if name in _RENAMED:
        warn_renamed(f"dpc_interp.{name}", f"dpc_interp.{_RENAMED[name]}")
        return globals()[_RENAMED[name]]
    if name == "with_rationale":
        warn_renamed("dpc_interp.with_rationale(runs, model)", "dpc_interp.drop_empty_rationales(model, runs)")
        return lambda runs, model: drop_empty_rationales(model, runs)
    raise AttributeError(f"module 'dpc_interp' has no attribute {name!r}")
