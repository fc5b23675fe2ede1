"""
One virtual token masked at a time
==================================

Change in accuracy if one virtual token is masked in every answer; the bars are its share of the accumulation. Look
whether tokens that accumulate more also cost more: if not, accumulation does not say what matters.
"""

from shared_runs import MODEL, PROMPT, RUN

import dpc_interp as dpc

dpc.plots.plot_single_tokens(dpc.single_tokens(MODEL, "story", PROMPT, run=RUN, n=60))
