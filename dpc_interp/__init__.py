"""dpc_interp: see, and change, what a soft prompt does inside a language model while it reasons.

The analysis of *Improving Complex Reasoning with Dynamic Prompt Corruption* (ICLR 2025) on TransformerLens hook points.
"""

from dpc_interp import plots
from dpc_interp.analysis.accumulation import peaks
from dpc_interp.analysis.analyse import Analysis, SaliencyMap, analyse, saliency_map, with_rationale
from dpc_interp.analysis.controls import control_peaks, sink_controls
from dpc_interp.analysis.memory import MemoryPlan, plan_memory
from dpc_interp.analysis.saliency import saliency
from dpc_interp.analysis.sanity import saliency_sanity
from dpc_interp.analysis.segments import Segments
from dpc_interp.analysis.trigger import TriggerRule, calibrate_trigger, trigger_statistics
from dpc_interp.corruption.act import Act, act, choose_heads, head_gains
from dpc_interp.corruption.hooks import corrupted
from dpc_interp.corruption.knockout import KnockoutPlan, edge_mask, knocked_out, plan_knockout
from dpc_interp.corruption.plan import CorruptionPlan, plan_corruption, plan_random
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.ablation import ablate
from dpc_interp.evaluation.causal import CausalEffects, causal_edges, curve_areas, rank_correlation
from dpc_interp.evaluation.methods import Results, evaluate
from dpc_interp.evaluation.regression import trigger_regression
from dpc_interp.evaluation.statistics import sink_summary
from dpc_interp.evaluation.sweeps import corruption_variants, sensitivity, single_tokens
from dpc_interp.evaluation.tables import triggers_table
from dpc_interp.evaluation.triggers import compare_triggers
from dpc_interp.evaluation.verdict_page import verdicts_markdown
from dpc_interp.evaluation.verdicts import verdicts
from dpc_interp.lm.check import ModelCheck, check_model
from dpc_interp.lm.generation import Transcript, generate
from dpc_interp.lm.loading import load_model
from dpc_interp.lm.soft_prompt import SoftPrompt, load_prompt, prompted
from dpc_interp.lm.tuning import tune_prompt
from dpc_interp.tasks.problems import Problem, load_problems

__version__ = "0.1.0"
__all__ = [
    "Act",
    "Analysis",
    "CausalEffects",
    "CorruptionPlan",
    "DPCInterpError",
    "KnockoutPlan",
    "MemoryPlan",
    "ModelCheck",
    "Problem",
    "Results",
    "SaliencyMap",
    "Segments",
    "SoftPrompt",
    "Transcript",
    "TriggerRule",
    "ablate",
    "act",
    "analyse",
    "calibrate_trigger",
    "causal_edges",
    "check_model",
    "choose_heads",
    "compare_triggers",
    "control_peaks",
    "corrupted",
    "corruption_variants",
    "curve_areas",
    "edge_mask",
    "evaluate",
    "generate",
    "head_gains",
    "knocked_out",
    "load_model",
    "load_problems",
    "load_prompt",
    "peaks",
    "plan_corruption",
    "plan_knockout",
    "plan_memory",
    "plan_random",
    "plots",
    "prompted",
    "rank_correlation",
    "saliency",
    "saliency_map",
    "saliency_sanity",
    "sensitivity",
    "single_tokens",
    "sink_controls",
    "sink_summary",
    "trigger_regression",
    "trigger_statistics",
    "triggers_table",
    "tune_prompt",
    "verdicts",
    "verdicts_markdown",
    "with_rationale",
]
