"""
Accuracy of the methods
=======================

Each method on the same problems, by task, with its 95% interval. Look at `dpc` against `pt`, and at `oracle`, which no
trigger of this corruption can exceed where it fires.
"""

import pandas as pd
from shared_runs import other_results, results

import dpc_interp as dpc

dpc.plots.plot_accuracy(pd.concat([results().summary, other_results().summary]))
