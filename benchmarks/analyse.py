"""Time and memory of `analyse` compared with what a user would write: part of `make bench`.

(a)  plain forward and backward to the prompt, no hooks: logits of all positions, the loss of docs/method.md, section 2
(b)  `dpc.analyse`: all layers, all segment statistics and the frames;  (b') the same with gradient checkpointing
(c)  TransformerLens: `run_with_cache(incl_bwd=True)` of every pattern, with the model's own loss, then the statistics
(d)  a parameter of ones times each pattern, as in the code of Wang et al. (2023), then the statistics

All variants read the same batch on the same HookedTransformer, in one process, in turn; ratios are taken round by
round. Peaks are measured in a separate pass, above the weights. They count every allocation of torch (recorded by its
profiler, or by its allocator on a GPU), so they do not depend on other processes or on what malloc caches.
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
from dpc_interp.analysis.flow import PositionGroups
from dpc_interp.analysis.segments import segment
from dpc_interp.evaluation.tables import markdown
from dpc_interp.execution.memory_plan import estimate_bytes
from dpc_interp.generation.transcript import make_transcript
from dpc_interp.models.encoding import encode_question
from dpc_interp.prompts.embed_hooks import with_placeholders, write_prompt

N_VIRTUAL = 20
MODELS = {"reasoner": 16, "smollm2-135m": 1}
"""Sequences in a batch."""
LENGTHS = (128, 512, 1024)
VARIANTS = ("a", "b", "b'", "c", "d")
DESCRIPTIONS = {
    "a": "plain forward and backward",
    "b": "analyse",
    "b'": "analyse, checkpointed",
    "c": "run_with_cache(incl_bwd=True)",
    "d": "parameters of ones",
}


@dataclass(frozen=True)
class Batch:
    """Sequences of one length, each after a prompt."""

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
    reduced = [batch.groups.reduce(flow) for flow in flows]
    return torch.stack([accumulation for _, accumulation, _ in reduced], dim=1).flatten().cpu()


RUN_VARIANT: dict[str, Callable[[Batch], Any]] = {
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


def batch_of(model: HookedTransformer, prompt: dpc.SoftPrompt, length: int, n: int) -> Batch:
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
    return Batch(model, prompt, runs, PositionGroups.from_segments(layouts, length, torch.device(model.cfg.device)))


def measure(name: str, batch: Batch, length: int, rounds: int) -> list[dict[str, Any]]:
    """Measure the peaks of one batch, which also warms up, then the times of interleaved rounds."""
    peaks: dict[str, int] = {}
    accumulation: dict[str, Any] = {}
    for variant in VARIANTS:
        peaks[variant] = peak_bytes(lambda v=variant: accumulation.__setitem__(v, RUN_VARIANT[v](batch)))
        print(f"{name} {length} ({variant}) {peaks[variant] / 1e6:,.0f} MB", flush=True)
    expected = accumulation["b"]
    for variant in ("b'", "d"):  # (c) has another loss
        torch.testing.assert_close(accumulation[variant], expected, rtol=1e-3, atol=1e-3 * expected.max().item())
    times: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(rounds):
        for variant in VARIANTS:
            times[variant].append(seconds(lambda v=variant: RUN_VARIANT[v](batch)))
        print(name, length, {v: tuple(round(x, 2) for x in times[v][-1]) for v in VARIANTS}, flush=True)

    def ratio(variant: str, reference: str, clock: int) -> float:
        return statistics.median(x[clock] / y[clock] for x, y in zip(times[variant], times[reference], strict=True))

    n_predicted = len(batch.runs[0].generated_tokens)
    return [
        {
            "positions": length,
            "batch": len(batch.runs),
            "variant": v,
            "seconds": statistics.median(wall for wall, _ in times[v]),
            "time / (a)": ratio(v, "a", 0),
            "processor time / (a)": ratio(v, "a", 1),
            "time of (b) / this": ratio("b", v, 0),
            "peak": peaks[v],
            "peak / (a)": peaks[v] / peaks["a"],
            "extra": peaks[v] - peaks["a"],
            "estimate": estimate_bytes(batch.model, len(batch.runs), length, n_predicted, v == "b'")
            if v[0] == "b"
            else 0,
        }
        for v in VARIANTS
    ]


def depth(model: HookedTransformer, length: int) -> dict[int, int]:
    """Number of layers -> peak of (b'), for the model cut to 3 layers and for the model itself."""
    prompt = random_prompt(model)
    cfg = HookedTransformerConfig.from_dict(model.cfg.to_dict() | {"n_layers": 3, "init_weights": False})
    shallow = HookedTransformer(cfg, tokenizer=None)
    shallow.load_state_dict({k: v for k, v in model.state_dict().items() if k in shallow.state_dict()})
    shallow.tokenizer = model.tokenizer
    shallow.eval().requires_grad_(False)
    return {
        m.cfg.n_layers: peak_bytes(lambda m=m: RUN_VARIANT["b'"](batch_of(m, prompt, length, 1)))
        for m in (shallow, model)
    }


def random_prompt(model: HookedTransformer) -> dpc.SoftPrompt:
    """A prompt of random rows of the embedding matrix."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(model.cfg.d_vocab, (N_VIRTUAL,), generator=generator)
    return dpc.SoftPrompt(model.W_E[rows.to(model.W_E.device)].detach().float().clone())


def table(rows: list[dict[str, Any]]) -> str:
    """The measurements as a Markdown table, ratios first."""
    cells = [
        {
            "positions": r["positions"],
            "batch": r["batch"],
            "variant": f"({r['variant']}) {DESCRIPTIONS[r['variant']]}",
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
    """The bounds that were set before measuring, each with its measured value."""
    by = {(r["positions"], r["variant"]): r for r in rows}
    lines = []

    def line(text: str, value: float, bound: float) -> None:
        lines.append(f"- {'holds' if value <= bound else 'FAILS'}: {text}: {value:.2f} (bound {bound:.2f})")

    for (length, variant), r in by.items():
        if variant == "b":
            line(f"time of (b) / (a), {length} positions", r["time / (a)"], 1.10)
    if depths:  # the bounds below apply to models that are large enough for memory to matter
        longest = max(r["positions"] for r in rows)
        ours, checkpointed = (by[longest, v] for v in ("b", "b'"))
        for v in ("c", "d"):
            other = by[longest, v]
            line(f"time of (b) / ({v}), {longest} positions", other["time of (b) / this"], 1.0)
            if other["extra"] > 0:
                line(f"extra memory of (b) / ({v}), the same", max(ours["extra"], 0) / other["extra"], 0.1)
            else:
                line(f"peak of (b) / ({v}), which needs no more than (a), the same", ours["peak"] / other["peak"], 1.0)
        line("peak of (b') / (a), the same", checkpointed["peak / (a)"], 0.25)
        line("time of (b') / (a), the same", checkpointed["time / (a)"], 1.5)
        fewer, more = sorted(depths)
        line(f"peak of (b') at {more} layers / at {fewer}, the same", depths[more] / depths[fewer], 1.5)
    return "\n".join(lines)


def report(name: str, rows: list[dict[str, Any]], depths: dict[int, int], left_out: list[str], rounds: int) -> str:
    """The section of one model in RESULTS.md."""
    variants = "\n".join(f"- ({v}) {DESCRIPTIONS[v]}" for v in VARIANTS)
    missing = f"Left out: {' '.join(left_out)}" if left_out else ""
    rows = sorted(rows, key=lambda r: r["positions"])  # stable: the variants stay in order
    return f"""{verdicts(rows, depths)}

{table(rows)}

{variants}

(a) is what a user would write: logits of every position, a gradient to the prompt. (b) computes logits only for the
positions in the loss, its backward pass ends at the first pattern and does not reach the prompt, and it scales and
masks scores in fewer passes over memory (`models/cache.py`); so its time and its peak can lie below those of (a).
(c) has the model's own loss, over all positions. (d) is a hook on the same model, so that only the method differs.
Time: medians of {rounds} interleaved rounds, ratios round by round; processor time depends less on other processes.
Peak: bytes of tensors above the weights, every allocation counted by torch; extra: above the peak of (a); estimated:
the formula of `plan_memory`. The statistics of (b), (b') and (d) were compared and agree to 0.001. {missing}

{machine()}"""


def main() -> None:
    """Measure the analysis of each model; write one section of RESULTS.md a model."""
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
            # written after each length, so that an interrupted run leaves the finished lengths
            write_section(f"The analysis: {name}", report(name, rows, depths, left_out, args.rounds))


if __name__ == "__main__":
    main()
