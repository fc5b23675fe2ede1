"""
ROC curves of trigger statistics
================================

How well each statistic ranks wrong answers above right ones. Look at the interval of the AUROC in the legend: if it
holds 0.5, the statistic may be no better than chance, and the NLL shows what mere confidence reaches.
"""

from shared_runs import results

import dpc_interp as dpc

dpc.plots.plot_roc(results().statistics, statistics=["late_share", "deep_flow", "nll"])
