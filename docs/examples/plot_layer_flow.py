"""
Flow by layer, right against wrong
==================================

Flow from the prompt to the rationale in each layer. Look at the numbers above the layers, Hedges' g of wrong over right
answers: the paper's second claim expects positive ones, in bold, in the deep layers.
"""

from shared_runs import flow

import dpc_interp as dpc

dpc.plots.plot_layer_flow(flow(), source="prompt", destination="rationale")
