"""Figures from tidy frames.

Every plot takes a frame first, draws into `ax` and returns it; no plot shows or saves a figure, or needs a model. The
columns of the frames are those of `analysis/schema.py`.

Example:
    >>> import dpc_interp as dpc
    >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
    >>> runs = dpc.generate(model, dpc.load_problems("story", n=2), prompt, progress=False)
    >>> analysis = dpc.analyse(model, runs, prompt, progress=False)
    >>> dpc.plots.plot_accumulation(analysis.accumulation).get_ylabel()
    'layer'
"""

from __future__ import annotations

from dpc_interp.plots.accumulation import plot_accumulation, plot_accumulation_profile
from dpc_interp.plots.accuracy import plot_accuracy
from dpc_interp.plots.case import case_height, plot_case
from dpc_interp.plots.causal import plot_deletion_curves, plot_knockout_by_layer, plot_redundancy, plot_sanity
from dpc_interp.plots.colorbar import add_colorbar
from dpc_interp.plots.cooccurrence import cooccurrence_table, plot_cooccurrence
from dpc_interp.plots.layer_flow import layer_effect_sizes, plot_layer_flow
from dpc_interp.plots.maps import plot_saliency_map
from dpc_interp.plots.regime import plot_regime
from dpc_interp.plots.sensitivity import plot_sensitivity, plot_sensitivity_panel
from dpc_interp.plots.single_tokens import plot_single_tokens
from dpc_interp.plots.sink_control import plot_sink_control, plot_sink_ratios
from dpc_interp.plots.step_flow import plot_step_flow
from dpc_interp.plots.style import COLUMN_WIDTH, STABLE_METADATA, style_context
from dpc_interp.plots.trigger import plot_precision_recall, plot_roc, plot_trigger_distribution
from dpc_interp.plots.triggers import plot_trigger_gain, plot_triggers
from dpc_interp.plots.verdict_calibration import plot_verdict_calibration

__all__ = [
    "COLUMN_WIDTH",
    "STABLE_METADATA",
    "add_colorbar",
    "case_height",
    "cooccurrence_table",
    "layer_effect_sizes",
    "plot_accumulation",
    "plot_accumulation_profile",
    "plot_accuracy",
    "plot_case",
    "plot_cooccurrence",
    "plot_deletion_curves",
    "plot_knockout_by_layer",
    "plot_layer_flow",
    "plot_precision_recall",
    "plot_redundancy",
    "plot_regime",
    "plot_roc",
    "plot_saliency_map",
    "plot_sanity",
    "plot_sensitivity",
    "plot_sensitivity_panel",
    "plot_single_tokens",
    "plot_sink_control",
    "plot_sink_ratios",
    "plot_step_flow",
    "plot_trigger_distribution",
    "plot_trigger_gain",
    "plot_triggers",
    "plot_verdict_calibration",
    "style_context",
]
