"""
Gain of corruption by firing rate
=================================

Accuracy over prompt tuning, if each trigger fired on that share of the problems. Look whether the curve of a trigger
lies above the grey one, which fires at random, and its band above zero.
"""

from shared_runs import results

import dpc_interp as dpc

compared = dpc.compare_triggers(results(), rates=[0, 0.1, 0.2, 0.3, 0.5, 0.7, 1])
dpc.plots.plot_trigger_gain(compared, triggers=["late_share", "nll", "random", "oracle"])
