"""The controls of one prompt as a job: control prompts, knock-outs and sweeps.

These are the longest computations of a study. Every finished frame is stored in the folder of the runs, so an
interrupted run resumes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pandas as pd

from dpc_interp.analysis.analyse import drop_empty_rationales
from dpc_interp.analysis.controls import CONDITIONS, TEXT, control_peaks, sink_controls
from dpc_interp.analysis.sanity import saliency_sanity
from dpc_interp.claims.causal import causal_edges
from dpc_interp.errors import warn_user
from dpc_interp.evaluation.stages import problem_digest, prompt_digest
from dpc_interp.evaluation.sweeps import SWEPT_VALUES, corruption_variants, option_sensitivity, single_tokens
from dpc_interp.execution.digest import digest, model_digest
from dpc_interp.execution.engine import Frames
from dpc_interp.execution.store import SharedStore
from dpc_interp.generation.generate import generate
from dpc_interp.generation.stopping import UnfinishedWarning
from dpc_interp.interventions.act import Act, choose_heads, head_gains
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.embedding import text_tokens
from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.study.evaluated import EvaluatedPrompt, StudySettings, StudyTask, add_shared_answers, folder_name


@dataclass(frozen=True)
class ControlSizes:
    """The largest number of problems that each control uses.

    Attributes:
        n_sinks: test problems under the control prompts (fig8).
        n_causal: test problems in the knock-outs (fig10).
        n_sweep: test problems in the sweeps (fig11, tab5).
        n_heads: validation problems that choose the heads of ACT.
    """

    n_sinks: int = 100
    n_causal: int = 60
    n_sweep: int = 200
    n_heads: int = 40


@dataclass(frozen=True)
class ControlResults:
    """An evaluated prompt with its controls.

    Attributes:
        evaluated: the prompt.
        sinks: the frame of `sink_controls`.
        effects: the frames of `causal_edges` and `saliency_sanity`; None unless this is the task's first prompt.
        sweeps: the frames variants, tokens and sensitivity; None unless this is the task's first prompt.
    """

    evaluated: EvaluatedPrompt
    sinks: pd.DataFrame
    effects: Frames | None
    sweeps: Frames | None

    @property
    def peaks(self) -> pd.DataFrame:
        """The accumulation tokens under every control prompt; see `control_peaks`."""
        return control_peaks(
            self.sinks, layers=self.evaluated.shallow, exclude_sink=self.evaluated.results.options.exclude_sink
        )

    def with_shared_answers(self, first: ControlResults) -> ControlResults:
        """Add the answers of the methods that do not read the prompt, which the controls of the first prompt have."""
        return replace(self, evaluated=add_shared_answers(self.evaluated, first.evaluated))


@dataclass(frozen=True)
class RunControls:
    """The job that evaluates one prompt and computes its controls.

    Attributes:
        settings: settings of the study.
        task: of the study.
        prompt: one of its prompts.
        sizes: of the controls.
        with_sweeps: also compute effects and sweeps, which take longest.
        evaluated: the evaluated prompt, where it is at hand; None: it is evaluated, or read from the folder.
    """

    settings: StudySettings
    task: StudyTask
    prompt: SoftPrompt
    sizes: ControlSizes
    with_sweeps: bool
    evaluated: EvaluatedPrompt | None = None

    def __call__(self, model: HookedModel) -> ControlResults:
        """Compute the frames that are not stored yet."""
        task, prompt, options = self.task, self.prompt, self.settings.options
        evaluated = self.evaluated or self.settings.evaluate(model, task, prompt, with_shared=self.with_sweeps)
        runs = drop_empty_rationales(model, evaluated.results.runs)

        def sinks() -> Frames:
            n_text = len(text_tokens(model, TEXT))
            room = model.cfg.n_ctx - prompt.n_virtual - n_text
            short = [run for run in runs if len(run.tokens) <= room]  # the text precedes the trained prompt
            conditions = [condition for condition in CONDITIONS if short or condition != "trained after text"]
            read = short or runs
            read = read[: self.sizes.n_sinks]
            keywords: dict[str, Any] = {"target": options.target, "head_reduction": options.head_reduction}
            return {"sinks": sink_controls(model, read, prompt, conditions=conditions, progress=False, **keywords)}

        def effects() -> Frames:
            read = runs[: self.sizes.n_causal]
            causal = causal_edges(model, read, prompt, options=options, progress=False)
            keywords: dict[str, Any] = {"head_reduction": options.head_reduction, "seed": options.seed}
            sanity = saliency_sanity(model, read, prompt, progress=False, **keywords)
            frames = {name: getattr(causal, name) for name in ("knockouts", "groups", "redundancy", "curves")}
            return frames | {"sanity": sanity}

        names = ["knockouts", "groups", "redundancy", "curves", "sanity"]
        return ControlResults(
            evaluated,
            self._stored(model, sinks, ["sinks"], self.sizes.n_sinks)["sinks"],
            self._stored(model, effects, names, self.sizes.n_causal) if self.with_sweeps else None,
            self._sweep(model) if self.with_sweeps else None,
        )

    def _sweep(self, model: HookedModel) -> Frames:
        """Compare corruptions and options on the prompt: the frames variants, tokens and sensitivity."""
        prompt, validation, options = self.prompt, self.task.validation, self.settings.options
        written = [problem for problem in validation if problem.rationale.strip()]

        def gains() -> Frames:
            # `head_gains` reads no generated token, so one is enough
            text: dict[str, Any] = {"template": options.template, "prepend_bos": options.prepend_bos}
            chosen = written[: self.sizes.n_heads]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnfinishedWarning)
                runs = generate(model, chosen, prompt, max_new_tokens=1, progress=False, **text)
            return {"heads": head_gains(model, runs, prompt, progress=False)}

        contexts = {}
        if written:
            heads = choose_heads(self._stored(model, gains, ["heads"], self.sizes.n_heads)["heads"])
            contexts = {f"ACT, {len(heads)} heads": Act(heads)}
        else:
            warn_user(f"{self.task.name}: without written rationales no heads can be chosen for ACT, which is left out")
        shared: dict[str, Any] = {
            "models": model,
            "tasks": list(self.task.test[: self.sizes.n_sweep]),
            "prompts": prompt,
            "options": options,
            "run": self.settings.run_in("sweeps"),
        }
        by_task = {self.task.name: validation}
        swept: dict[str, Any] = {}
        if not all(problem.rationale.strip() for problem in (*shared["tasks"], *validation)):
            # target `gold` reads written rationales
            swept["values"] = {option: values for option, values in SWEPT_VALUES.items() if option != "target"}
        return {
            "variants": corruption_variants(**shared, contexts=contexts, validation=by_task),
            "tokens": single_tokens(**(shared | {"options": replace(options, gamma=0)})),  # the token alone
            "sensitivity": option_sensitivity(**shared, validation=by_task, **swept),
        }

    def _stored(
        self, model: HookedModel, compute: Callable[[], Frames], names: list[str], size: int
    ) -> dict[str, pd.DataFrame]:
        """The frames of `compute`; it is called only if one of them is not stored yet."""
        folder = self.settings.folder
        store, compute_once = SharedStore(None if folder is None else folder / "controls"), cache(compute)
        problems = problem_digest([*self.task.test, *self.task.validation])
        options = json.dumps(self.settings.options.record(), sort_keys=True)
        key = digest("/".join([model_digest(model), prompt_digest(self.prompt), problems, options]).encode())
        stages = {name: f"{name}-{size}-{folder_name(self.task.name, self.prompt.name)}-{key}" for name in names}
        return {
            name: store.stage(stage, partial(lambda name: compute_once()[name], name)) for name, stage in stages.items()
        }
