"""
Triggers compared
=================

AUROC of every trigger against two outcomes, "PT was wrong" and "corruption fixes it". Look for triggers that exceed the
length and the NLL: only those add something. A row without a dot had too few answers with the outcome.
"""

from shared_runs import results

import dpc_interp as dpc

dpc.plots.plot_triggers(dpc.compare_triggers(results()))
