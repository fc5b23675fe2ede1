"""
Sensitivity to options
======================

Accuracy over prompt tuning by the value of each option, on both splits. Look whether the value that is selected on
validation (grey) also does well on test: if the order differs, the choice is noise.
"""

from shared_runs import sweep

import dpc_interp as dpc

dpc.plots.plot_sensitivity(sweep())
