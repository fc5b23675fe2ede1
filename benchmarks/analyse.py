"""Time and memory of `analyse` against what a user would write: part of `make bench`.

(a)  plain forward and backward to the prompt, no hooks: logits of all positions, the loss of METHOD 2
(b)  `dpc.analyse`: all layers, all segment statistics, frames and all;  (b') the same, checkpointed
(c)  TransformerLens: `run_with_cache(incl_bwd=True)` of every pattern, with the model's own loss, then the statistics
(d)  a parameter of ones times each pattern, as the code of Wang et al. (2023) has it, then the statistics

All read the same batch on the same HookedTransformer, in one process, in turn; ratios are taken round by round. Peaks
count every allocation of torch (its profiler records them; on a GPU its allocator's counter): exact, whatever else runs
on the machine and whatever malloc keeps. They are above the weights, and of a pass of their own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice, pairwise
from typing import Any

import pandas as pd
import torch
from results import machine, write_section
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from transformer_lens import HookedTransformer, HookedTransformerConfig

import dpc_interp as dpc
from dpc_interp.analysis.flow import Groups
from dpc_interp.analysis.memory import estimate
from dpc_interp.analysis.segments import segment
from dpc_interp.evaluation.tables import markdown
from dpc_interp.lm.generation import question_tokens, transcript
from dpc_interp.lm.soft_prompt import with_placeholders, write_prompt

N_VIRTUAL = 20
MODELS = {"reasoner": 16, "smollm2-135m": 1}
"""Sequences in a batch."""
LENGTHS = (128, 512, 1024)
VARIANTS = ("a", "b", "b'", "c", "d")
WHAT = {
    "a": "plain forward and backward",
    "b": "analyse",
    "b'": "analyse, checkpointed",
    "c": "run_with_cache(incl_bwd=True)",
    "d": "parameters of ones",
}


@dataclass(frozen=True)
class Batch:
    """Sequences of one length behind a prompt."""

    model: HookedTransformer
    prompt: dpc.SoftPrompt
    runs: list[dpc.Transcript]
    groups: Groups

    @property
    def tokens(self) -> Tensor:
        """Questions and rationales [batch, pos]."""
        rows = [torch.cat([run.question_tokens, run.generated_tokens]) for run in self.runs]
        return torch.stack(rows).to(self.model.cfg.device)

    def loss(self, logits: Tensor) -> Tensor:
        """The sum over rows of each row's mean NLL behind the question."""
        first = len(self.runs[0].question_tokens)
        told, told_from = self.tokens[:, first:], logits[:, N_VIRTUAL + first - 1 : -1]
        nll = cross_entropy(told_from.flatten(0, 1).float(), told.flatten(), reduction="none")
        return nll.view(told.shape).mean(1).sum()


def plain(batch: Batch) -> None:
    """(a)"""
    vectors = batch.prompt.vectors.clone().requires_grad_()
    with batch.model.hooks(fwd_hooks=[("hook_embed", write_prompt(vectors))]):
        logits = batch.model(with_placeholders(batch.tokens, N_VIRTUAL))
    torch.autograd.grad(batch.loss(logits), vectors)


def analyse(batch: Batch, checkpoint: bool = False) -> Tensor:
    """(b) and (b')"""
    found = dpc.analyse(
        batch.model, batch.runs, batch.prompt, batch_size=len(batch.runs), checkpoint=checkpoint, progress=False
    )
    return torch.tensor(found.accumulation["value"].to_numpy())


def cached(batch: Batch) -> Tensor:
    """(c)"""
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
    """(d)"""
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
    """The segment statistics of every layer; accumulation in the order of `analyse`."""
    for flow in flows:
        flow.diagonal(dim1=1, dim2=2).zero_()
    reduced = [batch.groups.reduce(flow) for flow in flows]
    return torch.stack([accumulation for _, accumulation, _ in reduced], dim=1).flatten().cpu()


RUN: dict[str, Callable[[Batch], Any]] = {
    "a": plain,
    "b": analyse,
    "b'": lambda batch: analyse(batch, checkpoint=True),
    "c": cached,
    "d": ones,
}


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes of tensors held at once, above those held before."""
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


def batch_of(model: HookedTransformer, prompt: dpc.SoftPrompt, length: int, n: int) -> Batch:
    """`n` transcripts of `length` positions with their prompt, written from the rationales of the story task."""
    tokenizer, runs = model.tokenizer, []
    problems = dpc.load_problems("story", n=60)
    end = [*tokenizer("\n#### 17", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    for i in range(n):
        question = question_tokens(model, problems[0].question)
        lines = [line for p in problems[i:] for line in p.rationale.split("\n") if line and "####" not in line]
        paired = [f"{first}, {second}" for first, second in pairwise(lines)]
        ids = tokenizer("\n".join(islice(cycle(paired), length)), add_special_tokens=False).input_ids
        room = length - N_VIRTUAL - len(question) - len(end)
        run = transcript(model, problems[0], question, torch.tensor(ids[:room] + end))
        runs.append(replace(run, problem=replace(run.problem, id=f"story-{i}")))
    layouts = [segment(run, tokenizer, N_VIRTUAL) for run in runs]
    return Batch(model, prompt, runs, Groups.of(layouts, length, torch.device(model.cfg.device)))


def measure(name: str, batch: Batch, length: int, rounds: int) -> list[dict[str, Any]]:
    """Peaks, which warm up too, then interleaved rounds of one batch."""
    peaks: dict[str, int] = {}
    found: dict[str, Any] = {}
    for variant in VARIANTS:
        peaks[variant] = peak_bytes(lambda v=variant: found.__setitem__(v, RUN[v](batch)))
        print(f"{name} {length} ({variant}) {peaks[variant] / 1e6:,.0f} MB", flush=True)
    for variant in ("b'", "d"):  # (c) has another loss
        torch.testing.assert_close(found[variant], found["b"], rtol=1e-3, atol=1e-3 * found["b"].max().item())
    taken: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(rounds):
        for variant in VARIANTS:
            taken[variant].append(seconds(lambda v=variant: RUN[v](batch)))
        print(name, length, {v: tuple(round(x, 2) for x in taken[v][-1]) for v in VARIANTS}, flush=True)

    def ratio(variant: str, to: str, clock: int) -> float:
        return statistics.median(x[clock] / y[clock] for x, y in zip(taken[variant], taken[to], strict=True))

    n_written = len(batch.runs[0].generated_tokens)
    return [
        {
            "positions": length,
            "batch": len(batch.runs),
            "variant": v,
            "seconds": statistics.median(wall for wall, _ in taken[v]),
            "time / (a)": ratio(v, "a", 0),
            "processor time / (a)": ratio(v, "a", 1),
            "time of (b) / its": ratio("b", v, 0),
            "peak": peaks[v],
            "peak / (a)": peaks[v] / peaks["a"],
            "extra": peaks[v] - peaks["a"],
            "estimate": estimate(batch.model, len(batch.runs), length, n_written, v == "b'") if v[0] == "b" else 0,
        }
        for v in VARIANTS
    ]


def depth(model: HookedTransformer, length: int) -> dict[int, int]:
    """Peak of (b') at 3 layers and at all, weights as they are and positions the same."""
    prompt = random_prompt(model)
    cfg = HookedTransformerConfig.from_dict(model.cfg.to_dict() | {"n_layers": 3, "init_weights": False})
    shallow = HookedTransformer(cfg, tokenizer=None)
    shallow.load_state_dict({k: v for k, v in model.state_dict().items() if k in shallow.state_dict()})
    shallow.tokenizer = model.tokenizer
    shallow.eval().requires_grad_(False)
    return {m.cfg.n_layers: peak_bytes(lambda m=m: RUN["b'"](batch_of(m, prompt, length, 1))) for m in (shallow, model)}


def random_prompt(model: HookedTransformer) -> dpc.SoftPrompt:
    """Vectors as large as the model's own."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(model.cfg.d_vocab, (N_VIRTUAL,), generator=generator)
    return dpc.SoftPrompt(model.W_E[rows.to(model.W_E.device)].detach().float().clone())


def table(rows: list[dict[str, Any]]) -> str:
    """Ratios first."""
    cells = [
        {
            "positions": r["positions"],
            "batch": r["batch"],
            "variant": f"({r['variant']}) {WHAT[r['variant']]}",
            "time / (a)": f"{r['time / (a)']:.2f}",
            "processor time / (a)": f"{r['processor time / (a)']:.2f}",
            "peak / (a)": f"{r['peak / (a)']:.2f}",
            "extra, MB": f"{r['extra'] / 1e6:+,.0f}",
            "seconds": f"{r['seconds']:.2f}",
            "peak, MB": f"{r['peak'] / 1e6:,.0f}",
            "estimated, MB": f"{r['estimate'] / 1e6:,.0f}" if r["estimate"] else "",
        }
        for r in rows
    ]
    return markdown(pd.DataFrame(cells))


def verdicts(rows: list[dict[str, Any]], depths: dict[int, int]) -> str:
    """The bounds set beforehand, each with what was measured."""
    by = {(r["positions"], r["variant"]): r for r in rows}
    lines = []

    def line(text: str, value: float, bound: float) -> None:
        lines.append(f"- {'holds' if value <= bound else 'FAILS'}: {text}: {value:.2f} (bound {bound:.2f})")

    for (length, variant), r in by.items():
        if variant == "b":
            line(f"time of (b) / (a), {length} positions", r["time / (a)"], 1.10)
    if depths:  # the model large enough that these were asked of it
        longest = max(r["positions"] for r in rows)
        ours, again = (by[longest, v] for v in ("b", "b'"))
        for v in ("c", "d"):
            other = by[longest, v]
            line(f"time of (b) / ({v}), {longest} positions", other["time of (b) / its"], 1.0)
            if other["extra"] > 0:
                line(f"extra memory of (b) / ({v}), the same", max(ours["extra"], 0) / other["extra"], 0.1)
            else:
                line(f"peak of (b) / ({v}), which needs no more than (a), the same", ours["peak"] / other["peak"], 1.0)
        line("peak of (b') / (a), the same", again["peak / (a)"], 0.25)
        line("time of (b') / (a), the same", again["time / (a)"], 1.5)
        few, many = sorted(depths)
        line(f"peak of (b') at {many} layers / at {few}, the same", depths[many] / depths[few], 1.5)
    return "\n".join(lines)


def report(name: str, rows: list[dict[str, Any]], depths: dict[int, int], left_out: list[str], rounds: int) -> str:
    """The section of one model."""
    variants = "\n".join(f"- ({v}) {WHAT[v]}" for v in VARIANTS)
    missing = f"Left out: {' '.join(left_out)}" if left_out else ""
    rows = sorted(rows, key=lambda r: r["positions"])  # stable: the variants stay in order
    return f"""{verdicts(rows, depths)}

{table(rows)}

{variants}

(a) is written as a user would: logits of every position, a gradient to the prompt. (b) makes logits of the positions in
the loss alone, its backward pass ends at the first pattern and leaves the prompt out, and scores are scaled and masked
with fewer numbers read (`lm/cache.py`); so its time and its peak can lie below those of (a).
(c) has the model's own loss, over all positions. (d) is a hook on the same model, so that what differs is the method.
Time: medians of {rounds} interleaved rounds, ratios round by round; processor time is less disturbed by what else runs.
Peak: bytes of tensors above the weights, every allocation counted by torch; extra: above the peak of (a); estimated:
the formula of `plan_memory`. The statistics of (b), (b') and (d) were compared and agree to 0.001. {missing}

{machine()}"""


def main() -> None:
    """Measure, and write one section of RESULTS.md a model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name in args.models:
        model = dpc.load_model(name)
        prompt = dpc.load_prompt("reasoner/story") if name == "reasoner" else random_prompt(model)
        fitting = [length for length in args.lengths if length <= model.cfg.n_ctx]
        left_out = [f"{n} positions, the context ends at {model.cfg.n_ctx}." for n in args.lengths if n not in fitting]
        depths = {} if name == "reasoner" else depth(model, max(fitting))
        rows: list[dict[str, Any]] = []
        for length in fitting:
            rows += measure(name, batch_of(model, prompt, length, MODELS[name]), length, args.rounds)
            # written as it grows: a run that is cut off leaves what it has
            write_section(f"The analysis: {name}", report(name, rows, depths, left_out, args.rounds))


if __name__ == "__main__":
    main()
