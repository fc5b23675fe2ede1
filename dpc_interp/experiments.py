"""The long work behind `controls.py`, a job a study: control prompts, knock-outs, sweeps. What is finished is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from dpc_interp.analysis.analyse import with_rationale
from dpc_interp.analysis.controls import sink_controls
from dpc_interp.analysis.sanity import saliency_sanity
from dpc_interp.corruption.act import Act, choose_heads, head_gains
from dpc_interp.evaluation.causal import causal_edges
from dpc_interp.evaluation.store import SharedStore
from dpc_interp.evaluation.sweeps import corruption_variants, sensitivity, single_tokens
from dpc_interp.lm.generation import generate
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.loading import load_model
from dpc_interp.lm.soft_prompt import SoftPrompt, load_prompt
from dpc_interp.prompts import Recipe, recipes_of
from dpc_interp.study import Study, evaluate_study

Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Sizes:
    """How many problems each control takes; at most so many: a study of fewer has fewer.

    Test instances behind the control prompts (`sinks`), in the knock-outs (`causal`) and in the sweeps (`sweep`);
    validation problems that choose ACT's heads (`heads`).
    """

    sinks: int = 100
    causal: int = 60
    sweep: int = 200
    heads: int = 40


@dataclass(frozen=True)
class Controlled:
    """A study with its accumulation behind control prompts; of a task's first prompt also the costly frames.

    `effects`: knockouts, groups, curves, sanity. `sweeps`: variants, tokens, sensitivity.
    """

    study: Study
    sinks: pd.DataFrame
    effects: Frames | None
    sweeps: Frames | None


def controlled(
    model: str,
    task: str,
    prompt: str,
    n: int,
    n_validation: int,
    batch_size: int,
    kept: Path,
    sizes: Sizes,
    whole: bool,
) -> Controlled:
    """Evaluate one prompt and make its controls; with `whole` the costly frames too."""
    study = evaluate_study(
        model, task, prompt, n=n, n_validation=n_validation, batch_size=batch_size, runs=kept, base=False
    )
    loaded, vectors = load_model(model, device="cpu"), load_prompt(prompt)
    runs = with_rationale(study.results.runs, loaded)

    def sinks() -> Frames:
        return {"sinks": sink_controls(loaded, runs[: sizes.sinks], vectors, progress=False)}

    def effects() -> Frames:
        found = causal_edges(loaded, runs[: sizes.causal], vectors, progress=False)
        sanity = saliency_sanity(loaded, runs[: sizes.causal], vectors, progress=False)
        return {"knockouts": found.knockouts, "groups": found.groups, "curves": found.curves, "sanity": sanity}

    return Controlled(
        study,
        _stored(kept, prompt, sinks, ["sinks"], sizes.sinks)["sinks"],
        _stored(kept, prompt, effects, ["knockouts", "groups", "curves", "sanity"], sizes.causal) if whole else None,
        swept(loaded, recipes_of(model)[task], vectors, n, n_validation, batch_size, kept, sizes) if whole else None,
    )


def swept(
    model: HookedModel,
    recipe: Recipe,
    prompt: SoftPrompt,
    n: int,
    n_validation: int,
    batch_size: int,
    kept: Path,
    sizes: Sizes,
) -> Frames:
    """Corruptions and options compared on one prompt: variants, tokens, sensitivity."""
    test, validation = recipe.load("test", min(n, sizes.sweep), seed=0), recipe.load("validation", n_validation, seed=0)

    def gains() -> Frames:
        asked = generate(model, validation[: sizes.heads], prompt, max_new_tokens=1, progress=False)
        return {"heads": head_gains(model, asked, prompt, progress=False)}

    heads = choose_heads(_stored(kept, prompt.name, gains, ["heads"], sizes.heads)["heads"])
    where: dict[str, Any] = {"models": model, "tasks": test, "prompts": prompt}
    how: dict[str, Any] = {"out": kept / "sweeps", "batch_size": batch_size, "progress": False}
    calibrated: dict[str, Any] = {"validation": {test[0].task: validation}}
    contexts = {f"ACT, {len(heads)} heads": Act(heads)}
    return {
        "variants": corruption_variants(**where, contexts=contexts, **calibrated, **how),
        "tokens": single_tokens(**where, **how),
        "sensitivity": sensitivity(**where, **calibrated, **how),
    }


def _stored(
    kept: Path, prompt: str, make: Callable[[], Frames], names: list[str], size: int
) -> dict[str, pd.DataFrame]:
    """The frames of `make`, read where all are stored."""
    store, made = SharedStore(kept / "controls"), cache(make)
    named = {name: f"{name}-{size}-{prompt.replace('/', '-')}" for name in names}
    return {name: store.stage(stage, partial(lambda which: made()[which], name)) for name, stage in named.items()}
