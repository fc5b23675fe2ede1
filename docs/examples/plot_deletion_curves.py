"""
Deletion curves
===============

Change in loss as more and more edges are removed, in the order of their saliency, at random, or in reverse. Look
whether the curve by saliency rises first.
"""

from shared_runs import effects

import dpc_interp as dpc

dpc.plots.plot_deletion_curves(effects().curves)
