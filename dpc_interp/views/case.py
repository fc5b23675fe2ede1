"""`Case`: everything that the view of one instance shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpc_interp.analysis.analyse import SaliencyMap, analyse, saliency_map
from dpc_interp.analysis.layers import deep_layers, shallow_layers
from dpc_interp.analysis.options import Options
from dpc_interp.analysis.trigger import TriggerRule, affected_tokens, trigger_statistics
from dpc_interp.errors import DPCInterpError
from dpc_interp.generation.decoding import decode
from dpc_interp.generation.stopping import resolve_max_new_tokens
from dpc_interp.generation.transcript import Transcript, make_transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.interventions.option_plans import plans_from_options
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.embed_hooks import PromptEdit
from dpc_interp.prompts.soft_prompt import AnyPrompt, SoftPrompt, as_prompt


@dataclass(frozen=True)
class Case:
    """One instance, as `view` shows it.

    Attributes:
        map: saliency of the transcript, with segments and token strings.
        run: the transcript.
        model: name of the model.
        prompt: name of the soft prompt; empty without one.
        options: the layers, beta and the corruption.
        statistics: the row of `trigger_statistics`; empty without a prompt.
        sinks: virtual tokens that are attention sinks.
        affected: positions, counted from the first virtual token, of late rationale tokens that the prompt affects;
            empty with target `gold`, whose tokens are not shown.
        beta: mean deep flow above which a token is affected; NaN without a prompt.
        rule: a calibrated trigger; None: none is given.
        corrupted: the answer under corruption; None: there is none.
    """

    map: SaliencyMap
    run: Transcript
    model: str
    prompt: str
    options: Options
    statistics: pd.Series
    sinks: tuple[int, ...]
    affected: tuple[int, ...]
    beta: float
    rule: TriggerRule | None = None
    corrupted: Transcript | None = None

    @property
    def shallow(self) -> tuple[int, ...]:
        """The layers where the accumulation token is found."""
        return tuple(self.options.shallow or shallow_layers(len(self.map.values)))

    @property
    def deep(self) -> tuple[int, ...]:
        """The layers that the trigger reads."""
        return tuple(self.options.deep or deep_layers(len(self.map.values)))

    @property
    def fires(self) -> bool | None:
        """Whether the rule fires; None without a rule."""
        return None if self.rule is None else bool(self.rule.fires(self.statistics.to_frame().T).iloc[0])


@torch_defaults()
def case(
    model: AnyModel,
    run: Transcript,
    prompt: AnyPrompt | None,
    *,
    rule: TriggerRule | None = None,
    corrupted: Transcript | bool = True,
    options: Options | None = None,
) -> Case:
    """Compute everything that the view of one instance shows.

    It makes two backward passes and, unless `corrupted` is given, answers the problem once more.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        run: a transcript of `generate` with `prompt` that has a rationale.
        prompt: the soft prompt, or its name; None: plain text, without trigger and corruption.
        rule: a calibrated trigger, whose threshold is shown.
        corrupted: the answer under corruption; True: it is generated with the corruption of `options`; False: none.
        options: layers, beta, `head_reduction` and the corruption; None: the defaults of `Options`.

    Raises:
        DPCInterpError: a transcript without a rationale, a rule or a corrupted answer without a prompt, or what
            `saliency` refuses.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> (run,) = dpc.generate(model, dpc.load_problems("story", n=1), prompt, progress=False)
        >>> made = dpc.case(model, run, prompt)
        >>> len(made.affected) / made.run.problem.n_steps > 0, made.corrupted.problem == run.problem
        (True, True)
    """
    prompt, model = as_prompt(prompt, optional=True), as_model(model)
    options = options or Options()
    if prompt is None and (rule is not None or isinstance(corrupted, Transcript)):
        raise DPCInterpError("a trigger and a corruption are about a soft prompt; give the prompt of the transcript")
    if isinstance(corrupted, Transcript) and corrupted.problem.id != run.problem.id:
        raise DPCInterpError(f"the corrupted answer is to problem {corrupted.problem.id}, not to {run.problem.id}")
    map_ = saliency_map(model, run, prompt, head_reduction=options.head_reduction)
    name = str(model.cfg.model_name)
    if prompt is None:
        return Case(map_, run, name, "", options, pd.Series(dtype=float), (), (), float("nan"))
    analysis = analyse(
        model, [run], prompt, target=options.target, head_reduction=options.head_reduction, progress=False
    )
    reads: dict[str, Any] = {"deep": options.deep, "beta": options.beta, "beta_statistic": options.beta_statistic}
    statistics = trigger_statistics(analysis, shallow=options.shallow, exclude_sink=options.exclude_sink, **reads)
    tokens = affected_tokens(analysis, **reads)
    # the tokens of a written rationale are not those that are shown
    tokens = tokens if options.target == "generated" else tokens.assign(late=False)
    late = tokens.loc[tokens["late"] & tokens["affected"], "position"] + map_.segments.rationale[0]
    if corrupted is True:
        corrupted = _answer_corrupted(model, run, prompt, plans_from_options(options, "peak", analysis), options)
    return Case(
        map_,
        run,
        name,
        prompt.name,
        options,
        statistics.iloc[0],
        analysis.sinks if options.exclude_sink else (),
        tuple(late.tolist()),
        float(tokens["beta"].iloc[0]),
        rule,
        corrupted or None,
    )


def _answer_corrupted(
    model: HookedModel, run: Transcript, prompt: SoftPrompt, plans: Mapping[str, PromptEdit], options: Options
) -> Transcript:
    """Answer the question of a transcript once more, in the tokens in which it was read."""
    n_read = prompt.n_virtual + len(run.question_tokens)
    limit = resolve_max_new_tokens(model, [run.problem], n_read, options.max_new_tokens)
    plan, draft = plans[run.problem.id], run.generated_tokens
    (generated,) = decode(model, [run.question_tokens], prompt.vectors, [plan], limit, [draft], options.stop_strings)
    return make_transcript(
        model, run.problem, run.question_tokens, generated, max_new_tokens=limit, extraction=options.extraction
    )
