"""
Sanity checks of the saliency
=============================

Correlation with the true saliency as layers are randomised from the top, and with shuffled answers. Look for lines that
fall: saliency that survived random weights would show the architecture, not what was learned.
"""

from shared_runs import MODEL, PROMPT, runs

import dpc_interp as dpc

dpc.plots.plot_sanity(dpc.saliency_sanity(MODEL, runs()[:8], PROMPT, progress=False))
