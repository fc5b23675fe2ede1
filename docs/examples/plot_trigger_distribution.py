"""
A trigger statistic by outcome
==============================

The late share, the paper's R, of right and of wrong answers; the trigger fires to the right of the dotted line. Look
for two histograms that separate: where they overlap, no threshold tells wrong from right.
"""

from shared_runs import results

import dpc_interp as dpc

dpc.plots.plot_trigger_distribution(results().statistics, threshold=results().rule.threshold)
