"""
Peak ratios after control prompts
=================================

The peak ratio under each condition; a grey stroke is its level by chance. Look whether the trained prompt lies above
its own chance level and above the untrained prompt.
"""

from shared_runs import sinks

import dpc_interp as dpc

peaks = dpc.control_peaks(sinks(), layers=[0, 1])
dpc.plots.plot_sink_ratios(dpc.sink_summary(peaks))
