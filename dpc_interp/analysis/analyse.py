"""`analyse`: many transcripts, one backward pass per batch, tidy frames (docs/method.md, sections 2 and 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from dpc_interp.analysis.accumulation import accumulation_frame, sinks_in
from dpc_interp.analysis.flow import PositionGroups, instances_frame, tokens_frame
from dpc_interp.analysis.options import HeadReduction, Options, Target
from dpc_interp.analysis.saliency import saliency, saliency_pass
from dpc_interp.analysis.schema import conform, in_order_of
from dpc_interp.analysis.segments import Segments, segment, token_strings
from dpc_interp.errors import DPCInterpError, UnknownNameError, renamed_keywords
from dpc_interp.execution.backoff import batches_with_backoff
from dpc_interp.execution.batch_splits import by_length, cheapest_batch_ends
from dpc_interp.execution.memory_plan import MAX_BATCH_SIZE, MemoryPlan, plan_memory
from dpc_interp.generation.transcript import Transcript, gold_transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.fused_attention import describe_attention
from dpc_interp.models.hooked import CachedDecoding, HookedModel, check_length, tokenizer_of
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.prefill import can_share_prompt_cache
from dpc_interp.prompts.sinks import prefill_with_sinks
from dpc_interp.prompts.soft_prompt import AnyPrompt, SoftPrompt, as_prompt, check_prompt
from dpc_interp.repr_html import card, span_text, table_block, text_block
from dpc_interp.tasks.problem import check_distinct

MIN_RATIONALE_TOKENS = 2
"""Minimum rationale tokens of an evaluated transcript: one for each half."""
FRAME_NAMES = ("flow", "accumulation", "tokens", "instances")


@dataclass(frozen=True)
class SaliencyMap:
    """The saliency of one transcript.

    Attributes:
        values: float32 [layer, destination, source].
        segments: positions of prompt, question, rationale and answer.
        tokens: the sequence as text; virtual tokens are `<P0>`, `<P1>`, ...
    """

    values: Float[Tensor, "layer dest src"]
    segments: Segments
    tokens: list[str]

    def __repr__(self) -> str:
        return f"SaliencyMap({len(self.values)} layers, {self._sizes()})"

    def _repr_html_(self) -> str:
        largest = [f"layer {layer}: {value:.3g}" for layer, value in enumerate(self.values.amax(dim=(1, 2)).tolist())]
        facts = {"layers": len(self.values), "positions": self._sizes(), "largest flow": "; ".join(largest)}
        note = "dpc.view(model, run, prompt) shows it token by token, dpc.plots.plot_saliency_map as a map"
        return card("SaliencyMap", facts, text_block("text", "".join(self.tokens)), note=note)

    def _sizes(self) -> str:
        return span_text({name: stop - start for name, (start, stop) in self.segments.spans().items()})


@dataclass(frozen=True)
class Analysis:
    """The frames of `analyse`, whose columns are described in `schema.py`.

    Attributes:
        flow: mean flow between segments and steps.
        accumulation: mean flow from each virtual token; no rows without a soft prompt.
        tokens: flow from the prompt into each rationale token; no rows without a soft prompt.
        instances: one row per transcript.
        options: the options that the frames were computed with.
    """

    flow: pd.DataFrame
    accumulation: pd.DataFrame
    tokens: pd.DataFrame
    instances: pd.DataFrame
    options: Mapping[str, str | int | bool | None]

    def __repr__(self) -> str:
        size = f"{len(self.instances)} instances, {self.n_layers} layers, {self.n_virtual} virtual tokens"
        return f"Analysis({size}, attention: {self.options.get('attention', 'unknown')})"

    def _repr_html_(self) -> str:
        frames = {
            f".{name}": f"{len(frame):,} rows: {', '.join(map(str, frame))}" for name, frame in self.frames.items()
        }
        facts = {"layers": self.n_layers, "virtual tokens": self.n_virtual, **self.options} | frames
        return card(f"Analysis of {len(self.instances)} instances", facts, table_block(self.instances))

    @property
    def frames(self) -> Mapping[str, pd.DataFrame]:
        """The four frames by name."""
        return {name: getattr(self, name) for name in FRAME_NAMES}

    @property
    def n_layers(self) -> int:
        """Layers of the analysed model."""
        frame = self.flow if self.accumulation.empty else self.accumulation
        return int(frame["layer"].max()) + 1

    @property
    def n_virtual(self) -> int:
        """Virtual tokens of the analysed prompt; 0 without one."""
        return 0 if self.accumulation.empty else int(self.accumulation["virtual_token"].max()) + 1

    @property
    def sinks(self) -> tuple[int, ...]:
        """Virtual tokens that are attention sinks, see `attention_sinks`; none without a prompt."""
        return sinks_in(self.accumulation)


@renamed_keywords({"checkpoint": "gradient_checkpointing"})
@torch_defaults()
def saliency_map(
    model: AnyModel,
    run: Transcript,
    prompt: AnyPrompt | None,
    *,
    head_reduction: HeadReduction = Options.head_reduction,
    gradient_checkpointing: bool = False,
) -> SaliencyMap:
    """The saliency of one transcript with its segments and token strings.

    Args:
        model, prompt, head_reduction, gradient_checkpointing: see `saliency`.
        run: a transcript that has a rationale.

    Raises:
        DPCInterpError: see `saliency`.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> runs = dpc.generate(model, dpc.load_problems("story", n=1), prompt=prompt, progress=False)
        >>> dpc.saliency_map(model, runs[0], prompt).segments.prompt
        (0, 20)
    """
    prompt, model = as_prompt(prompt, optional=True), as_model(model)
    tokenizer = tokenizer_of(model)
    n_virtual = 0 if prompt is None else prompt.n_virtual
    segments = segment(run, tokenizer, n_virtual)
    _check_rationales([run], [segments])
    values = saliency(
        model,
        run.tokens,
        prompt,
        len(run.question_tokens),
        head_reduction=head_reduction,
        gradient_checkpointing=gradient_checkpointing,
    )
    strings = [f"<P{j}>" for j in range(n_virtual)] + token_strings(tokenizer, run.tokens.tolist())
    return SaliencyMap(values.cpu(), segments, strings)


@renamed_keywords({"checkpoint": "gradient_checkpointing"})
@torch_defaults()
def analyse(
    model: AnyModel,
    runs: Sequence[Transcript],
    prompt: AnyPrompt | None,
    *,
    target: Target = Options.target,
    head_reduction: HeadReduction = Options.head_reduction,
    batch_size: int | None = None,
    gradient_checkpointing: bool | None = None,
    progress: bool = True,
) -> Analysis:
    """Flow, accumulation and per-token flow from the prompt, of many transcripts.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        runs: transcripts generated with `prompt`; each must have a rationale (`drop_empty_rationales` drops the
            others).
        prompt: the soft prompt, or its name; None: plain text, whose frames `accumulation` and `tokens` have no rows.
        target: take the loss on the model's own tokens (`generated`; needs no label) or on the written rationale
            (`gold`).
        head_reduction: see `saliency`.
        batch_size: the most sequences in one forward and backward pass; fewer on a CPU where padding would cost more
            than a pass; halved, with a warning, where memory runs out.
        gradient_checkpointing: recompute each block in the backward pass instead of keeping its activations. Values
            depend on neither of the two. None: chosen by `plan_memory`; a line is printed unless that is 16 without
            checkpointing.
        progress: show a progress bar.

    Returns:
        The frames, in the order of `runs`.

    Raises:
        DPCInterpError: an empty rationale, no runs, or what `saliency` refuses; all before the first pass where it can
            be known. Sequences too long for the available memory.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> runs = dpc.generate(model, dpc.load_problems("story", n=2), prompt=prompt, progress=False)
        >>> dpc.analyse(model, runs, prompt, progress=False).accumulation.columns.tolist()
        ['instance', 'layer', 'virtual_token', 'value', 'into_question', 'sink']
    """
    prompt, model = as_prompt(prompt, optional=True), as_model(model)
    if target not in get_args(Target):
        raise UnknownNameError("target", target, get_args(Target))
    runs, segments = _segment_runs(model, runs, prompt, target)
    lengths = [s.length for s in segments]
    plan = plan_memory(
        model,
        lengths,
        n_predicted=max(len(run.generated_tokens) for run in runs),
        batch_size=batch_size,
        gradient_checkpointing=gradient_checkpointing,
    )
    if batch_size is None and not plan.fits:
        raise DPCInterpError(f"{plan}; free some, shorten the sequences, or give batch_size=1 to try anyway")
    parts = _analyse_in_batches(model, runs, segments, prompt, head_reduction, plan, progress)
    ids = [run.problem.id for run in runs]
    frames = {
        name: conform(in_order_of(pd.concat([part[name] for part in parts], ignore_index=True), ids), name)
        for name in FRAME_NAMES
    }
    options = {
        "target": target,
        "head_reduction": head_reduction,
        "prompt": None if prompt is None else prompt.name,
        "attention": describe_attention(model),
    }
    return Analysis(**frames, options=options)


def drop_empty_rationales(model: AnyModel, runs: Sequence[Transcript]) -> list[Transcript]:
    """The transcripts that have a rationale of at least two tokens before their answer.

    A shorter one has no early half, so no late share R (docs/method.md, section 4).

    Args:
        model: whose tokenizer decodes the transcripts, or its name.
        runs: any transcripts.
    """
    model = as_model(model)
    return [run for run in runs if segment(run, tokenizer_of(model), 0).n_rationale_tokens >= MIN_RATIONALE_TOKENS]


def _segment_runs(
    model: HookedModel, runs: Sequence[Transcript], prompt: SoftPrompt | None, target: Target
) -> tuple[list[Transcript], list[Segments]]:
    """The transcripts that are read under `target`, with their segments; raise for what cannot be analysed."""
    if not runs:
        raise DPCInterpError("there are no runs to analyse; generate some first")
    check_distinct([run.problem for run in runs])
    if prompt is not None:
        check_prompt(model, prompt.vectors)
    if target == "gold":
        runs = [gold_transcript(model, run) for run in runs]
    n_virtual = 0 if prompt is None else prompt.n_virtual
    segments = [segment(run, tokenizer_of(model), n_virtual) for run in runs]
    _check_rationales(runs, segments)
    check_length(model, max(s.length for s in segments))
    return list(runs), segments


def _check_rationales(runs: Sequence[Transcript], segments: Sequence[Segments]) -> None:
    for run, run_segments in zip(runs, segments, strict=True):
        if not run_segments.steps:
            raise DPCInterpError(
                f"{run.problem.id} has an empty rationale; keep only dpc.drop_empty_rationales(model, runs)"
            )


def _analyse_in_batches(
    model: HookedModel,
    runs: list[Transcript],
    segments: list[Segments],
    prompt: SoftPrompt | None,
    head_reduction: HeadReduction,
    plan: MemoryPlan,
    progress: bool,
) -> list[Mapping[str, pd.DataFrame]]:
    lengths = [s.length for s in segments]
    order = by_length(lengths)
    prompt_cache: CachedDecoding | None = None
    sinks: tuple[int, ...] = ()
    share_prompt = len(runs) > 1 and not plan.gradient_checkpointing and can_share_prompt_cache(model, max(lengths))
    if prompt is not None:
        sinks, cache = prefill_with_sinks(model, prompt.vectors)
        prompt_cache = cache if share_prompt else None

    def analyse_batch(indices: Sequence[int]) -> Mapping[str, pd.DataFrame]:
        return _analyse_batch(
            model,
            [runs[i] for i in indices],
            [segments[i] for i in indices],
            prompt,
            head_reduction,
            plan.gradient_checkpointing,
            prompt_cache,
            sinks,
        )

    hint = "shorten it, or use a smaller dtype" if plan.gradient_checkpointing else "use gradient_checkpointing=True"
    parts = []
    with tqdm(total=len(runs), desc="analyse", unit="instance", disable=not progress, leave=False) as bar:
        if progress and (plan.gradient_checkpointing or plan.batch_size < min(MAX_BATCH_SIZE, len(runs))):
            bar.write(f"analyse: {plan}")
        batch_ends = cheapest_batch_ends(model, [lengths[i] for i in order], plan.batch_size)
        for indices, part in batches_with_backoff(order, plan.batch_size, analyse_batch, hint, batch_ends):
            parts.append(part)
            bar.update(len(indices))
    return parts


def _analyse_batch(
    model: HookedModel,
    runs: list[Transcript],
    segments: list[Segments],
    prompt: SoftPrompt | None,
    head_reduction: HeadReduction,
    gradient_checkpointing: bool,
    prompt_cache: CachedDecoding | None,
    sinks: Sequence[int],
) -> Mapping[str, pd.DataFrame]:
    width = max(s.length for s in segments)
    groups = PositionGroups.from_segments(segments, width, torch.device(model.cfg.device or "cpu"))
    result = saliency_pass(
        model,
        [run.tokens for run in runs],
        [len(run.question_tokens) for run in runs],
        None if prompt is None else prompt.vectors,
        groups.reduce,
        head_reduction=head_reduction,
        gradient_checkpointing=gradient_checkpointing,
        prompt_rows=False,
        prompt_cache=prompt_cache,
    )
    nll = result.nll.cpu()
    between, accumulation, into_question, from_prompt, row_share = (
        torch.stack(layers, dim=1).cpu() for layers in zip(*result.layers, strict=True)
    )
    ids = [run.problem.id for run in runs]
    return {
        "flow": groups.flow_frame(between, ids),
        "accumulation": accumulation_frame(accumulation, into_question, ids, sinks),
        "tokens": tokens_frame(tokenizer_of(model), runs, segments, from_prompt, row_share, nll),
        "instances": instances_frame(runs, segments, nll),
    }
