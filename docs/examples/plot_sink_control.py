"""
Accumulation after control prompts
==================================

Accumulation of the same transcripts after the trained prompt and after prompts that nothing was learned into. Look
whether the peak of the trained prompt is higher than those of the controls, or at other tokens.
"""

from shared_runs import sinks

import dpc_interp as dpc

dpc.plots.plot_sink_control(sinks(), shallow=[0, 1])
