"""
Accumulation and late share together
====================================

Each instance by its peak ratio and its late share, with both thresholds. Look at the upper right corner: the paper's
third claim expects more wrong answers there than in the other three.
"""

from shared_runs import results

import dpc_interp as dpc

kappa = dpc.calibrate_trigger(results().validation, statistic="peak_ratio")
dpc.plots.plot_cooccurrence(results().statistics, kappa=kappa.threshold, alpha=results().rule.threshold)
