"""
Flow into each rationale step
=============================

What each step draws from the prompt, the question and earlier steps, in the deep layers. Look whether later steps of
right answers (solid) draw on the question and on earlier steps, and those of wrong answers (dashed) on the prompt.
"""

from shared_runs import flow

import dpc_interp as dpc

dpc.plots.plot_step_flow(flow(), layers=[4, 5])
