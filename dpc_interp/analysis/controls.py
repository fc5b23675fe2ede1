"""How much of C1 was learned: accumulation under untrained control prompts (docs/method.md, section 7.1).

Leading tokens draw attention in any language model. The transcripts of the trained prompt are therefore read again,
teacher-forced, after other leading tokens: questions and answers stay the same, only what precedes them changes.

| condition | what precedes the question |
| --- | --- |
| `trained` | the trained prompt |
| `untrained` | what the tuning started from: the embeddings of its `init_text`, or of the random tokens of its seed |
| `random` | Gaussian vectors with the norms of the trained ones |
| `text` | the embeddings of a fixed text, repeated to the prompt's length |
| `trained after text` | that text once, then the trained prompt, of which alone the tokens are counted |

`untrained` is left out where the prompt records neither, as adapters that PEFT tuned from random vectors. In the last
condition no virtual token is at position 0. An answer is less likely after a prompt that it was not generated with,
which scales all flow: compare ratios between conditions, not strengths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from dpc_interp.analysis.accumulation import accumulation_peaks, by_virtual_token, chance_peak_ratio
from dpc_interp.analysis.analyse import analyse
from dpc_interp.analysis.layers import shallow_layers
from dpc_interp.analysis.options import HeadReduction, Options, Target
from dpc_interp.analysis.schema import conform
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.generation.transcript import Transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.hooked import HookedModel, check_length
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.embedding import embed_tokens, repeat_or_cut, text_tokens
from dpc_interp.prompts.sinks import attention_sinks
from dpc_interp.prompts.soft_prompt import AnyPrompt, SoftPrompt, as_prompt, check_prompt
from dpc_interp.stats.bootstrap import mean_interval

TEXT = "Think step by step.\nShow the steps.\nExplain the answer.\n"
"""Only words that the bundled reasoner knows."""

CONDITIONS = ("trained", "untrained", "random", "text", "trained after text")


@torch_defaults()
def sink_controls(
    model: AnyModel,
    runs: Sequence[Transcript],
    prompt: AnyPrompt,
    *,
    conditions: Sequence[str] = CONDITIONS,
    text: str = TEXT,
    seed: int | None = None,
    target: Target = Options.target,
    head_reduction: HeadReduction = Options.head_reduction,
    batch_size: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Accumulation of the same transcripts after the trained prompt and its controls.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        runs: transcripts generated with `prompt`, each with a rationale (see `drop_empty_rationales`).
        prompt: the trained prompt, or its name.
        conditions: names from `CONDITIONS`; each costs one `analyse`. `untrained` is left out where nothing says what
            the tuning started from.
        text: text of the conditions `text` and `trained after text`.
        seed: seed of the untrained and the random vectors; None: the tuning seed in the prompt's recipe, or 0.
        target, head_reduction, batch_size, progress: see `analyse`.

    Returns:
        The frame `sink_controls` of `schema.py`, virtual tokens counted from the first one of the prompt.

    Raises:
        DPCInterpError: no runs, an unknown condition, words that the model does not know, or what `analyse` refuses;
            all before the first pass where it can be known.
    """
    prompt, model = as_prompt(prompt), as_model(model)
    if not runs:
        raise DPCInterpError("there are no runs to analyse; generate some first")
    check_prompt(model, prompt.vectors)
    controls = control_prompts(model, prompt, conditions=conditions, text=text, seed=seed)
    check_length(model, max(len(run.tokens) for run in runs) + max(len(vectors) for vectors in controls.values()))
    frames = []
    for condition, vectors in controls.items():
        control = SoftPrompt(vectors, prompt.name)
        frame = analyse(
            model,
            runs,
            control,
            target=target,
            head_reduction=head_reduction,
            batch_size=batch_size,
            progress=progress,
        ).accumulation
        n_text = len(vectors) - prompt.n_virtual
        frame = frame.assign(virtual_token=frame["virtual_token"] - n_text)
        # against the other virtual tokens, not against the text, and with the first one, as in the other conditions
        frame["sink"] = frame["virtual_token"].isin(attention_sinks(model, vectors, n_text))
        frames.append(frame[frame["virtual_token"] >= 0].assign(condition=condition))
    joined = pd.concat(frames, ignore_index=True).assign(task=runs[0].problem.task, prompt=prompt.name)
    return conform(joined, "sink_controls")


@torch_defaults()
def control_prompts(
    model: HookedModel,
    prompt: SoftPrompt,
    *,
    conditions: Sequence[str] = CONDITIONS,
    text: str = TEXT,
    seed: int | None = None,
) -> dict[str, Float[Tensor, "_ d_model"]]:
    """By condition, the vectors [n_virtual, d_model]; those of `trained after text` also contain the text.

    `untrained` is left out where neither `seed` nor the prompt's recipe says what the tuning started from.
    """
    for condition in conditions:
        if condition not in CONDITIONS:
            raise UnknownNameError("condition", condition, CONDITIONS)
    trained = prompt.vectors.detach().cpu().float()
    recipe = prompt.recipe
    records_start = seed is not None or "seed" in recipe or bool(recipe.get("init_text"))
    generator = torch.Generator().manual_seed(int(recipe.get("seed", 0)) if seed is None else seed)
    rows = torch.randint(model.cfg.d_vocab, (prompt.n_virtual,), generator=generator)  # as `tune_prompt` draws them
    if recipe.get("init_text"):
        with_special = bool(recipe.get("init_special_tokens"))
        initial = text_tokens(model, recipe["init_text"], "init_text", special_tokens=with_special)
        rows = repeat_or_cut(initial, prompt.n_virtual)
    directions = torch.randn(trained.shape, generator=generator, dtype=torch.float32)
    tokens = text_tokens(model, text)
    vectors = {
        "trained": trained,
        "untrained": embed_tokens(model, rows),
        "random": trained.norm(dim=1, keepdim=True) * torch.nn.functional.normalize(directions, dim=1),
        "text": embed_tokens(model, repeat_or_cut(tokens, prompt.n_virtual)),
        "trained after text": torch.cat([embed_tokens(model, tokens), trained]),
    }
    return {c: vectors[c] for c in conditions if records_start or c != "untrained"}


def control_peaks(
    frame: pd.DataFrame, *, layers: Sequence[int] | None = None, exclude_sink: bool = Options.exclude_sink
) -> pd.DataFrame:
    """The accumulation token of each instance under each condition.

    Args:
        frame: frame of `sink_controls`.
        layers, exclude_sink: see `accumulation_peaks`. Virtual token 0 is left out in all conditions, even
            where text precedes it, so that they can be compared.

    Returns:
        One row per condition and instance: task, prompt, condition, instance, peak_token, peak_ratio, `chance`, the
        level of the peak ratio by chance under the condition, and `first_is_peak`, whether virtual token 0 draws more
        than any other.
    """
    parts = []
    keys = ["task", "prompt", "condition"]
    for _, rows in frame.groupby(keys, sort=False):
        peaks = accumulation_peaks(rows, layers=layers, exclude_sink=exclude_sink)
        first_is_peak = accumulation_peaks(rows, layers=layers, exclude_sink=False)["peak_token"] == 0
        averaged = shallow_layers(int(rows["layer"].max()) + 1) if layers is None else layers
        chance = chance_peak_ratio(by_virtual_token(rows, averaged, exclude_sink=exclude_sink))
        instances = rows[[*keys, "instance"]].drop_duplicates()
        columns = peaks.assign(chance=chance, first_is_peak=first_is_peak)
        parts.append(instances.merge(columns, left_on="instance", right_index=True))
    return pd.concat(parts, ignore_index=True)


def sink_summary(peaks: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Summarise `control_peaks` by condition: how much of the accumulation was learned (docs/method.md, section 7.1).

    Args:
        peaks: result of `control_peaks`.
        seed: seed of the bootstrap.

    Returns:
        One row per task, prompt and condition: n, peak_ratio (geometric mean) with low and high, chance (its level by
        chance), own_ratio (the trained prompt's peak ratio over this one's, the geometric mean over instances) with
        own_low and own_high, peak_token (the most frequent one), peak_share (of instances that peak there), first_share
        (of instances where virtual token 0 draws most).
    """
    rows = []
    for (task, prompt), prompt_rows in peaks.groupby(["task", "prompt"], sort=False):
        by_condition = prompt_rows.pivot_table(index="instance", columns="condition", values="peak_ratio")
        trained = by_condition.get("trained", pd.Series(np.nan, index=by_condition.index))
        for condition, frame in prompt_rows.groupby("condition", sort=False):
            ratio = by_condition[condition]
            logs = np.log(np.stack([ratio, trained / ratio], axis=1).astype(float))
            value, low, high = (np.exp(bound) for bound in mean_interval(logs, seed=seed))
            counts = frame["peak_token"].value_counts()
            rows.append(
                {
                    "task": task,
                    "prompt": prompt,
                    "condition": condition,
                    "n": len(frame),
                    "peak_ratio": value[0],
                    "low": low[0],
                    "high": high[0],
                    "chance": frame["chance"].iloc[0],
                    "own_ratio": value[1],
                    "own_low": low[1],
                    "own_high": high[1],
                    "peak_token": int(counts.index[0]),
                    "peak_share": counts.iloc[0] / len(frame),
                    "first_share": frame["first_is_peak"].mean(),
                }
            )
    return pd.DataFrame(rows)
