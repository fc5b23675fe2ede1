"""
Knock-outs by layer
===================

Change in loss if the edges from the prompt to the late rationale are removed that saliency ranks highest, lowest, or
that are drawn at random. Look for a gap between the highest and the random edges: there the ranking is causal.
"""

from shared_runs import effects

import dpc_interp as dpc

dpc.plots.plot_knockout_by_layer(effects().knockouts)
