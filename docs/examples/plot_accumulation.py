"""
Accumulation by layer and virtual token
=======================================

How much question and rationale draw from each virtual token, as a mean over instances. Look for a column that is bright
in the shallow layers (the lower rows): there information accumulates. Virtual token 0 is an attention sink.
"""

from shared_runs import results

import dpc_interp as dpc

dpc.plots.plot_accumulation(results().analysis.accumulation)
