"""Many transcripts, one backward pass a batch, tidy frames (METHOD 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from dpc_interp.analysis.batches import ends
from dpc_interp.analysis.flow import Groups
from dpc_interp.analysis.memory import BATCH_SIZE, plan_memory
from dpc_interp.analysis.saliency import HeadReduction, flow_pass, saliency
from dpc_interp.analysis.segments import Segments, segment
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.lm.generation import Transcript, transcript
from dpc_interp.lm.hooked import HookedModel, tokenizer_of
from dpc_interp.lm.oom import in_batches
from dpc_interp.lm.prefix import can_be_shared, read_prompt
from dpc_interp.lm.soft_prompt import SoftPrompt, check_length, check_prompt
from dpc_interp.tasks.problems import check_distinct

Target = Literal["generated", "gold"]
"""Whose rationale the loss is taken on: the model's own, or the written one."""


@dataclass(frozen=True)
class SaliencyMap:
    """One instance: `values` float32 [layer, destination, source], segments and token strings (virtual: <P0>)."""

    values: Float[Tensor, "layer dest src"]
    segments: Segments
    tokens: list[str]


@dataclass(frozen=True)
class Analysis:
    """The frames of `analyse` and the options that made them.

    `flow`: instance, layer, source, source_step, destination, step, value (-1: the whole segment).
    `accumulation`: instance, layer, virtual_token, value.
    `tokens`: instance, layer, position (in the rationale), token, step, late, value (mean flow from the prompt), nll.
    `instances`: instance, task, correct, n_steps, n_rationale_tokens, nll (mean over rationale, answer and stop),
    answer_nll (of the answer's last token; where there is no answer, of the last token before the stop), both in nats.
    """

    flow: pd.DataFrame
    accumulation: pd.DataFrame
    tokens: pd.DataFrame
    instances: pd.DataFrame
    options: dict[str, str | int | bool]

    @property
    def n_layers(self) -> int:
        """Layers of the analysed model."""
        return int(self.accumulation["layer"].max()) + 1

    @property
    def n_virtual(self) -> int:
        """Virtual tokens of the analysed prompt."""
        return int(self.accumulation["virtual_token"].max()) + 1


def saliency_map(
    model: HookedModel,
    run: Transcript,
    prompt: SoftPrompt,
    *,
    head_reduction: HeadReduction = "abs_of_sum",
    checkpoint: bool = False,
) -> SaliencyMap:
    """The saliency of one transcript with its segments and token strings; see `saliency` for values and errors."""
    tokenizer = tokenizer_of(model)
    layout = segment(run, tokenizer, prompt.n_virtual)
    _refuse_empty([run], [layout])
    tokens = torch.cat([run.question_tokens, run.generated_tokens])
    n_question = len(run.question_tokens)
    values = saliency(model, tokens, prompt, n_question, head_reduction=head_reduction, checkpoint=checkpoint)
    strings = [f"<P{j}>" for j in range(prompt.n_virtual)] + [str(tokenizer.decode([i])) for i in tokens.tolist()]
    return SaliencyMap(values.cpu(), layout, strings)


def analyse(
    model: HookedModel,
    runs: Sequence[Transcript],
    prompt: SoftPrompt,
    *,
    target: Target = "generated",
    head_reduction: HeadReduction = "abs_of_sum",
    batch_size: int | None = None,
    checkpoint: bool | None = None,
    progress: bool = True,
) -> Analysis:
    """Flow, accumulation and per-token prompt flow of many transcripts.

    Args:
        runs: transcripts made with `prompt`; each must have a rationale (`with_rationale` drops the others).
        target: the loss on the model's own tokens (default; needs no label) or on the problem's written rationale.
        head_reduction: see `saliency`.
        batch_size: the most sequences in one forward and backward pass, fewer on a CPU where padding would cost more
            than a pass; halved, with a warning, where memory runs out.
        checkpoint: run each block again in the backward pass instead of keeping its activations. Values depend on
            neither of the two; None: as `plan_memory` has it, which is said where it is not plain batches of 16.

    Raises:
        DPCInterpError: an empty rationale, no runs, or what `saliency` refuses; all before the first pass where it can
            be known. Sequences too long for the memory there is.
    """
    if not runs:
        raise DPCInterpError("there are no runs to analyse; generate some first")
    if target not in get_args(Target):
        raise UnknownNameError("target", target, get_args(Target))
    check_distinct([run.problem for run in runs])
    check_prompt(model, prompt.vectors)
    if target == "gold":
        runs = [gold_transcript(model, run) for run in runs]
    layouts = [segment(run, tokenizer_of(model), prompt.n_virtual) for run in runs]
    _refuse_empty(runs, layouts)
    check_length(model, max(layout.length for layout in layouts))
    plan = plan_memory(
        model,
        [layout.length for layout in layouts],
        n_predicted=max(len(run.generated_tokens) for run in runs),
        batch_size=batch_size,
        checkpoint=checkpoint,
    )
    if batch_size is None and not plan.fits:
        raise DPCInterpError(f"{plan}; free some, shorten the sequences, or give batch_size=1 to try all the same")
    order = sorted(range(len(runs)), key=lambda i: (layouts[i].length, i))

    options: dict[str, Any] = {"head_reduction": head_reduction, "checkpoint": plan.checkpoint}
    if len(runs) > 1 and not plan.checkpoint and can_be_shared(model, max(layout.length for layout in layouts)):
        with torch.no_grad():
            options["behind"] = read_prompt(model, prompt.vectors, 1)

    def work(chosen: Sequence[int]) -> _BatchFrames:
        return _analyse_batch(model, [runs[i] for i in chosen], [layouts[i] for i in chosen], prompt, options)

    mend = "shorten it, or take a smaller dtype" if plan.checkpoint else "use checkpoint=True"
    parts: list[_BatchFrames] = []
    with tqdm(total=len(runs), desc="analyse", unit="instance", disable=not progress, leave=False) as bar:
        if progress and (plan.checkpoint or plan.batch_size < min(BATCH_SIZE, len(runs))):
            bar.write(f"analyse: {plan}")
        cuts = ends(model, [layouts[i].length for i in order], plan.batch_size)
        for chosen, part in in_batches(order, plan.batch_size, work, mend, cuts):
            parts.append(part)
            bar.update(len(chosen))
    rank = {run.problem.id: i for i, run in enumerate(runs)}

    def joined(name: str) -> pd.DataFrame:
        frame = pd.concat([getattr(part, name) for part in parts], ignore_index=True)
        return frame.sort_values("instance", key=lambda ids: ids.map(rank), kind="stable", ignore_index=True)

    told: dict[str, str | int | bool] = {"target": target, "head_reduction": head_reduction, "prompt": prompt.name}
    return Analysis(joined("flow"), joined("accumulation"), joined("tokens"), joined("instances"), told)


def with_rationale(runs: Sequence[Transcript], model: HookedModel) -> list[Transcript]:
    """The transcripts that have a rationale before their answer; only these can be analysed."""
    return [run for run in runs if segment(run, tokenizer_of(model), 0).steps]


def gold_transcript(model: HookedModel, run: Transcript) -> Transcript:
    """The problem's written rationale as if the model had written it; `correct` stays that of the run."""
    tokenizer = tokenizer_of(model)
    ids = tokenizer(run.problem.rationale, add_special_tokens=False).input_ids
    gold = transcript(model, run.problem, run.question_tokens, torch.tensor([*ids, tokenizer.eos_token_id]))
    return Transcript(gold.problem, gold.question_tokens, gold.generated_tokens, gold.text, gold.answer, run.correct)


def _refuse_empty(runs: Sequence[Transcript], layouts: Sequence[Segments]) -> None:
    for run, layout in zip(runs, layouts, strict=True):
        if not layout.steps:
            raise DPCInterpError(f"{run.problem.id} has an empty rationale; keep only dpc.with_rationale(runs, model)")


@dataclass(frozen=True)
class _BatchFrames:
    flow: pd.DataFrame
    accumulation: pd.DataFrame
    tokens: pd.DataFrame
    instances: pd.DataFrame


def _analyse_batch(
    model: HookedModel,
    runs: list[Transcript],
    layouts: list[Segments],
    prompt: SoftPrompt,
    options: dict[str, Any],
) -> _BatchFrames:
    width = max(layout.length for layout in layouts)
    groups = Groups.of(
        layouts, width, prompt.vectors.device if model.cfg.device is None else torch.device(model.cfg.device)
    )
    reduced: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def reduce(layer: int, flow: Float[Tensor, "batch dest src"]) -> None:
        reduced[layer] = groups.reduce(flow)

    sequences = [torch.cat([run.question_tokens, run.generated_tokens]) for run in runs]
    n_question = [len(run.question_tokens) for run in runs]
    nll = flow_pass(model, sequences, n_question, prompt.vectors, reduce, prompt_rows=False, **options).cpu()
    between, accumulation, from_prompt = (
        torch.stack([reduced[layer][k] for layer in range(model.cfg.n_layers)], dim=1).cpu() for k in range(3)
    )
    ids = [run.problem.id for run in runs]
    return _BatchFrames(
        flow=groups.frame(between, ids),
        accumulation=_accumulation_frame(accumulation, ids),
        tokens=_token_frame(model, runs, layouts, from_prompt, nll),
        instances=_instance_frame(runs, layouts, nll),
    )


def _accumulation_frame(values: Float[Tensor, "batch layer n_virtual"], ids: list[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(
        [ids, range(values.shape[1]), range(values.shape[2])], names=["instance", "layer", "virtual_token"]
    )
    return pd.DataFrame({"value": values.flatten().numpy()}, index=index).reset_index()


def _token_frame(
    model: HookedModel,
    runs: list[Transcript],
    layouts: list[Segments],
    from_prompt: Float[Tensor, "batch layer dest"],
    nll: Float[Tensor, "batch pos"],
) -> pd.DataFrame:
    """The rationales' tokens in every layer; `late` marks the second half of each rationale."""
    n = np.array([layout.rationale[1] - layout.rationale[0] for layout in layouts])
    starts = np.array([layout.rationale[0] for layout in layouts])
    row = np.repeat(np.arange(len(runs)), n)
    t = np.arange(n.sum()) - np.repeat(n.cumsum() - n, n)
    position = starts[row] + t
    ids = np.concatenate([run.generated_tokens[:k].numpy() for run, k in zip(runs, n, strict=True)])
    known, which = np.unique(ids, return_inverse=True)
    steps = [np.repeat(np.arange(len(lay.steps)), [stop - start for start, stop in lay.steps]) for lay in layouts]
    one_layer = pd.DataFrame(
        {
            "instance": np.array([run.problem.id for run in runs], dtype=np.object_)[row],
            "position": t,
            "token": np.array([str(tokenizer_of(model).decode([i])) for i in known.tolist()], dtype=np.object_)[which],
            "step": np.concatenate(steps),
            "late": t >= n[row] // 2,
            "nll": nll.numpy()[row, position],
        }
    )
    values = from_prompt.numpy()
    dest = position - layouts[0].prompt[1]
    return pd.concat(
        [one_layer.assign(layer=layer, value=values[row, layer, dest]) for layer in range(values.shape[1])]
    )


def _instance_frame(runs: list[Transcript], layouts: list[Segments], nll: Float[Tensor, "batch pos"]) -> pd.DataFrame:
    last = [layout.answer[1] - 1 for layout in layouts]  # an empty answer ends where the rationale does
    return pd.DataFrame(
        {
            "instance": [run.problem.id for run in runs],
            "task": [run.problem.task for run in runs],
            "correct": [run.correct for run in runs],
            "n_steps": [run.problem.n_steps for run in runs],
            "n_rationale_tokens": [layout.rationale[1] - layout.rationale[0] for layout in layouts],
            "nll": (nll.sum(1) / torch.tensor([len(run.generated_tokens) for run in runs])).numpy(),
            "answer_nll": nll.numpy()[np.arange(len(runs)), last],
        }
    )
