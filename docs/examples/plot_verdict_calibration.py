"""
How often verdicts err
======================

Simulated experiments without an effect, by the share of changed answers and the number of prompts. Look at the dotted
line: the rule may call at most 2.5% of them "holds", and as many "fails".
"""

import dpc_interp as dpc
from dpc_interp.claims.simulation import simulate_verdicts

dpc.plots.plot_verdict_calibration(simulate_verdicts([0.01, 0.03, 0.1], [3, 10], n=200))
