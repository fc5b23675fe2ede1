"""
Precision and recall of trigger statistics
==========================================

Of the answers that fire, how many are wrong, by the share of wrong answers that fire. Look how far a curve lies above
the grey line, the precision of a random trigger.
"""

from shared_runs import results

import dpc_interp as dpc

dpc.plots.plot_precision_recall(results().statistics, statistics=["late_share", "deep_flow", "nll"])
