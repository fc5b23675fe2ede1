"""The controls of one prompt as a job: control prompts, knock-outs and sweeps.

These are the longest computations of a study. Every finished frame is stored in the folder of the runs, so an
interrupted run resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pandas as pd

from dpc_interp.analysis.analyse import drop_empty_rationales
from dpc_interp.analysis.controls import sink_controls
from dpc_interp.analysis.sanity import saliency_sanity
from dpc_interp.bundled.recipes import recipes_of
from dpc_interp.claims.causal import causal_edges
from dpc_interp.evaluation.sweeps import corruption_variants, option_sensitivity, single_tokens
from dpc_interp.execution.engine import Frames
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.execution.store import SharedStore
from dpc_interp.generation.generate import generate
from dpc_interp.interventions.act import Act, choose_heads, head_gains
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import load_model
from dpc_interp.prompts.soft_prompt import SoftPrompt, load_prompt
from dpc_interp.study.study import Study, StudySettings


@dataclass(frozen=True)
class Sizes:
    """The largest number of problems that each control uses.

    Attributes:
        sinks: test problems under the control prompts.
        causal: test problems in the knock-outs.
        sweep: test problems in the sweeps.
        heads: validation problems that choose the heads of ACT.
    """

    sinks: int = 100
    causal: int = 60
    sweep: int = 200
    heads: int = 40


@dataclass(frozen=True)
class ControlResults:
    """A study with its controls.

    Attributes:
        study: of the prompt, without the method `base`.
        sinks: the frame of `sink_controls`.
        effects: the frames of `causal_edges` and `saliency_sanity`; None unless this is the task's first prompt.
        sweeps: the frames variants, tokens and sensitivity; None unless this is the task's first prompt.
    """

    study: Study
    sinks: pd.DataFrame
    effects: Frames | None
    sweeps: Frames | None


@dataclass(frozen=True)
class RunControls:
    """The job that evaluates one prompt and computes its controls.

    Attributes:
        settings: settings of the study.
        task: name of the task.
        prompt: name of a bundled prompt of the task.
        sizes: of the controls.
        with_sweeps: also compute effects and sweeps, which take longest.
    """

    settings: StudySettings
    task: str
    prompt: str
    sizes: Sizes
    with_sweeps: bool

    def __call__(self) -> ControlResults:
        """Compute the frames that are not stored yet."""
        study = self.settings.evaluate(self.task, self.prompt, with_shared=self.with_sweeps)
        model, prompt = load_model(self.settings.model, device="cpu"), load_prompt(self.prompt)
        runs = drop_empty_rationales(model, study.results.runs)

        def sinks() -> Frames:
            return {"sinks": sink_controls(model, runs[: self.sizes.sinks], prompt, progress=False)}

        def effects() -> Frames:
            causal = causal_edges(model, runs[: self.sizes.causal], prompt, progress=False)
            sanity = saliency_sanity(model, runs[: self.sizes.causal], prompt, progress=False)
            frames = {name: getattr(causal, name) for name in ("knockouts", "groups", "redundancy", "curves")}
            return frames | {"sanity": sanity}

        names = ["knockouts", "groups", "redundancy", "curves", "sanity"]
        return ControlResults(
            study,
            self._stored(sinks, ["sinks"], self.sizes.sinks)["sinks"],
            self._stored(effects, names, self.sizes.causal) if self.with_sweeps else None,
            self._sweep(model, prompt) if self.with_sweeps else None,
        )

    def _sweep(self, model: HookedModel, prompt: SoftPrompt) -> Frames:
        """Compare corruptions and options on the prompt: the frames variants, tokens and sensitivity."""
        recipe = recipes_of(self.settings.model)[self.task]
        test = recipe.load("test", min(self.settings.n, self.sizes.sweep), seed=0)
        validation = recipe.load("validation", self.settings.n_validation, seed=0)

        def gains() -> Frames:
            # `head_gains` reads no generated token, so one is enough
            runs = generate(model, validation[: self.sizes.heads], prompt, max_new_tokens=1, progress=False)
            return {"heads": head_gains(model, runs, prompt, progress=False)}

        heads = choose_heads(self._stored(gains, ["heads"], self.sizes.heads)["heads"])
        shared: dict[str, Any] = {
            "models": model,
            "tasks": test,
            "prompts": prompt,
            "run": RunConfig(out=self.settings.folder / "sweeps", batch_size=self.settings.batch_size, progress=False),
        }
        by_task = {test[0].task: validation}
        contexts = {f"ACT, {len(heads)} heads": Act(heads)}
        return {
            "variants": corruption_variants(**shared, contexts=contexts, validation=by_task),
            "tokens": single_tokens(**shared),
            "sensitivity": option_sensitivity(**shared, validation=by_task),
        }

    def _stored(self, compute: Callable[[], Frames], names: list[str], size: int) -> dict[str, pd.DataFrame]:
        """The frames of `compute`; it is called only if one of them is not stored yet."""
        store, compute_once = SharedStore(self.settings.folder / "controls"), cache(compute)
        stages = {name: f"{name}-{size}-{self.prompt.replace('/', '-')}" for name in names}
        return {
            name: store.stage(stage, partial(lambda name: compute_once()[name], name)) for name, stage in stages.items()
        }
