"""
Sensitivity to one option
=========================

One panel of the sweep, here for Gamma, the percentage of smallest entries that are set to 0. Look at the size of the
intervals before you read a trend.
"""

from shared_runs import sweep

import dpc_interp as dpc

dpc.plots.plot_sensitivity_panel(sweep(), option="gamma")
