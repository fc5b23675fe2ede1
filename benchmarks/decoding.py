"""Decoding: tokens a second beside Hugging Face and TransformerLens, and the price of DPC beside plain prompt tuning.

`rows()`: the same problems behind the same soft prompt, greedy, each row until its own stop token, by

- ours, `decode` of the whole batch;
- Hugging Face, `generate(inputs_embeds=...)` of the same padded batch, with its default attention;
- TransformerLens, `HookedTransformer.generate` of embeddings, one problem at a time (it takes no padded batch of them),
  with the weights as TransformerLens stores them.

They run in turn, and a ratio is taken round by round. Tokens count up to and with each row's stop token.
`cost()`: generation, analysis, and corrupted answers for the half on which a trigger fires, in seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from results import machine, write_section
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformer_lens import HookedTransformer
from transformers import AutoModelForCausalLM, PreTrainedModel

import dpc_interp as dpc
from dpc_interp.evaluation.tables import markdown
from dpc_interp.lm.decoding import decode, left_padded
from dpc_interp.lm.families import hooked
from dpc_interp.lm.generation import question_tokens
from dpc_interp.lm.gguf import packaged_smollm2, read_gguf
from dpc_interp.lm.hooked import tokenizer_of
from dpc_interp.lm.loading import BUNDLED
from dpc_interp.lm.soft_prompt import bundled_prompts

MODELS = ("reasoner", "smollm2-135m")
NEW = 96
Clock = Callable[[], float]


def rows(
    models: tuple[str, ...] = MODELS,
    *,
    prompts: dict[str, str] | None = None,
    task: str = "story",
    n: int = 16,
    n_alone: int = 2,
    rounds: int = 15,
    backend: str = "hooked",
    clock: Clock = time.perf_counter,
) -> pd.DataFrame:
    """One row a model and rival: `ratio` is ours to theirs in tokens a second, the median of `rounds`.

    Args:
        prompts: by model, the name of a soft prompt; without one, the bundled prompt, or random embeddings.
        n: problems in the batch, of neighbouring lengths, as `generate` puts them together.
        n_alone: of these, those that TransformerLens answers.
        backend: of our model.
        clock: `time.process_time` on a machine that others use.
    """
    found = []
    for name in models:
        model: Any = dpc.load_model(name, device="cpu", backend=backend)  # type: ignore[call-overload]
        prompt = _prompt(name, model, task, prompts or {})
        questions = _neighbours(model, task, n)
        hf_model = _hugging_face(name)
        stop = tokenizer_of(model).eos_token_id
        few = questions[:: max(1, n // n_alone)]
        ways: dict[str, Callable[[], list[Tensor]]] = {
            "ours": partial(decode, model, questions, prompt.vectors, None, NEW),
            "Hugging Face": partial(_by_hugging_face, hf_model, questions, prompt.vectors, stop),
            "TransformerLens, alone": partial(_by_transformer_lens, _as_stored(hf_model, model), few, prompt.vectors),
        }
        found += [{"model": name, "backend": backend, "n": n} | row for row in _race(ways, rounds, clock)]
    return pd.DataFrame(found)


def _race(ways: dict[str, Callable[[], list[Tensor]]], rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """All ways in turn, as often as there are rounds."""
    rates: dict[str, list[float]] = {way: [] for way in ways}
    written: dict[str, list[int]] = {}
    for way in (way for _ in range(rounds) for way in ways):
        start = clock()
        answers = ways[way]()
        seconds = clock() - start
        rates[way].append(sum(map(len, answers)) / seconds)
        written[way] = [len(answer) for answer in answers]
    table = []
    for rival in list(ways)[1:]:
        ratios = pd.Series(rates["ours"]) / pd.Series(rates[rival])
        table.append(
            {
                "rival": rival,
                "ratio": ratios.median(),
                "least": ratios.min(),
                "most": ratios.max(),
                "ours, tokens/s": pd.Series(rates["ours"]).median(),
                "theirs, tokens/s": pd.Series(rates[rival]).median(),
                "shortest": min(written["ours"]),
                "longest": max(written["ours"]),
                "tokens": sum(written["ours"]),
                "theirs, tokens": sum(written[rival]),
            }
        )
    return table


def cost(
    models: tuple[str, ...] = MODELS,
    *,
    prompts: dict[str, str] | None = None,
    task: str = "story",
    n: int = 32,
    batch_size: int = 16,
    rounds: int = 5,
    backend: str = "hooked",
    clock: Clock = time.perf_counter,
) -> pd.DataFrame:
    """One row a model: what DPC costs beside plain prompt tuning where it fires on half of `n` problems.

    `generation`, `analysis` (trigger and plans too), `corruption`: seconds, medians of `rounds`; `ratio`: of their sum
    to generation alone, the median of the rounds' own.
    """
    found = []
    for name in models:
        model: Any = dpc.load_model(name, device="cpu", backend=backend)  # type: ignore[call-overload]
        prompt = _prompt(name, model, task, prompts or {})
        problems = dpc.load_problems(task, n=n)
        measured = pd.DataFrame([_dpc(model, prompt, problems, batch_size, clock) for _ in range(rounds)])
        found.append({"model": name, "backend": backend, "n": n, "batch": batch_size} | dict(measured.median()))
    return pd.DataFrame(found)


def profiled(model: Any, name: str, prompt: dpc.SoftPrompt, task: str = "story", n: int = 16) -> pd.DataFrame:
    """Where the time of one batch goes: seconds by operation, ours and Hugging Face's, those of 3% and more.

    `outside torch` is Python's own work and whatever else is no operation of torch.
    """
    questions = _neighbours(model, task, n)
    hf_model, stop = _hugging_face(name), tokenizer_of(model).eos_token_id
    ways: dict[str, Callable[[], object]] = {
        "ours": partial(decode, model, questions, prompt.vectors, None, NEW),
        "Hugging Face": partial(_by_hugging_face, hf_model, questions, prompt.vectors, stop),
    }
    by_way = {}
    for way, work in ways.items():
        work()
        with profile(activities=[ProfilerActivity.CPU]) as measured:
            start = time.perf_counter()
            work()
            seconds = time.perf_counter() - start
        spent = pd.Series({e.key: e.self_cpu_time_total / 1e6 for e in measured.key_averages()})
        spent["outside torch"] = seconds - spent.sum()
        by_way[way] = spent
    table = pd.DataFrame(by_way).fillna(0.0)
    large = table[(table >= 0.03 * table.sum()).any(axis=1)]
    return large.sort_values("ours", ascending=False).rename_axis("operation").reset_index()


def _dpc(
    model: Any, prompt: dpc.SoftPrompt, problems: list[dpc.Problem], batch_size: int, clock: Clock
) -> dict[str, float]:
    options: dict[str, Any] = {"max_new_tokens": NEW, "batch_size": batch_size, "progress": False}
    times = [clock()]
    runs = dpc.generate(model, problems, prompt, **options)
    times.append(clock())
    usable = dpc.with_rationale(runs, model)
    found = dpc.analyse(model, usable, prompt, batch_size=batch_size, progress=False)
    stats = dpc.trigger_statistics(found)
    fired = stats["late_share"].rank(method="first").to_numpy() > len(usable) - len(runs) // 2
    plans = [plan for plan, fires in zip(dpc.plan_corruption(found), fired, strict=True) if fires]
    chosen = [run for run, fires in zip(usable, fired, strict=True) if fires]
    times.append(clock())
    drafts = [run.generated_tokens for run in chosen]
    again = dpc.generate(model, [run.problem for run in chosen], prompt, plans=plans, drafts=drafts, **options)
    times.append(clock())
    generation, analysis, corruption = (stop - start for start, stop in pairwise(times))
    return {
        "ratio": (times[-1] - times[0]) / generation,
        "generation": generation,
        "analysis": analysis,
        "corruption": corruption,
        "fired": len(chosen) / len(runs),
        "changed": sum(run.text != now.text for run, now in zip(chosen, again, strict=True)) / len(chosen),
        "tokens": sum(len(run.generated_tokens) for run in runs),
    }


def _prompt(name: str, model: Any, task: str, prompts: dict[str, str]) -> dpc.SoftPrompt:
    """The named or the bundled prompt, or 20 random embeddings where the model has none."""
    told = prompts.get(name, f"{name}/{task}" if bundled_prompts(f"{name}/{task}") else "")
    if told:
        return dpc.load_prompt(told, model)
    generator = torch.Generator().manual_seed(0)
    return dpc.SoftPrompt(model.W_E[torch.randint(model.cfg.d_vocab, (20,), generator=generator)].detach().float())


def _neighbours(model: Any, task: str, n: int) -> list[Tensor]:
    """The middle `n` of 4 n questions, sorted by length."""
    questions = sorted((question_tokens(model, p.question) for p in dpc.load_problems(task, n=4 * n)), key=len)
    return questions[3 * n // 2 : 5 * n // 2]


def _hugging_face(name: str) -> PreTrainedModel:
    if name in BUNDLED:
        return AutoModelForCausalLM.from_pretrained(BUNDLED[name], dtype=torch.float32, local_files_only=True).eval()
    file = packaged_smollm2()
    if name != "smollm2-135m" or file is None:
        raise SystemExit(f"{name} has no weights here that Hugging Face reads")
    return read_gguf(file, torch.float32)[0].eval()


def _as_stored(hf_model: PreTrainedModel, model: Any) -> HookedTransformer:
    """The same model as TransformerLens makes it."""
    plain = hooked(hf_model, "cpu", torch.float32).eval().requires_grad_(False)
    plain.tokenizer = model.tokenizer
    return plain


@torch.no_grad()
def _by_hugging_face(hf_model: Any, questions: list[Tensor], vectors: Tensor, stop: int) -> list[Tensor]:
    tokens, mask, starts = left_padded(questions, len(vectors))
    embeds = hf_model.get_input_embeddings()(tokens)
    for row, start in enumerate(starts):
        embeds[row, start : start + len(vectors)] = vectors
    ends = {"max_new_tokens": NEW, "eos_token_id": stop, "pad_token_id": stop}
    return [
        _ended(row, stop)
        for row in hf_model.generate(inputs_embeds=embeds, attention_mask=mask, do_sample=False, **ends)
    ]


@torch.no_grad()
def _by_transformer_lens(plain: HookedTransformer, questions: list[Tensor], vectors: Tensor) -> list[Tensor]:
    stop = tokenizer_of(plain).eos_token_id
    options: dict[str, Any] = {"do_sample": False, "return_type": "tokens", "verbose": False, "eos_token_id": stop}
    embeds = [torch.cat([vectors, plain.W_E[question]])[None] for question in questions]
    return [_ended(plain.generate(row, max_new_tokens=NEW, **options)[0], stop) for row in embeds]


def _ended(row: Tensor, stop: int) -> Tensor:
    """A row up to and with its first stop token."""
    stops = (row == stop).nonzero()
    return row[: int(stops[0]) + 1] if len(stops) else row


def main() -> None:
    """Print both tables, ratios first, and write them to RESULTS.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--prompt", nargs=2, action="append", default=[], metavar=("MODEL", "PROMPT"))
    parser.add_argument("--task", default="story")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--n-alone", type=int, default=2)
    parser.add_argument("--rounds-cost", type=int, default=5)
    parser.add_argument("--n-cost", type=int, default=32)
    parser.add_argument("--backend", default="hooked", choices=("hooked", "bridge"))
    parser.add_argument("--cpu-clock", action="store_true", help="CPU seconds, where others use the machine")
    args = parser.parse_args()
    options: dict[str, Any] = {"prompts": dict(args.prompt), "task": args.task}
    options |= {"backend": args.backend, "clock": time.process_time if args.cpu_clock else time.perf_counter}
    heading = (
        f"Batches of 16, float32, {torch.get_num_threads()} threads; medians of {args.rounds} rounds, ratios by round."
    )
    pace = markdown(rows(tuple(args.models), n_alone=args.n_alone, rounds=args.rounds, **options).round(2))
    print(pace, flush=True)
    price = markdown(cost(tuple(args.models), n=args.n_cost, rounds=args.rounds_cost, **options).round(2))
    print(price)
    above = f"DPC that fires on one half, beside plain PT, medians of {args.rounds_cost} rounds:"
    sections = [heading, pace, above, price]
    if args.backend == "hooked":
        for name in args.models:
            model = dpc.load_model(name, device="cpu")
            where = profiled(model, name, _prompt(name, model, args.task, options["prompts"]), args.task)
            told = f"Seconds by operation, the profiler's own time in them, {name}:"
            sections += [told, markdown(where.round(2))]
    write_section("Decoding", "\n\n".join([*sections, machine()]))


if __name__ == "__main__":
    main()
