"""
One instance, token by token
============================

The rationale of one instance, each token on the colour of the flow that it receives from the prompt in the deep layers.
Look behind the black bar, where the late half begins: bright tokens there are affected by the prompt.
"""

from shared_runs import long_run, results

import dpc_interp as dpc

tokens = results().analysis.tokens
dpc.plots.plot_case(tokens[tokens["instance"] == long_run().problem.id])
