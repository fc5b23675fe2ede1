"""
Accumulation in the shallow layers
==================================

The same frame, averaged over the shallow layers; the bars are the share of instances whose accumulation token it is.
Look for a token whose band lies above the others and whose bar is long: one vector that most instances draw on.
"""

from shared_runs import results

import dpc_interp as dpc

analysis = results().analysis
dpc.plots.plot_accumulation_profile(analysis.accumulation, shallow=[0, 1], exclude=analysis.sinks)
