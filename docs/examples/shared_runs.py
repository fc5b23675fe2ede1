"""
The runs behind the gallery
===========================

Every example reads one of these runs, each computed once. Replace the four names at the top by your model, your prompt
and your problems, and the examples draw your figures.
"""

from functools import cache

import dpc_interp as dpc

MODEL = dpc.load_model("reasoner")
PROMPT = dpc.load_prompt("reasoner/story")
PROBLEMS = dpc.load_problems("story", n=120)
VALIDATION = dpc.load_problems("story", "validation", n=80)
METHODS = ["bare", "instruct", "cut_off", "pt", "random", "always", "dpc", "oracle"]
RUN = dpc.RunConfig(progress=False)


@cache
def results():
    """The methods on the same problems, with a trigger calibrated on validation problems."""
    return dpc.evaluate(MODEL, PROBLEMS, PROMPT, METHODS, validation=VALIDATION, run=RUN)


@cache
def other_results():
    """The same on a second task."""
    problems, validation = (dpc.load_problems("rule", split, n=60) for split in ("test", "validation"))
    return dpc.evaluate(MODEL, problems, dpc.load_prompt("reasoner/rule"), METHODS, validation=validation, run=RUN)


@cache
def flow():
    """The frame `flow` of the transcripts, with the column `correct` of the instances."""
    analysis = results().analysis
    return analysis.flow.merge(analysis.instances[["instance", "correct"]], on="instance")


@cache
def runs():
    """The transcripts that have a rationale."""
    return dpc.drop_empty_rationales(MODEL, results().runs)


@cache
def long_run():
    """The first transcript of a problem with three steps."""
    return next(run for run in runs() if run.problem.n_steps == 3)


@cache
def effects():
    """Knock-outs of the edges that saliency ranks high and low, of six transcripts."""
    return dpc.causal_edges(MODEL, runs()[:6], PROMPT, progress=False)


@cache
def sinks():
    """Accumulation of twenty transcripts after the trained prompt and its controls."""
    return dpc.sink_controls(MODEL, runs()[:20], PROMPT, progress=False)


@cache
def sweep():
    """Two options, one at a time, on both splits."""
    values = {"gamma": (0, 10, 20), "mask": (0.0, 0.5)}
    return dpc.option_sensitivity(MODEL, "story", PROMPT, ["always"], values=values, run=RUN, n=60, n_validation=60)
