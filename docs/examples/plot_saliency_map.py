"""
A saliency map
==============

Flow from each token (columns) to each later token (rows) of one transcript, in its deep layers. Look at the block of
the prompt's columns and the rationale's rows: it is the flow that the trigger reads.
"""

from shared_runs import MODEL, PROMPT, long_run

import dpc_interp as dpc

saliency_map = dpc.saliency_map(MODEL, long_run(), PROMPT)  # .values [layer, destination, source]
deep = saliency_map.values[-2:].mean(0)
dpc.plots.plot_saliency_map(deep.numpy(), spans=saliency_map.segments.spans())
