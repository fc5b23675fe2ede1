"""Time and memory of `analyse` compared with what a user would write: part of `make bench`.

(a0) Hugging Face's model with fused attention (SDPA): forward and backward to the prompt, logits only where the loss of
     docs/method.md, section 2, is: the yardstick
(a)  the same on the HookedTransformer, no hooks, with patterns and the logits of all positions
(b)  `dpc.analyse`: all layers, all segment statistics and the frames;  (b') the same with gradient checkpointing
(c)  TransformerLens: `run_with_cache(incl_bwd=True)` of every pattern, with the model's own loss, then the statistics
(d)  a parameter of ones times each pattern, as in the code of Wang et al. (2023), then the statistics

All variants read the same batch, in one process, in turn, (a) to (d) on the same HookedTransformer; ratios are taken
round by round. Peaks are measured in a separate pass, above the weights. They count every allocation of torch (recorded
by its profiler, or by its allocator on a GPU), so they do not depend on other processes or on what malloc caches.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from decoding import hugging_face_model
from results import machine, write_section
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from transformer_lens import HookedTransformer
from transformers import PreTrainedModel

import dpc_interp as dpc
from dpc_interp.analysis.flow import PositionGroups
from dpc_interp.analysis.recorder import FlowBlock
from dpc_interp.analysis.segments import segment
from dpc_interp.evaluation.tables import markdown
from dpc_interp.execution.memory_plan import estimate_bytes
from dpc_interp.generation.transcript import make_transcript
from dpc_interp.models.encoding import encode_question
from dpc_interp.prompts.embed_hooks import with_placeholders, write_prompt

N_VIRTUAL = 20
MODELS = {"reasoner": 16, "smollm2-135m": 1}
"""Sequences in a batch."""
LENGTHS = (128, 512, 1024, 2048, 4096, 8192)
DEPTHS = (4, 8, 15)
"""Blocks of a SmolLM2 that is cut off, for the growth with depth."""
DEPTH_POSITIONS = 512
VARIANTS = ("a0", "a", "b", "b'", "c", "d")
LONGEST = {"a0": 4096, "a": 1024, "b": 4096, "b'": 8192, "c": 1024, "d": 1024}
"""The largest number of positions at which a variant is measured."""
MEASUREMENTS = Path(__file__).parent / "analyse.csv"
KEY = ["model", "layers", "positions", "variant"]
TIME_BOUNDS = {"reasoner": {128: 1.10, 512: 1.10}, "smollm2-135m": {512: 1.20, 1024: 1.15, 2048: 1.15, 4096: 1.12}}
LARGEST_PEAK = {8192: 8e9}
"""Bytes above the weights that (b') may need."""
SINGLE_ROUND = 8192
"""From this length on, one round."""
DESCRIPTIONS = {
    "a0": "Hugging Face, SDPA",
    "a": "plain forward and backward",
    "b": "analyse",
    "b'": "analyse, checkpointed",
    "c": "run_with_cache(incl_bwd=True)",
    "d": "parameters of ones",
}


@dataclass(frozen=True)
class Batch:
    """Sequences of one length, each after a prompt."""

    hf_model: PreTrainedModel
    model: HookedTransformer
    prompt: dpc.SoftPrompt
    runs: list[dpc.Transcript]
    groups: PositionGroups

    @property
    def tokens(self) -> Tensor:
        """Questions and rationales [batch, pos]."""
        rows = [torch.cat([run.question_tokens, run.generated_tokens]) for run in self.runs]
        return torch.stack(rows).to(self.model.cfg.device)

    def loss(self, logits: Tensor) -> Tensor:
        """The sum over rows of the mean NLL of the tokens after the question."""
        n_question = len(self.runs[0].question_tokens)
        labels = self.tokens[:, n_question:]
        label_logits = logits[:, N_VIRTUAL + n_question - 1 : -1]
        nll = cross_entropy(label_logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
        return nll.view(labels.shape).mean(1).sum()


def hugging_face(batch: Batch) -> None:
    """Run variant (a0): Hugging Face's model, with logits of the positions in the loss."""
    vectors = batch.prompt.vectors.clone().requires_grad_()
    n_predicted = len(batch.runs[0].generated_tokens)
    embeds = batch.hf_model.get_input_embeddings()(batch.tokens)
    embeds = torch.cat([vectors.expand(len(embeds), -1, -1), embeds], dim=1)
    output: Any = batch.hf_model(inputs_embeds=embeds, use_cache=False, logits_to_keep=n_predicted + 1)
    labels = batch.tokens[:, -n_predicted:]
    nll = cross_entropy(output.logits[:, :-1].flatten(0, 1).float(), labels.flatten(), reduction="none")
    torch.autograd.grad(nll.view(labels.shape).mean(1).sum(), vectors)


def plain(batch: Batch) -> None:
    """Run variant (a): plain forward and backward."""
    vectors = batch.prompt.vectors.clone().requires_grad_()
    with batch.model.hooks(fwd_hooks=[("hook_embed", write_prompt(vectors))]):
        logits = batch.model(with_placeholders(batch.tokens, N_VIRTUAL))
    torch.autograd.grad(batch.loss(logits), vectors)


def analyse(batch: Batch, gradient_checkpointing: bool = False) -> Tensor:
    """Run variants (b) and (b'); returns the accumulation."""
    analysis = dpc.analyse(
        batch.model,
        batch.runs,
        batch.prompt,
        batch_size=len(batch.runs),
        gradient_checkpointing=gradient_checkpointing,
        progress=False,
    )
    return torch.tensor(analysis.accumulation["value"].to_numpy())


def cached(batch: Batch) -> Tensor:
    """Run variant (c): the cache of TransformerLens; returns the accumulation."""
    vectors = batch.prompt.vectors.clone().requires_grad_()
    with batch.model.hooks(fwd_hooks=[("hook_embed", write_prompt(vectors))]):
        _, cache = batch.model.run_with_cache(
            with_placeholders(batch.tokens, N_VIRTUAL),
            return_type="loss",
            incl_bwd=True,
            names_filter=lambda name: name.endswith("hook_pattern"),
        )
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(batch.model.cfg.n_layers)]
    return statistics_of(batch, [(cache[name] * cache[f"{name}_grad"]).sum(1).abs() for name in names])


def ones(batch: Batch) -> Tensor:
    """Run variant (d): parameters of ones; returns the accumulation."""
    parameters: list[Tensor] = []

    def multiply(pattern: Tensor, hook: object) -> Tensor:
        parameters.append(torch.ones_like(pattern, requires_grad=True))
        return pattern * parameters[-1]

    hooks = [("hook_embed", write_prompt(batch.prompt.vectors)), (lambda name: name.endswith("hook_pattern"), multiply)]
    with batch.model.hooks(fwd_hooks=hooks):
        loss = batch.loss(batch.model(with_placeholders(batch.tokens, N_VIRTUAL)))
        grads = torch.autograd.grad(loss, parameters)
    return statistics_of(batch, [grad.sum(1).abs() for grad in grads])


def statistics_of(batch: Batch, flows: list[Tensor]) -> Tensor:
    """Compute the segment statistics of every layer, as `analyse` does; returns accumulation in its order."""
    for flow in flows:
        flow.diagonal(dim1=1, dim2=2).zero_()
    everywhere = slice(0, flows[0].shape[1])
    reduced = [batch.groups.reduce([FlowBlock(everywhere, everywhere, flow)]) for flow in flows]
    return torch.stack([layer.accumulation for layer in reduced], dim=1).flatten().cpu()


RUN_VARIANT: dict[str, Callable[[Batch], Any]] = {
    "a0": hugging_face,
    "a": plain,
    "b": analyse,
    "b'": lambda batch: analyse(batch, gradient_checkpointing=True),
    "c": cached,
    "d": ones,
}


def peak_bytes(work: Callable[[], object]) -> int:
    """The peak of the bytes held by tensors, above those held before."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        work()
    held = peak = 0
    events = [e for e in measured.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor


def batch_of(hf_model: PreTrainedModel, model: HookedTransformer, prompt: dpc.SoftPrompt, length: int, n: int) -> Batch:
    """`n` transcripts of `length` positions with their prompt, composed of rationales of the task `story`."""
    tokenizer, runs = model.tokenizer, []
    problems = dpc.load_problems("story", n=60)
    end = [*tokenizer("\n#### 17", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    for i in range(n):
        question = encode_question(model, problems[0].question)
        lines = [line for p in problems[i:] for line in p.rationale.split("\n") if line and "####" not in line]
        paired = [f"{first}, {second}" for first, second in pairwise(lines)]
        ids = tokenizer("\n".join(islice(cycle(paired), length)), add_special_tokens=False).input_ids
        room = length - N_VIRTUAL - len(question) - len(end)
        run = make_transcript(model, problems[0], question, torch.tensor(ids[:room] + end))
        runs.append(replace(run, problem=replace(run.problem, id=f"story-{i}")))
    layouts = [segment(run, tokenizer, N_VIRTUAL) for run in runs]
    return Batch(
        hf_model, model, prompt, runs, PositionGroups.from_segments(layouts, length, torch.device(model.cfg.device))
    )


def measure(name: str, batch: Batch, length: int, rounds: int) -> list[dict[str, Any]]:
    """Measure the peaks of one batch, which also warms up, then the times of interleaved rounds."""
    variants = [variant for variant in VARIANTS if length <= LONGEST[variant]]
    rounds = rounds if length < SINGLE_ROUND else 1
    peaks: dict[str, int] = {}
    accumulation: dict[str, Any] = {}
    for variant in variants:
        peaks[variant] = peak_bytes(lambda v=variant: accumulation.__setitem__(v, RUN_VARIANT[v](batch)))
        print(f"{name} {length} ({variant}) {peaks[variant] / 1e6:,.0f} MB", flush=True)
    for variant in {"b'", "d"}.intersection(variants) if "b" in variants else ():  # (c) has another loss
        expected = accumulation["b"]
        torch.testing.assert_close(accumulation[variant], expected, rtol=1e-3, atol=1e-3 * expected.max().item())
    times: dict[str, list[tuple[float, float]]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            times[variant].append(seconds(lambda v=variant: RUN_VARIANT[v](batch)))
        print(name, length, {v: tuple(round(x, 2) for x in times[v][-1]) for v in variants}, flush=True)

    def ratio(variant: str, clock: int) -> float:
        if "a0" not in times:
            return math.nan
        pairs = zip(times[variant], times["a0"], strict=True)
        return statistics.median(ours[clock] / theirs[clock] for ours, theirs in pairs)

    n_predicted = len(batch.runs[0].generated_tokens)
    return [
        {
            "model": name,
            "layers": batch.model.cfg.n_layers,
            "positions": length,
            "batch": len(batch.runs),
            "variant": v,
            "seconds": statistics.median(wall for wall, _ in times[v]),
            "time / (a0)": ratio(v, 0),
            "processor time / (a0)": ratio(v, 1),
            "peak": peaks[v],
            "peak / (a0)": peaks[v] / peaks.get("a0", math.nan),
            "estimate": estimate_bytes(batch.model, len(batch.runs), length, n_predicted, v == "b'")
            if v[0] == "b"
            else 0,
            "rounds": rounds,
            "date": date.today().isoformat(),
        }
        for v in variants
    ]


def store(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Write measurements into analyse.csv, in place of those of the same pass; returns all of them."""
    stored = pd.DataFrame(rows)
    if MEASUREMENTS.exists():
        stored = pd.concat([pd.read_csv(MEASUREMENTS), stored]).drop_duplicates(KEY, keep="last")
    order = {variant: i for i, variant in enumerate(VARIANTS)}
    stored = stored.sort_values(KEY, key=lambda c: c.map(order) if c.name == "variant" else c)
    stored.to_csv(MEASUREMENTS, index=False, float_format="%.6g")
    return stored


@contextmanager
def cut_off(hf_model: PreTrainedModel, model: HookedTransformer, n_layers: int) -> Iterator[None]:
    """Both models without their blocks from `n_layers` on."""
    blocks: tuple[Any, ...] = (model.blocks, cast(Any, hf_model).model.layers)
    removed, depth = [list(b[n_layers:]) for b in blocks], model.cfg.n_layers
    for b in blocks:
        del b[n_layers:]
    model.cfg.n_layers = n_layers
    try:
        yield
    finally:
        for b, rest in zip(blocks, removed, strict=True):
            b.extend(rest)
        model.cfg.n_layers = depth


def random_prompt(model: HookedTransformer) -> dpc.SoftPrompt:
    """A prompt of random rows of the embedding matrix."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(model.cfg.d_vocab, (N_VIRTUAL,), generator=generator)
    return dpc.SoftPrompt(model.W_E[rows.to(model.W_E.device)].detach().float().clone())


def table(rows: list[dict[str, Any]]) -> str:
    """The measurements as a Markdown table, ratios first."""

    def ratio(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.2f}"

    cells = [
        {
            "positions": r["positions"],
            "batch": r["batch"],
            "variant": f"({r['variant']}) {DESCRIPTIONS[r['variant']]}",
            "time / (a0)": ratio(r["time / (a0)"]),
            "processor time / (a0)": ratio(r["processor time / (a0)"]),
            "peak / (a0)": ratio(r["peak / (a0)"]),
            "seconds": f"{r['seconds']:.2f}",
            "peak, MB": f"{r['peak'] / 1e6:,.0f}",
            "estimated, MB": f"{r['estimate'] / 1e6:,.0f}" if r["estimate"] else "",
            "rounds": r["rounds"],
            "date": r["date"],
        }
        for r in rows
    ]
    return markdown(pd.DataFrame(cells))


def verdicts(name: str, rows: list[dict[str, Any]]) -> str:
    """The bounds that were set before measuring, each with its measured value."""
    lines = []

    def line(text: str, value: float, bound: float) -> None:
        lines.append(f"- {'holds' if value <= bound else 'FAILS'}: {text}: {value:.2f} (bound {bound:.2f})")

    for r in rows:
        length = r["positions"]
        if r["variant"] == "b" and length in TIME_BOUNDS[name]:
            line(f"time of (b) / (a0), {length} positions", r["time / (a0)"], TIME_BOUNDS[name][length])
            line(f"peak of (b) / (a0), {length} positions", r["peak / (a0)"], 1.10)
        if r["variant"] == "b'" and length in LARGEST_PEAK:
            line(f"peak of (b'), {length} positions, GB", r["peak"] / 1e9, LARGEST_PEAK[length] / 1e9)
        if r["variant"] == "b'" and name != "reasoner" and length in TIME_BOUNDS[name]:
            line(f"time of (b') / (a0), {length} positions", r["time / (a0)"], 1.45)
            line(f"peak of (b') / (a0), {length} positions", r["peak / (a0)"], 0.35)
    return "\n".join(lines)


def report(name: str, measurements: pd.DataFrame, left_out: list[str]) -> str:
    """The section of one model in RESULTS.md."""
    of_model = measurements[measurements["model"] == name]
    is_full_depth = of_model["layers"] == of_model["layers"].max()
    rows: list[dict[str, Any]] = of_model[is_full_depth].to_dict("records")  # type: ignore[assignment]
    variants = "\n".join(f"- ({v}) {DESCRIPTIONS[v]}" for v in VARIANTS)
    missing = f"Left out: {' '.join(left_out)}" if left_out else ""
    return f"""{verdicts(name, rows)}

{table(rows)}

{variants}

(a0) is the cheapest pass that a user would write. (b) shares the prompt among the rows of a batch, and its backward
pass ends at the first layer's attention, so its peak can lie below that of (a0). (c) has the model's own loss, over all
positions. (d) is a hook on the same model, so that only the method differs. Variants with patterns end at
{LONGEST["d"]} positions, those without checkpointing at {LONGEST["b"]}. Time: medians of interleaved rounds (one round
from {SINGLE_ROUND} positions on), ratios round by round; processor time depends less on other processes.
Peak: bytes of tensors above the weights, every allocation counted by torch; estimated: the formula of `plan_memory`.
The statistics of (b), (b') and (d) were compared where (b) was run, and agree to 0.001. {missing}

{machine()}"""


def main() -> None:
    """Measure the analysis of each model; write one section of RESULTS.md a model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--depths", nargs="*", type=int, default=list(DEPTHS), help="blocks of a SmolLM2 cut off")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name in args.models:
        model = dpc.load_model(name)
        prompt = dpc.load_prompt("reasoner/story") if name == "reasoner" else random_prompt(model)
        fitting = [length for length in args.lengths if length <= model.cfg.n_ctx]
        left_out = [f"{n} positions, the context ends at {model.cfg.n_ctx}." for n in args.lengths if n not in fitting]
        hf_model = hugging_face_model(name).requires_grad_(False)
        for length in fitting:
            batch = batch_of(hf_model, model, prompt, length, MODELS[name])
            # written after each length, so that an interrupted run leaves the finished lengths
            measurements = store(measure(name, batch, length, args.rounds))
            write_section(f"The analysis: {name}", report(name, measurements, left_out))
        for n_layers in args.depths if name != "reasoner" else ():
            with cut_off(hf_model, model, n_layers):
                batch = batch_of(hf_model, model, prompt, DEPTH_POSITIONS, 1)
                store(measure(name, batch, DEPTH_POSITIONS, args.rounds))


if __name__ == "__main__":
    main()
