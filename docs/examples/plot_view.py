"""
One instance, interactively
===========================

Hover or focus a token to see where it draws from. Look for rationale tokens, late in the text, that draw on the chips
of the prompt more than on the question: they are what the trigger counts.
"""

from shared_runs import MODEL, PROMPT, long_run, results

import dpc_interp as dpc

# sphinx_gallery_thumbnail_path = '_static/view.png'
view = dpc.view(MODEL, long_run(), PROMPT, rule=results().rule)  # in a notebook the last line of a cell shows it
view.save("view.html")
