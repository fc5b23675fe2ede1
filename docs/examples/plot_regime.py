"""
The regime of an experiment
===========================

What the model can do without the prompt, and what the prompt changes. Look at the harmed answers: with fewer than 30
over all prompts, the paper's fourth and fifth claim cannot be tested.
"""

from shared_runs import other_results, results

import dpc_interp as dpc

dpc.plots.plot_regime(dpc.regime([results(), other_results()]))
