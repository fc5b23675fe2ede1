"""Decoding speed compared with Hugging Face and TransformerLens, and the cost of DPC: part of `make bench`.

`decoding_speed()`: tokens a second on the same problems with the same soft prompt, greedy, until the stop token, by

- ours: `decode` of the whole batch;
- Hugging Face: `generate(inputs_embeds=...)` of the same padded batch, with its default attention;
- TransformerLens: `HookedTransformer.generate` of embeddings, one problem at a time, since it takes no padded batch of
  embeddings, with weights in the layout of TransformerLens.

The three run in turn, and ratios are taken round by round. Tokens are counted up to and including the stop token.
`method_cost()`: seconds of generation, of the analysis, and of corrupted answers for the half on which the trigger
fires. `profile_decoding()`: seconds by operation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from types import MappingProxyType
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
from dpc_interp.generation.decoding import decode
from dpc_interp.generation.padding import left_padded
from dpc_interp.models.checkpoints import packaged_smollm2, read_gguf
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.families import to_hooked_transformer
from dpc_interp.models.hooked import tokenizer_of
from dpc_interp.models.loading import BUNDLED
from dpc_interp.prompts.soft_prompt import bundled_prompts

MODELS = ("reasoner", "smollm2-135m")
NEW_TOKENS = 96
Clock = Callable[[], float]


def decoding_speed(
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
    """Compare decoding speeds.

    Args:
        models: names of models.
        prompts: model -> name of a soft prompt; where a model has none: its bundled prompt, or random embeddings.
        task: of the problems.
        n: problems in the batch, of similar lengths, as `generate` batches them.
        n_alone: number of these problems that TransformerLens answers, one at a time.
        rounds: repetitions.
        backend: of our model.
        clock: `time.process_time` where other processes use the machine.

    Returns:
        One row per model and rival: `ratio` is the median over rounds of our tokens a second to theirs.
    """
    table = []
    for name in models:
        model: Any = dpc.load_model(name, device="cpu", backend=backend)  # type: ignore[call-overload]
        prompt = prompt_of(name, model, task, prompts or {})
        questions = similar_questions(model, task, n)
        hf_model = hugging_face_model(name)
        stop = tokenizer_of(model).eos_token_id
        answered_alone = questions[:: max(1, n // n_alone)]
        decoders: dict[str, Callable[[], list[Tensor]]] = {
            "ours": partial(decode, model, questions, prompt.vectors, None, NEW_TOKENS),
            "Hugging Face": partial(_by_hugging_face, hf_model, questions, prompt.vectors, stop),
            "TransformerLens, alone": partial(
                _by_transformer_lens, _transformer_lens(hf_model, model), answered_alone, prompt.vectors
            ),
        }
        table += [{"model": name, "backend": backend, "n": n} | row for row in _compare(decoders, rounds, clock)]
    return pd.DataFrame(table)


def _compare(decoders: dict[str, Callable[[], list[Tensor]]], rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """Run all decoders in turn, `rounds` times; returns one row a rival of ours."""
    rates: dict[str, list[float]] = {name: [] for name in decoders}
    lengths: dict[str, list[int]] = {}
    for name in (name for _ in range(rounds) for name in decoders):
        start = clock()
        answers = decoders[name]()
        seconds = clock() - start
        rates[name].append(sum(map(len, answers)) / seconds)
        lengths[name] = [len(answer) for answer in answers]
    table = []
    for rival in list(decoders)[1:]:
        ratios = pd.Series(rates["ours"]) / pd.Series(rates[rival])
        table.append(
            {
                "rival": rival,
                "ratio": ratios.median(),
                "least": ratios.min(),
                "most": ratios.max(),
                "ours, tokens/s": pd.Series(rates["ours"]).median(),
                "theirs, tokens/s": pd.Series(rates[rival]).median(),
                "shortest": min(lengths["ours"]),
                "longest": max(lengths["ours"]),
                "tokens": sum(lengths["ours"]),
                "theirs, tokens": sum(lengths[rival]),
            }
        )
    return table


def method_cost(
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
    """Measure what DPC costs compared with plain prompt tuning, where it fires on half of the problems.

    Args:
        models: names of models.
        prompts: see `decoding_speed`.
        task: of the problems.
        n: problems.
        batch_size: questions decoded together, and sequences analysed together.
        rounds: repetitions.
        backend: of the models.
        clock: see `decoding_speed`.

    Returns:
        One row per model: median seconds of `generation`, of the `analysis` with trigger and plans, and of
        `corruption`; `ratio`, the median over rounds of their sum to generation alone.
    """
    table = []
    for name in models:
        model: Any = dpc.load_model(name, device="cpu", backend=backend)  # type: ignore[call-overload]
        prompt = prompt_of(name, model, task, prompts or {})
        problems = dpc.load_problems(task, n=n)
        measured = pd.DataFrame([_time_dpc(model, prompt, problems, batch_size, clock) for _ in range(rounds)])
        table.append({"model": name, "backend": backend, "n": n, "batch": batch_size} | dict(measured.median()))
    return pd.DataFrame(table)


def profile_decoding(model: Any, name: str, prompt: dpc.SoftPrompt, task: str = "story", n: int = 16) -> pd.DataFrame:
    """Profile the decoding of one batch, ours and that of Hugging Face.

    Args:
        model: ours.
        name: of the model.
        prompt: the soft prompt.
        task: of the problems.
        n: problems in the batch.

    Returns:
        One row an operation of at least 3% of either time, in seconds. `outside torch` is all time that is not spent
        in an operation of torch, most of it Python.
    """
    questions = similar_questions(model, task, n)
    hf_model, stop = hugging_face_model(name), tokenizer_of(model).eos_token_id
    decoders: dict[str, Callable[[], object]] = {
        "ours": partial(decode, model, questions, prompt.vectors, None, NEW_TOKENS),
        "Hugging Face": partial(_by_hugging_face, hf_model, questions, prompt.vectors, stop),
    }
    by_decoder = {}
    for decoder, work in decoders.items():
        work()  # warm up
        with profile(activities=[ProfilerActivity.CPU]) as measured:
            start = time.perf_counter()
            work()
            seconds = time.perf_counter() - start
        spent = pd.Series({e.key: e.self_cpu_time_total / 1e6 for e in measured.key_averages()})
        spent["outside torch"] = seconds - spent.sum()
        by_decoder[decoder] = spent
    table = pd.DataFrame(by_decoder).fillna(0.0)
    large = table[(table >= 0.03 * table.sum()).any(axis=1)]
    return large.sort_values("ours", ascending=False).rename_axis("operation").reset_index()


def _time_dpc(
    model: Any, prompt: dpc.SoftPrompt, problems: list[dpc.Problem], batch_size: int, clock: Clock
) -> dict[str, float]:
    """Time one round of DPC; the half with the largest late share is corrupted."""
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "batch_size": batch_size, "progress": False}
    times = [clock()]
    runs = dpc.generate(model, problems, prompt, **options)
    times.append(clock())
    usable = dpc.drop_empty_rationales(model, runs)
    analysis = dpc.analyse(model, usable, prompt, batch_size=batch_size, progress=False)
    stats = dpc.trigger_statistics(analysis)
    fired = stats["late_share"].rank(method="first").to_numpy() > len(usable) - len(runs) // 2
    plans = [plan for plan, fires in zip(dpc.plan_corruption(analysis), fired, strict=True) if fires]
    chosen = [run for run, fires in zip(usable, fired, strict=True) if fires]
    times.append(clock())
    drafts = [run.generated_tokens for run in chosen]
    corrupted = dpc.generate(
        model, [run.problem for run in chosen], prompt, plans=plans, draft_tokens=drafts, **options
    )
    times.append(clock())
    seconds = [stop - start for start, stop in pairwise(times)]
    n_changed = sum(before.text != after.text for before, after in zip(chosen, corrupted, strict=True))
    return {
        "ratio": sum(seconds) / seconds[0],
        **dict(zip(("generation", "analysis", "corruption"), seconds, strict=True)),
        "fired": len(chosen) / len(runs),
        "changed": n_changed / len(chosen),
        "tokens": sum(len(run.generated_tokens) for run in runs),
    }


def prompt_of(name: str, model: Any, task: str, prompts: Mapping[str, str] = MappingProxyType({})) -> dpc.SoftPrompt:
    """The named prompt, else the bundled one, else 20 random embeddings."""
    prompt_name = prompts.get(name, f"{name}/{task}" if bundled_prompts(f"{name}/{task}") else "")
    if prompt_name:
        return dpc.load_prompt(prompt_name, model)
    generator = torch.Generator().manual_seed(0)
    return dpc.SoftPrompt(model.W_E[torch.randint(model.cfg.d_vocab, (20,), generator=generator)].detach().float())


def similar_questions(model: Any, task: str, n: int) -> list[Tensor]:
    """The middle `n` of 4 n questions, sorted by length."""
    questions = sorted((encode_question(model, p.question) for p in dpc.load_problems(task, n=4 * n)), key=len)
    return questions[3 * n // 2 : 5 * n // 2]


def hugging_face_model(name: str) -> PreTrainedModel:
    """The Hugging Face model that a bundled model was made from, in float32."""
    if name in BUNDLED:
        return AutoModelForCausalLM.from_pretrained(BUNDLED[name], dtype=torch.float32, local_files_only=True).eval()
    file = packaged_smollm2()
    if name != "smollm2-135m" or file is None:
        raise SystemExit(f"{name} has no weights here that Hugging Face reads")
    return read_gguf(file, torch.float32)[0].eval()


def _transformer_lens(hf_model: PreTrainedModel, model: Any) -> HookedTransformer:
    """The same weights as a `HookedTransformer`, in the layout of TransformerLens."""
    plain = to_hooked_transformer(hf_model, "cpu", torch.float32).eval().requires_grad_(False)
    plain.tokenizer = model.tokenizer
    return plain


@torch.no_grad()
def _by_hugging_face(hf_model: Any, questions: list[Tensor], vectors: Tensor, stop: int) -> list[Tensor]:
    tokens, mask, starts = left_padded(questions, len(vectors))
    embeds = hf_model.get_input_embeddings()(tokens)
    for row, start in enumerate(starts):
        embeds[row, start : start + len(vectors)] = vectors
    options = {"max_new_tokens": NEW_TOKENS, "eos_token_id": stop, "pad_token_id": stop}
    return [
        _until_stop(row, stop)
        for row in hf_model.generate(inputs_embeds=embeds, attention_mask=mask, do_sample=False, **options)
    ]


@torch.no_grad()
def _by_transformer_lens(plain: HookedTransformer, questions: list[Tensor], vectors: Tensor) -> list[Tensor]:
    stop = tokenizer_of(plain).eos_token_id
    options: dict[str, Any] = {"do_sample": False, "return_type": "tokens", "verbose": False, "eos_token_id": stop}
    embeds = [torch.cat([vectors, plain.W_E[question]])[None] for question in questions]
    return [_until_stop(plain.generate(row, max_new_tokens=NEW_TOKENS, **options)[0], stop) for row in embeds]


def _until_stop(row: Tensor, stop: int) -> Tensor:
    """The row up to and including its first stop token."""
    stops = (row == stop).nonzero()
    return row[: int(stops[0]) + 1] if len(stops) else row


def main() -> None:
    """Measure decoding speed and cost; write the section Decoding of RESULTS.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--prompt", nargs=2, action="append", default=[], metavar=("MODEL", "PROMPT"))
    parser.add_argument("--task", default="story")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--n-alone", type=int, default=2)
    parser.add_argument("--rounds-cost", type=int, default=5)
    parser.add_argument("--n-cost", type=int, default=32)
    parser.add_argument("--backend", default="hooked", choices=("hooked", "bridge"))
    parser.add_argument(
        "--cpu-clock", action="store_true", help="measure CPU seconds, where other processes use the machine"
    )
    args = parser.parse_args()
    options: dict[str, Any] = {"prompts": dict(args.prompt), "task": args.task}
    options |= {"backend": args.backend, "clock": time.process_time if args.cpu_clock else time.perf_counter}
    heading = (
        f"Batches of 16, float32, {torch.get_num_threads()} threads; medians of {args.rounds} rounds, ratios by round."
    )
    speed = markdown(decoding_speed(tuple(args.models), n_alone=args.n_alone, rounds=args.rounds, **options).round(2))
    print(speed, flush=True)
    costs = markdown(method_cost(tuple(args.models), n=args.n_cost, rounds=args.rounds_cost, **options).round(2))
    print(costs)
    cost_heading = f"DPC that fires on one half, compared with plain PT, medians of {args.rounds_cost} rounds:"
    sections = [heading, speed, cost_heading, costs]
    if args.backend == "hooked":
        for name in args.models:
            model = dpc.load_model(name, device="cpu")
            prompt = prompt_of(name, model, args.task, options["prompts"])
            operations = profile_decoding(model, name, prompt, args.task)
            profile_heading = f"Seconds by operation, including the overhead of the profiler, {name}:"
            sections += [profile_heading, markdown(operations.round(2))]
    write_section("Decoding", "\n\n".join([*sections, machine()]))


if __name__ == "__main__":
    main()
