"""
Redundancy of virtual tokens
============================

Effect of removing the four strongest virtual tokens of a layer together, and the sum of their single effects. Look for
layers where the joint effect is larger: there tokens carry the same information, and single effects hide it.
"""

from shared_runs import effects

import dpc_interp as dpc

dpc.plots.plot_redundancy(effects().redundancy)
