"""Speed-up from each part of decoding: the time of one batch without that part alone. Run by `make bench`.

- rotated cache: without it TransformerLens rotates all cached keys in every pass
- fused attention: without it every pass computes the patterns
- weights stored as read: without it TransformerLens copies every matrix in every pass
- shared prompt: without it every row reads the prompt
- rows leave the batch: without it ended rows stay until the last one ends
- drafts: without them the answers under a corrupted prompt are decoded token by token; drafts are the plain answers
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from decoding import MODELS, NEW_TOKENS, prompt_of, similar_questions
from results import machine, write_section

import dpc_interp as dpc
from dpc_interp.evaluation.tables import markdown
from dpc_interp.generation import decoding
from dpc_interp.generation.decoding import decode
from dpc_interp.generation.stopping import StopRule
from dpc_interp.interventions.plan import plan_random
from dpc_interp.models import cache, hooked

LEAST_RATIO = 1.1
"""A part that brings less than this on both models is to be deleted."""


def without_rotated_cache(model: Any) -> AbstractContextManager[object]:
    """TransformerLens rotates the cached keys."""
    original = cache.RotatedCacheEntry.__init__
    return patch.object(
        cache.RotatedCacheEntry,
        "__init__",
        lambda self, owner, attention, rotates: original(self, owner, attention, False),
    )


def without_fused_attention(model: Any) -> AbstractContextManager[object]:
    """Every pass computes its patterns."""
    return patch.object(hooked, "fused_attention", lambda model: nullcontext())


def without_shared_prompt(model: Any) -> AbstractContextManager[object]:
    """Every row reads the prompt."""
    return patch.object(decoding, "can_share_prompt_cache", lambda model, n_positions: False)


@contextmanager
def without_stored_weights(model: Any) -> Iterator[None]:
    """Weights in TransformerLens's layout."""
    before = {name: weight.data for name, weight in model.named_parameters()}
    for weight in model.parameters():
        weight.data = weight.data.contiguous()
    try:
        yield
    finally:
        for name, weight in model.named_parameters():
            weight.data = before[name]


Part = Callable[[Any], AbstractContextManager[object]]
PARTS: dict[str, Part] = {
    "rotated cache": without_rotated_cache,
    "fused attention": without_fused_attention,
    "weights stored as read": without_stored_weights,
    "shared prompt": without_shared_prompt,
}


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of a call."""
    start = clock()
    work()
    return clock() - start


def measure(name: str, rounds: int, clock: Callable[[], float]) -> list[dict[str, Any]]:
    """One row a part: median over rounds of the time without it to the time with it."""
    model: Any = dpc.load_model(name, device="cpu")
    prompt = prompt_of(name, model, "story")
    questions = similar_questions(model, "story", 16)
    plain = partial(decode, model, questions, prompt.vectors, None, NEW_TOKENS)
    answers = plain()
    longest = max(map(len, answers))

    def without_leaving(model: Any) -> AbstractContextManager[object]:
        """Rows go on to the length of the longest answer, which is what they cost if they stay."""
        return patch.object(StopRule, "ended", lambda self, generated, n=1: len(generated) >= longest)

    plans = plan_random([str(i) for i in range(16)], prompt.n_virtual, seed=0)
    corrupted = partial(decode, model, questions, prompt.vectors, plans, NEW_TOKENS)
    variants: dict[str, tuple[Callable[[], object], Callable[[], object], Part]] = {
        part: (plain, plain, context) for part, context in (PARTS | {"rows leave the batch": without_leaving}).items()
    }
    variants["drafts"] = partial(corrupted, answers), corrupted, lambda model: nullcontext()
    rows = []
    for part, (with_part, without_part, context) in variants.items():
        ratios = []
        for _ in range(rounds):
            seconds = timed(with_part, clock)
            with context(model):
                ratios.append(timed(without_part, clock) / seconds)
        series = pd.Series(ratios)
        rows.append(
            {
                "model": name,
                "part": part,
                "time without it": series.median(),
                "least": series.min(),
                "most": series.max(),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure each part on each model; write the section Parts of decoding of RESULTS.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-clock", action="store_true", help="CPU seconds, where other processes use the machine")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_clock else time.perf_counter
    table = pd.DataFrame([row for name in args.models for row in measure(name, args.rounds, clock)])
    best = table.groupby("part")["time without it"].max()
    useless = sorted(best[best < LEAST_RATIO].index)
    verdict = f"Under {LEAST_RATIO} on every model: {', '.join(useless) or 'none'}."
    heading = (
        f"Batches of 16, float32, {torch.get_num_threads()} threads: time of a batch without one part, over the time "
        f"with all of them; medians of {args.rounds} rounds, in turn."
    )
    write_section("Parts of decoding", "\n\n".join([heading, markdown(table.round(2)), verdict, machine()]))


if __name__ == "__main__":
    main()
